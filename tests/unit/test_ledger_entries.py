"""Journal lines: a closed set of kinds, all bounded, none of which could hold a record."""

from __future__ import annotations

import typing

import msgspec
import pytest
from msgspec import inspect

from flute.defaults import MAX_JOURNAL_LINE_BYTES, MAX_TEXT_CHARS
from flute.errors import LedgerError, MisuseError
from flute.ledger.charge import Amount, Charge, Place
from flute.ledger.lines import entries as e

D = bytes(range(32))
PLACE, AMOUNT = Place("s1", "maria", "q1"), Amount(0.1, 1e-12, 3)
CHARGE = Charge(D, "s1", "q1", 0, "maria", "private", 0.1, 1e-12, 0, "secagg", "records", D, D)
EXAMPLES: list[e.Entry] = [
    e.ServiceStarted("0.1.0", D),
    e.Imported("records", "pilot", D, 100, 3, 4000, True),
    e.ByHand("records", "jordi", "keep-in", (D,), "despite no-scan", "The scan was done elsewhere."),
    e.PersonWithdrawn("jordi", D, ("records",), "She asked for it."),
    e.SnapshotReplaced("s1", "records", D, D),
    e.QualityAlarm("records", ("rows-fell",)),
    e.StudyProposed("s1", D, "maria"),
    e.ConsentGranted("s1", D, D, "jordi"),
    e.ConsentFollowed("s1", D, D, "jordi", "s0"),
    e.ConsentStands("s1", D, "jordi", 2.0, 1_800_000_000),
    e.ConsentStandsNoMore("s1", "jordi", "The year is over."),
    e.ConsentDenied("s1", D, "jordi", "Not our purpose."),
    e.ConsentWithdrawn("s1", D, "jordi", "A patient objected."),
    e.StudyClosed("s1", "ended", ""),
    e.QuestionReceived("s1", "q1", 0, "coordinator", D, 900),
    e.Refused("no-consent", "This hub has not consented.", "mallory", "secure-question", "s1", D),
    e.Reserved(CHARGE),
    e.Settled("s1", D, "released"),
    e.RecordSourceOpened("s1", "q1", D, D, ("age", "sex")),
    e.Released("s1", "q1", 0, D, D, 4000),
    e.Resent("s1", D, D, "coordinator"),
    e.ProtocolStep("s1", "echo", D, D),
    e.EvidenceAccepted("s1", "snp", "AMD", D, False),
    e.TicketDealt("s1", D),
    e.TicketBurnt("s1", D, "named"),
    e.KeyMade("study", D, "s1"),
    e.KeyErased("study", D, "s1"),
    e.PolicySet("jordi", D, "epsilon at most 3 for one study."),
    e.RosterAccepted(4, D, 2_000_000_000),
    e.PersonAct("jordi", "signed-in", ""),
    e.Allotted("jordi", PLACE, "records", AMOUNT, "As agreed."),
    e.AllotmentMoved("jordi", PLACE, Place("s2"), AMOUNT, "The pilot ended early."),
    e.StewardEnrolled("jordi", "berta", D),
    e.StewardRemoved("jordi", "berta"),
    e.ChangeProposed("jordi", D, "policy", 2_000_000_000, D + D, "allow this: epsilon at most 5 for one study."),
    e.ChangeConfirmed("berta", D, "policy", D + D),
    e.ChangeDropped("berta", D, "Not agreed."),
    e.WitnessKept(),
    e.JournalRecovered("jordi", 3, 9, D, AMOUNT, AMOUNT, "The disk failed."),
]
KINDS = typing.get_args(e.Entry)
PRICES = {
    "Reserved.charge", "Allotted.amount", "AllotmentMoved.amount", "JournalRecovered.per_study",
    "JournalRecovered.per_dataset", "ConsentStands",
}  # fmt: skip
"""What holds an epsilon, or a rho and a delta."""


def leaves(kind: inspect.Type, path: str) -> list[tuple[str, inspect.Type]]:
    if isinstance(kind, inspect.Metadata):
        return leaves(kind.type, path)
    if isinstance(kind, inspect.StructType):
        return [leaf for f in kind.fields for leaf in leaves(f.type, f"{path}.{f.name}")]
    if isinstance(kind, inspect.VarTupleType):
        assert kind.max_length is not None, f"{path} is a list without a bound"
        return leaves(kind.item_type, f"{path}[]")
    return [(path, kind)]


def all_leaves() -> list[tuple[str, inspect.Type]]:
    return [leaf for kind in KINDS for leaf in leaves(inspect.type_info(kind), kind.__name__)]


