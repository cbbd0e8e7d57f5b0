"""Exact questions by the thousand: reconstruction, trackers, refusals as an oracle; what ends them, what does not.

Fifty persons are planted among 1,200. A researcher who may ask anything that an agreement can say, and who knows of
everybody which values are missing, tries to tell something of each of them for certain. The hubs allow exact results
and leave all else at its default: a floor of 10, 5,000 numbers, and one judgement over all exact studies together
(`study.exact_rule`). Controls: the floor and the cap alone; neither of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from adversary.exact_asker import Asked, ExactHubs, binary, exact_study, number, renamed
from flute.algorithms.contract import Describe, LogisticRegression, Spec, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import DISCLOSURE_FLOOR, EXACT_MAX_NUMBERS
from flute.hub.store import HubPolicy
from flute.study.exact_rule import counts_of_few
from support.folders import quick_folder

PLANTED, ROWS, QUESTIONS = 50, 400, 10_000
DEFAULTS = HubPolicy(exact_allowed=True)
OPEN = HubPolicy(exact_allowed=True, floor=1, max_numbers=10**7)
Columns = dict[str, Array]

pytestmark = pytest.mark.requirement("F-PIL-21")


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def hubs_of(columns: list[Columns], variables: list[StudyVariable]) -> list[Dataset]:
    named = [v.variable for v in variables]
    return [Dataset(np.array([f"{hub}-{i}" for i in range(ROWS)]), c, named) for hub, c in enumerate(columns)]


def put(
    folder: Path, records: list[Dataset], variables: list[StudyVariable], studies: Iterator[dict[str, Spec]],
    policy: HubPolicy, *, together: bool, most: int,
) -> Asked:  # fmt: skip
    """Put studies until `most` questions were put."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    hubs, asked = ExactHubs(folder, records, policy, together=together), Asked()
    first = exact_study("s0", variables, next(studies))
    hubs.ask(first, asked)
    for place, questions in enumerate(studies, start=1):
        if asked.questions >= most:
            break
        hubs.ask(renamed(first, f"s{place}", questions), asked)
    hubs.close()
    return asked


def test_the_defaults_are_the_ones_that_are_attacked_here() -> None:
    assert (DEFAULTS.floor, DEFAULTS.max_numbers) == (DISCLOSURE_FLOOR, EXACT_MAX_NUMBERS) == (10, 5_000)
    assert not HubPolicy().exact_allowed


# --- tracker: two cohorts that differ by one person --------------------------------------------------

LACKING = [number("age"), binary("ill"), *(binary(f"b{k}") for k in range(PLANTED))]


def lacking_records(rng: np.random.Generator) -> list[Columns]:
    """Everybody has everything, but for the k-th planted person, who lacks b_k."""
    hubs: list[Columns] = []
    for _ in range(3):
        columns: Columns = {"age": rng.normal(60, 10, ROWS).clip(1, 99), "ill": (rng.random(ROWS) < 0.3) * 1.0}
        hubs.append(columns | {f"b{k}": (rng.random(ROWS) < 0.4) * 1.0 for k in range(PLANTED)})
    for k in range(PLANTED):
        hubs[k % 3][f"b{k}"][k] = np.nan
    return hubs


def tracker_studies() -> Iterator[dict[str, Spec]]:
    """A model of all, then one of all who have b_k, for every k, over and over with other names."""
    while True:
        yield {"all": LogisticRegression("ill", ("age",))}
        for k in range(PLANTED):
            yield {f"without{k}": LogisticRegression("ill", ("age", f"b{k}"))}


def tracked(asked: Asked, hubs: list[Columns]) -> int:
    """Planted persons whose age and outcome were read off two sums."""
    everybody, found = asked.answers.get("s0/all"), 0
    for k in range(PLANTED):
        others = asked.answers.get(f"s{k + 1}/without{k}")
        if everybody is None or others is None or round(everybody[0] - others[0]) != 1:
            continue
        gradient = everybody[2:4] - others[2:4]
        age, ill = 50 + 50 * gradient[1] / gradient[0], gradient[0] > 0
        row = (hubs[k % 3]["age"][k], hubs[k % 3]["ill"][k])
        found += abs(age - row[0]) < 1e-6 and bool(ill) == bool(row[1])
    return found


