import os

import pytest

from monitors.__main__ import main


def test_it_prints_how_the_sampling_went_and_what_was_seen(serve_page, vllm_page, capsys):
    url = serve_page(vllm_page.encode())
    words = ["--interval", "0.02", "--seconds", "1.5", "--metrics-url", url]
    assert main([*words, "--pid", str(os.getpid())]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert int(lines["server"][0]) > 2
    assert int(lines["host"][0]) > 1
    assert lines["requests_waiting_mean"] == ["0"]
    assert float(lines["server_cpu_max_frac"][0]) > 0
    assert "not known: " in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interval", "0"], "--interval 0: must be at least 0.01 seconds"),
        (["--interval", "nan"], "--interval nan: must be at least 0.01 seconds"),
        (["--seconds", "-1"], "--seconds -1: must be above 0"),
        (["--metrics-url", "localhost:8000"], "must start with http://"),
        (["--pid", "999999999"], "--pid 999999999: there is no such process"),
        (["--pid", "-3"], "--pid -3: there is no such process"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, said, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_word_that_is_no_number_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--interval", "fast"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "monitors: argument --interval: invalid float value: 'fast'\n"
