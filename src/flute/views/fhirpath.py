"""FHIRPath expressions over parsed FHIR R4 JSON, each compiled once.

Everything is evaluated by `fhirpathpy`, except that plain expressions run as the closures of
`views.plainpath`, with the same results, thirty times faster. Tests compare the two.

Source: FHIRPath 2.0.0, HL7; SQL-on-FHIR v2 for `getResourceKey` and `getReferenceKey`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import fhirpathpy
from antlr4 import CommonTokenStream, InputStream, Token  # type: ignore[import-untyped]
from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from flute.errors import Unmappable
from flute.views.plainpath import (
    R4,
    Collection,
    Constants,
    NotPlain,
    Run,
    compile_plain,
)
from flute.views.references import reference_keys, resource_keys

_node: Final[Any] = ResourceNode


class PathFailed(Unmappable):
    """One resource cannot be evaluated by this path. The text is the expression; no value is in it."""


_OPTIONS: Final = {
    "returnRawData": True,
    "userInvocationTable": {
        "getResourceKey": {"fn": resource_keys, "arity": {0: []}},
        "getReferenceKey": {"fn": reference_keys, "arity": {0: [], 1: ["TypeSpecifier"]}},
    },
}


class Path:
    """One expression, compiled on first use for each type of focus ("Observation", "Observation.code")."""

    __slots__ = ("_constants", "_fast", "_slow", "expression")

    def __init__(self, expression: str, constants: Constants) -> None:
        """Raises: Unmappable: the expression is no FHIRPath, or uses a function or constant nobody declared."""
        self.expression = expression
        self._constants = constants
        self._fast: dict[str | None, tuple[Run, str | None] | None] = {}
        try:
            self._slow = _parsed(expression)
            self._slow({}, dict(constants))
        except Exception as error:
            raise Unmappable(f"The path {expression!r} is not FHIRPath that can be evaluated here.") from error

    def values(self, node: Any, base: str | None) -> Collection:
        """The path's result on one focus. `base`: the focus's FHIR type path. Raises: PathFailed."""
        fast = self._plan(base)
        if fast is not None:
            try:
                return _without_bare_extensions(fast[0]([node]))
            except NotPlain:
                pass
        return [item.data if isinstance(item, ResourceNode) else item for item in self._evaluate(node, base)]

    def foci(self, node: Any, base: str | None) -> list[tuple[Any, str | None]]:
        """As `values`, each with its own type path, so that further paths can start there."""
        fast = self._plan(base)
        if fast is not None and fast[1] is not None:
            try:
                return [(item, fast[1]) for item in _without_bare_extensions(fast[0]([node]))]
            except NotPlain:
                pass
        found = self._evaluate(node, base)
        return [(i.data, i.path) if isinstance(i, ResourceNode) else (i, None) for i in found]

    @property
    def is_plain(self) -> bool:
        """True where every type of focus seen so far has a closure."""
        return all(plan is not None for plan in self._fast.values())

    def by_fhirpathpy(self, node: Any, base: str | None) -> Collection:
        """The reference result, for comparison."""
        return [item.data if isinstance(item, ResourceNode) else item for item in self._evaluate(node, base)]

    def _plan(self, base: str | None) -> tuple[Run, str | None] | None:
        if base not in self._fast:
            self._fast[base] = compile_plain(self.expression, self._constants, base)
        return self._fast[base]

    def _evaluate(self, node: Any, base: str | None) -> Collection:
        try:
            found = self._slow(_node(node, base), dict(self._constants))
        except Exception as error:
            raise PathFailed(self.expression) from error
        return found if isinstance(found, list) else [found]


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> Callable[..., Any]:
    """Parsing costs milliseconds; recipes share expressions, and are built more than once."""
    _check_syntax(expression)
    # fhirpathpy knows $this only within a criterion; at the start of a path it is the focus itself.
    parsed: Callable[..., Any] = fhirpathpy.compile(_LEADING_THIS.sub("%context", expression), R4, _OPTIONS)
    return parsed


_LEADING_THIS: Final = re.compile(r"^\s*\$this\b")
_TRACE: Final = re.compile(r"\btrace\s*\(")


class _Strict(ErrorListener):  # type: ignore[misc]
    def syntaxError(self, *details: object) -> None:
        raise ValueError("syntax")


def _check_syntax(expression: str) -> None:
    """fhirpathpy skips what it cannot parse and leaves the rest of the text unread; here both are errors.

    Raises: ValueError: the text is not one FHIRPath expression from its first to its last letter, or it calls
    `trace`, which would write values to a log.
    """
    if _TRACE.search(expression):
        raise ValueError("trace")
    lexer: Any = FHIRPathLexer(InputStream(expression))
    lexer.removeErrorListeners()
    lexer.addErrorListener(_Strict())
    stream: Any = CommonTokenStream(lexer)
    parser: Any = FHIRPathParser(stream)
    parser.removeErrorListeners()
    parser.addErrorListener(_Strict())
    parser.expression()
    if stream.LA(1) != Token.EOF:
        raise ValueError("more than one expression")


def _without_bare_extensions(found: Collection) -> Collection:
    """As fhirpathpy: an element that holds nothing but an extension has no value."""
    return [item for item in found if not (type(item) is dict and len(item) == 1 and "extension" in item)]
