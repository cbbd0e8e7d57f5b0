"""The nine threat cells of every plan: what holds, on what that rests, what is left, which attack was tried.

One table. `flute threats`, the study agreement (its digest), every hub's consent page, the report of a run and
docs/threat-model.md are made from it. Rows: all parties honest but curious (H), an honest fraction of the parties
(P), an honest fraction of the data (D). Columns: no enclave trusted (N), some honest (S), all honest (A).
A verdict stands for a row where enclaves play no part, and for a cell where they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from flute.algorithms.contract import Mode
from flute.primitives.keys import digest
from flute.study.agreement import Agreement, PlanChoice, Question

Party = Literal["H", "P", "D"]
Enclave = Literal["N", "S", "A"]
PARTIES: Final[dict[Party, str]] = {
    "H": "all parties honest but curious",
    "P": "an honest fraction of the parties; the others, the coordinator among them, collude and cheat",
    "D": "an honest fraction of the data; the rest is poisoned",
}
ENCLAVES: Final[dict[Enclave, str]] = {
    "N": "no enclave trusted",
    "S": "some enclaves honest",
    "A": "all enclaves honest",
}
_ADVERSARY: Final = "tests/adversary/"


@dataclass(frozen=True, slots=True)
class Verdict:
    """because: why, in words for a data protection officer. assumes: on what that rests. residual: what is left all
    the same. test: the file whose attacks were tried: they win without the defence, and lose with it; where a cell
    does not hold, they win."""

    holds: bool
    because: str
    assumes: str
    residual: str
    test: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of one plan, as told."""

    plan: str
    mode: Mode
    parties: str
    enclaves: str
    holds: bool
    because: str
    assumes: str
    residual: str
    test: str


_STOPS: Final = "Any hub can stop a round, and the budget of that round is spent."
_POISONED: Final = Verdict(
    False,
    "A patient's pull is clipped by each hub's own service, but a hub that lies about its data can move the "
    "result. It learns nothing more by that.",
    "Nothing: the plan does not look at what a hub puts in.",
    "A result may be wrong, and nobody can be named. Write max_patients close to the truth; robust-mean resists a "
    "few false records, not a hub.",
    _ADVERSARY + "test_attacks_poisoning.py",
)
_POISONED_EXACT: Final = replace(_POISONED, because="As in private mode: a hub that lies moves the result.")
_OUTVOTED: Final = Verdict(
    True,
    "Every question of this study gives every hub one vote, however many patients it has, and opens nothing but the "
    "median of the votes: each number lies between honest hubs' own ones, whatever the others put in.",
    "Fewer than half of the hubs that vote have poisoned data, and fewer than half cheat while they compute.",
    "Nobody is named. A false hub chooses which of the honest votes next to the middle opens, and can lower the "
    "number of votes by abstaining. Where hospitals differ much, the median moves further.",
    _ADVERSARY + "test_models_robust.py",
)
_OUTVOTING: Final = frozenset({"robust-model"})
"""Algorithms in which hubs in a minority cannot drag the result, under plan mpc."""
_SUBTRACTION: Final = (
    "colluding hubs subtract their own from an exact total and see the sum "
    "of the rest. Only the fixed list of questions and the floor limit what that tells."
)

