"""A malicious coordinator, a malicious platform or hub against plan `enclave`: each lie is refused, by whom, and why.

What must never happen: an honest aggregator's total over anything but one box of every hub of the study, or a hub's
box for a key that no approved enclave made for this very round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.enclave_rounds import HUBS, SNP, TPM, Round, party, terms

from flute.aggregation.codec import Bounds, Layout
from flute.attestation.binding import report_data
from flute.attestation.policy import AppraisalPolicy, write_policy
from flute.attestation.roots import Roots
from flute.enclaves import collector, hub
from flute.enclaves.context import (
    box_digest,
    box_info,
    check_digest,
    list_to_sign,
    policy_digest,
    policy_name,
)
from flute.enclaves.offers import accept_offers
from flute.errors import (
    BadSignature,
    BadTotal,
    Cheating,
    CodeNotApproved,
    Equivocation,
    FluteError,
    MisuseError,
    NotInRoster,
    NotPossible,
    OutOfOrder,
    RejectedEvidence,
    TooFewHubs,
    UntrustedEvidence,
)
from flute.messages.enclave import EnclaveBoxes
from flute.primitives.keys import AgreementKey, seal
from support.evidence_issuer import DAY, NOW, CcaIssuer, SnpIssuer, TpmIssuer

pytestmark = pytest.mark.requirement("URS-14")


@dataclass
class Changed:
    """A platform that makes evidence or shows a policy in another way than its issuer does."""

    issuer: Any
    how: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    bound: bytes = b""

    @property
    def roots(self) -> Roots:
        return self.issuer.roots

    def evidence(self, report_data: bytes, /) -> bytes:
        return self.issuer.evidence(self.bound or report_data, **self.how)

    def collateral(self) -> Any:
        return self.issuer.collateral(**self.beside)

    def policy(self) -> AppraisalPolicy:
        return self.issuer.policy()


def begun(round_: Round, name: str = "second") -> Any:
    made = round_.aggregators[name]
    made.begin(collector.for_aggregators(round_.start))
    return made


# --- boxes: dropped, twice, mixed, old ------------------------------------------------------------


def test_a_dropped_box_gives_no_total_and_the_control_does() -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    made = begun(round_)
    for name in HUBS[:2]:
        made.take(collector.box_for(round_.start, boxes[name], "second"))
    with pytest.raises(TooFewHubs, match="south"):
        made.finish()
    made.take(collector.box_for(round_.start, boxes["south"], "second"))
    assert made.finish().aggregator == "second"


def test_a_box_that_comes_twice_counts_once() -> None:
    round_ = Round()
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    totals = {}
    for name in ("first", "second"):
        made = begun(round_, name)
        for sent in (*boxes.values(), boxes["north"], *boxes.values()):
            made.take(collector.box_for(round_.start, sent, name))
        totals[name] = made.finish()
    assert np.array_equal(round_.total(boxes, totals), sum(vectors.values()))


def test_a_second_list_of_one_hub_is_refused_and_the_hub_named() -> None:
    round_ = Round()
    made = begun(round_)
    first, second = (round_.boxes("north", np.full(40, x)) for x in (1, 2))
    made.take(collector.box_for(round_.start, first, "second"))
    with pytest.raises(Cheating) as found:
        made.take(collector.box_for(round_.start, second, "second"))
    assert found.value.blamed == ("north",)


def test_a_box_of_another_list_under_a_good_signature_is_refused() -> None:
    """The coordinator mixes: box of one list, signature of the other; or another aggregator's box."""
    round_ = Round()
    made = begun(round_)
    first, second = (round_.boxes("north", np.full(40, x)) for x in (1, 2))
    good = collector.box_for(round_.start, first, "second")
    for box in (second.boxes[1], first.boxes[0]):
        with pytest.raises(Equivocation, match="listed"):
            made.take(replace(good, box=box))
    with pytest.raises(BadSignature):
        made.take(replace(collector.box_for(round_.start, second, "second"), signature=first.signature))
    with pytest.raises(BadSignature):
        made.take(replace(good, hub="south"))


