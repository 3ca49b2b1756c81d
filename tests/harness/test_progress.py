import pytest

from harness.progress import display


def test_what_one_display_of_a_command_noted_no_other_says_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    noted: set[str] = set()
    for look in ("first", "second"):
        with display(2, 0, noted) as show:
            show.note("no GPU was found")
            show.note(f"the {look} look")
    assert capsys.readouterr().out.splitlines() == [
        "note: no GPU was found",
        "note: the first look",
        "note: the second look",
    ]
