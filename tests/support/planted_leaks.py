"""Leaks of a patient's identity, each planted alone into something that is clean, and named after where it hides.

The patient is invented. A leak is a function that changes a de-identified MR image (as a pydicom dataset), the bytes
of its file, or a de-identified FHIR resource; the residual check must find each of them, and nothing where none is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from flute.deidentify.needles import Known, known_of_dicom, known_of_fhir

KEY = b"k" * 32
BIRTH = date(1957, 3, 1)
STUDY = date(2019, 11, 27)
KANJI = "Yamada^Tarou=山田^太郎"
ORIGINAL_UID = "1.3.12.2.1107.5.2.30.26380.2019112715260195312"
Leak = Callable[[Dataset], None]
RawLeak = Callable[[bytes], bytes]
FhirLeak = Callable[[dict[str, Any]], None]

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "pat-471122",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "471122-9"}, {"system": "ssn", "value": "65 010357 M 007"}],
    "name": [{"family": "Müller-Roth", "given": ["Anneliese", "Ida"]}, {"text": "山田 太郎"}],
    "telecom": [{"system": "phone", "value": "+49 731 500 12345"}],
    "gender": "female",
    "birthDate": BIRTH.isoformat(),
    "address": [{"line": ["Lindenallee 17"], "city": "Blaubeuren", "postalCode": "89143"}],
    "text": {"status": "generated", "div": "<div>Anneliese Müller-Roth</div>"},
    "photo": [{"data": base64.b64encode(b"a picture").decode()}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "obs-99120031",
    "meta": {"tag": [{"system": "urn:x-flute:code-system:data-origin", "code": "SIMULATED"}]},
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
    "subject": {"reference": "Patient/pat-471122"},
    "effectiveDateTime": f"{STUDY}T10:12:13+01:00",
    "valueQuantity": {"value": 3.0, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
}


def image() -> Dataset:
    """An MR image of the invented patient, from pydicom's test file, with a picture of noise-free anatomy."""
    ds = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    ds.PatientName, ds.PatientID = "Müller-Roth^Anneliese^Ida", "471122-9"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientBirthDate, ds.PatientAge, ds.PatientSex = f"{BIRTH:%Y%m%d}", "062Y", "F"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{STUDY:%Y%m%d}"
    ds.StudyTime = "101213.5"
    ds.AccessionNumber, ds.StudyID = "ACC20191127", "SE-88412"
    ds.InstitutionName, ds.InstitutionAddress = "Klinikum Blautal", "Lindenallee 1, Blaubeuren"
    ds.ReferringPhysicianName, ds.OperatorsName = "Oberländer^Fritz", "Szymanska^Zofia"
    ds.StationName, ds.DeviceSerialNumber = "MRBLAUTAL2", "26380"
    ds.SeriesDescription, ds.ProtocolName = "t2_tse_tra Müller-Roth", "t2_tse_tra_p2"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = ORIGINAL_UID, f"{ORIGINAL_UID}.7"
    ds.Manufacturer, ds.ManufacturerModelName = "SIEMENS", "Skyra"
    put_picture(ds, anatomy())
    return ds


def known() -> Known:
    """All that the hospital knows of her."""
    return known_of_dicom(image()) | known_of_fhir(PATIENT) | known_of_fhir(OBSERVATION) | Known(
        names=frozenset({KANJI}), numbers=frozenset({"+49 731 500 12345"}), places=frozenset({"Lindenallee 17"})
    )  # fmt: skip


