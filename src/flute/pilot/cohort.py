"""Who belongs in the pilot's cohort: its criteria as declared rules, in the pilot's order, and what is declared.

Every condition speaks of the columns of `chart`, one row per man, which `pilot.recipe` makes out of his resources.
A criterion has to be shown to hold by the records or by the steward's declaration: a man whose gender is not
recorded is not shown to be a man, and scores of an unknown version are not shown to be of version 2.0. The one
exception is the suspicion: a value that was not recorded is no evidence against it, so he stays, flagged.
Source: HL7 Europe FLUTE requirements, F-PIL-1 to F-PIL-4, F-PIL-9, F-PIL-27 to F-PIL-32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from flute.cohort.contradictions import CHOICES, IDENTITIES, Choice, Contradictions, Identity
from flute.cohort.facts import NO, UNKNOWN, YES, Fact, read_facts, version
from flute.cohort.rules import Cohort, Flag, Rule

Scheme = Literal["systematic-and-targeted", "systematic", "other"]
PURPOSE: Final = "Men with suspected prostate cancer, MRI before the biopsy"


@dataclass(frozen=True, slots=True)
class Declared:
    """What no resource can say and the steward declares for the dataset.

    `pirads_version`: by which the MRIs were read, or `unknown`. `scheme`: how men were biopsied; "systematic" alone
    leaves out those with PI-RADS 3 or more. `no_record_means_no_family_history`: otherwise a man without any
    record of his family is missing it. `keep_unverified_timing`: keep men whose biopsy or MRI has no date to
    compare. `contradictions`: what counts where records contradict each other.
    """

    pirads_version: str = "2.1"
    scheme: Scheme = "systematic-and-targeted"
    no_record_means_no_family_history: bool = False
    keep_unverified_timing: bool = True
    contradictions: Contradictions = field(default_factory=Contradictions)

    @property
    def version(self) -> str:
        """SQL: the declared version, NULL where it is unknown. Raises: MisuseError: it is no version."""
        number = version(self.pirads_version, "PI-RADS version")
        return "CAST(NULL AS DOUBLE)" if number is None else f"CAST({number} AS DOUBLE)"


FACTS: Final = (
    Fact("pirads-version", (), "2.1", f"By which version of PI-RADS were the MRIs read? ({UNKNOWN!r} is an answer)",
         "F-PIL-3"),
    Fact("biopsy-scheme", ("systematic-and-targeted", "systematic", "other"), "systematic-and-targeted",
         "How was biopsied: systematically, and targeted where PI-RADS is 3 or more?", "F-PIL-4"),
    Fact("no-record-means-no-family-history", (NO, YES), NO,
         "Does a man without any record of his family have no prostate cancer in it?"),
    Fact("keep-unverified-timing", (YES, NO), YES,
         "Is a man kept whose biopsy or MRI has no date, so that the time between them is unknown?", "F-PIL-1"),
    Fact("same-day", CHOICES, "last", "Which of several values of one kind and day counts?"),
    Fact("same-biopsy", CHOICES, "highest", "Which of several outcomes of one biopsy counts?"),
    Fact("two-identities", IDENTITIES, "refuse-person", "What of a man with two birth dates or genders?"),
)  # fmt: skip
"""What the steward is asked, with what holds until he answers."""


def declared_of(facts: Mapping[str, str]) -> Declared:
    """From declared facts by name. Raises: MisuseError: a name that is none, or a value that it cannot have."""
    said = read_facts(FACTS, facts)
    return Declared(
        pirads_version=said["pirads-version"],
        scheme=cast("Scheme", said["biopsy-scheme"]),
        no_record_means_no_family_history=said["no-record-means-no-family-history"] == YES,
        keep_unverified_timing=said["keep-unverified-timing"] == YES,
        contradictions=Contradictions(
            cast("Choice", said["same-day"]),
            cast("Choice", said["same-biopsy"]),
            cast("Identity", said["two-identities"]),
        ),
    )


# --- the rules, in the pilot's order ----------------------------------------------------------------

_TIMING_UNVERIFIED: Final = "(biopsy_day IS NULL OR mri_day IS NULL)"
_TIMING: Final = "The biopsy or the MRI has no date, so the time between them cannot be checked"
_CONTRADICTED: Final = {
    "psa-contradicts": ("psa_differs", "Several PSA values of one day differ"),
    "volume-contradicts": ("volume_differs", "Several prostate volumes of one day differ"),
    "examination-contradicts": ("dre_differs", "Several rectal examinations of one day differ"),
    "biopsy-contradicts": ("biopsy_differs", "Biopsies of one day are called initial and repeated"),
    "outcome-contradicts": ("outcome_differs", "Several outcomes of one biopsy differ"),
}
_OF_A_DAY: Final = tuple(column for column, _ in _CONTRADICTED.values() if column != "outcome_differs")


def pilot_cohort(declared: Declared | None = None) -> Cohort:
    """The pilot's cohort for one hub's dataset.

    Raises: MisuseError: a PI-RADS version that is none.
    """
    known = declared or Declared()
    version(known.pirads_version, "PI-RADS version")
    return Cohort(
        rules=(*_person_and_suspicion(), *_imaging(known), *_declared_rules(known), *_contradicted(known)),
        flags=_flags(),
        persons="men",
        purpose=PURPOSE,
    )


def _person_and_suspicion() -> tuple[Rule, ...]:
    return (
        Rule("not-male", "gender IS DISTINCT FROM 'male'", "Not recorded to be male", "F-PIL-2"),
        Rule("no-biopsy", "biopsy IS NULL", "No usable biopsy of the prostate", "F-PIL-4"),
        Rule("no-suspicion", "psa <= 3.0 AND dre IS DISTINCT FROM 1",
             "PSA is 3.0 ng/mL or less and no rectal examination is suspicious", "F-PIL-2", by_hand=True),
    )  # fmt: skip


def _imaging(known: Declared) -> tuple[Rule, ...]:
    rules = (
        Rule("no-mri", "NOT any_mri", "No MRI of the prostate", "F-PIL-1"),
        Rule("mri-after-biopsy", "any_mri AND NOT mri_before", "The only MRI is later than the biopsy", "F-PIL-1"),
        Rule("mri-older-than-1y", "mri_day < biopsy_day - INTERVAL 1 YEAR",
             "The last MRI before the biopsy is more than one calendar year older", "F-PIL-1", by_hand=True),
    )  # fmt: skip
    if known.keep_unverified_timing:
        return rules
    return (*rules, Rule("mri-timing-unverified", _TIMING_UNVERIFIED, _TIMING, "F-PIL-1", by_hand=True))


def _declared_rules(known: Declared) -> tuple[Rule, ...]:
    return (
        Rule("pirads-version", "pirads_version IS NULL OR pirads_version < 2.0",
             f"PI-RADS was read by a version before 2.0, or by an unknown one (declared: {known.pirads_version})",
             "F-PIL-3", by_hand=True),
        Rule("biopsy-scheme", "biopsy_scheme = 'other' OR (biopsy_scheme = 'systematic' AND pirads >= 3)",
             "Not biopsied systematically, or not targeted although PI-RADS is 3 or more "
             f"(declared: {known.scheme.replace('-', ' ')})", "F-PIL-4", by_hand=True),
    )  # fmt: skip


def _contradicted(known: Declared) -> tuple[Rule, ...]:
    """Ours, after the pilot's own: what a strict hub declares, and a man whose identity is contradicted."""
    chosen, rules = known.contradictions, []
    columns = _OF_A_DAY if chosen.same_day == "refuse-person" else ()
    columns += ("outcome_differs",) if chosen.same_event == "refuse-person" else ()
    if columns:
        says = "Values that count contradict each other, and this hub leaves such men out"
        rules.append(Rule("contradictory-values", " OR ".join(columns), says, by_hand=True))
    if chosen.identity == "refuse-person":
        rules.append(
            Rule("contradictory-identity", "identity_differs", "Two birth dates or two genders stand for one man")
        )
    return tuple(rules)


