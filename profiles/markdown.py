"""Numbers and tables for people. All display units of this package are here."""

from collections.abc import Iterable, Sequence


def percent(frac: float | None) -> str:
    """24.6 %"""
    return "–" if frac is None else f"{frac * 100:.1f} %"


def time(seconds: float | None) -> str:
    """331 ms, 2.70 ms, 455 µs: three digits."""
    if seconds is None:
        return "–"
    if seconds == 0:
        return "0"
    for unit_s, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= 0.9995 * unit_s:
            return f"{_three_digits(seconds / unit_s)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def _three_digits(value: float) -> str:
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{value:,.{digits}f}"


def edge(seconds: float) -> str:
    """A round time as a bound: 2 µs, 1 ms."""
    return f"{seconds * 1e3:g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:g} µs"


def signed(seconds: float) -> str:
    return f"{_sign(seconds)}{time(abs(seconds))}"


def signed_percent(frac: float) -> str:
    """−16.3 %"""
    return f"{_sign(frac)}{percent(abs(frac))}"


def _sign(number: float) -> str:
    return "+" if number >= 0 else "−"


def whole(number: float) -> str:
    return f"{number:,.0f}"


def plural(number: float, word: str) -> str:
    """1 step, 2 steps."""
    return f"{whole(number)} {word}{'' if number == 1 else 's'}"


def joined(parts: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Lines of a Markdown table; text columns come first and align left, numbers align right."""
    rule = ["---" if index < text_columns else "---:" for index in range(len(head))]
    return [_line(head), _line(rule), *(_line([_safe(cell) for cell in row]) for row in rows), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "\\<")


def shortened(name: str, length: int = 70) -> str:
    """A long name, cut in the middle."""
    if len(name) <= length:
        return name
    return f"{name[: length * 2 // 3]}…{name[-(length // 3) :]}"
