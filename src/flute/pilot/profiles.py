"""The pilot's common model, declared once: what is recorded about a man, and as which FHIR R4 resource.

From it come the published profiles, the check that a resource meets before it is taken in, the resources that
are built from tables, and the names that a mapping file uses. What is read as what is decided in `pilot.recipe`.
Source: HL7 Europe FLUTE implementation guide (R4), profiles PR-*; deviations and their reasons stand with the part.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from flute.conformance.model import (
    Age,
    Code,
    Coded,
    Coding,
    Element,
    Flag,
    Links,
    Model,
    Moment,
    Part,
    Quantity,
    Whole,
)
from flute.pilot.tables import (
    BIOPSY_CODE,
    BIOPSY_INITIAL,
    BIOPSY_REPEATED,
    DICOM_MODALITY,
    DRE_CODE,
    DRE_NORMAL,
    DRE_SUSPICIOUS,
    FLUTE_EXAM,
    ISUP_LOINC,
    ISUP_SCT,
    LOINC,
    MALIGNANT_PROSTATE_TUMOUR,
    NO_CANCER,
    OUTCOME_LIST_CODE,
    OUTCOME_TERM_CODE,
    PIRADS_CODE,
    PROFILE,
    PROFILE_OF_EXAMPLES,
    PROSTATE_BIOPSY_CODE,
    PROSTATE_CANCERS,
    PROSTATE_SITE,
    PSA_CODE,
    ROLE_CODE,
    SCT,
    VOLUME_CLASS_CODE,
    VOLUME_CODE,
)

MODEL_URL: Final = "urn:x-flute:"
"""Ours, like the project's other own systems: it resolves nowhere, since nothing of it is served on the internet."""
_FINAL: Final = ("final", "amended", "corrected")
_DONE: Final = ("completed",)
_MEASURED: Final = Moment(("dateTime", "Period", "instant"))
_PERFORMED: Final = Moment(("dateTime", "Period"))
_PROSTATE: Final = (Coding(SCT, PROSTATE_SITE, "Prostate"),)
_MASS_PER_VOLUME: Final = {
    "ng/ml": "ng/mL", "ug/l": "ug/L", "µg/L": "ug/L", "μg/L": "ug/L", "µg/l": "ug/L", "μg/l": "ug/L", "mg/l": "mg/L",
}  # fmt: skip
"""Both characters that look like µ: the micro sign (U+00B5) and the Greek letter (U+03BC)."""
_VOLUMES: Final = {"ml": "mL", "cc": "cm3", "cm³": "cm3"}
_CANCERS: Final = (
    MALIGNANT_PROSTATE_TUMOUR, *(code for code in PROSTATE_CANCERS if code != MALIGNANT_PROSTATE_TUMOUR),
)  # fmt: skip


def _when(moment: Moment, at: str = "effective", note: str = "") -> Part:
    return Part("when", at, moment, note=note or "A date less exact than a day is kept and taken as no date.")


def _grades() -> dict[str, tuple[Coding, ...]]:
    """ISUP grade group to its codings. "No cancer" has none in the pilot's value set: a SNOMED finding says it."""
    grades: dict[str, tuple[Coding, ...]] = {"0": (Coding(SCT, NO_CANCER, "No evidence of malignant neoplasm"),)}
    for grade, code in ISUP_LOINC.items():
        grades[str(grade)] = (
            Coding(LOINC, code, f"ISUP grade group {grade}"),
            *(Coding(SCT, read) for read in ISUP_SCT[grade]),
        )
    return grades


