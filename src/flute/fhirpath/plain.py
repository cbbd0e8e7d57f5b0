"""The plain subset of FHIRPath as a tree: what the paths of a view are mostly made of.

Member chains, choice elements with `ofType`, `where`, `exists`, `empty`, `first`, `[n]`, `extension`, `join`,
resource and reference keys, `%rowIndex`, literals and constants, equality with one of these, `and`, `or`,
`not`, parentheses. Whatever else an expression holds, `read_plain` gives None, and `fhirpathpy` does it.
`fhirpath.emit` makes Python of a tree; tests compare both on the same resources.

Source: FHIRPath 2.0.0, HL7; SQL-on-FHIR v2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flute.fhirpath import types
from flute.fhirpath.tree import (
    BOOLEANS,
    At,
    Both,
    Chain,
    Choice,
    Either,
    Equals,
    Exists,
    Expression,
    Joined,
    Member,
    Negated,
    ReferenceKey,
    ResourceIs,
    ResourceKey,
    RowIndex,
    Step,
    Value,
    Where,
)

Constants = Mapping[str, Any]


class NotPlain(Exception):
    """No fault: this is one for fhirpathpy. Never leaves the room."""


@dataclass(frozen=True, slots=True)
class Plain:
    """`type`: type path of the result, as far as known ("Observation.component", "Coding", "boolean")."""

    tree: Expression
    type: str | None


def read_plain(expression: str, constants: Constants, base: str | None) -> Plain | None:
    """The tree of a plain expression on a focus of type path `base`; None where fhirpathpy has to do it."""
    try:
        reader = _Reader(_tokens(expression), constants)
        tree, path = reader.disjunction(base)
        reader.end()
    except NotPlain:
        return None
    return Plain(tree, path)


# --- reading -------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<text>'[^'\\]*')|(?P<number>\d+)(?![.\d])"
    r"|(?P<constant>%[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>\$this|!=|[.()=\[\],]))"
)
_KEYWORDS: Final = frozenset(
    {"and", "or", "xor", "implies", "is", "as", "in", "contains", "div", "mod", "true", "false"}
)
_CHANGES_TYPE: Final = frozenset({"contained", "resource", "length"})
"""Members whose type depends on the data, or that mean something else on text."""

_Part = tuple[Expression, str | None]
_WHOLE: Final = Chain(())


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(expression.rstrip()):
        token = _TOKEN.match(expression, position)
        if token is None or token.lastgroup is None:
            raise NotPlain
        found.append((token.lastgroup, token[token.lastgroup]))
        position = token.end()
    return found


class _Reader:
    """Recursive descent over the tokens. Raises `NotPlain` at whatever is not plain."""

    def __init__(self, tokens: list[tuple[str, str]], constants: Constants) -> None:
        self._tokens = tokens
        self._constants = constants
        self._strict = ("name", "extension") in tokens
        self._at = 0

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise NotPlain

    def disjunction(self, base: str | None) -> _Part:
        return self._joined("or", Either, self._conjunction, base)

    def _conjunction(self, base: str | None) -> _Part:
        return self._joined("and", Both, self._comparison, base)

    def _joined(
        self, word: str, kind: type[Both] | type[Either], operand: Callable[[str | None], _Part], base: str | None
    ) -> _Part:
        tree, path = operand(base)
        while self._take("name", word):
            other, _ = operand(base)
            tree, path = kind(_boolean(tree), _boolean(other)), "boolean"
        return tree, path

    def _comparison(self, base: str | None) -> _Part:
        tree, path = self._path(base)
        for sign in ("=", "!="):
            if self._take("sign", sign):
                right, _ = self._path(base)
                if not isinstance(tree, Chain) or not isinstance(right, Value):
                    raise NotPlain
                return Equals(tree, right.value, sign == "="), "boolean"
        return tree, path

    def _path(self, base: str | None) -> _Part:
        part = self._first(base)
        while self._peek() in {("sign", "."), ("sign", "[")}:
            tree, path = part
            if self._take("sign", "["):
                part = Chain((*_chain(tree).steps, At(self._index()))), path
            else:
                self._expect(".")
                part = self._step(tree, path)
        return part

    def _first(self, base: str | None) -> _Part:
        kind, text = self._peek() or ("", "")
        if self._take("sign", "("):
            part = self.disjunction(base)
            self._expect(")")
            return part
        if self._take("sign", "$this"):
            return _WHOLE, base
        if kind in {"text", "number", "constant"} or text in {"true", "false"}:
            return self._literal()
        if text == base and text[0].isupper():
            self._next()
            return Chain((ResourceIs(text),)), base
        return self._step(_WHOLE, base)

    def _literal(self) -> _Part:
        kind, text = self._next()
        if (kind, text) == ("constant", "%rowIndex"):
            return RowIndex(), "integer"
        value: object = None
        if kind == "text":
            value = text[1:-1]
        elif kind == "number":
            value = int(text)
        elif kind == "constant":
            value = self._constants.get(text[1:])
        else:
            value = text == "true"
        # Decimals and dates stay with fhirpathpy, which has rules of its own for them; so does what comes after one.
        if not isinstance(value, str | int | bool) or self._peek() == ("sign", "."):
            raise NotPlain
        return Value(value), {bool: "boolean", int: "integer", str: "string"}[type(value)]

    def _index(self) -> int:
        kind, text = self._next()
        if kind != "number":
            raise NotPlain
        self._expect("]")
        return int(text)

    def _step(self, before: Expression, path: str | None) -> _Part:
        kind, name = self._next()
        if kind != "name" or name in _KEYWORDS:
            raise NotPlain
        if self._take("sign", "("):
            return self._function(name, before, path)
        return self._member(name, _chain(before), path)

    def _member(self, name: str, before: Chain, path: str | None) -> _Part:
        if path is None or types.primitive(path) or name in _CHANGES_TYPE or name[0].isupper():
            raise NotPlain
        child = types.child(path, name)
        suffixes = types.choices(child)
        if not suffixes:
            kind = "Extension" if name == "extension" else types.type_of(child)
            return _longer(before, Member(name, self._strict)), kind
        fields = tuple(name + suffix for suffix in suffixes)
        if not self._of_type_follows():
            return _longer(before, Choice(fields, fields, self._strict)), None
        wanted = self._type_argument()
        kept = tuple(name + s for s in suffixes if types.descends(types.type_of(child + s), wanted))
        if not kept:
            raise NotPlain
        return _longer(before, Choice(fields, kept, self._strict)), wanted

    def _of_type_follows(self) -> bool:
        return self._tokens[self._at : self._at + 3] == [("sign", "."), ("name", "ofType"), ("sign", "(")]

    def _type_argument(self) -> str:
        self._at += 3
        return self._only("name")

    def _function(self, name: str, before: Expression, path: str | None) -> _Part:
        if name == "not":
            self._expect(")")
            return Negated(_boolean(before)), "boolean"
        chain, bare = _chain(before), self._peek() == ("sign", ")")
        match name:
            case "where":
                return _longer(chain, Where(self._criterion(path))), path
            case "exists" if not bare:
                return Exists(_longer(chain, Where(self._criterion(path))), True), "boolean"
            case "getReferenceKey" if not bare:
                return _longer(chain, ReferenceKey(self._only("name"))), "string"
            case "extension" if not bare and not types.primitive(path) and path is not None:
                wanted = Equals(Chain((Member("url", True),)), self._only("text")[1:-1], True)
                return _longer(chain, Member("extension", True), Where(wanted)), "Extension"
            case "join":
                separator = "" if bare else self._only("text")[1:-1]
                if bare:
                    self._expect(")")
                return Joined(chain, separator), "string"
        self._expect(")")
        match name:
            case "exists" | "empty":
                return Exists(chain, name == "exists"), "boolean"
            case "first":
                return _longer(chain, At(0)), path
            case "getResourceKey":
                return _longer(chain, ResourceKey()), "string"
            case "getReferenceKey":
                return _longer(chain, ReferenceKey(None)), "string"
            case _:
                raise NotPlain

    def _criterion(self, path: str | None) -> Expression:
        tree, _ = self.disjunction(path)
        self._expect(")")
        return _boolean(tree)

    def _only(self, kind: str) -> str:
        found, text = self._next()
        if found != kind:
            raise NotPlain
        self._expect(")")
        return text

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            raise NotPlain
        self._at += 1
        return token

    def _take(self, kind: str, text: str) -> bool:
        if self._peek() != (kind, text):
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._take("sign", sign):
            raise NotPlain


def _chain(tree: Expression) -> Chain:
    if not isinstance(tree, Chain):
        raise NotPlain
    return tree


def _boolean(tree: Expression) -> Expression:
    """Raises: NotPlain: it may give something else than one boolean."""
    if not isinstance(tree, BOOLEANS) and not (isinstance(tree, Value) and isinstance(tree.value, bool)):
        raise NotPlain
    return tree


def _longer(chain: Chain, *steps: Step) -> Chain:
    return Chain((*chain.steps, *steps))
