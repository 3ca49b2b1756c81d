import pytest

from harness.units import milliseconds, plural, span, whole


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0022, "2.20"), (0.0142, "14.2"), (5.21, "5,210"), (0.171, "171"), (0.0, "0.00")],
)
def test_milliseconds_keep_three_digits(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (89, "89 s"), (95, "2 min"), (4900, "82 min"), (6000, "1 h 40 min")],
)
def test_spans_are_told_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_large_numbers_have_separators() -> None:
    assert whole(15087.4) == "15,087"


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [(1, "launch", "1 launch"), (2, "launch", "2 launches"), (1200, "run", "1,200 runs")],
)
def test_counted_words_are_in_their_number(count: int, word: str, text: str) -> None:
    assert plural(count, word) == text
