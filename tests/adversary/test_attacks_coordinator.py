"""A malicious coordinator: another model to every hub, a hub left out, hubs of its own. Against the real protocol.

"Eluding" is Pasquini, Francati, Ateniese 2022: hubs that are asked with directions of 0 answer with rows of 0, so the
sum over all is the one hub's that was asked in earnest. Masks depend on what was asked, so nothing opens. Hubs'
vectors are the study's own, covered by the real code.
"""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from adversary.secagg_rounds import Federation, any_of, group, spy
from adversary.test_roster_attacks import INVENTED, forged
from adversary.test_secagg_cheats import force_open
from flute.aggregation import admission
from flute.aggregation.codec import Layout, exact_bounds, read_total
from flute.aggregation.context import context
from flute.attacks.chance import Chance
from flute.attacks.releases import longest_asks
from flute.data.variables import Array
from flute.errors import BadTotal, Equivocation, RosterUnsigned, TooFewHubs
from flute.messages.numbers import write_numbers
from flute.messages.protocol import Masked, Survivors
from flute.study.plans.sides import step_digest
from flute.study.protection import RAND_SIZE, cover
from flute.trust.verification import load
from support.attack_studies import mixed, trial
from unit.test_trust_roster import NOW, owner, trust
from unit.test_trust_roster import Federation as RosterFederation

pytestmark = [pytest.mark.requirement("URS-6"), pytest.mark.requirement("NF-SRS-5")]

STEP = 1
VICTIM, DUPES = "hub-a", ("hub-b", "hub-c")


def _named(asked: Array) -> bytes:
    return step_digest(bytes(32), "model", STEP, 0, write_numbers(asked))


class Eluded:
    """One gradient step of a study, in which the victim is asked in earnest and the others with directions of 0."""

    def __init__(self, *, noise: bool) -> None:
        self.attacked = trial(mixed(1.0), "eluded")
        subject, chance = self.attacked.subject, Chance(b"eluded")
        self.price = subject.steps[STEP]
        earnest = longest_asks(subject)[STEP]
        asks = {VICTIM: earnest, **dict.fromkeys(DUPES, np.zeros(len(earnest)))}
        self.questions = {hub: _named(asked) for hub, asked in asks.items()}
        self.values, self.rows = {}, {}
        for hub, asked in asks.items():
            rows = subject.rows(STEP, asked, self.attacked.patients(30, chance.child(hub)))
            self.rows[hub] = rows.sum(axis=0)
            assert self.price.mechanism is not None
            exact = np.round(self.rows[hub] * self.price.mechanism.scale).astype(np.int64)
            covered = cover(rows, self.price, hubs=3, rand=chance.bytes(RAND_SIZE))
            self.values[hub] = covered if noise else exact
        self.federation = Federation(group(3, 1), seed="eluded")
        self.spied = spy(self.federation)
        self.layout = Layout(64, len(self.values[VICTIM]))
        first = self.federation.starts(self.layout.size)
        self.starts = {hub: replace(start, question=self.questions[hub]) for hub, start in first.items()}

    def masked(self) -> dict[str, Masked]:
        for name, start in self.starts.items():
            assert self.federation.hubs[name].begin(start, self.questions[name]) is None
        return {name: hub.mask(self.values[name]) for name, hub in self.federation.hubs.items()}


def test_control_in_clear_hubs_that_are_asked_with_nothing_leave_the_victims_sum_alone() -> None:
    eluded = Eluded(noise=False)
    assert all((eluded.rows[hub] == 0).all() for hub in DUPES)
    assert np.array_equal(sum(eluded.values.values()), eluded.values[VICTIM])
    assert np.abs(eluded.rows[VICTIM]).max() > 0.1


def test_different_models_to_different_hubs_are_seen_and_nothing_opens() -> None:
    eluded = Eluded(noise=True)
    masked = eluded.masked()
    with pytest.raises(Equivocation, match="masked for another"):
        eluded.federation.told(eluded.starts, masked)
    for hub in eluded.federation.hubs.values():
        with pytest.raises(Equivocation):
            hub.echo(
                Survivors(context(eluded.starts["hub-b" if hub.name == VICTIM else VICTIM]), hub.state.terms.hubs)
            )


def test_a_hub_that_is_told_one_question_and_shown_another_refuses() -> None:
    eluded = Eluded(noise=True)
    with pytest.raises(Equivocation, match="another question"):
        eluded.federation.hubs["hub-b"].begin(eluded.starts["hub-b"], eluded.questions[VICTIM])


def test_control_masks_that_do_not_depend_on_the_question_would_open_the_victims_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit by bit: the defence is that parameters enter the masks."""
    eluded = Eluded(noise=False)
    one = context(eluded.starts[VICTIM])
    monkeypatch.setattr(admission, "context", lambda start: one)
    masked = eluded.masked()
    starts = dict.fromkeys(eluded.starts, eluded.starts[VICTIM])
    opened = force_open(masked, starts, eluded.spied)
    total = read_total(opened, eluded.layout, survivors=3, bounds=exact_bounds(3))
    assert np.array_equal(total, eluded.values[VICTIM])


def test_masks_of_different_questions_do_not_cancel_even_if_every_seed_is_known() -> None:
    eluded = Eluded(noise=False)
    masked = eluded.masked()
    opened = force_open(masked, eluded.starts, eluded.spied)
    with pytest.raises(BadTotal):
        read_total(opened, eluded.layout, survivors=3, bounds=exact_bounds(3))


def test_even_a_hub_whose_sum_stood_alone_would_be_covered_by_its_own_noise() -> None:
    """Its share of the noise is what two of three add up to, over root 2: the victim's 30 patients do not show."""
    eluded = Eluded(noise=True)
    assert eluded.price.mechanism is not None
    error = eluded.values[VICTIM] / eluded.price.mechanism.scale - eluded.rows[VICTIM]
    assert np.std(error) > 5 * eluded.price.mechanism.clip_norm


def test_a_hub_left_out_of_three_stops_the_round() -> None:
    federation = Federation(group(3, 1), seed="left out")
    starts = federation.starts(4)
    values = {name: np.arange(4, dtype=np.int64) for name in federation.terms.hubs}
    federation.masked(starts, values)
    two = Survivors(context(any_of(starts)), ("hub-a", "hub-b"))
    for hub in federation.hubs.values():
        with pytest.raises((TooFewHubs, Equivocation)):
            hub.echo(two)


def test_hubs_that_a_coordinator_invents_are_not_let_in_unless_owners_sign_for_them() -> None:
    """Two shams and one honest hub would be a sum of one: what it gives is the total less what the shams sent."""
    honest = RosterFederation().step()
    _, known = load(trust(honest), honest, now=NOW)
    owners = tuple(owner(name) for name in ("chu", "irst"))
    load(known, forged(INVENTED, root=owners, before=honest), now=NOW)
    with pytest.raises(RosterUnsigned):
        load(known, forged(INVENTED, root=owners[:1], before=honest), now=NOW)


def test_control_among_shams_one_honest_hubs_answer_is_what_is_left_of_the_total() -> None:
    federation = Federation(group(3, 1), seed="shams")
    values = {name: np.array([k, 7, -k, 100 * k]) for k, name in enumerate(federation.terms.hubs, start=1)}
    opened = federation.run(values).total
    assert np.array_equal(opened - values["hub-b"] - values["hub-c"], values["hub-a"])
