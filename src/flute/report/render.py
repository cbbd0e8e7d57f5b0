"""The report as one self-contained HTML page and as JSON.

Guarantees: the page loads nothing (a content security policy in it forbids it), runs no script, and shows
every text of the report as text, whatever characters it has.
"""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from flute.report import texts
from flute.report.model import Report, from_json, to_json
from flute.report.page import FILTERS, page_of

__all__ = ["from_json", "render_html", "render_json"]

_PAGES: Final = Environment(
    loader=PackageLoader("flute.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters.update(FILTERS)


def pages() -> Environment:
    """The templates, every value escaped."""
    return _PAGES


def render_html(report: Report) -> str:
    """One HTML document, everything in it. Missing parts of results leave their sections out."""
    page = page_of(report)
    return _PAGES.get_template("report.html").render(page=page, report=report, texts=texts)


def render_json(report: Report) -> bytes:
    """The report as JSON, keys sorted; `from_json` reads it back."""
    return to_json(report)