_SECAGG: Final[dict[tuple[Mode, Party], Verdict]] = {
    ("private", "H"): Verdict(
        True,
        "Every party sees only the total of all hubs, covered by the noise of all of them.",
        "X25519, AES-256 and SHA-256 are sound; each hub's chance comes from its operating system.",
        _STOPS,
        _ADVERSARY + "test_secagg_sees_only_totals.py",
    ),
    ("private", "P"): Verdict(
        True,
        "Masks open only what a threshold of hubs signed for; the noise of the honest hubs alone is what is "
        "charged. Holds up to the number of colluding hubs that the agreement names, the coordinator included.",
        "No more hubs collude than the agreement names; the roster's owners are not outvoted.",
        "A cheating hub can spoil a total unseen, as far as max_patients at every hub would allow. " + _STOPS,
        _ADVERSARY + "test_secagg_cheats.py",
    ),
    ("private", "D"): _POISONED,
    ("exact", "H"): Verdict(
        True,
        "Every party sees only exact totals of all hubs; no epsilon bounds what they tell about a patient.",
        "As in private mode; and that the fixed list of questions was read before it was agreed to.",
        "Exact totals of many questions can be combined. " + _STOPS,
        _ADVERSARY + "test_secagg_sees_only_totals.py",
    ),
    ("exact", "P"): Verdict(
        False,
        "No single hub's answer opens, but " + _SUBTRACTION,
        "No more hubs collude than the agreement names.",
        "Whoever colludes with all hubs but two knows the sum of those two.",
        _ADVERSARY + "test_secagg_cheats.py",
    ),
    ("exact", "D"): _POISONED_EXACT,
}
_WITHOUT_ECHO: Final = replace(
    _SECAGG["private", "P"],
    because="Without the echo a coordinator that lies can open sums over fewer hubs than it says; the noise is "
    "scaled for the smallest set of honest hubs that it can reach so.",
)

_MPC: Final[dict[tuple[Mode, Party], Verdict]] = {
    ("private", "H"): Verdict(
        True,
        "Hubs compute on shares; the coordinator carries sealed boxes, and only the total, under the noise of all "
        "hubs, is opened.",
        "Fewer than half of the hubs pool their shares; X25519 and AES-256 are sound.",
        "How long a computation takes and how large its messages are is public. " + _STOPS,
        "tests/statistics/test_mpc_views.py",
    ),
    ("private", "P"): Verdict(
        True,
        "Fewer than half of the hubs learn nothing from their shares, and a hub that changes any message is noticed "
        "before a total opens; the noise of the honest hubs alone is what is charged.",
        "Cheating hubs are fewer than half, and no more than the agreement names; the coordinator may be among them.",
        "A cheat cannot always be named. What a hub puts in is proven to be within what its patients could come to, "
        "and no more. " + _STOPS,
        _ADVERSARY + "test_mpc_cheats.py",
    ),
    ("private", "D"): _POISONED,
    ("exact", "H"): Verdict(
        True,
        "Hubs compute on shares, and only exact totals of all hubs are opened; no epsilon bounds what they tell "
        "about a patient.",
        "As in private mode; and that the fixed list of questions was read before it was agreed to.",
        "Exact totals of many questions can be combined. " + _STOPS,
        "tests/statistics/test_mpc_views.py",
    ),
    ("exact", "P"): Verdict(
        False,
        "Shares hide every hub's answer, but " + _SUBTRACTION,
        "Cheating hubs are fewer than half.",
        "Whoever colludes with all hubs but two knows the sum of those two.",
        _ADVERSARY + "test_mpc_cheats.py",
    ),
    ("exact", "D"): _POISONED_EXACT,
}

_THRESHOLD: Final[dict[tuple[Mode, Party], Verdict]] = {
    ("private", "H"): Verdict(
        True,
        "Answers travel encrypted, and are added while encrypted; only their total, under the noise of all hubs, is "
        "opened, by as many hubs as the agreement asks for.",
        "The decisional Diffie-Hellman problem is hard in ristretto255.",
        _STOPS,
        _ADVERSARY + "test_threshold_coordinator.py",
    ),
    ("private", "P"): Verdict(
        True,
        "A hub gives its part of the key only for the sum of all hubs' answers, which it has added up itself; fewer "
        "parts than agreed open nothing, a wrong part is named by its proof, and the noise of the honest hubs alone "
        "is what is charged.",
        "No more hubs collude than the agreement names, and fewer than are needed to open.",
        "A hub may put in any number, up to what all hubs' patients could come to. " + _STOPS,
        _ADVERSARY + "test_threshold_coordinator.py",
    ),
    ("private", "D"): _POISONED,
    ("exact", "H"): Verdict(
        True,
        "Answers are added while encrypted, and only exact totals of all hubs are opened; no epsilon bounds what "
        "they tell about a patient.",
        "As in private mode; and that the fixed list of questions was read before it was agreed to.",
        "Exact totals of many questions can be combined. " + _STOPS,
        _ADVERSARY + "test_threshold_coordinator.py",
    ),
    ("exact", "P"): Verdict(
        False,
        "No single hub's answer opens, but " + _SUBTRACTION,
        "Fewer hubs collude than are needed to open.",
        "Whoever colludes with all hubs but two knows the sum of those two.",
        _ADVERSARY + "test_threshold_coordinator.py",
    ),
    ("exact", "D"): _POISONED_EXACT,
}

