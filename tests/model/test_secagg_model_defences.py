"""Each defence of the state machine taken away: the search finds the attack and prints it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs
from tests.adversary.secagg_rounds import NAMES, group
from tests.model.explorer import Search
from tests.model.facts import Scope
from tests.model.knowledge import ENOUGH, NEVER_BOTH, ONCE, ONE_SET, ONLY_SUMS
from tests.model.world import World

from flute.aggregation import member, state, terms
from flute.aggregation.state import Event, MemberState, Phase, RoundState
from flute.errors import FluteError
from flute.messages.protocol import Shares, Survivors

pytestmark = pytest.mark.timeout(900)  # a minute of processor time, on a machine that may be busy
LAST, LAST_TWO = NAMES[3:4], NAMES[2:4]
Patch = pytest.MonkeyPatch
ONE_CORRUPT = Scope(group(4, 1), LAST, every_step=False)
ALL_IN_A_ROUND = Scope(group(4, 1), LAST, every_step=False, fewest=4)
TWO_ROUNDS = Scope(group(4, 2), LAST_TWO, tickets=2, corrupt_tickets=1, every_step=False)


def any_threshold(patch: Patch) -> None:
    patch.setattr(terms, "_check_threshold", lambda _: None)


def tags_not_counted(patch: Patch) -> None:
    patch.setattr(member, "valid_tags", lambda _state, round_, *_: (frozenset(round_.survivors), ()))


def set_without_me(patch: Patch) -> None:
    real = member._check_set

    def check(me: MemberState, round_: RoundState, message: Survivors) -> None:
        real(me, round_, structs.replace(message, hubs=tuple(sorted({*message.hubs, me.me}))))

    patch.setattr(member, "_check_set", check)


def opens_without_its_own_tag(patch: Patch) -> None:
    real = member.valid_tags

    def valid(me: MemberState, *args: object) -> tuple[frozenset[str], tuple[str, ...]]:
        found, wrong = real(me, *args)  # type: ignore[arg-type]
        return found | {me.me}, wrong

    patch.setattr(member, "valid_tags", valid)


def set_without_me_opened_without_my_tag(patch: Patch) -> None:
    set_without_me(patch)
    opens_without_its_own_tag(patch)


def any_set(patch: Patch) -> None:
    patch.setattr(member, "check_survivors", lambda *_: None)


def masks_again(patch: Patch) -> None:
    patch.setitem(state.TRANSITIONS, (Phase.MASKED, Event.MASK), Phase.MASKED)


def signs_a_second_set(patch: Patch) -> None:
    patch.setitem(state.TRANSITIONS, (Phase.ECHOED, Event.ECHO), Phase.ECHOED)


def signs_after_opening(patch: Patch) -> None:
    patch.setitem(state.TRANSITIONS, (Phase.OPENED, Event.ECHO), Phase.ECHOED)


def shares_kept(patch: Patch) -> None:
    real = member._open

    def keep(me: MemberState, round_: RoundState, *args: object, **named: object) -> tuple[MemberState, Shares]:
        after, answer = real(me, round_, *args, **named)  # type: ignore[arg-type]
        assert after.round is not None
        return structs.replace(after, round=structs.replace(after.round, held=round_.held)), answer

    patch.setattr(member, "_open", keep)


def signs_after_opening_and_shares_kept(patch: Patch) -> None:
    signs_after_opening(patch)
    shares_kept(patch)


def tickets_not_burnt(patch: Patch) -> None:
    real = member.admit
    patch.setattr(member, "admit", lambda me, *args, **named: (real(me, *args, **named)[0], me.inbound))


def tags_without_the_context(patch: Patch) -> None:
    real = member.echo_to_sign
    patch.setattr(member, "echo_to_sign", lambda terms, ctx, hub, hubs: real(terms, bytes(32), hub, hubs))


def tags_without_the_set(patch: Patch) -> None:
    real = member.echo_to_sign
    patch.setattr(member, "echo_to_sign", lambda terms, ctx, hub, hubs: real(terms, ctx, hub, ()))


def nothing(patch: Patch) -> None:
    """The scope itself is the mutant."""


MUTANTS: dict[str, tuple[Callable[[Patch], None], Scope, str]] = {
    "2t = n": (any_threshold, Scope(group(4, 0, threshold=2), every_step=False), NEVER_BOTH),
    "2t = n + c": (
        any_threshold, Scope(group(4, 2, threshold=3, survivors_min=3), LAST_TWO, every_step=False), NEVER_BOTH,
    ),
    "2t = n + c, two sets": (
        any_threshold, Scope(group(4, 2, threshold=3, survivors_min=3), LAST_TWO, every_step=False), ONE_SET,
    ),
    "one hub more corrupt than the terms name": (nothing, Scope(group(4, 1), LAST_TWO, every_step=False), ONLY_SUMS),
    "tags are not counted": (tags_not_counted, ONE_CORRUPT, ONE_SET),
    "a set may leave the hub out": (set_without_me_opened_without_my_tag, ONE_CORRUPT, ENOUGH),
    "a set may be of any size": (any_set, Scope(group(4, 1, survivors_min=4), LAST, every_step=False), ENOUGH),
    "an exact set may be of any size": (
        any_set, Scope(group(4, 1, survivors_min=4, exact=True), LAST, every_step=False), ENOUGH,
    ),
    "a ticket masks twice": (masks_again, Scope(group(4, 1), LAST), ONCE),
    "a hub signs a second set": (signs_a_second_set, ALL_IN_A_ROUND, ONE_SET),
    "a hub signs after it opened": (
        signs_after_opening, replace(ALL_IN_A_ROUND, refusals=(FluteError, KeyError)), ONE_SET,
    ),
    "a hub opens a second set": (signs_after_opening_and_shares_kept, ALL_IN_A_ROUND, ONCE),
    "named tickets are not burnt": (tickets_not_burnt, TWO_ROUNDS, ONE_SET),
    "tags say nothing of the context": (
        tags_without_the_context, Scope(group(4, 1), LAST, variants=2, every_step=False), ONE_SET,
    ),
    "tags say nothing of the set": (tags_without_the_set, ONE_CORRUPT, ONE_SET),
    "sent before it is stored": (
        nothing, Scope(group(4, 1), LAST, every_step=False, fewest=4, late_store=True), ONE_SET,
    ),
    "sent before it is stored, two vectors": (
        nothing, Scope(group(4, 2), LAST_TWO, variants=2, every_step=False, late_store=True), ONCE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_without_its_defence_the_attack_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, scope, broken = MUTANTS[name]
    remove(monkeypatch)
    found = Search(World(scope), stop_at=frozenset({broken})).run()
    assert broken in found.broken, f"{name} broke only {sorted(found.broken)} in {found.states} states"
    print(f"{name}: {broken}", *found.broken[broken], f"({found.states} states)", sep="\n")


@pytest.mark.parametrize("remove", [shares_kept, set_without_me, opens_without_its_own_tag])
def test_behind_some_defences_stands_a_second_one(
    remove: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the dropped shares the table; behind the hub's place in the set its own tag, and the other way round."""
    remove(monkeypatch)
    assert not Search(World(ALL_IN_A_ROUND)).run().broken