def test_a_tracker_over_missing_values_finds_nobody(folder: Path) -> None:
    """Found without the judgement over all studies: every one of these studies keeps to the floor by itself, and 557
    numbers told the age and the outcome of all fifty."""
    columns = lacking_records(np.random.default_rng(1))
    records = hubs_of(columns, LACKING)
    asked = put(folder, records, LACKING, tracker_studies(), DEFAULTS, together=True, most=QUESTIONS)
    assert (asked.questions, tracked(asked, columns)) == (QUESTIONS, 0)
    assert asked.opened <= EXACT_MAX_NUMBERS
    for policy in (DEFAULTS, OPEN):
        control = put(folder, records, LACKING, tracker_studies(), policy, together=False, most=PLANTED + 1)
        assert tracked(control, columns) == PLANTED
        assert control.opened < 600


# --- tracker: bins that cut a variable at many places ------------------------------------------------

ONE = [number("x")]


def binned_studies() -> Iterator[dict[str, Spec]]:
    while True:
        for bins in range(4, 65):
            yield {f"x{bins}": Describe(("x",), bins=bins)}


def alone(asked: Asked) -> list[tuple[float, float]]:
    """Intervals in which, by two cumulative counts, exactly one person is."""
    below: dict[Fraction, float] = {Fraction(0): 0.0}
    for name, total in asked.answers.items():
        bins = int(name.rpartition("/x")[2])
        below |= {Fraction(j + 1, bins): float(c) for j, c in enumerate(np.cumsum(total[:bins]))}
    cuts = sorted(below)
    return [(100 * float(a), 100 * float(b)) for a, b in pairwise(cuts) if round(below[b] - below[a]) == 1]


def test_a_tracker_over_bins_finds_nobody(folder: Path) -> None:
    rng = np.random.default_rng(2)
    columns: list[Columns] = [{"x": rng.uniform(0, 100, ROWS)} for _ in range(3)]
    records = hubs_of(columns, ONE)
    asked = put(folder, records, ONE, binned_studies(), DEFAULTS, together=True, most=QUESTIONS)
    assert alone(asked) == []
    assert asked.opened <= EXACT_MAX_NUMBERS
    by_floor_and_cap = put(folder, records, ONE, binned_studies(), DEFAULTS, together=False, most=61)
    neither = put(folder, records, ONE, binned_studies(), OPEN, together=False, most=61)
    assert alone(by_floor_and_cap), "the control: cuts that each keep to the floor leave a cell of one"
    assert len(alone(neither)) > 200
    assert all(_persons(columns, cell) == 1 for cell in alone(neither))


def _persons(columns: list[Columns], cell: tuple[float, float]) -> int:
    return int(sum(((c["x"] >= cell[0]) & (c["x"] < cell[1])).sum() for c in columns))


# --- reconstruction: random cohorts ------------------------------------------------------------------

SIGNS = 40
PATTERNS = [binary("ill"), *(binary(f"c{k}") for k in range(SIGNS))]


def pattern_records(rng: np.random.Generator) -> list[Columns]:
    """Every sign is missing for half of the persons, at random: each set of signs is a random cohort."""
    hubs: list[Columns] = []
    for _ in range(3):
        columns: Columns = {"ill": (rng.random(ROWS) < 0.4) * 1.0}
        for k in range(SIGNS):
            columns[f"c{k}"] = np.where(rng.random(ROWS) < 0.5, (rng.random(ROWS) < 0.5) * 1.0, np.nan)
        hubs.append(columns)
    return hubs


def cohort_studies(rng: np.random.Generator) -> Iterator[dict[str, Spec]]:
    """Sixty-four random cohorts a study, two signs each."""
    while True:
        pairs = [tuple(sorted(rng.choice(SIGNS, 2, replace=False).tolist())) for _ in range(64)]
        yield {f"m{a}-{b}": LogisticRegression("ill", (f"c{a}", f"c{b}")) for a, b in dict.fromkeys(pairs)}