_ENCLAVE_TEST: Final = _ADVERSARY + "test_enclaves_malicious.py"
_ENCLAVE_N: Final = Verdict(
    False,
    "Each enclave holds one part of every hub's answer. If all of them are malicious and put their parts together, "
    "they see every hub's answer, under that hub's own noise alone.",
    "Nothing protects here; the agreement says so.",
    "Choose secagg or mpc where no enclave's maker is trusted.",
    _ENCLAVE_TEST,
)
_ENCLAVE: Final[dict[tuple[Mode, Party], Verdict]] = {
    ("private", "H"): Verdict(
        True,
        "Each hub splits its answer into parts that say nothing alone, one for each enclave, and seals each part to "
        "a key that the enclave's maker vouches for; only the total, under the noise of all hubs, comes out.",
        "At least one enclave runs the agreed software untouched; its maker's signing keys are safe.",
        "Enclaves leak through their power and timing in ways that are found every year. " + _STOPS,
        _ENCLAVE_TEST,
    ),
    ("private", "P"): Verdict(
        True,
        "An honest enclave adds up the parts of all hubs or none, once, and checks each hub's signature; so the "
        "parts of any others open nothing but the total, and the noise of the honest hubs alone is what is charged.",
        "At least one enclave is honest; no more hubs collude than the agreement names.",
        "A malicious enclave can stop a round; a total that it changed is noticed, unless a hub helps it. " + _STOPS,
        _ENCLAVE_TEST,
    ),
    ("private", "D"): _POISONED,
    ("exact", "H"): Verdict(
        True,
        "Answers are split among the enclaves, and only exact totals of all hubs come out; no epsilon bounds what "
        "they tell about a patient.",
        "At least one enclave is honest; the fixed list of questions was read before it was agreed to.",
        "Exact totals of many questions can be combined. " + _STOPS,
        _ENCLAVE_TEST,
    ),
    ("exact", "P"): Verdict(
        False,
        "An honest enclave keeps every single hub's answer closed, but " + _SUBTRACTION,
        "At least one enclave is honest.",
        "Whoever colludes with all hubs but two knows the sum of those two.",
        _ENCLAVE_TEST,
    ),
    ("exact", "D"): _POISONED_EXACT,
}

