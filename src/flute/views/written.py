"""A whole view as one Python function: a resource in, its rows added to a list.

All plain paths of a focus share one walk over it; `forEach` is a loop, a product of selects are nested loops. Paths
that are not plain are called one by one. The function raises `Aside` (before it has added a row) where
`Select.rows` has to take over; a view whose iterations are not plain has no function at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flute.defaults.records import MAX_REPEAT_DEPTH
from flute.fhirpath.emit import Scope
from flute.fhirpath.path import Focus, Path, PathFailed
from flute.fhirpath.plain import NotPlain, Plain
from flute.fhirpath.source import Aside, Source
from flute.fhirpath.tree import BOOLEANS, Chain, Expression
from flute.views.cells import READ, Cell, Column, Row, cell
from flute.views.selects import Own, Select

Add = Callable[[Any, list[Row]], None]


def write_view(resource: str, where: Sequence[Path], select: Select) -> Add | None:
    """The function of a view, or None where it has to go path by path."""
    writer = _Writer()
    try:
        for path in where:
            writer.condition(path, resource)
        writer.rows(select, _Place("resource", resource, "0", True), "out")
    except NotPlain:
        return None
    return writer.source.function("resource, out")


@dataclass(frozen=True, slots=True)
class _Place:
    """A focus: the variables it and its index stand in, its type path, and whether it is known to be an object."""

    focus: str
    type: str | None
    index: str
    is_object: bool


@dataclass(slots=True)
class _Content:
    """What one focus gives, in the order of columns: cells, and lists of rows that are multiplied."""

    cells: list[tuple[Own, Expression | None]]
    parts: list[Own | str]
    iterations: list[tuple[Select, Plain, str]]
    repeats: list[tuple[Select, str]]
    unions: list[tuple[tuple[Select, ...], str]]


class _Writer:
    def __init__(self) -> None:
        self.source = Source()

    def condition(self, path: Path, resource: str) -> None:
        """Leave where it is not true; step aside where it is neither true nor false."""
        plain = path.plain(resource)
        if plain is None:
            test = self.source.bind(_condition(path, resource))
            self.source.line(f"if not {test}(resource): return")
            return
        scope = Scope(self.source, "resource", "0", is_object=True)
        scope.ask(plain.tree)
        scope.walk()
        if isinstance(plain.tree, BOOLEANS):
            self.source.line(f"if not ({scope.truth(plain.tree)}): return")
            return
        value = self.source.fresh()
        self.source.line(f"{value} = {scope.value(plain.tree)}")
        with self.source.block(f"if {value} is not True:"):
            self.source.line(f"if {value} is None or {value} is False: return")
            self.source.line("raise Aside")

    def rows(self, select: Select, place: _Place, out: str) -> None:
        """Add the rows of what `select` gives for one focus (its own iteration is the caller's) to the list `out`."""
        content = _Content([], [], [], [], [])
        self._gather(select, place, content)
        scope = Scope(self.source, place.focus, place.index, is_object=place.is_object)
        for own, tree in content.cells:
            if tree is not None:
                scope.ask(tree, "all" if own.column.collection else "one")
        for _, plain, _ in content.iterations:
            scope.ask(plain.tree, "all")
        scope.walk()
        names = {id(own): self._cell(own, tree, scope, place) for own, tree in content.cells}
        for inner, plain, rows in content.iterations:
            self._iterate(inner, scope.every(plain.tree), plain.type, place, rows)
        for inner, rows in content.repeats:
            found, kind = self._repeated(inner, place)
            self._iterate(inner, found, kind, place, rows)
        for branches, rows in content.unions:
            self.source.line(f"{rows} = []")
            for branch in branches:
                self.rows(Select(branch.columns, (), (branch,)), place, rows)
        self._product([p if isinstance(p, str) else names[id(p)] for p in content.parts], content, out)

    def _gather(self, select: Select, place: _Place, content: _Content) -> None:
        for own in select.own:
            plain = own.path.plain(place.type)
            content.cells.append((own, None if plain is None else plain.tree))
            content.parts.append(own)
        for inner in select.nested:
            if inner.iterates:
                self._iteration(inner, place, content)
            else:
                self._gather(inner, place, content)
        if select.union:
            rows = self.source.fresh()
            content.parts.append("*" + rows)
            content.unions.append((select.union, rows))

    def _iteration(self, select: Select, place: _Place, content: _Content) -> None:
        rows = self.source.fresh()
        content.parts.append("*" + rows)
        if select.each is None:
            content.repeats.append((select, rows))
            return
        plain = select.each.plain(place.type)
        if plain is None or plain.type is None:
            raise NotPlain
        content.iterations.append((select, plain, rows))

    def _iterate(self, select: Select, found: str, kind: str | None, place: _Place, rows: str) -> None:
        foci, focus, index = (self.source.fresh() for _ in range(3))
        self.source.line(f"{foci} = {found}")
        self.source.line(f"{rows} = []")
        with self.source.block(f"for {index}, {focus} in enumerate({foci}):"):
            body = Select(select.columns, select.own, select.nested, select.union)
            self.rows(body, _Place(focus, kind, index, False), rows)
        if select.nothing is not None:
            self.source.line(f"if not {foci}: {rows}.append({self.source.bind(select.nothing)})")

    def _repeated(self, select: Select, place: _Place) -> tuple[str, str]:
        """A list of all that a `repeat` reaches, where that is of one type at every depth."""
        first = {plain.type if (plain := path.plain(place.type)) else None for path in select.repeat}
        kind = next(iter(first)) if len(first) == 1 else None
        if kind is None or {plain.type if (plain := p.plain(kind)) else None for p in select.repeat} != {kind}:
            raise NotPlain
        walk = self.source.bind(_walk(select.repeat, place.type, kind))
        return f"{walk}({place.focus}, {place.index})", kind

    def _cell(self, own: Own, tree: Expression | None, scope: Scope, place: _Place) -> str:
        """The variable that holds a column's cell. Raises `Aside` when it runs: the value does not fit."""
        name, column = self.source.fresh(), own.column
        if isinstance(tree, Chain) and column.kind == "text" and not column.collection:
            name = scope.value(tree)  # what is asked for in two columns is one variable: only text stays as it is
            self._check(name, column, tree)
        elif tree is None:
            slow = self.source.bind(_slow_cell(own, place.type))
            self.source.line(f"{name} = {slow}({place.focus}, resource, {place.index})")
        elif column.collection:
            read = self.source.bind(READ[column.kind])
            self.source.line(f"{name} = [{read}(item) for item in {scope.every(tree)}]")
        else:
            self.source.line(f"{name} = {scope.value(tree)}")
            self._check(name, column, tree)
        return name

    def _check(self, name: str, column: Column, tree: Expression) -> None:
        if column.kind == "text":
            self.source.line(f"if {name} is not None and {name}.__class__ is not str: raise Aside")
        elif column.kind != "boolean" or not isinstance(tree, BOOLEANS):
            read = self.source.bind(READ[column.kind])
            self.source.line(f"if {name} is not None: {name} = {read}({name})")

    def _product(self, parts: list[str], content: _Content, out: str) -> None:
        """Nested loops over the lists of rows; one tuple of everything in the middle."""
        loops = [part[1:] for part in parts if part.startswith("*")]
        if len(loops) == len(parts) == 1:
            self.source.line(f"{out} += {loops[0]}")
            return
        each = {rows: self.source.fresh() for rows in loops}
        cells = "".join(f"*{each[part[1:]]}, " if part.startswith("*") else f"{part}, " for part in parts)
        self._nested(loops, each, f"{out}.append(({cells}))")

    def _nested(self, loops: list[str], each: dict[str, str], body: str) -> None:
        if not loops:
            self.source.line(body)
            return
        with self.source.block(f"for {each[loops[0]]} in {loops[0]}:"):
            self._nested(loops[1:], each, body)


# --- what a written view calls --------------------------------------------------------------------


def _condition(path: Path, resource: str) -> Callable[[Any], bool]:
    def holds(node: Any) -> bool:
        try:
            found = path.values(Focus(node, resource, node))
        except PathFailed:
            raise Aside from None
        if found not in ([], [True], [False]) or (found and type(found[0]) is not bool):
            raise Aside
        return found == [True]

    return holds


def _slow_cell(own: Own, base: str | None) -> Callable[[Any, Any, int], Cell]:
    def read(node: Any, root: Any, index: int) -> Cell:
        try:
            return cell(own.path.values(Focus(node, base, root, index)), own.column)
        except PathFailed:
            raise Aside from None

    return read


def _walk(paths: Sequence[Path], base: str | None, kind: str) -> Callable[[Any, int], list[Any]]:
    def walk(node: Any, index: int, at: str | None = base, depth: int = 0) -> list[Any]:
        if depth > MAX_REPEAT_DEPTH:
            raise Aside
        found = []
        for path in paths:
            for item, reached in path.foci(Focus(node, at, node, index)):
                if reached != kind:
                    raise Aside
                found.append(item)
                if isinstance(item, dict):
                    found += walk(item, index, kind, depth + 1)
        return found

    return walk