@pytest.mark.requirement("F-SRS-8")
def test_every_field_of_every_kind_is_bounded_and_none_can_hold_a_record() -> None:
    assert len(all_leaves()) > 70
    for path, kind in all_leaves():
        match kind:
            case inspect.StrType() | inspect.BytesType():
                assert kind.max_length is not None, path
                assert kind.max_length <= MAX_TEXT_CHARS, path
            case inspect.IntType():
                assert kind.ge is not None, path
                assert kind.le is not None, path
            case inspect.FloatType():
                assert path.rsplit(".", 1)[0] in PRICES, f"{path} could hold a measurement"
            case inspect.BoolType() | inspect.LiteralType():
                pass
            case _:
                pytest.fail(f"{path} is of an open type: {kind}")


def test_lists_hold_names_words_and_digests_only() -> None:
    assert sorted(path for path, _ in all_leaves() if "[]" in path) == [
        "ByHand.patients[]",
        "PersonWithdrawn.datasets[]",
        "QualityAlarm.alarms[]",
        "RecordSourceOpened.fields[]",
    ]


def test_the_walk_would_see_an_unbounded_field() -> None:
    class Open(msgspec.Struct):
        rows: tuple[float, ...]

    with pytest.raises(AssertionError, match="without a bound"):
        leaves(inspect.type_info(Open), "Open")


def test_the_examples_cover_every_kind() -> None:
    assert {type(entry) for entry in EXAMPLES} == set(KINDS)
    assert len({e.kind_of(entry) for entry in EXAMPLES}) == len(KINDS)


@pytest.mark.parametrize("entry", EXAMPLES, ids=e.kind_of)
def test_a_line_reads_back_as_it_was_written_and_is_a_sentence(entry: e.Entry) -> None:
    raw = e.write_entry(entry)
    assert e.read_entry(raw) == entry
    assert len(raw) < MAX_JOURNAL_LINE_BYTES
    said = entry.says()
    assert said[0].isalpha()
    assert said.endswith(".") or said.endswith("no reason given")
    assert e.study_of(entry) in {"", "s1"}


def test_the_largest_line_of_the_largest_kind_fits() -> None:
    names = tuple("x" * 64 for _ in range(256))
    raw = e.write_entry(e.RecordSourceOpened("s1", "q1", D, D, names))
    assert len(raw) <= MAX_JOURNAL_LINE_BYTES
    widest = e.Refused("no", "\U0001f512" * MAX_TEXT_CHARS, "m", "q")
    assert len(e.write_entry(widest)) <= MAX_JOURNAL_LINE_BYTES


@pytest.mark.parametrize(
    "entry",
    [
        e.PersonAct("jordi", "signed-in", "x" * 201),
        e.PersonAct("Jordi Puig", "signed-in", ""),
        e.Refused("no", "x" * (MAX_TEXT_CHARS + 1), "m", "q"),
        e.TicketDealt("s1", D + b"x"),
        e.RecordSourceOpened("s1", "q1", D, D, tuple("x" for _ in range(257))),
        e.Imported("records", "pilot", D, -1, 0, 0, False),
        e.Settled("s1", D, "forgotten"),  # type: ignore[arg-type]
        e.Reserved(msgspec.structs.replace(CHARGE, rho=float("nan"))),
        e.Reserved(msgspec.structs.replace(CHARGE, rho=float("inf"))),
        e.Reserved(msgspec.structs.replace(CHARGE, rho=-0.1)),
        e.Reserved(msgspec.structs.replace(CHARGE, study="")),
        e.PersonAct("jordi", "signed-in", object()),  # type: ignore[arg-type]
    ],
)
def test_a_line_out_of_its_bounds_is_not_written(entry: e.Entry) -> None:
    with pytest.raises(MisuseError, match="out of bounds"):
        e.write_entry(entry)


def test_one_meaning_has_one_encoding() -> None:
    whole = e.Reserved(msgspec.structs.replace(CHARGE, rho=1))
    assert e.write_entry(whole) == e.write_entry(e.Reserved(msgspec.structs.replace(CHARGE, rho=1.0)))


def test_a_kind_of_a_newer_version_is_said_to_be_one() -> None:
    with pytest.raises(LedgerError, match="newer version"):
        e.read_entry(msgspec.msgpack.encode({"kind": "teleported", "study": "s1"}))
    with pytest.raises(LedgerError):
        e.read_entry(b"\xff\xff")
