"""A plain FHIRPath expression as a tree of steps and terms. Nothing here reads text or data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Member:
    """One JSON member. `strict`: the expression looks at extensions, so that a `_member` may not be passed over."""

    name: str
    strict: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice element. `fields`: all JSON members it may be; `wanted`: those that `ofType` keeps."""

    fields: tuple[str, ...]
    wanted: tuple[str, ...]
    strict: bool


@dataclass(frozen=True, slots=True)
class Where:
    criterion: Expression


@dataclass(frozen=True, slots=True)
class At:
    """One element of the whole collection so far, by its place."""

    index: int


@dataclass(frozen=True, slots=True)
class ResourceIs:
    """The path begins with the name of its resource's type, which has to be that."""

    name: str


@dataclass(frozen=True, slots=True)
class ResourceKey:
    pass


@dataclass(frozen=True, slots=True)
class ReferenceKey:
    kind: str | None


Step = Member | Choice | Where | At | ResourceIs | ResourceKey | ReferenceKey


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps from the focus to a collection."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Value:
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class RowIndex:
    """`%rowIndex`: place of the focus among those of its `forEach` or `repeat`."""


@dataclass(frozen=True, slots=True)
class Exists:
    chain: Chain
    wanted: bool


@dataclass(frozen=True, slots=True)
class Equals:
    chain: Chain
    value: str | int | bool
    wanted: bool


@dataclass(frozen=True, slots=True)
class Joined:
    chain: Chain
    separator: str


@dataclass(frozen=True, slots=True)
class Both:
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Either:
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Negated:
    of: Expression


Expression = Chain | Value | RowIndex | Exists | Equals | Joined | Both | Either | Negated
BOOLEANS: Final = (Exists, Equals, Both, Either, Negated)
