"""Laws of what writes the blocks."""

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.columns import metric
from harness.report.blocks import Interval
from harness.report.html import WIDTH, places, rendered
from harness.report.markdown import escaped

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=60)
MARKED = st.text("ab1 \n`*_#-+>|<!&;[](){}\\\"':./~=htpscriml", max_size=60)
ALLOWED = {"p", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "code", "pre"}
ALLOWED |= {"blockquote", "hr", "br", "div", "table", "thead", "tbody", "tr", "th", "td"}
ratios = st.floats(-100, 100)


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.words += data


@example("---")
@example("- - -")
@example("1. one")
@example("+ more")
@example("&amp")
@given(MARKED | TEXT)
def test_escaped_text_reads_as_it_was_written(text: str) -> None:
    page = Tags(MarkdownIt("gfm-like", {"linkify": False}).render(escaped(text)))
    assert " ".join(page.words.split()) == " ".join(text.split())
    assert {tag for tag, _ in page.seen} <= {"p"}


@given(MARKED | TEXT)
def test_our_markdown_becomes_nothing_that_loads_links_or_runs(text: str) -> None:
    page = Tags(rendered(text))
    assert {tag for tag, _ in page.seen} <= ALLOWED
    assert {name for _, attrs in page.seen for name, _ in attrs} <= {"class", "start"}


def test_a_kernels_table_is_a_table() -> None:
    html = rendered("| kernel | time |\n| --- | ---: |\n| f\\<int> | 1 µs |\n")
    assert "<td>f&lt;int&gt;</td>" in html
    assert '<td class="number">1 µs</td>' in html


@given(st.lists(ratios, min_size=3, max_size=3).map(sorted))
def test_an_interval_is_drawn_in_order_and_inside(values: list[float]) -> None:
    low, at, high = values
    drawn = places(Interval(low=low, at=at, high=high))
    assert 0 <= drawn["low"] <= drawn["at"] <= drawn["high"] <= WIDTH
    assert drawn["from"] < drawn["zero"] < drawn["to"]
    assert bool(drawn["outside"]) == (low >= 3 or high <= -3)


@pytest.mark.parametrize(
    ("name", "title", "value", "shown"),
    [
        ("ttft_p99_s", "TTFT p99 ms", 0.0123, "12.3"),
        ("output_tok_per_s", "output tok/s", 12345.6, "12,346"),
        ("e2e_p99_s", "E2E p99 ms", 1.5, "1,500"),
        ("requests_per_s", "requests per s", 2.345, "2.35"),
        ("mfu_frac", "MFU %", 0.123, "12.3"),
    ],
)
def test_a_metric_is_shown_in_its_display_unit(
    name: str, title: str, value: float, shown: str
) -> None:
    told, form = metric(name)
    assert (told, form(value)) == (title, shown)