def anatomy(side: int = 192, seed: int = 1) -> np.ndarray:
    """Ellipses in noise, as an MR slice is: uint16 [side, side], 12 bits."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    picture = 0.35 * (x**2 / 0.85 + y**2 / 0.6 < 1)
    for _ in range(25):
        cx, cy = chance.uniform(-0.6, 0.6, 2)
        a, b = chance.uniform(0.05, 0.3, 2)
        picture = picture + chance.uniform(-0.1, 0.3) * (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1)
    noisy = np.hypot(picture + chance.normal(0, 0.03, picture.shape), chance.normal(0, 0.03, picture.shape))
    return np.clip(noisy * 900, 0, 4095).astype(np.uint16)


def written(
    picture: np.ndarray, text: str, *, size: int = 14, at: tuple[int, int] = (6, 6), value: int = 2000
) -> np.ndarray:
    """The picture with text in it, letters `size` pixels high, left top corner `at` (column, row)."""
    mask = Image.new("L", picture.shape[::-1])
    ImageDraw.Draw(mask).text(at, text, fill=255, font=ImageFont.load_default(size))
    return np.where(np.asarray(mask) > 100, np.uint16(value), picture)


def put_picture(ds: Dataset, frames: np.ndarray) -> None:
    """Set the pixels: uint16 [rows, columns] or [frames, rows, columns], 12 bits stored."""
    stack = frames.reshape(-1, *frames.shape[-2:])
    ds.Rows, ds.Columns = stack.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    if len(stack) > 1:
        ds.NumberOfFrames = len(stack)
    ds.PixelData = stack.astype("<u2").tobytes()


def as_file(ds: Dataset) -> bytes:
    raw = BytesIO()
    ds.save_as(raw, enforce_file_format=True)
    return raw.getvalue()


# --- DICOM: attributes ------------------------------------------------------------------------------------


def _put(**values: Any) -> Leak:
    def leak(ds: Dataset) -> None:
        for name, value in values.items():
            setattr(ds, name, value)

    return leak


def _nested(ds: Dataset) -> None:
    inner = Dataset()
    inner.ScheduledProcedureStepDescription = "MRT Anneliese"
    outer = Dataset()
    outer.ScheduledProtocolCodeSequence = [inner]
    ds.RequestAttributesSequence = [outer]


def _code_meaning(ds: Dataset) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D0050", "SRT", "Pelvis of Mrs Müller-Roth"
    ds.AnatomicRegionSequence = [item]


def _private(group: int, creator: str, element: int, vr: str, value: Any) -> Leak:
    def leak(ds: Dataset) -> None:
        ds.private_block(group, creator, create=True).add_new(element, vr, value)

    return leak


def _private_in_a_sequence(ds: Dataset) -> None:
    inner = Dataset()
    inner.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"SV10 Anneliese ")
    ds.ReferencedImageSequence = [inner]


def _kanji(ds: Dataset) -> None:
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.OperatorsName = KANJI


def _kanji_in_latin(ds: Dataset) -> None:
    """ISO 2022 escapes where the header declares plain Latin letters: readers show gibberish, the bytes name her."""
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.private_block(0x0011, "RIS", create=True).add_new(0x01, "UN", "山田".encode("iso2022_jp_2") + b" ")


def _original_reference(ds: Dataset) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ORIGINAL_UID
    ds.ReferencedImageSequence = [item]


def _overlay(ds: Dataset) -> None:
    mask = written(np.zeros((ds.Rows, ds.Columns), np.uint16), "A. MUELLER", value=1) > 0
    ds.add_new(0x60000010, "US", ds.Rows)
    ds.add_new(0x60000011, "US", ds.Columns)
    ds.add_new(0x60003000, "OW", np.packbits(mask, bitorder="little").tobytes())


def _unused_bits(ds: Dataset) -> None:
    """The old way to store an overlay: in the bits above the stored ones."""
    mask = written(np.zeros((ds.Rows, ds.Columns), np.uint16), "A. MUELLER", value=1)
    pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    ds.PixelData = (pixels | mask << 12).astype("<u2").tobytes()


def _behind_the_pixels(ds: Dataset) -> None:
    ds.PixelData += b"ANNELIESE MUELLER-ROTH"


def _icon(ds: Dataset) -> None:
    icon = Dataset()
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelRepresentation = 1, 22, 8, 0
    icon.PixelData = b"ANNELIESE MUELLER-ROTH"
    ds.IconImageSequence = [icon]


def _burnt_in(text: str, **how: Any) -> Leak:
    def leak(ds: Dataset) -> None:
        put_picture(ds, written(anatomy(), text, **how))

    return leak


def _burnt_into_one_frame(ds: Dataset) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    put_picture(ds, np.stack([anatomy(), written(anatomy(), "ANNELIESE"), anatomy()]))


DICOM: dict[str, Leak] = {
    "name_as_patient_name": _put(PatientName="Müller-Roth^Anneliese"),
    "name_spelt_without_umlaut": _put(PatientComments="Frau Mueller Roth"),
    "maiden_name": _put(PatientBirthName="Anneliese"),
    "number_as_patient_id": _put(PatientID="471122-9"),
    "number_without_its_hyphen": _put(OtherPatientIDs="4711229"),
    "number_as_series_number": _put(SeriesNumber="4711229"),
    "birth_date": _put(PatientBirthDate="19570301"),
    "birth_date_as_a_german_writes_it": _put(ImageComments="geb. 1.3.57, Kontrolle"),
    "birth_date_in_words": _put(AdditionalPatientHistory="born 1 March 1957"),
    "birth_date_inside_a_uid": _put(SeriesInstanceUID="2.25.1.19570301.2"),
    "study_date_kept": _put(StudyDate="20191127"),
    "study_date_in_a_date_time": _put(AcquisitionDateTime="20191127101213.500000"),
    "study_date_in_text": _put(StudyDescription="MR 27.11.2019"),
    "accession_number": _put(AccessionNumber="ACC20191127"),
    "request_number": _put(RequestedProcedureID="SE-88412"),
    "institution": _put(InstitutionName="Klinikum Blautal"),
    "address": _put(PatientAddress="Lindenallee 17"),
    "phone_number": _put(PatientTelephoneNumbers="+49 731 500 12345"),
    "referring_physician": _put(ReferringPhysicianName="Oberländer^Fritz"),
    "operator": _put(OperatorsName="Szymanska^Zofia"),
    "somebody_unknown_as_operator": _put(OperatorsName="Novak^Jana"),
    "station": _put(StationName="MRBLAUTAL2"),
    "ideographic_name_iso_2022": _kanji,
    "iso_2022_escapes_where_latin_is_declared": _kanji_in_latin,
    "name_in_a_series_description": _put(SeriesDescription="t2_tse_tra ANNELIESE"),
    "name_in_a_coded_string": _put(BodyPartExamined="ANNELIESE"),
    "name_in_a_nested_sequence": _nested,
    "name_in_a_code_meaning": _code_meaning,
    "name_as_base64": _put(ImageComments=base64.b64encode("x Anneliese Müller-Roth".encode()).decode()),
    "name_as_hexadecimal_digits": _put(ImageComments=b"Anneliese".hex()),
    "name_in_a_link": _put(RetrieveURL="https://pacs.example.org/anneliese%20m%C3%BCller"),
    "private_attribute_of_siemens": _private(0x0029, "SIEMENS CSA HEADER", 0x10, "OB", b"SV10\x04 Anneliese M"),
    "private_attribute_of_nobody": _private(0x0099, "WHO KNOWS", 0x01, "LO", "Müller-Roth"),
    "private_attribute_without_a_name_in_it": _private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "800"),
    "private_attribute_in_utf_16": _private(0x0099, "WHO KNOWS", 0x02, "OB", "Anneliese".encode("utf-16-le")),
    "private_attribute_in_a_sequence": _private_in_a_sequence,
    "original_uid_in_a_reference": _original_reference,
    "uid_of_an_organisation": _put(FrameOfReferenceUID="1.2.276.0.7230010.3.1.4.8323329"),
    "overlay": _overlay,
    "overlay_in_unused_bits": _unused_bits,
    "text_behind_the_pixels": _behind_the_pixels,
    "preview_picture": _icon,
}  # fmt: skip
PICTURES: dict[str, Leak] = {
    "name_burnt_in": _burnt_in("MUELLER ANNELIESE"),
    "number_burnt_in_small": _burnt_in("471122-9", size=10, at=(100, 176)),
    "birth_date_burnt_in": _burnt_in("01.03.1957", size=12),
    "name_burnt_into_one_frame": _burnt_into_one_frame,
}
"""Found by looking at the picture alone."""


def _preamble(raw: bytes) -> bytes:
    return b"II*\0 Anneliese Mueller-Roth".ljust(128, b"\0") + raw[128:]


def _trailing(raw: bytes) -> bytes:
    return raw + b"\xfc\xff\xfc\xffOB\0\0\x16\0\0\0ANNELIESE MUELLER ROTH"


def _file_meta(raw: bytes) -> bytes:
    ds = pydicom.dcmread(BytesIO(raw))
    ds.file_meta.SourceApplicationEntityTitle = "BLAUTAL"
    ds.file_meta.PrivateInformationCreatorUID = ORIGINAL_UID
    ds.file_meta.PrivateInformation = b"Klinikum Blautal"
    return as_file(ds)


FILES: dict[str, RawLeak] = {
    "name_in_the_preamble": _preamble,
    "name_after_the_last_attribute": _trailing,
    "institution_in_the_file_meta": _file_meta,
}


# --- FHIR -------------------------------------------------------------------------------------------------


def _set(**values: Any) -> FhirLeak:
    return lambda resource: resource.update(values)


def _display(resource: dict[str, Any]) -> None:
    resource["subject"]["display"] = "Anneliese Müller-Roth"


def _coding_display(resource: dict[str, Any]) -> None:
    resource["code"]["coding"][0]["display"] = "Kreatinin Frau Müller-Roth"


def _unit(resource: dict[str, Any]) -> None:
    resource["valueQuantity"]["unit"] = "Anneliese"


def _server(resource: dict[str, Any]) -> None:
    resource["subject"]["reference"] = "https://fhir.klinikum.example/Patient/pat-471122"


FHIR: dict[str, FhirLeak] = {
    "fhir_id": _set(id="obs-99120031"),
    "fhir_subject_of_the_source": _server,
    "fhir_display_of_a_reference": _display,
    "fhir_display_of_a_code": _coding_display,
    "fhir_narrative": _set(text={"status": "generated", "div": "<div>Frau M&uuml;ller-Roth</div>"}),
    "fhir_narrative_without_a_name": _set(text={"status": "generated", "div": "<div>the mayor of a village</div>"}),
    "fhir_note": _set(note=[{"text": "Patientin Anneliese kam zu spät"}]),
    "fhir_extension_nobody_knows": _set(extension=[{"url": "urn:x", "valueString": "Müller-Roth"}]),
    "fhir_extension_of_a_primitive": _set(_status={"extension": [{"url": "urn:x", "valueString": "Anneliese"}]}),
    "fhir_contained_patient": _set(contained=[PATIENT]),
    "fhir_identifier": _set(identifier=[{"system": "urn:oid:1.2.276.0.76.4.8", "value": "471122-9"}]),
    "fhir_value_string": _set(valueString="Müller-Roth, Anneliese, *1.3.1957"),
    "fhir_attachment": _set(valueAttachment={"data": base64.b64encode(b"Befund Anneliese Mueller-Roth").decode()}),
    "fhir_source_of_meta": _set(meta={"source": "https://klinikum-blautal.example#471122-9"}),
    "fhir_unit": _unit,
    "fhir_date_kept": _set(effectiveDateTime=f"{STUDY}T10:12:13+01:00"),
    "fhir_birth_date_in_a_date": _set(issued=f"{BIRTH}T00:00:00Z"),
    "fhir_escaped_letters": _set(method={"text": "M\\u00fcller"}),
    "fhir_name_of_an_element": _set(**{"Anneliese": True}),
    "fhir_original_study_uid": _set(derivedFrom=[{"identifier": {"value": f"urn:oid:{ORIGINAL_UID}"}}]),
    "fhir_performer": _set(performer=[{"display": "Dr. Fritz Oberländer"}]),
}
