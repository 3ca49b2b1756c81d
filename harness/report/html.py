"""The report as one HTML file with pictures, styles and script inside; it loads nothing else.

Jinja2 escapes all text, and our own Markdown may contain no HTML, links or pictures. The page's
content security policy lets a browser run only this script and load nothing, whatever a log says.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.blocks import Block, Interval, Report

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it import MarkdownIt

TEMPLATES = Path(__file__).parent / "templates"
# An interval's picture: its range in thresholds to each side of no change, its size in pixels.
SHOWN, WIDTH, HEIGHT = 3.0, 150.0, 16.0


def written(report: Report) -> str:
    style = (TEMPLATES / "report.css").read_text()
    script = (TEMPLATES / "report.js").read_text()
    page = _environment().get_template("report.html.j2")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}';"
        f" script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return page.render(report=report, style=_safe(style), script=_safe(script), policy=policy)


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": kind,
        "embedded": embedded,
        "rendered": lambda text: _safe(rendered(text)),
        "places": places,
        "breakable": breakable,
    }
    return environment


def kind(block: Block) -> str:
    """The name of a block's macro."""
    return type(block).__name__.lower()


def embedded(picture: Path) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def breakable(name: str) -> Any:
    """A long name that may be wrapped after its underscores."""
    from markupsafe import escape

    return escape(name).replace("_", _safe("_<wbr>"))


def rendered(markdown: str) -> str:
    """Our own Markdown as HTML: tables, lists, headings, code and emphasis only."""
    html: str = _markdown().render(markdown)
    return html.replace(' style="text-align:right"', ' class="number"')  # no inline styles allowed


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["image", "link", "autolink", "reference", "html_block", "html_inline"])
    reader.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return reader


def places(interval: Interval) -> dict[str, Any]:
    """Where an interval's marks are drawn; one wholly outside the picture becomes an arrow."""

    def x(thresholds: float) -> float:
        inside = max(-SHOWN, min(SHOWN, thresholds))
        return round((inside + SHOWN) / (2 * SHOWN) * WIDTH, 1)

    outside = None
    if interval.low >= SHOWN:
        outside = f"M{WIDTH:g},{HEIGHT / 2:g} l-9,-5 v10 z"
    elif interval.high <= -SHOWN:
        outside = f"M0,{HEIGHT / 2:g} l9,-5 v10 z"
    return {
        "outside": outside,
        "width": WIDTH,
        "height": HEIGHT,
        "from": x(-1),
        "to": x(1),
        "zero": x(0),
        "low": x(interval.low),
        "high": x(interval.high),
        "at": x(interval.at),
    }


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