def reconstructed(asked: Asked, columns: list[Columns]) -> int:
    """Of the fifty first persons of north, those whose outcome follows from the opened sums for certain, and rightly:
    whose unit vector is a combination of the cohorts that were summed over."""
    equations: dict[tuple[int, int], float] = {}
    for name, total in asked.answers.items():
        a, b = (int(k) for k in name.rpartition("/m")[2].split("-"))
        equations[a, b] = float(total[2])
    if not equations:
        return 0
    there = np.vstack([np.isfinite(np.column_stack([c[f"c{k}"] for k in range(SIGNS)])) for c in columns])
    cohorts = np.array([there[:, a] & there[:, b] for a, b in equations], dtype=np.float64)
    solution, _, rank, _ = np.linalg.lstsq(cohorts, np.array(list(equations.values())), rcond=1e-9)
    right = np.linalg.svd(cohorts, full_matrices=False)[2][:rank]
    certain = np.sum(right**2, axis=0) > 1 - 1e-6
    truth = np.concatenate([c["ill"] for c in columns]) - 0.5
    return int(np.sum((certain & (np.abs(solution - truth) < 1e-3))[:PLANTED]))


def test_reconstruction_from_random_cohorts_finds_nobody(folder: Path) -> None:
    """10,000 models over random cohorts. Their counts together are of few persons, so none is answered; with the cap
    alone some 460 are, which is fewer than there are persons. Without the cap, and with fewer persons than sums, all
    outcomes are read."""
    columns = pattern_records(np.random.default_rng(3))
    records = hubs_of(columns, PATTERNS)
    studies = cohort_studies(np.random.default_rng(4))
    asked = put(folder, records, PATTERNS, studies, DEFAULTS, together=True, most=QUESTIONS)
    assert asked.questions >= QUESTIONS
    assert reconstructed(asked, columns) == 0
    assert asked.opened <= EXACT_MAX_NUMBERS


def test_without_cap_and_judgement_random_cohorts_give_every_outcome(folder: Path) -> None:
    columns = [{k: v[:100] for k, v in hub.items()} for hub in pattern_records(np.random.default_rng(3))]
    named = [v.variable for v in PATTERNS]
    records = [Dataset(np.array([f"{h}-{i}" for i in range(100)]), c, named) for h, c in enumerate(columns)]
    studies = cohort_studies(np.random.default_rng(4))
    control = put(folder, records, PATTERNS, studies, OPEN, together=False, most=448)
    assert reconstructed(control, columns) == PLANTED


def test_ten_thousand_questions_end_at_the_cap(folder: Path) -> None:
    """The same question in ever new studies, which tells of nobody: 5,000 numbers are opened over all of them."""
    columns: list[Columns] = [{"x": np.random.default_rng(5).uniform(0, 100, ROWS)} for _ in range(3)]

    def studies() -> Iterator[dict[str, Spec]]:
        while True:
            yield {f"x4-{k}": Describe(("x",), bins=4) for k in range(64)}

    asked = put(folder, hubs_of(columns, ONE), ONE, studies(), DEFAULTS, together=True, most=QUESTIONS)
    assert asked.questions >= QUESTIONS
    assert EXACT_MAX_NUMBERS - 7 < asked.opened <= EXACT_MAX_NUMBERS
    assert len(asked.answers) + asked.capped == asked.questions
    assert asked.refused == []


# --- refusals as an oracle ---------------------------------------------------------------------------

TAILS = [number(f"t{k}") for k in range(PLANTED)]


def tail_records(rng: np.random.Generator) -> tuple[list[Columns], Array]:
    """The k-th planted person, if she is in the data at all, is the only one above 50 in t_k."""
    there = rng.random(PLANTED) < 0.5
    hubs: list[Columns] = [{f"t{k}": rng.uniform(0, 49, ROWS) for k in range(PLANTED)} for _ in range(3)]
    for k in np.flatnonzero(there):
        hubs[k % 3][f"t{k}"][k] = 80.0
    return hubs, there


