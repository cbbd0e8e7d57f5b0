"""Python source of a function in the making, and what written functions call.

Nothing that a view's author writes becomes source: names and texts go in by `repr`, everything else as a bound
object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from flute.fhirpath.normal import bare
from flute.fhirpath.references import reference_key

Collection = list[Any]


class Aside(Exception):
    """No fault: this resource is one for the slow way. Never leaves the room."""


class _Many:
    def __repr__(self) -> str:
        return "MANY"


MANY: Final = _Many()


class Source:
    """Lines of a function in the making, and the objects that they name."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._names: dict[str, Any] = dict(_RUNTIME)

    def line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self._depth += 1
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self.line("pass")
        self._depth -= 1

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def bind(self, value: Any) -> str:
        self._count += 1
        self._names[f"b{self._count}"] = value
        return f"b{self._count}"

    def function(self, arguments: str) -> Callable[..., Any] | None:
        """The function; None where Python nests no deeper (twenty loops)."""
        text = "\n".join([f"def run({arguments}):", *self._lines])
        try:
            exec(compile(text, "<view>", "exec"), self._names)  # noqa: S102 no text of a view is in it, see above
        except (SyntaxError, RecursionError, MemoryError):
            return None
        found: Callable[..., Any] = self._names["run"]
        return found


# --- what written functions call -----------------------------------------------------------------


def _only(values: Collection, hidden: bool) -> Any:
    """The one value of a list, None, or `MANY`."""
    if hidden or None in values:
        raise Aside
    return None if not values else values[0] if len(values) == 1 else MANY


def kept(values: Collection) -> Collection:
    """As fhirpathpy: an element that holds nothing but an extension has no value."""
    return [value for value in values if not bare(value)]


def _listed(value: Any) -> Collection:
    return [] if value is None else [value]


def _joined(values: Collection, separator: str) -> str:
    if any(v.__class__ is not str for v in values):
        raise Aside
    return separator.join(values)


def _both(left: bool | None, right: bool | None) -> bool | None:
    """Three-valued: false if either is, None if that cannot be known."""
    return False if left is False or right is False else None if left is None or right is None else True


def _either(left: bool | None, right: bool | None) -> bool | None:
    """Three-valued: true if either is, None if that cannot be known."""
    return True if left is True or right is True else None if left is None or right is None else False


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


_RUNTIME: Final = {
    "Aside": Aside,
    "MANY": MANY,
    "only": _only,
    "kept": kept,
    "listed": _listed,
    "joined": _joined,
    "both": _both,
    "either": _either,
    "negated": _negated,
    "reference_key": reference_key,
}
