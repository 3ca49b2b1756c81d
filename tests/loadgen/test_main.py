import subprocess
import sys

from loadgen.__main__ import main


def test_the_command_line_prints_a_summary(start_server, capsys):
    url = start_server().target().url
    arguments = "--model m --vocab-size 512 --concurrency 2 --warmup 0.1 --duration 0.5"
    arguments += f" --input-tokens 9 --output-tokens 3 --url {url}"
    assert main(arguments.split()) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["requests_ok"]) > 0
    assert float(printed["input_tokens_mean"]) == 9


def test_a_wrong_value_is_one_message_and_an_exit_code(capsys):
    assert main(["--model", "m", "--rate", "-1"]) == 1
    assert "greater than 0" in capsys.readouterr().err


def test_the_worker_imports_no_more_than_it_needs():
    program = "import sys, loadgen.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not {"pandas", "pyarrow", "hydra", "matplotlib"} & set(done.stdout.split())
