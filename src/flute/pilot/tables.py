"""The figures behind the simulated pilot and the codes that its resources carry.

Everything here is a declaration. The risk model's figures are choices, made so that the simulated men look
like the published Barcelona cohorts; they are no estimates from patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# --- code systems ----------------------------------------------------------------------------
SCT: Final = "http://snomed.info/sct"
LOINC: Final = "http://loinc.org"
UCUM: Final = "http://unitsofmeasure.org"
ROLE_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
DICOM_MODALITY: Final = "http://dicom.nema.org/resources/ontology/DCM"
FLUTE_ORIGIN: Final = "urn:x-flute:code-system:data-origin"
"""Ours: one code, SIMULATED, in `meta.tag` of every resource that no patient stands behind."""
FLUTE_EXAM: Final = "urn:x-flute:code-system:examination"
"""Ours: the pilot's model has no code for the volume class felt at the rectal examination."""

PROFILE: Final = "http://hl7.eu/fhir/ig/flute/StructureDefinition/"
PROFILE_OF_EXAMPLES: Final = "https://flute.com/StructureDefinition/"
"""What the guide's own example bundles claim; read as well, never written."""

# --- codes -----------------------------------------------------------------------------------
PSA_CODE: Final = "2857-1"
DRE_CODE: Final = "410006001"
DRE_NORMAL: Final = "17621005"
DRE_SUSPICIOUS: Final = "131196009"
"""SNOMED CT calls it "Susceptible" (of microbes); the pilot's value set uses it for a suspicious examination."""
BIOPSY_CODE: Final = "86273004"
PROSTATE_BIOPSY_CODE: Final = "65575008"
PROSTATE_SITE: Final = "41216001"
BIOPSY_INITIAL: Final = "884001"
BIOPSY_REPEATED: Final = "27582007"
VOLUME_CODE: Final = "1297142007"
PIRADS_CODE: Final = "719178004"
VOLUME_CLASS_CODE: Final = "dre-volume-class"
OUTCOME_LIST_CODE: Final = "LL5543-5"
"""LOINC's answer *list*, which the pilot's profile uses as the question."""
OUTCOME_TERM_CODE: Final = "94734-1"
"""LOINC's term for the same question."""
NO_CANCER: Final = "110396000"

ISUP_LOINC: Final = {1: "LA30794-4", 2: "LA30795-1", 3: "LA30796-9", 4: "LA30797-7", 5: "LA30798-5"}
ISUP_SCT: Final = {
    1: ("1279715000",),
    2: ("1279714001",),
    3: ("1279716004",),
    4: ("1279717008", "1279718003", "1279719006"),
    5: ("1279720000", "1279721001", "1279722008"),
}
PROSTATE_CANCERS: Final = (
    "1098981000119101", "1264500002", "1259710009", "1259674002", "1259672003", "1259669005",
    "1259666003", "1259388006", "1251485006", "1240359008", "1240353009", "1237422007",
    "1208457007", "823017009", "822970008", "722103009", "715412008", "449318001",
    "448217003", "448213004", "427492003", "399590005", "399490008", "399068003",
    "369485004", "314969001", "278060005", "254900004", "94503003", "93974005",
)  # fmt: skip
"""The pilot's value set VS-PCa, SNOMED CT."""
MALIGNANT_PROSTATE_TUMOUR: Final = "399068003"

# --- the risk model --------------------------------------------------------------------------
MEAN_LN_VOLUME: Final = 54.0
"""ml; where the prostate volume's logarithm is centred."""
PIRADS_WEIGHTS: Final = ((0.185, 0.108, 0.382, 0.288, 0.037), (0.018, 0.016, 0.112, 0.570, 0.284))
"""Of scores 1-5, without and with clinically significant cancer."""
ISUP_WITHOUT: Final = (0.70, 0.30)
"""No cancer, grade group 1."""
ISUP_WITH: Final = (0.52, 0.24, 0.13, 0.11)
"""Grade groups 2-5."""
ISUP_WITH_PIRADS_5: Final = (0.36, 0.25, 0.18, 0.21)
VOLUME_CLASS_CUTS_ML: Final = (30.0, 50.0)
"""As MRI-ERSPC cuts; our choice for BCN1's three classes too."""
MISSING_DRE_FACTOR: Final = (0.8, 1.8)
"""How much more often the examination is not recorded at an initial and at a repeated biopsy."""

INELIGIBLE_SHARE: Final = 0.08
"""Men per eligible man who are written too and must be found out."""
PLANTED_REASONS: Final = (
    "not-male", "no-biopsy", "no-suspicion", "no-mri", "mri-after-biopsy", "mri-older-than-1y",
)  # fmt: skip
"""Every reason for exclusion that a resource can express (PI-RADS version and biopsy scheme are declared)."""


@dataclass(frozen=True, slots=True)
class HubFigures:
    """One hospital of the simulated pilot. Shares are of all its men."""

    size: int
    mean_age: float
    ln_psa: float
    assay: float
    family_history: float
    repeated: float
    dre: float
    risk: float
    pirads_shift: float
    pirads_blur: float
    missing_family_history: float
    missing_dre: float
    missing_volume: float
    missing_psa: float
    missing_pirads: float
    psa_unit: str = "ng/mL"
    volume_unit: str = "cm3"
    age_only: float = 0.0
    """Share of biopsies that state the age, as the R4 profile asks, and therefore no date."""


HUBS: Final = {
    "huvh": HubFigures(1963, 66.5, 1.86, 1.00, 0.09, 0.27, -1.35, -0.64, 0.0, 0.0, 0.04, 0.02, 0.01, 0.0, 0.0),
    "chu": HubFigures(700, 65.5, 1.95, 1.20, 0.12, 0.18, -1.15, -0.40, 0.22, 0.05, 0.12, 0.08, 0.03, 0.01, 0.01,
                      psa_unit="ug/L", volume_unit="mL"),
    "irst": HubFigures(400, 69.0, 1.80, 0.92, 0.07, 0.35, -1.55, -0.74, -0.18, 0.10, 0.20, 0.15, 0.06, 0.02, 0.02,
                       age_only=0.06),
}  # fmt: skip