def test_aggregators_that_were_given_different_lists_are_seen_by_the_total() -> None:
    """North signs two lists, and the coordinator gives each aggregator one: their lists differ, nothing is used."""
    round_ = Round()
    boxes = round_.all_boxes()
    other = boxes | {"north": round_.boxes("north", np.zeros(40, dtype=np.int64))}
    totals = {
        "first": round_.deliver(boxes, round_.aggregators["first"], "first").finish(),
        "second": round_.deliver(other, round_.aggregators["second"], "second").finish(),
    }
    for kept, liar in ((boxes, "second"), (other, "first")):
        with pytest.raises(Cheating) as found:
            round_.total(kept, totals)
        assert found.value.blamed == (liar,)


def test_boxes_of_an_old_round_are_refused() -> None:
    old, new = Round(number=6), Round(number=7)
    sent = old.all_boxes()["north"]
    with pytest.raises(Equivocation, match="another round"):
        begun(new).take(collector.box_for(old.start, sent, "second"))
    with pytest.raises(Equivocation, match="another round"):
        collector.check_boxes(new.start, sent, new.keys)
    relabelled = replace(sent, ctx=new.admit().ctx)
    with pytest.raises(BadSignature):
        begun(Round(number=7)).take(collector.box_for(new.start, relabelled, "second"))


def test_a_closed_round_and_one_that_gave_its_total_take_nothing() -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    made = round_.deliver(boxes, round_.aggregators["second"], "second")
    total = made.finish()
    other = round_.boxes("north", np.zeros(40, dtype=np.int64))
    with pytest.raises(OutOfOrder):
        made.take(collector.box_for(round_.start, other, "second"))
    assert made.take(collector.box_for(round_.start, boxes["north"], "second")).hubs == HUBS
    with pytest.raises(OutOfOrder):
        made.begin(collector.for_aggregators(round_.start))
    assert made.finish() == total
    made.close()
    with pytest.raises(OutOfOrder):
        made.take(collector.box_for(round_.start, boxes["north"], "second"))
    for call in (made.finish, made.close, lambda: made.begin(collector.for_aggregators(round_.start))):
        with pytest.raises(OutOfOrder):
            call()


# --- the set of hubs, the question, the keys --------------------------------------------------------


def test_an_aggregator_of_another_set_of_hubs_has_a_key_that_no_hub_seals_to() -> None:
    """The coordinator tells the second aggregator of a study of its own hubs: its evidence says so."""
    round_ = Round()
    smaller = terms(hubs=("east", "north", "stranger"))
    keys = {name: party(name).signing.public for name in smaller.hubs}
    lied = round_.aggregator("second", terms=smaller, keys=keys)
    offers = {"first": round_.offer("first"), "second": round_.offer("second", lied)}
    with pytest.raises(Equivocation, match="another round, agreement or roster"):
        round_.admit(round_.started(offers=offers))
    relabelled = replace(offers["second"], terms=offers["first"].terms)
    with pytest.raises(RejectedEvidence) as found:
        round_.admit(round_.started(offers=offers | {"second": relabelled}))
    assert found.value.reason == "report-data"


def test_hubs_and_aggregators_that_were_told_different_things_do_not_understand_each_other() -> None:
    """Question, size, check key or one aggregator's key: a box sealed under one is of another round to the other."""
    round_ = Round()
    sent = round_.all_boxes()["north"]
    told = collector.for_aggregators(round_.start)
    lies = (
        replace(told, question=bytes(32)), replace(told, size=41), replace(told, width=32),
        replace(told, check=check_digest(bytes(32))),
        replace(told, keys=(replace(told.keys[0], sealing_key=party("x").sealing.public), told.keys[1])),
    )  # fmt: skip
    for lie in lies:
        made = round_.aggregator("second")
        made.begin(lie)
        with pytest.raises(Equivocation, match="another round"):
            made.take(collector.box_for(round_.start, sent, "second"))
    begun(round_).take(collector.box_for(round_.start, sent, "second"))