PATIENT: Final = Element(
    name="patient",
    title="The man",
    resource="Patient",
    subject="",
    parts=(
        Part("gender", "gender", Code({word: word for word in ("male", "female", "other", "unknown")}),
             note="Not refused where it is missing: he is then left out as not known to be male."),
        Part("birth", "birthDate", Moment(("date",)), note="Needed for the age, unless the biopsy states it."),
    ),
    requirement="F-PIL-27",
)  # fmt: skip
PSA: Final = Element(
    name="psa",
    title="Prostate-specific antigen",
    resource="Observation",
    status=_FINAL,
    code=(Coding(LOINC, PSA_CODE, "Prostate specific Ag [Mass/volume] in Serum or Plasma"),),
    parts=(
        Part("value", "value",
             Quantity("ng/mL", ("ng/mL", "ug/L", "mg/L"), _MASS_PER_VOLUME, Decimal(0), Decimal(100_000), 1),
             required=True, requirement="F-PIL-29",
             note="A comparator (<, >) is refused: it says no number. The profile's single decimal is no ground for "
                  "refusal; digits are kept as the source has them."),
        _when(_MEASURED),
    ),
    claims=(PROFILE + "PR-ProstateSpecificAntigen",),
    requirement="F-PIL-29",
)  # fmt: skip
VOLUME: Final = Element(
    name="volume",
    title="Prostate volume on MRI",
    resource="Observation",
    status=_FINAL,
    code=(Coding(SCT, VOLUME_CODE, "Volume of prostate"),),
    sites=_PROSTATE,
    parts=(
        Part("value", "value",
             Quantity("cm3", ("cm3", "mL"), _VOLUMES, Decimal(0), Decimal(2_000), 1, {"cm3": "cc"}),
             required=True, requirement="F-PIL-31"),
        _when(_MEASURED),
    ),
    claims=(PROFILE + "PR-ProstateVolume",),
    requirement="F-PIL-31",
)  # fmt: skip
PIRADS: Final = Element(
    name="pirads",
    title="PI-RADS score of a lesion",
    resource="Observation",
    status=_FINAL,
    code=(Coding(SCT, PIRADS_CODE, "Prostate Imaging Reporting and Data System score"),),
    parts=(
        Part("value", "value", Whole(1, 5, "pirads-out-of-range"), required=True, requirement="F-PIL-32"),
        _when(_MEASURED),
    ),
    claims=(PROFILE + "PR-PIRADSScore",),
    requirement="F-PIL-32",
)
DRE: Final = Element(
    name="dre",
    title="Digital rectal examination",
    resource="Procedure",
    status=_DONE,
    code=(Coding(SCT, DRE_CODE, "Digital examination of rectum"),),
    sites=_PROSTATE,
    parts=(
        Part("value", "outcome",
             Coded({"0": (Coding(SCT, DRE_NORMAL, "Normal"),), "1": (Coding(SCT, DRE_SUSPICIOUS, "Suspicious"),)}),
             required=True, requirement="F-PIL-30",
             note="131196009 is SNOMED's \"Susceptible\" (of microbes); the pilot's value set uses it, so do we."),
        _when(_PERFORMED, "performed"),
    ),
    claims=(PROFILE + "PR-DigitalRectalExamination",),
    requirement="F-PIL-30",
)  # fmt: skip
BIOPSY: Final = Element(
    name="biopsy",
    title="Biopsy of the prostate",
    resource="Procedure",
    status=_DONE,
    code=(Coding(SCT, BIOPSY_CODE, "Biopsy"), Coding(SCT, PROSTATE_BIOPSY_CODE, "Biopsy of prostate")),
    sites=_PROSTATE,
    site_in_code=(Coding(SCT, PROSTATE_BIOPSY_CODE),),
    parts=(
        Part("category", "category",
             Coded({"initial": (Coding(SCT, BIOPSY_INITIAL, "Initial"),),
                    "repeated": (Coding(SCT, BIOPSY_REPEATED, "Repeat"),)}),
             required=True, requirement="F-PIL-28"),
        Part("when", "performed", _PERFORMED, required=True, requirement="F-PIL-27",
             note="The guide's R4 profile asks for the age instead; its query needs the date. Either is read."),
        Part("age", "performed", Age(), required=True, requirement="F-PIL-27",
             note="Without a date the time between MRI and biopsy cannot be checked: flagged mri-timing-unverified."),
    ),
    claims=(PROFILE + "PR-Biopsy",),
    claim_if={"age": ()},
    requirement="F-PIL-28",
)  # fmt: skip
OUTCOME: Final = Element(
    name="outcome",
    title="ISUP grade group of a biopsy",
    resource="Observation",
    status=_FINAL,
    code=(Coding(LOINC, OUTCOME_LIST_CODE), Coding(LOINC, OUTCOME_TERM_CODE)),
    written=(Coding(LOINC, OUTCOME_LIST_CODE), Coding(LOINC, OUTCOME_TERM_CODE)),
    parts=(
        Part("value", "value", Coded(_grades()), required=True, requirement="F-PIL-9",
             note="No outcome is no label; it is never taken as 0."),
        _when(_MEASURED),
    ),
    claims=(PROFILE + "PR-OutcomeBCN-RC2",),
    claim_if={"value": ("1", "2", "3", "4", "5")},
    requirement="F-PIL-9",
)  # fmt: skip
FAMILY_HISTORY: Final = Element(
    name="family_history",
    title="Prostate cancer in the family",
    resource="FamilyMemberHistory",
    subject="patient",
    status=_DONE,
    parts=(
        Part("value", "condition", Flag(tuple(Coding(SCT, code) for code in _CANCERS)), required=True,
             note="Every condition counts, not only the first. No record at all is missing, not 0."),
    ),
    claims=(PROFILE + "PR-ProstateCancerFamilyHistory",),
    claim_if={"value": ("1",)},
    always={"relationship": Coding(ROLE_CODE, "FAMMEMB", "family member")},
)  # fmt: skip
MRI: Final = Element(
    name="mri",
    title="MRI of the prostate",
    resource="ImagingStudy",
    status=("available",),
    modality=Coding(DICOM_MODALITY, "MR", "Magnetic Resonance"),
    parts=(
        Part("when", "started", Moment(("dateTime",)), requirement="F-PIL-1"),
        Part("links", "extension",
             Links(PROFILE + "resource-supportingInfo",
                   ("psa", "volume", "pirads", "dre", "biopsy", "outcome", "family_history"),
                   (PROFILE_OF_EXAMPLES + "resource-supportingInfo",)),
             requirement="F-PIL-7", note="What was read from the images, above all the scores and the volume."),
    ),
    claims=(PROFILE + "imagingStudy-eu-flute",),
    requirement="F-PIL-1",
)  # fmt: skip
DRE_VOLUME_CLASS: Final = Element(
    name="dre_volume_class",
    title="Volume class felt at the rectal examination",
    resource="Observation",
    status=_FINAL,
    code=(Coding(FLUTE_EXAM, VOLUME_CLASS_CODE, "Volume class felt at the rectal examination"),),
    parts=(
        Part("value", "value", Whole(1, 3), required=True, note="1 below 30 mL, 2 below 50 mL, 3 more."),
        _when(_MEASURED),
    ),
)

PILOT_MODEL: Final = Model(
    name="prostate-pilot",
    title="FLUTE prostate pilot: common model",
    url=MODEL_URL,
    version="1.0.0",
    person=PATIENT,
    elements=(PSA, VOLUME, PIRADS, DRE, BIOPSY, OUTCOME, FAMILY_HISTORY, MRI, DRE_VOLUME_CLASS),
)
