"""The plain subset of FHIRPath as Python closures: what the paths of a view are mostly made of.

Member chains, choice elements with `ofType`, `where`, `exists`, `empty`, `first`, `[n]`, resource and
reference keys, equality with a literal or a constant, `and`, `or`, parentheses. Whatever else an
expression holds, `compile_plain` gives None; whatever a closure does not cover in a resource (a
primitive's extension, a list where one value belongs), it raises `NotPlain`. Either way `fhirpathpy`, whose
results the closures keep, takes over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fhirpathpy.models import models

from flute.views.references import reference_keys, resource_keys

Collection = list[Any]
Constants = Mapping[str, str | int | float | bool]
Run = Callable[[Collection], Collection]

R4: Final[dict[str, dict[str, Any]]] = models["r4"]


class NotPlain(Exception):
    """No fault: the expression, or this resource, is one for fhirpathpy. Never leaves `views.fhirpath`."""


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<text>'[^'\\]*')|(?P<number>\d+)(?![.\d])"
    r"|(?P<constant>%[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>\$this|!=|[.()=\[\],]))"
)
_KEYWORDS: Final = frozenset(
    {"and", "or", "xor", "implies", "is", "as", "in", "contains", "div", "mod", "true", "false"}
)
_CHANGES_TYPE: Final = frozenset({"contained", "resource", "length"})
"""Members whose type depends on the data, or that mean something else on text."""


def compile_plain(expression: str, constants: Constants, base: str | None) -> tuple[Run, str | None] | None:
    """A closure and the type path of its result, or None where fhirpathpy has to do it."""
    try:
        reader = _Reader(_tokens(expression), constants)
        run, path, _ = reader.disjunction(base)
        reader.end()
    except NotPlain:
        return None
    return run, path


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(expression.rstrip()):
        token = _TOKEN.match(expression, position)
        if token is None or token.lastgroup is None:
            raise NotPlain
        found.append((token.lastgroup, token[token.lastgroup]))
        position = token.end()
    return found


_Part = tuple[Run, str | None, bool]
"""Closure, type path of its result (None: not known), and whether it gives at most one boolean."""


class _Reader:
    """Recursive descent over the tokens. Raises `NotPlain` at whatever is not plain."""

    def __init__(self, tokens: list[tuple[str, str]], constants: Constants) -> None:
        self._tokens = tokens
        self._constants = constants
        self._at = 0

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise NotPlain

    def disjunction(self, base: str | None) -> _Part:
        return self._chain("or", _either, self._conjunction, base)

    def _conjunction(self, base: str | None) -> _Part:
        return self._chain("and", _both, self._comparison, base)

    def _chain(
        self, word: str, join: Callable[[Run, Run], Run], operand: Callable[[str | None], _Part], base: str | None
    ) -> _Part:
        run, path, boolean = operand(base)
        while self._take("name", word):
            other, _, also = operand(base)
            if not (boolean and also):
                raise NotPlain
            run, path = join(run, other), None
        return run, path, boolean

    def _comparison(self, base: str | None) -> _Part:
        run, path, boolean = self._path(base)
        for sign in ("=", "!="):
            if self._take("sign", sign):
                return _equals(run, self._literal(), wanted=sign == "="), None, True
        return run, path, boolean

    def _literal(self) -> str | int | bool:
        kind, text = self._next()
        value: object = None
        if kind == "text":
            value = text[1:-1]
        elif kind == "number":
            value = int(text)
        elif kind == "name" and text in {"true", "false"}:
            value = text == "true"
        elif kind == "constant":
            value = self._constants.get(text[1:])
        # Decimals stay with fhirpathpy, which has rules of its own for them; so does anything after a literal.
        if not isinstance(value, str | int | bool) or self._peek() == ("sign", "."):
            raise NotPlain
        return value

    def _path(self, base: str | None) -> _Part:
        if self._take("sign", "("):
            part = self.disjunction(base)
            self._expect(")")
        elif self._take("sign", "$this"):
            part = (_same, base, False)
        else:
            part = self._step(_same, base)
        while self._peek() in {("sign", "."), ("sign", "[")}:
            run, path, boolean = part
            if boolean:
                raise NotPlain
            if self._take("sign", "["):
                part = (_at(run, self._index()), path, False)
            else:
                self._expect(".")
                part = self._step(run, path)
        return part

    def _index(self) -> int:
        kind, text = self._next()
        if kind != "number":
            raise NotPlain
        self._expect("]")
        return int(text)

    def _step(self, before: Run, path: str | None) -> _Part:
        kind, name = self._next()
        if kind != "name" or name in _KEYWORDS:
            raise NotPlain
        if self._take("sign", "("):
            return self._function(name, before, path)
        return self._member(name, before, path)

    def _member(self, name: str, before: Run, path: str | None) -> _Part:
        if path is None or name in _CHANGES_TYPE or name[0].isupper():
            raise NotPlain
        child = R4["pathsDefinedElsewhere"].get(f"{path}.{name}", f"{path}.{name}")
        types = R4["choiceTypePaths"].get(child)
        if types is None:
            kind = "Extension" if name == "extension" else R4["path2Type"].get(child, child)
            return _get(before, name), kind, False
        if self._of_type_follows():
            wanted = self._type_argument()
            suffix = next((t for t in types if R4["path2Type"].get(child + t, child + t) == wanted), None)
            if suffix is None:
                raise NotPlain
            return _get_choice(before, name, types, suffix), wanted, False
        return _get_choice(before, name, types, None), None, False

    def _of_type_follows(self) -> bool:
        return self._tokens[self._at : self._at + 3] == [("sign", "."), ("name", "ofType"), ("sign", "(")]

    def _type_argument(self) -> str:
        self._at += 3
        kind, name = self._next()
        if kind != "name":
            raise NotPlain
        self._expect(")")
        return name

    def _function(self, name: str, before: Run, path: str | None) -> _Part:
        if name == "where":
            criterion = self._criterion(path)
            return _where(before, criterion), path, False
        if name == "exists" and self._peek() != ("sign", ")"):
            return _exists(_where(before, self._criterion(path))), None, True
        if name == "getReferenceKey" and self._peek() != ("sign", ")"):
            kind, wanted = self._next()
            if kind != "name":
                raise NotPlain
            self._expect(")")
            return (lambda nodes: reference_keys(before(nodes), wanted)), None, False
        self._expect(")")
        match name:
            case "exists":
                return _exists(before), None, True
            case "empty":
                return _empty(before), None, True
            case "first":
                return _at(before, 0), path, False
            case "getResourceKey":
                return (lambda nodes: resource_keys(before(nodes))), None, False
            case "getReferenceKey":
                return (lambda nodes: reference_keys(before(nodes))), None, False
            case _:
                raise NotPlain

    def _criterion(self, path: str | None) -> Run:
        run, _, boolean = self.disjunction(path)
        self._expect(")")
        if not boolean:
            raise NotPlain
        return run

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


# --- closures: a collection in, a collection out -------------------------------------------------


def _same(nodes: Collection) -> Collection:
    return nodes


def _get(before: Run, name: str) -> Run:
    hidden = "_" + name

    def run(nodes: Collection) -> Collection:
        found: Collection = []
        for node in before(nodes):
            if type(node) is not dict:
                continue
            if hidden in node:
                raise NotPlain
            value = node.get(name)
            if type(value) is list:
                found += value
            elif value is not None:
                found.append(value)
        return found

    return run


def _get_choice(before: Run, name: str, types: list[str], suffix: str | None) -> Run:
    """A choice element: the first of its types that is there, kept if it is `suffix` (None: any)."""
    fields = [(name + t, "_" + name + t, suffix is None or t == suffix) for t in types]

    def run(nodes: Collection) -> Collection:
        found: Collection = []
        for node in before(nodes):
            if type(node) is not dict:
                continue
            for field, hidden, wanted in fields:
                if hidden in node:
                    raise NotPlain
                value = node.get(field)
                if value is not None:
                    if type(value) is list:
                        raise NotPlain
                    if wanted:
                        found.append(value)
                    break
        return found

    return run


def _where(before: Run, criterion: Run) -> Run:
    return lambda nodes: [node for node in before(nodes) if criterion([node]) == [True]]


def _exists(before: Run) -> Run:
    return lambda nodes: [len(before(nodes)) > 0]


def _empty(before: Run) -> Run:
    return lambda nodes: [len(before(nodes)) == 0]


def _at(before: Run, index: int) -> Run:
    return lambda nodes: before(nodes)[index : index + 1]


def _equals(before: Run, literal: str | int | bool, *, wanted: bool) -> Run:
    def run(nodes: Collection) -> Collection:
        found = before(nodes)
        if not found:
            return []
        return [(len(found) == 1 and found[0] == literal) is wanted]

    return run


def _either(left: Run, right: Run) -> Run:
    """Three-valued: true if either is, empty if that cannot be known."""

    def run(nodes: Collection) -> Collection:
        a = left(nodes)
        if a == [True]:
            return a
        b = right(nodes)
        return b if b == [True] or a else []

    return run


def _both(left: Run, right: Run) -> Run:
    """Three-valued: false if either is, empty if that cannot be known."""

    def run(nodes: Collection) -> Collection:
        a = left(nodes)
        if a == [False]:
            return a
        b = right(nodes)
        return b if b == [False] or a else []

    return run