def test_an_aggregator_begins_only_its_own_round_with_its_own_keys() -> None:
    round_ = Round()
    told = collector.for_aggregators(round_.start)
    swapped = (told.keys[0], replace(told.keys[1], signing_key=party("x").signing.public))
    for lie in (
        replace(told, round=8), replace(told, terms=terms(roster=bytes(32))), replace(told, keys=swapped),
        replace(told, keys=told.keys[::-1]),
    ):  # fmt: skip
        with pytest.raises(Equivocation):
            round_.aggregators["second"].begin(lie)


@pytest.mark.parametrize(
    ("changes", "raised"),
    [
        ({"terms": terms(roster=bytes(32))}, Equivocation),
        ({"terms": terms(hubs=(*HUBS, "west"))}, Equivocation),
        ({"terms": terms(aggregators=("second", "first"))}, Equivocation),
        ({"question": bytes(32)}, Equivocation),
        ({"layout": Layout(64, 41)}, Equivocation),
        ({"layout": Layout(32, 40)}, Equivocation),
        ({"layout": Layout(64, 4_000_001)}, NotPossible),
        ({"terms": terms(aggregators=("first",))}, NotPossible),
        ({"terms": terms(hubs=("east", "north"))}, NotPossible),
    ],
)
def test_a_hub_seals_nothing_under_other_terms_than_its_own(
    changes: dict[str, Any], raised: type[FluteError]
) -> None:
    with pytest.raises(raised):
        Round().admit(**changes)


def test_a_hub_that_took_the_coordinators_word_for_the_terms_would_be_read() -> None:
    """The control: hubs that the coordinator invented fill the set, and it subtracts what it put in itself."""
    round_ = Round(terms=terms(hubs=("invented", "north", "other")))
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    total = round_.total(boxes, round_.totals(boxes))
    assert np.array_equal(total - vectors["invented"] - vectors["other"], vectors["north"])


# --- evidence and policies --------------------------------------------------------------------------


def test_a_foreign_key_with_genuine_evidence_is_refused() -> None:
    """The coordinator puts its own key beside an honest enclave's evidence: then it could read the shares."""
    round_ = Round()
    mine = AgreementKey(bytes(range(32)))
    for changed in ({"sealing_key": mine.public}, {"signing_key": party("x").signing.public}):
        offers = {"first": round_.offer("first"), "second": replace(round_.offer("second"), **changed)}
        with pytest.raises(RejectedEvidence, match=r"^Aggregator second: ") as found:
            round_.admit(round_.started(offers=offers))
        assert found.value.reason == "report-data"
    round_.admit()


