"""FHIRPath expressions over parsed FHIR R4 JSON, each compiled once.

Everything is evaluated by `fhirpathpy`, except that plain expressions run as functions that `fhirpath.emit` writes,
with the same results, thirty times faster. Tests compare the two.

Source: FHIRPath 2.0.0, HL7; FHIR R4, "FHIRPath"; SQL-on-FHIR v2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from antlr4 import CommonTokenStream, InputStream, Token  # type: ignore[import-untyped]
from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
from fhirpathpy.engine import do_eval
from fhirpathpy.engine.invocations.constants import constants
from fhirpathpy.engine.nodes import FP_DateTime, FP_Time, ResourceNode
from fhirpathpy.parser import parse
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from flute.errors import Unmappable
from flute.fhirpath import types
from flute.fhirpath.emit import compile_path
from flute.fhirpath.functions import ENGINE, FUNCTIONS
from flute.fhirpath.normal import Normal, bare
from flute.fhirpath.plain import Constants, Plain, read_plain
from flute.fhirpath.source import Aside, Collection

_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'")
_evaluated: Final[Callable[..., Any]] = do_eval
_parse: Final[Callable[[str], Any]] = parse
_reset_clock: Final[Callable[[], None]] = constants.reset
"""What now() and today() give holds for one evaluation."""

VARIABLES: Final = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}
"""Constants that FHIR itself gives to every path."""
BUILT_IN: Final = frozenset({"context", "resource", "rootResource", "rowIndex", *VARIABLES})


class PathFailed(Unmappable):
    """One resource cannot be evaluated by this path. The text is the expression; no value is in it."""


class Focus(NamedTuple):
    """Where a path starts. `type`: its FHIR type path. `root`: the resource. `row`: its place in a `forEach`."""

    node: Any
    type: str | None
    root: Any
    row: int = 0


class _Start(ResourceNode):
    """A focus that a path may call by the name of its resource's type ("Patient.name"), as FHIRPath allows."""

    def __getitem__(self, name: str) -> Any:
        return self.data.get(name) if isinstance(self.data, dict) else None


_start: Final[Callable[[Any, str | None], Any]] = _Start


class Path:
    """One expression, compiled on first use for each type of focus ("Observation", "Observation.code")."""

    __slots__ = ("_constants", "_plain", "_siblings", "_tree", "_written", "expression")

    def __init__(self, expression: str, constants: Constants) -> None:
        """Raises: Unmappable: the expression is no FHIRPath, or uses a function or type that is not known here."""
        self.expression = expression
        self._constants = {**VARIABLES, **constants}
        self._plain: dict[str | None, Plain | None] = {}
        self._written: dict[str | None, Callable[[Any, int], Collection] | None] = {}
        self._siblings = bool(re.search(r"\bextension\b", _TEXT.sub("''", expression)))
        self._tree = _parsed(expression)

    def values(self, focus: Focus) -> Collection:
        """The path's result on one focus. Raises: PathFailed."""
        written = self._function(focus.type)
        if written is not None:
            try:
                return written(focus.node, focus.row)
            except Aside:
                pass
        return self.by_fhirpathpy(focus)

    def foci(self, focus: Focus) -> list[tuple[Any, str | None]]:
        """As `values`, each with its own type path, so that further paths can start there."""
        plain, written = self.plain(focus.type), self._function(focus.type)
        if plain is not None and written is not None and plain.type is not None:
            try:
                return [(item, plain.type) for item in written(focus.node, focus.row)]
            except Aside:
                pass
        return self._evaluate(focus)

    def by_fhirpathpy(self, focus: Focus) -> Collection:
        """The reference result."""
        return [value for value, _ in self._evaluate(focus)]

    def plain(self, base: str | None) -> Plain | None:
        """The expression as a tree, for foci of this type; None where only fhirpathpy can do it."""
        if base not in self._plain:
            self._plain[base] = read_plain(self.expression, self._constants, base)
        return self._plain[base]

    def _function(self, base: str | None) -> Callable[[Any, int], Collection] | None:
        if base not in self._written:
            plain = self.plain(base)
            self._written[base] = None if plain is None else compile_path(plain.tree)
        return self._written[base]

    def _evaluate(self, focus: Focus) -> list[tuple[Any, str | None]]:
        """What fhirpathpy finds, each with its type path. Raises: PathFailed."""
        normal = Normal(siblings=self._siblings)
        try:
            node = normal.copy(focus.node)
            root = node if focus.node is focus.root else normal.copy(focus.root)
            start = _start(node, focus.type)
            variables = {
                **self._constants, "context": start, "resource": root, "rootResource": root, "rowIndex": focus.row
            }  # fmt: skip
            _reset_clock()
            context = {
                "dataRoot": [start], "$this": [start], "vars": variables, "model": types.R4,
                "userInvocationTable": FUNCTIONS,
            }  # fmt: skip
            found = _evaluated(context, [start], self._tree)
        except Exception as error:
            raise PathFailed(self.expression) from error
        pairs = [
            (normal.original(item.data), item.path) if isinstance(item, ResourceNode) else (_json(item), None)
            for item in (found if isinstance(found, list) else [found])
        ]
        return [(value, path) for value, path in pairs if not bare(value)]