def said(asked: Asked, *, together: bool) -> set[int]:
    """Who is there by what refusals say: a study that was about her alone was refused on account of its counts. Where
    the first refusal ends everything, later ones say nothing."""
    refused = [int(name[1:]) for name in asked.refused]
    return set(refused[:1] if together else refused)


def test_refusals_tell_of_one_person_at_most_and_of_none_where_all_are_asked_about_at_once(folder: Path) -> None:
    """The oracle: a study about t_k alone is refused where somebody is in its tail. One by one the floor by itself
    tells of every planted person who is there. With one judgement over all studies the first refusal is the last, so
    it tells of one of fifty; whoever bundles all questions in one study learns that somebody is there, and of nobody.
    """
    columns, there = tail_records(np.random.default_rng(6))
    records = hubs_of(columns, TAILS)

    def one_by_one() -> Iterator[dict[str, Spec]]:
        while True:
            for k in range(PLANTED):
                yield {f"q{k}": Describe((f"t{k}",), bins=4)}

    def bundled() -> Iterator[dict[str, Spec]]:
        while True:
            yield {f"q{k}": Describe((f"t{k}",), bins=4) for k in range(PLANTED)}

    control = put(folder, records, TAILS, one_by_one(), DEFAULTS, together=False, most=PLANTED)
    assert said(control, together=False) == set(np.flatnonzero(there).tolist())
    single = put(folder, records, TAILS, one_by_one(), DEFAULTS, together=True, most=QUESTIONS)
    assert len(said(single, together=True)) <= 1
    assert single.questions >= QUESTIONS
    once = put(folder, records, TAILS, bundled(), DEFAULTS, together=True, most=QUESTIONS)
    assert once.answers == {}
    assert len(once.refused) == once.questions / PLANTED


# --- the judgement itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_ordinary_studies_are_not_refused_by_the_judgement(share: float) -> None:
    """Nested models and tables over values that are missing at random, as studies have them."""
    rng = np.random.default_rng(8)
    variables = [number("age"), number("level"), binary("sex"), binary("ill")]
    columns: Columns = {v.variable.name: (rng.random(ROWS) < 0.4) * 1.0 for v in variables}
    columns |= {"age": rng.normal(50, 15, ROWS).clip(0, 100), "level": rng.normal(50, 15, ROWS).clip(0, 100)}
    columns["level"][rng.random(ROWS) < share] = np.nan
    columns["sex"][rng.random(ROWS) < share] = np.nan
    questions: dict[str, Spec] = {
        "small": LogisticRegression("ill", ("age",)),
        "middle": LogisticRegression("ill", ("age", "sex")),
        "large": LogisticRegression("ill", ("age", "sex", "level")),
        "who": Describe(("sex", "ill")),
    }
    data = Dataset(np.array([str(i) for i in range(ROWS)]), columns, [v.variable for v in variables])
    assert not counts_of_few([exact_study("nested", variables, questions)], data)


def test_no_combination_of_counts_that_passed_is_about_fewer_than_three() -> None:
    """The claim of `study.exact_rule`, tried: every difference of two unions of counts, over many random tables."""
    rng, passed = np.random.default_rng(9), 0
    for _ in range(60):
        size, variables = int(rng.integers(20, 60)), [binary("a"), binary("b")]
        columns: Columns = {v.variable.name: (rng.random(size) < 0.5) * 1.0 for v in variables}
        for column in columns.values():
            column[rng.random(size) < 0.2] = np.nan
        data = Dataset(np.array([str(i) for i in range(size)]), columns, [v.variable for v in variables])
        study = exact_study("tried", variables, {"m": LogisticRegression("a", ("b",)), "d": Describe(("a", "b"))})
        if counts_of_few([study], data):
            continue
        passed += 1
        counted = np.column_stack(
            [np.isnan(c) for c in columns.values()] + [c == v for c in columns.values() for v in (0, 1)]
        )
        both = np.isfinite(columns["a"]) & np.isfinite(columns["b"])
        for one in (*counted.T, both):
            for other in (*counted.T, both):
                apart = one.astype(int) - other.astype(int)
                if apart.min() >= 0:
                    assert apart.sum() == 0 or apart.sum() >= 3
    assert passed > 10