def test_without_the_binding_check_the_foreign_key_reads_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what the check is for."""
    round_ = Round()
    real = report_data(round_.offer("second").sealing_key, b"whatever")
    monkeypatch.setattr("flute.enclaves.offers.bound_data", lambda *_: real)
    platforms = {name: Changed(issuer, bound=real) for name, issuer in round_.platforms.items()}
    forged = Round(platforms=platforms)
    mine = AgreementKey(bytes(range(32)))
    offers = {"first": forged.offer("first"), "second": replace(forged.offer("second"), sealing_key=mine.public)}
    start = forged.started(offers=offers)
    sent = forged.boxes("north", np.full(40, 5), start)
    assert len(mine.open(sent.boxes[1], info=box_info(sent.ctx, "north", "second"))) > 320


@pytest.mark.parametrize(
    ("platform", "now", "raised", "reason"),
    [
        (Changed(SNP, {"measurement": bytes(48)}), NOW, RejectedEvidence, "measurement"),
        (Changed(TPM, {"registers": {0: bytes(32), 11: bytes(32)}}), NOW, RejectedEvidence, "measurement"),
        (Changed(SNP, beside={"crl": SNP.crl(since=NOW - 90 * DAY)}), NOW, UntrustedEvidence, None),
        (Changed(SNP), NOW + 500 * DAY, UntrustedEvidence, None),
        (Changed(SNP, {"policy": 1 << 17 | 1 << 19}), NOW, RejectedEvidence, "debug"),
        (Changed(SnpIssuer(name="stranger")), NOW, UntrustedEvidence, None),
        (Changed(TpmIssuer(name="stranger")), NOW, RejectedEvidence, "platform-key"),
    ],
    ids=["unapproved image", "unapproved start", "stale list", "expired chain", "debug", "strange root", "own TPM"],
)  # fmt: skip
def test_evidence_that_is_not_approved_or_not_fresh_is_refused(
    platform: Changed, now: int, raised: type[Exception], reason: str | None
) -> None:
    """Policy and roots are those of the approved platforms."""
    name = "first" if isinstance(platform.issuer, TpmIssuer) else "second"
    honest = Round()
    round_ = Round(platforms=dict(honest.platforms) | {name: platform})
    round_.policies, round_.codes, round_.now = honest.policies, honest.codes, now
    with pytest.raises(raised, match=rf"^Aggregator {name}: ") as found:
        round_.admit(round_.started())
    if reason is not None:
        assert found.value.reason == reason  # type: ignore[attr-defined]


def test_evidence_of_an_earlier_round_is_refused() -> None:
    old, new = Round(number=6), Round(number=7)
    replayed = old.offer("second")
    with pytest.raises(Equivocation):
        new.admit(new.started(offers={"first": new.offer("first"), "second": replayed}))
    with pytest.raises(RejectedEvidence) as found:
        new.admit(new.started(offers={"first": new.offer("first"), "second": replace(replayed, round=7)}))
    assert found.value.reason == "report-data"


def test_a_policy_that_hub_owners_did_not_approve_is_refused_by_every_hub() -> None:
    """The coordinator shows hubs a weaker policy; or one hub this, one hub that."""
    round_ = Round()
    weaker = write_policy(SNP.policy(measurements=(SNP.measurement.hex(), "00" * 48)))
    start = round_.started(policies=round_.policies | {"second": weaker})
    with pytest.raises(Equivocation, match="not the one that hub owners approved"):
        round_.admit(start)
    swapped = {"first": round_.policies["second"], "second": round_.policies["first"]}
    with pytest.raises(Equivocation):
        round_.admit(round_.started(policies=swapped))
    del round_.codes[policy_name("second")]
    with pytest.raises(CodeNotApproved):
        round_.admit()


def test_approved_bytes_that_are_no_canonical_policy_are_refused() -> None:
    round_ = Round()
    for raw in (b"{}x", round_.policies["second"] + b" "):
        round_.codes[policy_name("second")] = policy_digest(raw)
        with pytest.raises(NotPossible):
            round_.admit(round_.started(policies=round_.policies | {"second": raw}))


def test_development_evidence_is_refused_for_records_that_are_real() -> None:
    """The policy takes it; the study does not. The same for simulated records passes."""
    real = terms(simulated=False)
    round_ = Round(terms=real)
    with pytest.raises(RejectedEvidence, match="DEVELOPMENT") as found:
        round_.admit()
    assert found.value.reason == "development"
    Round().admit()


def test_two_aggregators_of_one_maker_are_refused_unless_both_are_development_and_records_simulated() -> None:
    both = {"first": SNP, "second": SnpIssuer(name="test", lent=False)}
    as_real = Roots(amd=SNP.roots.amd, intel=SNP.roots.intel, development=False)
    round_ = Round(terms=terms(simulated=False), platforms=both)
    round_.roots = as_real
    with pytest.raises(RejectedEvidence, match="AMD") as found:
        round_.admit()
    assert found.value.reason == "same-maker"
    Round(platforms=both).admit()
    arm = CcaIssuer()
    mixed = Round(terms=terms(simulated=False), platforms={"first": arm, "second": SNP})
    mixed.roots = as_real
    assert [a.maker for a in mixed.admit().accepted] == ["Arm", "AMD"]


def test_one_key_for_two_aggregators_is_refused() -> None:
    round_ = Round()
    first = round_.offer("first")
    same = replace(round_.offer("second"), sealing_key=first.sealing_key)
    with pytest.raises(Equivocation, match="one key"):
        accept_offers(
            round_.started(offers={"first": first, "second": same}), approved=round_.approved, now=NOW,
            roots=round_.roots,
        )  # fmt: skip


# --- hubs that cheat ----------------------------------------------------------------------------------


def forged_boxes(round_: Round, me: str, shares: tuple[bytes, bytes]) -> EnclaveBoxes:
    """What a malicious hub signs: whatever it likes, sealed and listed properly."""
    ctx = round_.admit().ctx
    boxes = tuple(
        seal(share, offer.sealing_key, info=box_info(ctx, me, offer.aggregator))
        for share, offer in zip(shares, round_.start.offers, strict=True)
    )
    digests = tuple(box_digest(box) for box in boxes)
    return EnclaveBoxes(ctx, me, boxes, party(me).signing.sign(list_to_sign(ctx, me, digests)))


@pytest.mark.parametrize(("name", "shares"), [("first", (bytes(31), b"")), ("second", (bytes(32), bytes(7)))])
def test_a_hub_that_seals_no_share_is_named_and_leaves_no_trace_in_the_sum(
    name: str, shares: tuple[bytes, bytes]
) -> None:
    round_ = Round()
    vectors = round_.vectors()
    made = begun(round_, name)
    with pytest.raises(Cheating) as found:
        made.take(collector.box_for(round_.start, forged_boxes(round_, "north", shares), name))
    assert found.value.blamed == ("north",)
    boxes = round_.all_boxes(vectors)
    for sent in boxes.values():
        made.take(collector.box_for(round_.start, sent, name))
    other = next(k for k in ("first", "second") if k != name)
    totals = {name: made.finish(), other: round_.deliver(boxes, round_.aggregators[other], other).finish()}
    assert np.array_equal(round_.total(boxes, totals), sum(vectors.values()))


def test_a_hub_cannot_pass_anothers_box_off_as_its_own() -> None:
    """South copies north's box: opened for south it is nothing, and south signed it."""
    round_ = Round()
    copied = round_.all_boxes()["north"].boxes
    ctx, digests = round_.admit().ctx, tuple(box_digest(box) for box in copied)
    lied = EnclaveBoxes(ctx, "south", copied, party("south").signing.sign(list_to_sign(ctx, "south", digests)))
    with pytest.raises(Cheating) as found:
        begun(round_).take(collector.box_for(round_.start, lied, "second"))
    assert found.value.blamed == ("south",)


