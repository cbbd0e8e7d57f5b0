"""Headers as scanners of Siemens, GE and Philips write them, for the simulated study.

One table: what each maker calls a series, its image type, sequence and timing, and where it puts a b-value. Taken
from public data sets and descriptions, in classic MR Image Storage; software versions differ, so recognition must not
lean on any single element of this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pydicom.dataset import Dataset

from flute.imaging.bvalues import csa_header

MakerName = Literal["siemens", "ge", "philips"]
BPlace = Literal["private", "standard", "csa", "sequence-name"]
"""Where a simulated b-value stands. `csa` and `sequence-name` are Siemens' alone."""

MANUFACTURER: Final[dict[str, str]] = {
    "siemens": "SIEMENS",
    "ge": "GE MEDICAL SYSTEMS",
    "philips": "Philips Medical Systems",
}
GE_MARK: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """One maker's dress of one series. te, tr in ms; `technique`: Philips' private scanning technique."""

    description: str
    image_type: tuple[str, ...]
    scanning: tuple[str, ...]
    variant: tuple[str, ...]
    te: float
    tr: float
    echo_train: int
    sequence: str = ""
    technique: str = ""
    acquisition: str = "2D"


_NORM: Final = ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")
_GE: Final = ("ORIGINAL", "PRIMARY", "OTHER")
_M_SE: Final = ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE")
_DIFF: Final = ("DERIVED", "PRIMARY", "DIFFUSION")
LOOKS: Final[dict[str, dict[str, Look]]] = {
    "siemens": {
        "localizer": Look("localizer", _NORM, ("GR",), ("SP", "OSP"), 4.0, 8.6, 1, "*fl2d1"),
        "t2": Look("t2_tse_tra", _NORM, ("SE",), ("SK", "SP", "OSP"), 101.0, 4500.0, 25, "*tse2d1_25"),
        "t2-second": Look("t2_tse_sag", _NORM, ("SE",), ("SK", "SP", "OSP"), 101.0, 4500.0, 25, "*tse2d1_25"),
        "dwi": Look("ep2d_diff_tra_TRACEW", (*_DIFF, "TRACEW", "NORM", "DIS2D"), ("EP",), ("SK", "SP"), 61.0, 5000.0,
                    1, "*ep_b{b}t"),
        "high": Look("ep2d_diff_tra_CALC_BVAL", (*_DIFF, "CALC_BVALUE", "TRACEW"), ("EP",), ("SK", "SP"), 61.0,
                     5000.0, 1, "*ep_b{b}t"),
        "adc": Look("ep2d_diff_tra_ADC", (*_DIFF, "ADC", "NORM", "DIS2D"), ("EP",), ("SK", "SP"), 61.0, 5000.0, 1,
                    "*ep_b50_800"),
        "dce": Look("t1_vibe_tra_dyn", _NORM, ("GR",), ("SP", "OSP"), 1.7, 4.2, 1, "*fl3d1", acquisition="3D"),
    },
    "ge": {
        "localizer": Look("3-pl Loc", _GE, ("GR",), ("NONE",), 1.5, 5.1, 1),
        "t2": Look("Ax T2 FRFSE", _GE, ("SE",), ("SK",), 105.0, 4200.0, 21),
        "t2-second": Look("Sag T2 FRFSE", _GE, ("SE",), ("SK",), 105.0, 4200.0, 21),
        "dwi": Look("Ax DWI", _GE, ("EP", "SE"), ("NONE",), 70.0, 5500.0, 1),
        "high": Look("Ax DWI high b", _GE, ("EP", "SE"), ("NONE",), 82.0, 5500.0, 1),
        "adc": Look("Apparent Diffusion Coefficient (mm2/s)", ("DERIVED", "SECONDARY", "OTHER"), ("EP", "SE"),
                    ("NONE",), 70.0, 5500.0, 1),
        "dce": Look("Ax DISCO dyn", _GE, ("GR",), ("SP",), 1.3, 3.8, 1, acquisition="3D"),
    },
    "philips": {
        "localizer": Look("Survey", ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), ("GR",), ("SP",), 4.6, 11.0, 1,
                          technique="T1FFE"),
        "t2": Look("T2W_TSE_ax", _M_SE, ("SE",), ("SK",), 110.0, 4000.0, 17, technique="T2TSE"),
        "t2-second": Look("T2W_TSE_sag", _M_SE, ("SE",), ("SK",), 110.0, 4000.0, 17, technique="T2TSE"),
        # A spin echo by its sequence, with the TE and TR of a T2W series: only technique and b-values tell it apart.
        "dwi": Look("WIP DWI 3b", _M_SE, ("SE",), ("SK",), 72.0, 4300.0, 47, technique="DwiSE"),
        "high": Look("cDWI", ("DERIVED", "PRIMARY", "M_SE", "M", "SE"), ("SE",), ("SK",), 72.0, 4300.0, 47,
                     technique="DwiSE"),
        "adc": Look("dADC", ("DERIVED", "PRIMARY", "ADC", "ADC", "UNSPECIFIED"), ("SE",), ("SK",), 72.0, 4300.0, 47,
                    technique="DwiSE"),
        "dce": Look("dyn_THRIVE", ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), ("GR",), ("SP",), 1.8, 3.9, 1,
                    technique="T1TFE", acquisition="3D"),
    },
}  # fmt: skip


def dress(ds: Dataset, maker: str, series: str) -> None:
    """Write what this maker says about a series of this sort into an image's header."""
    look = LOOKS[maker][series]
    ds.Manufacturer = MANUFACTURER[maker]
    ds.ManufacturerModelName = "SIMULATED"
    ds.SoftwareVersions = "SIMULATED"
    ds.SeriesDescription = look.description
    ds.ProtocolName = look.description
    ds.ImageType = list(look.image_type)
    ds.ScanningSequence = list(look.scanning)
    ds.SequenceVariant = list(look.variant)
    ds.ScanOptions = ""
    ds.MRAcquisitionType = look.acquisition
    ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = look.te, look.tr, look.echo_train
    ds.MagneticFieldStrength, ds.FlipAngle = 3, 90 if "SE" in look.scanning else 12
    if look.sequence and "{b}" not in look.sequence:
        ds.SequenceName = look.sequence
    if look.technique:
        ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x20, "LO", look.technique)


def put_b_value(ds: Dataset, maker: str, series: str, b: int, place: BPlace) -> None:
    """Where this maker's scanner would put b (s/mm2), or in the standard's element."""
    sequence = LOOKS[maker][series].sequence
    if "{b}" in sequence:
        ds.SequenceName = sequence.format(b=b) if place != "standard" else "*ep2d"
    if place == "standard":
        ds.DiffusionBValue = float(b)
    elif maker == "ge":
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [GE_MARK + b, 8, 0, 0])
    elif maker == "philips":
        ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", float(b))
    elif place == "private":
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", b)
    elif place == "csa":
        ds.SequenceName = "*ep2d"
        fields = {"EchoLinePosition": "64", "B_value": str(b), "UsedChannelMask": "1"}
        ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa_header(fields))
