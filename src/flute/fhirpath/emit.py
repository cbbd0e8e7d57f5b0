"""Trees of plain expressions as Python source: one walk over a focus answers all that is asked of it.

What a walk does not cover in a resource (a primitive that is only an extension, a null in a list, two types of
one choice) raises `Aside`, and `fhirpathpy` takes over for that resource; so a walk never gives other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flute.fhirpath.source import Collection, Source
from flute.fhirpath.tree import (
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

Asked = Literal["one", "some", "all"]
"""One value (`MANY` if there are more), whether there is any, or all values."""


def compile_path(tree: Expression) -> Callable[[Any, int], Collection] | None:
    """All values of an expression on one focus. The function raises `Aside`."""
    source = Source()
    scope = Scope(source, "node", "index", is_object=False)
    scope.ask(tree, "all")
    scope.walk()
    source.line(f"return {scope.every(tree)}")
    return source.function("node, index")


@dataclass(slots=True)
class _Place:
    """Where steps lead: what is asked there, and the steps that go on from it. `kept`: list of what an `At` needs."""

    asked: list[tuple[Asked, str]] = field(default_factory=list)
    further: dict[Step, _Place] = field(default_factory=dict)
    kept: str = ""


class Scope:
    """Everything asked of one focus: `ask` all of it, `walk` once, then `value`, `truth` or `every`."""

    def __init__(self, source: Source, focus: str, index: str, *, is_object: bool) -> None:
        """`focus`, `index`: names of variables. `is_object`: the focus is known to be a JSON object."""
        self._source = source
        self._focus = focus
        self._index = index
        self._is_object = is_object
        self._root = _Place()
        self._variables: dict[tuple[tuple[Step, ...], Asked], str] = {}
        self._later: list[tuple[str, int, _Place]] = []

    def ask(self, tree: Expression, how: Asked = "one") -> None:
        match tree:
            case Chain(steps):
                self._want(steps, how)
            case Exists(chain, _):
                self._want(chain.steps, "some")
            case Equals(chain, _, _):
                self._want(chain.steps, "one")
            case Joined(chain, _):
                self._want(chain.steps, "all")
            case Both(left, right) | Either(left, right):
                self.ask(left)
                self.ask(right)
            case Negated(of):
                self.ask(of)

    def walk(self) -> None:
        """Write the walk. What was asked is in variables from here on."""
        for (_, how), name in self._variables.items():
            self._source.line(f"{name} = {_NOTHING[how]}")
        for place in _places(self._root):
            if place.kept:
                self._source.line(f"{place.kept} = []")
        self._visit(self._focus, self._root, is_object=self._is_object, again=False)
        while self._later:
            kept, index, place = self._later.pop(0)
            item = self._source.fresh()
            with self._source.block(f"for {item} in {kept}[{index}:{index + 1}]:"):
                self._visit(item, place, is_object=False, again=False)

    def value(self, tree: Expression) -> str:
        """Python for the one value: None if there is none; `MANY` of a chain if there are more."""
        match tree:
            case Chain(steps):
                return self._variables[steps, "one"]
            case Value(value):
                return repr(value)
            case RowIndex():
                return self._index
            case Exists(chain, wanted):
                return ("" if wanted else "not ") + self._variables[chain.steps, "some"]
            case Equals(chain, value, wanted):
                name = self._variables[chain.steps, "one"]
                return f"(None if {name} is None else {name} {'==' if wanted else '!='} {value!r})"
            case Joined(chain, separator):
                return f"joined({self._variables[chain.steps, 'all']}, {separator!r})"
            case Both(left, right):
                return f"both({self.value(left)}, {self.value(right)})"
            case Either(left, right):
                return f"either({self.value(left)}, {self.value(right)})"
            case Negated(of):
                return f"negated({self.value(of)})"

    def truth(self, tree: Expression) -> str:
        """Python that is true where a boolean expression is [true]; unknown counts as not true."""
        match tree:
            case Both(left, right):
                return f"({self.truth(left)} and {self.truth(right)})"
            case Either(left, right):
                return f"({self.truth(left)} or {self.truth(right)})"
            case Equals(chain, value, wanted):
                name = self._variables[chain.steps, "one"]
                return f"{name} == {value!r}" if wanted else f"({name} is not None and {name} != {value!r})"
            case Exists() | Value():
                return self.value(tree)
            case _:
                return f"{self.value(tree)} is True"

    def every(self, tree: Expression) -> str:
        """Python for the list of all values of an expression that was asked for "all"."""
        if isinstance(tree, Chain):
            return f"kept({self._variables[tree.steps, 'all']})"
        return f"listed({self.value(tree)})"

    def _want(self, steps: tuple[Step, ...], how: Asked) -> None:
        if (steps, how) in self._variables:
            return
        place = self._root
        for step in steps:
            place = place.further.setdefault(step, _Place())
            if isinstance(step, At) and not place.kept:
                place.kept = self._source.fresh()
        name = self._variables[steps, how] = self._source.fresh()
        place.asked.append((how, name))

    def _visit(self, item: str, place: _Place, *, is_object: bool, again: bool) -> None:
        """`item`: a variable that is not None. `again`: this may be reached more than once."""
        for how, name in place.asked:
            self._source.line(_FOUND[how, again].format(name=name, item=item))
        members: dict[Step, _Place] = {}
        for step, further in place.further.items():
            if isinstance(step, At):
                self._source.line(f"{further.kept}.append({item})")
                self._later.append((further.kept, step.index, further))
            elif isinstance(step, Where):
                inner = Scope(self._source, item, self._index, is_object=is_object)
                inner.ask(step.criterion)
                inner.walk()
                with self._source.block(f"if {inner.truth(step.criterion)}:"):
                    self._visit(item, further, is_object=is_object, again=again)
            else:
                members[step] = further
        if is_object:
            self._members(item, members, again=again)
        elif members:
            with self._source.block(f"if {item}.__class__ is dict:"):
                self._members(item, members, again=again)

    def _members(self, item: str, members: dict[Step, _Place], *, again: bool) -> None:
        choices: dict[tuple[str, ...], list[tuple[Choice, _Place]]] = {}
        for step, place in members.items():
            match step:
                case Member():
                    self._member(item, step, place, again=again)
                case Choice(fields):
                    choices.setdefault(fields, []).append((step, place))
                case ResourceIs(name):
                    self._source.line(f"if {item}.get('resourceType') != {name!r}: raise Aside")
                    self._visit(item, place, is_object=True, again=again)
                case ResourceKey() | ReferenceKey():
                    self._key(item, step, place, again=again)
        for fields, wanted in choices.items():
            self._choice(item, fields, wanted, again=again)

    def _member(self, item: str, step: Member, place: _Place, *, again: bool) -> None:
        source, value, hidden = self._source, self._source.fresh(), repr("_" + step.name)
        if step.strict:
            source.line(f"if {hidden} in {item}: raise Aside")
        source.line(f"{value} = {item}.get({step.name!r})")
        if not place.further and [how for how, _ in place.asked] == ["one"]:
            source.line(f"if {value}.__class__ is list: {value} = only({value}, {hidden} in {item})")
            source.line(f"elif {value} is None and {hidden} in {item}: raise Aside")
            self._sometimes(value, place, again=again)
            return
        with source.block(f"if {value} is not None:"):
            source.line(f"if {value}.__class__ is list and {hidden} in {item}: raise Aside")
            each = source.fresh()
            with source.block(f"for {each} in {value} if {value}.__class__ is list else ({value},):"):
                if place.asked or any(isinstance(s, At | Where) for s in place.further):
                    source.line(f"if {each} is None: raise Aside")
                self._visit(each, place, is_object=False, again=True)
        source.line(f"elif {hidden} in {item}: raise Aside")

    def _sometimes(self, value: str, place: _Place, *, again: bool) -> None:
        """The one value that is asked for at a leaf, which may be None."""
        ((_, name),) = place.asked
        if again:
            self._source.line(f"if {value} is not None: {name} = {value} if {name} is None else MANY")
        else:
            self._source.line(f"{name} = {value}")

    def _choice(
        self, item: str, fields: tuple[str, ...], wanted: list[tuple[Choice, _Place]], *, again: bool
    ) -> None:
        source, found, which, value = self._source, *(self._source.fresh() for _ in range(3))
        watched = source.bind(frozenset((*fields, *("_" + name for name in fields))))
        source.line(f"{found} = {watched}.intersection({item})")
        with source.block(f"if {found}:"):
            source.line(f"if len({found}) > 1: raise Aside")
            source.line(f"({which},) = {found}")
            source.line(f"{value} = {item}[{which}]")
            source.line(f"if {value} is None or {value}.__class__ is list or {which}[0] == '_': raise Aside")
            for step, place in wanted:
                with source.block(f"if {which} in {step.wanted!r}:" if step.wanted != fields else "if True:"):
                    self._visit(value, place, is_object=False, again=again)

    def _key(self, item: str, step: ResourceKey | ReferenceKey, place: _Place, *, again: bool) -> None:
        value = self._source.fresh()
        read = "('id')" if isinstance(step, ResourceKey) else "('reference')"
        self._source.line(f"{value} = {item}.get{read}")
        if isinstance(step, ReferenceKey):
            self._source.line(f"{value} = reference_key({value}, {step.kind!r})")
        with self._source.block(f"if {value} is not None:"):
            self._visit(value, place, is_object=False, again=again)


_NOTHING: Final = {"one": "None", "some": "False", "all": "[]"}
_FOUND: Final = {
    ("one", False): "{name} = {item}",
    ("one", True): "{name} = {item} if {name} is None else MANY",
    ("some", False): "{name} = True",
    ("some", True): "{name} = True",
    ("all", False): "{name}.append({item})",
    ("all", True): "{name}.append({item})",
}


def _places(root: _Place) -> Iterator[_Place]:
    yield root
    for place in root.further.values():
        yield from _places(place)