def _flags() -> tuple[Flag, ...]:
    return (
        Flag("label-missing", "isup IS NULL", "no outcome of the biopsy, so no label: not trained on", "F-PIL-9"),
        Flag("mri-timing-unverified", _TIMING_UNVERIFIED, _lower(_TIMING), "F-PIL-1"),
        Flag("suspicion-unverified", "psa IS NULL AND dre IS DISTINCT FROM 1",
             "PSA is not recorded and no examination is suspicious", "F-PIL-2"),
        Flag("unit-without-code", "unit_by_text", "a unit is stated in words alone, without its code", "NF-PIL-1"),
        *(Flag(word, column, _lower(says)) for word, (column, says) in _CONTRADICTED.items()),
        Flag("identity-contradicts", "identity_differs", "two birth dates or two genders stand for one man"),
        Flag("suspected-duplicate", "suspected", "may be the same man as another one: look, and declare it"),
    )  # fmt: skip


def _lower(says: str) -> str:
    """A sentence as it goes on after a colon; abbreviations keep their capitals."""
    return says[0].lower() + says[1:] if says[1].islower() else says


FLAGS: Final = tuple(flag.word for flag in pilot_cohort().flags)
EXCLUSIONS: Final = (
    *(r.word for r in (*_person_and_suspicion(), *_imaging(Declared(keep_unverified_timing=False)))),
    *(r.word for r in _declared_rules(Declared())),
    *(r.word for r in _contradicted(Declared(contradictions=Contradictions("refuse-person")))),
)
"""Every reason that any declaration can give, in order."""
