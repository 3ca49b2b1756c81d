from profiles.findings import analyse
from profiles.markdown import edge, joined, percent, plural, shortened, signed, table, time
from profiles.page import page


def test_the_page_says_in_sentences_how_long_the_gpu_waits_and_before_what(nsys_findings):
    text = page(nsys_findings)
    assert "- GPU 0 (NVIDIA H200) is busy 73.5 % of 331 ms and idle 26.5 %" in text
    assert (
        "- GPU 0 waits for the CPU 21.0 % of the time; 67.1 % of that before or in mixed steps of "
        "48 requests (1 step, 46.6 ms) and 23.3 % of that before or in decode steps of 64 requests "
        "(59 steps, median 225 µs)." in text
    )
    assert "A decode step on GPU 0 takes 2.70 ms, of which the GPU is busy 2.13 ms" in text
    assert "15.5 % of it (8.04 ms) is waiting for another rank to begin" in text


def test_every_table_has_cells_for_its_head(nsys_findings, cpu_trace):
    for text in (page(nsys_findings), page(analyse(cpu_trace))):
        blocks = [block.splitlines() for block in text.split("\n\n")]
        tables = [lines for lines in blocks if lines[0].startswith("|")]
        assert len(tables) >= 5
        for lines in tables:
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_page_without_a_gpu_speaks_of_operators_and_gives_no_advice(cpu_trace):
    text = page(analyse(cpu_trace))
    assert "no GPU in this trace" in text
    assert "of which operators run" in text
    assert "What to try" not in text
    assert "waits for the CPU" not in text.split("## Devices")[0]


def test_a_page_without_steps_says_so(export, found):
    assert "No engine step is named" in page(found(export.work(0, 5).work(7, 9)))


def test_numbers_are_told_with_three_digits_in_a_unit_that_suits_them():
    times = [0.0, 1.4e-6, 455e-6, 0.0027, 0.3314, 1.0, 12.345, 99.96e-3, None]
    assert [time(each) for each in times] == [
        "0", "1.40 µs", "455 µs", "2.70 ms", "331 ms", "1.00 s", "12.3 s", "100 ms", "–",
    ]  # fmt: skip
    assert (signed(-0.002), signed(3e-6)) == ("−2.00 ms", "+3.00 µs")
    assert (edge(2e-6), edge(1e-3)) == ("2 µs", "1 ms")
    assert (percent(0.2456), percent(None)) == ("24.6 %", "–")
    assert (plural(1, "step"), plural(2000, "step")) == ("1 step", "2,000 steps")
    assert (joined(["a"]), joined(["a", "b", "c"])) == ("a", "a, b and c")


def test_names_are_made_safe_and_short_enough_for_a_table():
    assert table(["a"], [["x<y|z"]])[2] == "| x\\<y\\|z |"
    short = shortened("a" * 100 + "z", 30)
    assert len(short) == 31
    assert short.endswith("z")