def _json(value: Any) -> Any:
    """A date or time is text again."""
    return value.asStr if isinstance(value, FP_DateTime | FP_Time) else value


# --- what is refused before it runs ---------------------------------------------------------------


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> Any:
    """Parsing costs milliseconds; recipes share expressions, and are built more than once."""
    try:
        _check_syntax(expression)
        tree = _parse(expression)["children"][0]
    except Exception as error:
        raise Unmappable(f"The path {expression!r} is not FHIRPath that can be evaluated here.") from error
    for node in _nodes(tree):
        if node["type"] == "FunctionInvocation":
            _check_function(expression, node["children"][0]["children"])
        elif node["type"] == "TypeSpecifier":
            _check_type(expression, node["text"])
        elif node["type"] == "AdditiveExpression" and any(n["type"] == "QuantityLiteral" for n in _nodes(node)):
            raise Unmappable(
                f"The path {expression!r} adds a quantity, to a date perhaps; that is not supported here."
            )
    return tree


class _Strict(ErrorListener):  # type: ignore[misc]
    def syntaxError(self, *details: object) -> None:
        raise ValueError("syntax")


def _check_syntax(expression: str) -> None:
    """fhirpathpy skips what it cannot parse and leaves the rest of the text unread; here both are errors.

    Raises: ValueError: the text is not one FHIRPath expression from its first to its last letter.
    """
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


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for child in tree.get("children", ()):
        yield from _nodes(child)


_LOGS_VALUES: Final = "trace"
_TAKES_A_TYPE: Final = frozenset({"ofType", "is", "as", "getReferenceKey"})


def _check_function(expression: str, parts: list[Any]) -> None:
    """Raises: Unmappable: nobody knows the function, or it takes another number of arguments."""
    name = parts[0]["text"].strip("`")
    arguments = parts[1]["children"] if len(parts) > 1 else []
    known = FUNCTIONS.get(name) or ENGINE.get(name)
    if known is None or name == _LOGS_VALUES:
        raise Unmappable(f"The path {expression!r} uses the function {name}(), which is not supported here.")
    if "variadic" not in known and len(arguments) not in known.get("arity", {0: []}):
        raise Unmappable(f"The path {expression!r} gives {name}() a wrong number of arguments.")
    if name in _TAKES_A_TYPE:
        for argument in arguments:
            _check_type(expression, argument["text"])


def _check_type(expression: str, name: str) -> None:
    if not types.known(name.replace("`", "")):
        raise Unmappable(f"The path {expression!r} names the type {name}, which FHIR R4 does not have.")