_COMBINED_TEST: Final = _ADVERSARY + "test_enclaves_combined.py"
_ALL_NEEDED: Final = "Any hub and any enclave can stop a round, and the budget of that round is spent."
_COMBINED_N: Final = Verdict(
    True,
    "If all enclaves are malicious they see masked answers, which is what plan secagg shows its coordinator: masks "
    "open only what a threshold of hubs signed for, and the noise of the honest hubs alone is what is charged.",
    "No more hubs collude than the agreement names; the roster's owners are not outvoted.",
    "A cheating hub, or all enclaves together, can spoil a total unseen, as far as max_patients at every hub would "
    "allow. " + _ALL_NEEDED,
    _COMBINED_TEST,
)
_COMBINED: Final[dict[tuple[Mode, Party], Verdict]] = {
    ("private", "H"): Verdict(
        True,
        "Hubs mask their answers, and split what is masked among enclaves: no party and no enclave sees more than "
        "the total of all hubs, covered by the noise of all of them. Masks or one honest enclave would do alone.",
        "X25519, AES-256 and SHA-256 are sound; each hub's chance comes from its operating system. No enclave has to "
        "be trusted.",
        _ALL_NEEDED,
        _COMBINED_TEST,
    ),
    ("private", "P"): Verdict(
        True,
        "An answer stays closed as long as either holds: masks open only what a threshold of hubs signed for, and an "
        "honest enclave adds up the parts of all hubs or none, once. The noise of the honest hubs alone is what is "
        "charged.",
        "No more hubs collude than the agreement names; the roster's owners are not outvoted.",
        "If more hubs collude, an honest enclave still keeps every single answer closed, but the noise on the sum of "
        "the others is less than what was charged. A malicious enclave can stop a round; a total that it changed is "
        "noticed, unless a hub helps it. A cheating hub can spoil a total unseen, as far as max_patients at every "
        "hub would allow. " + _STOPS,
        _COMBINED_TEST,
    ),
    ("private", "D"): _POISONED,
    ("exact", "H"): Verdict(
        True,
        "Answers are masked and split among enclaves, and every party sees only exact totals of all hubs; no epsilon "
        "bounds what they tell about a patient.",
        "As in private mode; and that the fixed list of questions was read before it was agreed to.",
        "Exact totals of many questions can be combined. " + _ALL_NEEDED,
        _COMBINED_TEST,
    ),
    ("exact", "P"): Verdict(
        False,
        "No single hub's answer opens while the masks or one enclave hold, but " + _SUBTRACTION,
        "No more hubs collude than the agreement names, or at least one enclave is honest.",
        "Whoever colludes with all hubs but two knows the sum of those two.",
        _COMBINED_TEST,
    ),
    ("exact", "D"): _POISONED_EXACT,
}
_TABLES: Final = {
    "secagg": _SECAGG, "mpc": _MPC, "threshold-he": _THRESHOLD, "enclave": _ENCLAVE, "secagg-enclave": _COMBINED,
}  # fmt: skip


def outvotes(questions: Iterable[Question]) -> bool:
    """Whether no question of a study can be dragged by a minority of hubs with poisoned data."""
    return all(question.what.__struct_config__.tag in _OUTVOTING for question in questions)


def verdict(plan: PlanChoice, mode: Mode, parties: Party, enclaves: Enclave, *, outvoting: bool = False) -> Verdict:
    if outvoting and parties == "D" and plan.name == "mpc":
        return _OUTVOTED
    if plan.name == "enclave" and enclaves == "N" and parties != "D":
        return _ENCLAVE_N
    if plan.name == "secagg-enclave" and (mode, parties, enclaves) == ("private", "P", "N"):
        return _COMBINED_N
    if plan.name == "secagg" and not plan.echo and (mode, parties) == ("private", "P"):
        return _WITHOUT_ECHO
    return _TABLES[plan.name][mode, parties]


def guarantees(mode: Mode, plan: PlanChoice, *, outvoting: bool = False) -> tuple[Cell, ...]:
    """The nine cells, row by row. outvoting: see `outvotes`."""
    verdicts = {(p, e): verdict(plan, mode, p, e, outvoting=outvoting) for p in PARTIES for e in ENCLAVES}
    return tuple(
        Cell(plan.name, mode, PARTIES[p], ENCLAVES[e], v.holds, v.because, v.assumes, v.residual, v.test)
        for (p, e), v in verdicts.items()
    )


def promised(agreement: Agreement) -> tuple[Cell, ...]:
    """The nine cells of one study."""
    return guarantees(agreement.mode, agreement.plan, outvoting=outvotes(agreement.questions))


def guarantees_digest(mode: Mode, plan: PlanChoice, questions: Iterable[Question]) -> bytes:
    """Names what was promised, word for word: an agreement carries it, so nobody consents to another table."""
    parts: list[bytes] = []
    for cell in guarantees(mode, plan, outvoting=outvotes(questions)):
        words = (cell.parties, cell.enclaves, cell.because, cell.assumes, cell.residual)
        parts += [bytes([cell.holds]), *(word.encode() for word in words)]
    return digest(b"flute/guarantees/v1", *parts)
