"""The key ceremony: what comes out, whom it waits for, and that an ended attempt is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from msgspec.structs import replace
from tests.adversary.threshold_hubs import Chance, KeyGroup, key_terms, keyed

from flute.errors import Equivocation, Malformed, MisuseError, OutOfOrder, TooFewHubs
from flute.primitives.keys import AgreementKey, seal
from flute.threshold import ceremony
from flute.threshold.ceremony import TRANSITIONS, Event, Phase, decode_ceremony, end, public_key
from flute.threshold.group import ORDER, multiply_base, read_scalar
from flute.threshold.keys import check_terms, decode_key, encode_key, read_public_key, weights_at_zero


def secret_of(group: KeyGroup, hubs: tuple[str, ...]) -> int:
    """What no party ever does: the private key, from the shares of these hubs."""
    places = [group.terms.hubs.index(hub) + 1 for hub in hubs]
    secrets = [read_scalar(group.held[hub].secret) for hub in hubs]
    return sum(w * s for w, s in zip(weights_at_zero(places), secrets, strict=True)) % ORDER


@pytest.mark.parametrize(("n", "k"), [(2, 2), (3, 2), (3, 3), (5, 3)])
def test_any_k_shares_make_the_key_and_fewer_make_another(n: int, k: int) -> None:
    group = keyed(n, k)
    for hubs in combinations(group.terms.hubs, k):
        assert multiply_base(secret_of(group, hubs)) == group.public.whole
    for hubs in combinations(group.terms.hubs, k - 1):
        assert multiply_base(secret_of(group, hubs)) != group.public.whole


def test_all_hubs_and_an_onlooker_have_the_same_public_key() -> None:
    group = keyed()
    seen = public_key(group.terms, group.dealings.values(), keys=group.keys)
    assert {held.public.digest() for held in group.held.values()} == {seen.digest()}
    for hub, held in group.held.items():
        assert multiply_base(read_scalar(held.secret)) == seen.share_of(hub)


def test_weights_at_zero_sum_to_one() -> None:
    """Opening relies on it to save a multiplication."""
    assert sum(weights_at_zero([2, 3, 7, 9])) % ORDER == 1


def test_a_share_travels_sealed_to_its_holder_alone() -> None:
    group = KeyGroup(key_terms())
    group.begin()
    group.deal()
    share = group.shares["hub-a", "hub-b"]
    mine, stranger = AgreementKey(bytes([7]) * 32), AgreementKey(bytes([8]) * 32)
    box = seal(share.share, mine.public, info=b"test")
    assert mine.open(box, info=b"test") == share.share
    with pytest.raises(Malformed):
        stranger.open(box, info=b"test")
    assert share.share.hex() not in repr(share)


# --- a hub dies at each step ---------------------------------------------------------------------------

STEPS: dict[str, tuple[str, Callable[[KeyGroup, str], None]]] = {
    "before it commits": ("key commitment", lambda group, dead: group.commitments.pop(dead) and None),
    "before it deals": ("key dealing", lambda group, dead: group.dealings.pop(dead) and None),
    "before its share arrives": ("key share", lambda group, dead: group.shares.pop((dead, "hub-a")) and None),
    "before it confirms": ("key confirmation", lambda group, dead: group.answers.pop(dead) and None),
}


def stopped(group: KeyGroup, kill: Callable[[KeyGroup, str], None], what: str) -> str:
    """The error of hub-a once hub-b has died; the ceremony goes up to there."""
    for step, one in (
        (group.begin, None), (group.deal, group.deal_one), (group.confirm, group.confirm_one),
        (group.finish, group.finish_one),
    ):  # fmt: skip
        if one is not None and any(key in done for key, done in ((what, NEEDED[one.__name__]),)):
            kill(group, "hub-b")
            with pytest.raises(TooFewHubs) as caught:
                one("hub-a")
            return str(caught.value)
        step()
    raise AssertionError("the ceremony needed nothing of the dead hub")


NEEDED = {
    "deal_one": ("key commitment",),
    "confirm_one": ("key dealing", "key share"),
    "finish_one": ("key confirmation",),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_hub_that_dies_ends_the_ceremony_by_name_and_a_new_attempt_needs_nothing_of_it(name: str) -> None:
    what, kill = STEPS[name]
    group = KeyGroup(key_terms())
    text = stopped(group, kill, what)
    assert what in text
    assert "hub-b" in text
    assert "hub-c" not in text

    ended = {hub: end(group.state(hub)) for hub in group.terms.hubs}
    for state in ended.values():
        assert state.phase is Phase.ENDED
        assert (state.coefficients, state.secret, state.public, state.dealing) == ((), b"", None, None)
    again = KeyGroup(key_terms(attempt=2), seed=0, previous=ended).run()
    first = KeyGroup(key_terms()).run()
    assert again.public.digest() != first.public.digest()
    assert again.public.whole != first.public.whole


@pytest.mark.parametrize("step", ["deal", "confirm", "finish"])
def test_no_message_of_an_earlier_attempt_passes_in_the_next(step: str) -> None:
    old, new = KeyGroup(key_terms()).run(), KeyGroup(key_terms(attempt=2))
    new.begin()
    if step != "deal":
        new.deal()
    if step == "finish":
        new.confirm()
    mail = {"deal": "commitments", "confirm": "dealings", "finish": "answers"}[step]
    getattr(new, mail)["hub-b"] = getattr(old, mail)["hub-b"]
    with pytest.raises(Equivocation, match="hub-b"):
        getattr(new, f"{step}_one")("hub-a")


def test_an_old_share_does_not_pass_in_the_next_attempt() -> None:
    old, new = KeyGroup(key_terms()).run(), KeyGroup(key_terms(attempt=2))
    new.begin()
    new.deal()
    new.shares["hub-b", "hub-a"] = old.shares["hub-b", "hub-a"]
    with pytest.raises(Equivocation, match="hub-b"):
        new.confirm_one("hub-a")


def test_a_new_attempt_needs_the_last_one_ended_and_a_higher_number() -> None:
    group = KeyGroup(key_terms()).run()
    rand, key = Chance(1)(ceremony.rand_size(group.terms)), group.signing["hub-a"]
    for previous, attempt in (
        (group.state("hub-a"), 2),
        (end(group.state("hub-a")), 1),
    ):
        with pytest.raises(OutOfOrder):
            ceremony.begin("hub-a", replace(group.terms, attempt=attempt), rand=rand, key=key, previous=previous)
    ceremony.begin("hub-a", replace(group.terms, attempt=2), rand=rand, key=key, previous=end(group.state("hub-a")))


# --- the table, the state, the rules ----------------------------------------------------------------------


def every_phase() -> dict[Phase, KeyGroup]:
    """A ceremony stopped in each phase."""
    groups = {phase: KeyGroup(key_terms()) for phase in Phase}
    steps = ["begin", "deal", "confirm", "finish"]
    for phase, group in groups.items():
        for step in steps[: 1 + list(Phase).index(phase)]:
            getattr(group, step)()
        if phase is Phase.ENDED:
            group.keep(end(group.state("hub-a")))
    return groups


def test_every_step_that_is_not_in_the_table_is_refused() -> None:
    whole = KeyGroup(key_terms()).run()
    acts: dict[Event, Callable[[KeyGroup], None]] = {
        Event.DEAL: lambda group: group.deal_one("hub-a"),
        Event.CONFIRM: lambda group: group.confirm_one("hub-a"),
        Event.FINISH: lambda group: group.finish_one("hub-a"),
    }
    refused = 0
    for phase, group in every_phase().items():
        assert group.state("hub-a").phase is phase
        group.commitments, group.dealings = dict(whole.commitments), dict(whole.dealings)
        group.shares, group.answers = dict(whole.shares), dict(whole.answers)
        for event, act in acts.items():
            if (phase, event) not in TRANSITIONS:
                with pytest.raises(OutOfOrder):
                    act(group)
                refused += 1
    assert refused == 12


def test_a_state_survives_its_disk_and_shows_nothing() -> None:
    for group in every_phase().values():
        state = group.state("hub-a")
        assert decode_ceremony(ceremony.encode_ceremony(state)) == state
        assert repr(state) == "<Ceremony: secret>"
    with pytest.raises(MisuseError):
        decode_ceremony(b"nonsense")


def test_a_confirmed_state_holds_no_polynomial_and_a_finished_one_no_secret() -> None:
    groups = every_phase()
    assert groups[Phase.DEALT].state("hub-a").coefficients
    assert groups[Phase.CONFIRMED].state("hub-a").coefficients == ()
    assert groups[Phase.FINISHED].state("hub-a").secret == b""


def test_a_damaged_key_share_is_not_used() -> None:
    held = keyed().held["hub-a"]
    assert decode_key(encode_key(held)) == held
    assert held.secret.hex() not in repr(held)
    other = keyed().held["hub-b"]
    for wrong in (
        replace(held, secret=other.secret),
        replace(held, me="hub-z"),
        replace(held, public=replace(held.public, shares=held.public.shares[:2])),
        replace(held, public=replace(held.public, whole=bytes(32))),
    ):
        with pytest.raises((MisuseError, Malformed)):
            decode_key(encode_key(wrong))


@pytest.mark.parametrize(("n", "k"), [(2, 2), (3, 2), (3, 3), (5, 3)])
def test_a_reported_public_key_is_read_only_if_its_shares_belong_together(n: int, k: int) -> None:
    public = keyed(n, k).public
    assert read_public_key(public.terms, public.whole, public.shares) == public
    other = multiply_base(5)
    for whole, shares in (
        (other, public.shares),
        (public.whole, (*public.shares[:-1], other)),
        (public.whole, (other, *public.shares[1:])),
        (public.whole, public.shares[:-1]),
        (public.whole, (*public.shares, other)),
        (bytes(32), public.shares),
        (public.whole, (b"\xff" * 32, *public.shares[1:])),
    ):
        with pytest.raises(Malformed):
            read_public_key(public.terms, whole, shares)


@pytest.mark.parametrize(
    "changes",
    [
        {"hubs": ("hub-b", "hub-a", "hub-c")}, {"hubs": ("hub-a", "hub-a", "hub-c")}, {"hubs": ("hub-a",)},
        {"threshold": 1, "colluding": 0}, {"threshold": 4}, {"threshold": 2, "colluding": 2},
        {"contributors_min": 2}, {"contributors_min": 4},
    ],
)  # fmt: skip
def test_terms_that_protect_nobody_are_refused(changes: dict[str, object]) -> None:
    check_terms(key_terms())
    with pytest.raises(MisuseError):
        check_terms(key_terms(**changes))


def test_chance_has_exactly_its_declared_size_and_a_stranger_cannot_begin() -> None:
    terms, key = key_terms(), keyed().signing["hub-a"]
    for size in (ceremony.rand_size(terms) - 1, ceremony.rand_size(terms) + 1):
        with pytest.raises(MisuseError):
            ceremony.begin("hub-a", terms, rand=bytes(size), key=key)
    with pytest.raises(MisuseError):
        ceremony.begin("hub-z", terms, rand=bytes(ceremony.rand_size(terms)), key=key)
