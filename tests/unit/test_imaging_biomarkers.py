"""A vendor's measurements as columns: from a structured report that highdicom wrote, and from CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom.sr.codedict import Code, codes

from flute.errors import Unmappable, Unreachable
from flute.imaging.measures.biomarkers import Biomarker, values_of_csv, values_of_report
from support.phantoms import series, study

VOLUME = Biomarker("volume_ml", "mL", "SCT", "118565006", low=5, high=400)
MEAN_ADC = Biomarker("adc_mean", "um2/s", "DCM", "113041", several="smallest")


def report(*groups: list[hd.sr.Measurement]) -> Any:
    """A measurement report (TID 1500) on the phantom's T2W series, one group of measurements each."""
    images = series(study(), 2)
    measured = [
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=f"2.25.{n}", identifier=f"finding {n}"),
            measurements=group,
        )
        for n, group in enumerate(groups, start=1)
    ]
    context = hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(uid="2.25.70")
        )
    )
    content = hd.sr.MeasurementReport(context, codes.LN.CTUnspecifiedBodyRegion, measured)
    return hd.sr.Comprehensive3DSR(
        images[:1], content[0], series_instance_uid="2.25.71", series_number=90, sop_instance_uid="2.25.72",
        instance_number=1, manufacturer="SIMULATED",
    )  # fmt: skip


def measurement(name: Code, value: float, unit: Code) -> hd.sr.Measurement:
    return hd.sr.Measurement(name, value, unit)


VOLUME_NAME = Code("118565006", "SCT", "Volume")
ADC_NAME = Code("113041", "DCM", "Apparent Diffusion Coefficient")
ML, CM3, UM2_S, MM = (Code(v, "UCUM", v) for v in ("mL", "cm3", "um2/s", "mm"))


def test_declared_measurements_become_columns_and_others_are_counted() -> None:
    found = values_of_report(
        report([measurement(VOLUME_NAME, 41.5, ML), measurement(Code("410668003", "SCT", "Length"), 30, MM)]),
        [VOLUME, MEAN_ADC],
    )
    assert found.columns == {"volume_ml": 41.5}
    assert found.undeclared == 1
    assert found.patient_id == "SIM-0001"
    assert found.study == series(study(), 2)[0].StudyInstanceUID


def test_another_unit_is_converted_and_one_of_another_kind_refused() -> None:
    assert values_of_report(report([measurement(VOLUME_NAME, 41.5, CM3)]), [VOLUME]).columns == {"volume_ml": 41.5}
    found = values_of_report(report([measurement(VOLUME_NAME, 41.5, MM)]), [VOLUME])
    assert found.columns == {}
    assert found.refused == {"unit-not-convertible": 1}


def test_an_impossible_value_is_refused() -> None:
    found = values_of_report(report([measurement(VOLUME_NAME, 4150, ML)]), [VOLUME])
    assert (found.columns, found.refused) == ({}, {"value-out-of-range": 1})


def test_several_findings_follow_the_declared_rule() -> None:
    two = report([measurement(ADC_NAME, 900, UM2_S)], [measurement(ADC_NAME, 650, UM2_S)])
    assert values_of_report(two, [MEAN_ADC]).columns == {"adc_mean": 650}
    strict = Biomarker("adc_mean", "um2/s", "DCM", "113041")
    assert values_of_report(two, [strict]).refused == {"several-values": 1}


def test_an_image_is_no_report() -> None:
    with pytest.raises(Unmappable, match="TID 1500"):
        values_of_report(series(study(), 2)[0], [VOLUME])


# --- CSV ---------------------------------------------------------------------------------------------------

CSV = [
    Biomarker("volume_ml", "mL", heading="Vol (ccm)", csv_unit="cm3", low=5, high=400),
    Biomarker("adc_mean", "um2/s", heading="ADC"),
]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_become_columns_by_declared_headings(delimiter: str, tmp_path: Path) -> None:
    text = "\ufeffPID,Vol (ccm),ADC,Remark\nA,41.5,812,\nB,,650,x\n\n".replace(",", delimiter)
    found = values_of_csv(write(tmp_path / "b.csv", text), CSV, patient="PID")
    assert [(v.patient_id, v.columns, v.undeclared) for v in found] == [
        ("A", {"volume_ml": 41.5, "adc_mean": 812.0}, 1),
        ("B", {"adc_mean": 650.0}, 1),
    ]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("41,5", "value-no-number"), ("n/a", "value-no-number"), ("nan", "value-no-number"), ("inf", "value-no-number"),
     ("1e999", "value-out-of-range"), ("-41.5", "value-out-of-range"), ("=1+1", "value-no-number"),
     ("41.5 ml", "value-no-number"), ("0x10", "value-no-number")],
)  # fmt: skip
def test_a_cell_that_is_no_possible_number_is_refused_alone(cell: str, reason: str, tmp_path: Path) -> None:
    found = values_of_csv(write(tmp_path / "b.csv", f"PID;Vol (ccm);ADC\nA;{cell};812\n"), CSV, patient="PID")
    assert [(v.columns, v.refused) for v in found] == [({"adc_mean": 812.0}, {reason: 1})]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [("A;41;812\nA;42;812", "patient-twice"), (";41;812", "patient-missing"), ("A;41", "row-too-short-or-long"),
     ("A;41;812;9", "row-too-short-or-long")],
)  # fmt: skip
def test_a_row_that_cannot_be_told_whose_it_is_is_refused_whole(rows: str, reason: str, tmp_path: Path) -> None:
    found = values_of_csv(write(tmp_path / "b.csv", f"PID;Vol (ccm);ADC\n{rows}\n"), CSV, patient="PID")
    assert (found[-1].columns, found[-1].refused) == ({}, {reason: 1})


def test_two_studies_of_one_patient_are_two_rows_where_studies_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "b.csv", "PID;UID;Vol (ccm);ADC\nA;1.2;41;812\nA;1.3;42;813\n")
    assert [v.refused for v in values_of_csv(path, CSV, patient="PID", study="UID")] == [{}, {}]


@pytest.mark.parametrize(
    ("raw", "match"),
    [(b"PID;ADC\nA;1\n", "Vol"), (b"PID;Vol (ccm);ADC;ADC\n", "has 2"), (b"", "PID"),
     (b"PID;Vol (ccm);ADC\nA;\xe4;1\n", "not UTF-8")],
)  # fmt: skip
def test_a_file_that_is_not_as_declared_is_refused_whole(raw: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(raw)
    with pytest.raises(Unmappable, match=match):
        values_of_csv(tmp_path / "b.csv", CSV, patient="PID")


def test_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"b\.csv"):
        values_of_csv(tmp_path / "b.csv", CSV, patient="PID")
