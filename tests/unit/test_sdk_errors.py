"""The twelve likeliest mistakes in a notebook: the page shows the very sentences that are said."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

from flute.errors import MisuseError
from flute.sdk import extras

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.requirement("F-HUF-1")
def test_the_page_shows_what_is_said_to_twelve_mistakes() -> None:
    namespace = run_path(str(DOCS / "make_notebook_errors.py"))
    assert len(namespace["MISTAKES"]) == 12
    written = (DOCS / "how-to" / "notebook-errors.md").read_text(encoding="utf-8")
    assert written == namespace["page"](), "run: python docs/make_notebook_errors.py"


def test_a_line_without_a_mistake_is_not_shown_as_one() -> None:
    namespace = run_path(str(DOCS / "make_notebook_errors.py"))
    with pytest.raises(AssertionError, match="no error: 1"):
        namespace["said"]("1", {})


def test_a_package_that_lacks_is_said_with_its_extra() -> None:
    with pytest.raises(
        MisuseError, match=r"no_such_package, which is not installed here: pip install 'flute\[sdk\]'"
    ):
        extras.loaded("no_such_package.inside")