def test_a_hub_whose_numbers_are_beyond_its_bounds_spoils_the_round_and_nothing_else() -> None:
    """Shares hide it from the aggregators; the total shows it. An honest hub's own code refuses such a vector."""
    round_ = Round()
    vectors, agreed = round_.vectors(), round_.bounds
    round_.bounds = Bounds(10**9, 3 * 10**9)
    large = round_.boxes("north", np.full(40, 10**9, dtype=np.int64))
    round_.bounds = agreed
    boxes = {name: large if name == "north" else round_.boxes(name, x) for name, x in vectors.items()}
    with pytest.raises(BadTotal, match="outside"):
        round_.total(boxes, round_.totals(boxes))
    with pytest.raises(MisuseError):
        round_.boxes("north", np.full(40, 10**9, dtype=np.int64))


def test_nobody_outside_the_study_gets_a_box_in() -> None:
    round_ = Round()
    sent = round_.all_boxes()["north"]
    for lie in (replace(sent, hub="stranger"), replace(sent, ctx=bytes(32)), replace(sent, boxes=sent.boxes * 2)):
        with pytest.raises(Equivocation):
            collector.check_boxes(round_.start, lie, round_.keys)
    with pytest.raises(BadSignature):
        collector.check_boxes(round_.start, replace(sent, hub="south"), round_.keys)
    with pytest.raises(NotInRoster):
        collector.check_boxes(round_.start, sent, {})
    with pytest.raises(MisuseError):
        hub.split(round_.admit(), np.zeros(40, dtype=np.int64), me="stranger", bounds=round_.bounds,
                  key=party("stranger").signing, rand=bytes(32))  # fmt: skip


def test_a_round_does_not_begin_without_every_aggregator() -> None:
    round_ = Round()
    offers = {name: round_.offer(name) for name in round_.aggregators}
    with pytest.raises(TooFewHubs, match="first"):
        round_.started(offers={"second": offers["second"]})
    with pytest.raises(TooFewHubs, match="second"):
        round_.started(offers=offers, policies={"first": round_.policies["first"]})
