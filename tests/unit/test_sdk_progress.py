"""What people see while they wait: where somebody looks, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from flute.sdk import progress


class _Display:
    """A notebook's: what stands in one output, in order."""

    def __init__(self) -> None:
        self.stood: list[str] = []

    def HTML(self, text: str) -> str:
        return text

    def display(self, html: str, *, display_id: bool) -> _Display:
        assert display_id
        self.stood.append(html)
        return self

    def update(self, html: str) -> None:
        self.stood.append(html)


def test_a_notebook_shows_what_is_being_done_and_clears_it_even_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display = _Display()
    monkeypatch.setattr(progress, "_notebook", lambda: display)
    with progress.waiting("Trying <b>"):
        assert "Trying &lt;b&gt;" in display.stood[-1]
    assert display.stood[-1] == ""
    with pytest.raises(ZeroDivisionError), progress.waiting("Trying"):
        _ = 1 / 0
    assert display.stood[-1] == ""


def test_a_pipe_hears_nothing_of_it(capsys: pytest.CaptureFixture[Any]) -> None:
    with progress.waiting("Trying"):
        pass
    assert capsys.readouterr() == ("", "")
