"""Keys that groups of hubs share: the one thing a computation needs beforehand.

Two kinds of groups: every set of n - t hubs (so that whichever t hubs are corrupt, one group has none of them), for
values that nobody has to send; and every pair, for masks that cancel in a sum. The first hub of a group deals its
key; then every two hubs compare a digest of all keys they both hold. A dealer that gives two hubs two keys stops the
setup there. A corrupt member knows its groups' keys anyway and gains nothing by choosing them: what hides an honest
hub is the group without corrupt members, whose key an honest hub drew.

Source: Cramer, Damgård, Ishai 2005, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

from flute.defaults.joint import KEY_BYTES, MAX_GROUPS, MIN_HUBS
from flute.errors import Cheating, Equivocation, MisuseError
from flute.mpc.steps import Place, Step
from flute.primitives.keys import derive, digest

Group = tuple[Place, ...]
_LABEL = b"flute/mpc/v1/"


@dataclass(frozen=True, slots=True)
class Circle:
    """Who computes: `hubs` many, of whom at most `corrupt` lie; `me` is this hub's place.

    corrupt: 0 takes the most that an honest majority allows, (n - 1) // 2. context: what this computation is bound to
    (study, question, attempt); the same at all hubs. names: of the hubs by place, for errors.
    Raises: MisuseError: fewer than 3 hubs, no honest majority, or more groups than MAX_GROUPS.
    """

    me: Place
    hubs: int
    context: bytes
    corrupt: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hubs < MIN_HUBS or not 1 <= self.me <= self.hubs:
            raise MisuseError("A joint computation needs at least three hubs, and this one among them.")
        if self.corrupt == 0:
            object.__setattr__(self, "corrupt", (self.hubs - 1) // 2)
        if self.corrupt < 1 or 2 * self.corrupt >= self.hubs:
            raise MisuseError("Fewer than half of the hubs may be corrupt, and at least one has to be reckoned with.")
        if comb(self.hubs, self.corrupt) > MAX_GROUPS:
            raise MisuseError(
                f"{self.hubs} hubs with {self.corrupt} corrupt would need {comb(self.hubs, self.corrupt)} keys; "
                f"at most {MAX_GROUPS} are made. Reckon with fewer corrupt hubs."
            )
        if self.names and len(self.names) != self.hubs:
            raise MisuseError("Every hub of a joint computation has a name, or none has.")

    @property
    def others(self) -> tuple[Place, ...]:
        return tuple(place for place in range(1, self.hubs + 1) if place != self.me)

    def name(self, place: Place) -> str:
        return self.names[place - 1] if self.names else f"hub {place}"

    def groups(self) -> list[Group]:
        """Every set of n - t hubs, in one order for all."""
        return list(combinations(range(1, self.hubs + 1), self.hubs - self.corrupt))

    def pairs(self) -> list[Group]:
        return list(combinations(range(1, self.hubs + 1), 2))


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all groups and pairs that this hub is in. Secret; for one context, used once."""

    groups: Mapping[Group, bytes] = field(repr=False)
    pairs: Mapping[Group, bytes] = field(repr=False)


def setup(circle: Circle, *, rand: bytes) -> Step[Keys]:
    """Two rounds: keys are dealt, then compared. Messages of the first differ by recipient and are secret.

    rand: KEY_BYTES fresh bytes. Raises: Cheating: a message of a wrong length, with its sender. Equivocation: two
    hubs hold different keys (the dealer or one of the two lies).
    """
    if len(rand) != KEY_BYTES:
        raise MisuseError(f"Dealing keys needs {KEY_BYTES} fresh bytes.")
    kinds = (("group", circle.groups()), ("pair", circle.pairs()))
    held = {
        (kind, group): derive(rand, info=_label("deal", kind, group) + circle.context)
        for kind, groups in kinds
        for group in groups
        if group[0] == circle.me
    }
    arrived = yield {other: b"".join(_shared(held, other)) for other in circle.others}
    for dealer, raw in arrived.items():
        dealt = [(kind, g) for kind, groups in kinds for g in groups if g[0] == dealer and circle.me in g]
        if len(raw) != KEY_BYTES * len(dealt):
            raise Cheating(
                f"{circle.name(dealer)} dealt {len(raw)} bytes of keys; {KEY_BYTES * len(dealt)} were due.",
                blamed=(circle.name(dealer),),
            )
        held |= {which: raw[i * KEY_BYTES : (i + 1) * KEY_BYTES] for i, which in enumerate(dealt)}
    tags = {other: digest(_LABEL, circle.context, *_shared(held, other)) for other in circle.others}
    answers = yield tags
    if dict(answers) != tags:
        raise Equivocation("Two hubs were dealt different keys. The computation stops before any value is shared.")
    return Keys(
        {group: key for (kind, group), key in held.items() if kind == "group"},
        {group: key for (kind, group), key in held.items() if kind == "pair"},
    )


def stream_key(key: bytes, circle: Circle, kind: str, group: Group) -> bytes:
    """The key of one keystream of this computation."""
    return derive(key, info=_label("stream", kind, group) + circle.context)


def _shared(held: Mapping[tuple[str, Group], bytes], other: Place) -> Iterable[bytes]:
    return [held[which] for which in sorted(held) if other in which[1]]


def _label(purpose: str, kind: str, group: Group) -> bytes:
    return _LABEL + f"{purpose}/{kind}/{'-'.join(map(str, group))}/".encode()
