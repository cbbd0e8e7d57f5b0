"""A folder of images: every broken file is refused by itself with its reason, the others are read."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import zlib
from functools import cache
from pathlib import Path

import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import RLELossless

from flute.errors import Unmappable, Unreachable
from flute.imaging.headers import headers_of
from flute.imaging.quality import MPMRI, judge
from flute.imaging.sources import folder as folder_module
from flute.imaging.sources import objects
from flute.imaging.sources.folder import FolderSource
from flute.imaging.sources.objects import read_bytes, read_file
from flute.imaging.sources.source import NotRead, Wanted
from flute.imaging.volumes.volume import volumes_of
from support.phantoms import as_file, series, study


def write(folder: Path, images: list[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(images):
        paths.append(folder / f"{number:03d}")
        paths[-1].write_bytes(as_file(ds))
    return paths


def fetched(source: FolderSource) -> list[Dataset | NotRead]:
    return [got for one in source.find(Wanted()) for got in source.fetch(source.images(one))]


def test_a_folder_gives_its_studies_with_all_images(tmp_path: Path) -> None:
    write(tmp_path / "a" / "deep", study("siemens"))
    write(tmp_path / "b", study("ge"))
    source = FolderSource(tmp_path)
    found = list(source.find(Wanted()))
    assert sorted(one.images or 0 for one in found) == [66, 66]
    assert {one.patient_id for one in found} == {"SIM-0001"}
    assert len([got for got in fetched(source) if isinstance(got, Dataset)]) == 132
    assert source.refused == []


def test_a_search_takes_what_fits(tmp_path: Path) -> None:
    write(tmp_path, study("siemens")[:2])
    source = FolderSource(tmp_path)
    (one,) = source.find(Wanted())
    assert one.day is not None
    for wanted, count in (
        (Wanted(patient_ids=("SIM-0001",)), 1), (Wanted(patient_ids=("sim-0001",)), 0), (Wanted(first=one.day), 1),
        (Wanted(last=one.day), 1), (Wanted(modality="CT"), 0), (Wanted(study_uids=(one.uid,)), 1),
        (Wanted(study_uids=("1.2",)), 0), (Wanted(first=one.day.replace(year=2021)), 0),
    ):  # fmt: skip
        assert len(list(source.find(wanted))) == count


def truncated() -> bytes:
    return as_file(study()[0])[:-100]


def bomb() -> bytes:
    """A deflated object (PS3.5 A.5) of some kB that inflates to 64 MiB."""
    ds = study()[0]
    head = as_file(ds)
    length = struct.unpack_from("<I", head, 140)[0]
    meta = head[: 144 + length].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]
    at = meta.rindex(b"1.2.840.10008.1.2.1.99")
    meta = meta[: at - 2] + struct.pack("<H", 22) + meta[at:]
    meta = meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return meta + pack.compress(bytes(64 * 2**20)) + pack.flush()


def without_uid() -> bytes:
    ds = study()[0]
    ds.SeriesInstanceUID = ""
    return as_file(ds)


def huge_side() -> bytes:
    ds = study()[0]
    ds.Rows = 60_000
    return as_file(ds)


def without_pixels() -> bytes:
    ds = study()[0]
    del ds.PixelData
    return as_file(ds)


BROKEN = {
    "empty": b"",
    "not-dicom": b"Thumbs.db and other guests" * 20,
    "damaged": as_file(study()[0])[:150],
    "truncated": truncated(),
    "uid-missing": without_uid(),
    "too-large": bomb(),
}


@pytest.mark.parametrize("reason", sorted(BROKEN))
def test_a_broken_file_is_refused_by_itself_and_the_rest_is_read(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MAX_INSTANCE_BYTES", 2**20)
    write(tmp_path / "good", study()[1:4])
    (tmp_path / "broken.dcm").write_bytes(BROKEN[reason])
    source = FolderSource(tmp_path)
    got = fetched(source)
    refused = [*source.refused, *(one for one in got if isinstance(one, NotRead))]
    assert [(one.origin, one.reason) for one in refused] == [("broken.dcm", reason)]
    assert refused[0].text.endswith(".")
    assert sum(isinstance(one, Dataset) for one in got) == 3


@pytest.mark.parametrize("raw", [huge_side(), without_pixels()])
def test_an_image_whose_header_and_pixels_do_not_fit_is_refused(raw: bytes) -> None:
    found = read_bytes(raw, "x")
    assert isinstance(found, NotRead)
    assert found.reason == "truncated"


@pytest.mark.parametrize("group_length", [True, False])
def test_an_object_that_an_archive_gives_without_preamble_is_read(group_length: bool) -> None:
    raw = as_file(study()[0])[132:]
    found = read_bytes(raw if group_length else raw[12:], "x")
    assert isinstance(found, Dataset)
    assert found.PixelData == study()[0].PixelData


def test_a_deflated_object_within_bounds_is_read() -> None:
    found = read_file(Path(str(get_testdata_file("image_dfl.dcm"))), "x")
    assert isinstance(found, Dataset)


def test_a_compressed_image_with_too_few_frames_is_refused() -> None:
    ds = study()[0]
    ds.compress(RLELossless)
    assert isinstance(read_bytes(as_file(ds), "x"), Dataset)
    ds.NumberOfFrames = 3
    found = read_bytes(as_file(ds), "x")
    assert isinstance(found, NotRead)
    assert found.reason == "truncated"


def test_pydicoms_own_truncated_image_is_found_out() -> None:
    found = read_file(Path(str(get_testdata_file("MR_truncated.dcm"))), "x")
    assert isinstance(found, NotRead)
    assert found.reason == "truncated"


REAL = [
    Path(str(get_testdata_file(name)))
    for name in (
        "CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "rtplan_truncated.dcm",
        "no_meta.dcm", "badVR.dcm", "reportsi.dcm", "liver_1frame.dcm", "ExplVR_BigEndNoMeta.dcm", "UN_sequence.dcm",
        "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "JPEG2000.dcm", "test-SR.dcm", "rtstruct.dcm",
        "nested_priv_SQ.dcm",
    )
]  # fmt: skip


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_pydicoms_test_files_are_read_or_refused_with_a_reason_and_never_crash(path: Path) -> None:
    found = read_file(path, path.name)
    assert isinstance(found, Dataset) or (found.reason and found.text.endswith("."))
    if path.name in (
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "liver_1frame.dcm",
    ):
        assert isinstance(found, Dataset)


@settings(max_examples=150, deadline=None)
@given(which=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_a_damaged_image_is_refused_or_judged_and_never_crashes(which: int, seed: int) -> None:
    """Bytes of the header changed, cut out and put in at random, in objects of three makers and an enhanced one."""
    chance = random.Random(seed)
    raw = bytearray(originals()[which])
    for _ in range(chance.randint(1, 12)):
        at, kind = chance.randrange(132, min(len(raw), 9_000)), chance.random()
        if kind < 0.6:
            raw[at] = chance.randrange(256)
        elif kind < 0.8:
            del raw[at : at + chance.randint(1, 20)]
        else:
            raw[at:at] = chance.randbytes(chance.randint(1, 8))
    found = read_bytes(bytes(raw), "x")
    if isinstance(found, NotRead):
        return
    judge(headers_of(found), MPMRI)
    with contextlib.suppress(Unmappable):
        volumes_of([found])


@cache
def originals() -> list[bytes]:
    enhanced = LegacyConvertedEnhancedMRImage(
        series(study("siemens"), 2), series_instance_uid="2.25.1", series_number=9, sop_instance_uid="2.25.2",
        instance_number=1,
    )  # fmt: skip
    one_each = [study("siemens", b_in="csa")[35], study("ge")[35], study("philips")[35], enhanced]
    return [as_file(ds) for ds in one_each]


def test_the_same_image_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a", study()[:2])
    write(tmp_path / "b", study()[:1])
    source = FolderSource(tmp_path)
    assert len(fetched(source)) == 2
    assert [one.reason for one in source.refused] == ["instance-twice"]


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "outside", study()[:1])
    inside = tmp_path / "inside"
    write(inside, series(study(), 2)[:1])
    (inside / "link").symlink_to(tmp_path / "outside" / "000")
    (inside / "folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    os.mkfifo(inside / "pipe")
    assert len(fetched(FolderSource(inside))) == 1


def test_a_folder_without_an_image_or_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no folder nowhere"):
        list(FolderSource(tmp_path / "nowhere").find(Wanted()))
    (tmp_path / "readme.txt").write_text("hello" * 100)
    with pytest.raises(Unmappable, match="1 files refused"):
        list(FolderSource(tmp_path).find(Wanted()))


def test_a_folder_with_more_files_than_allowed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, study()[:3])
    monkeypatch.setattr(folder_module, "MAX_FOLDER_FILES", 2)
    with pytest.raises(Unmappable, match="more than 2 files"):
        list(FolderSource(tmp_path).find(Wanted()))


# --- DICOMDIR --------------------------------------------------------------------------------------------


def disc(folder: Path) -> Path:
    """A file-set as pydicom writes it."""
    files = FileSet()
    for ds in series(study(), 2):
        files.add(ds)
    files.write(folder)
    return folder / "DICOMDIR"


def test_a_dicomdir_leads_to_its_images(tmp_path: Path) -> None:
    assert sum(isinstance(one, Dataset) for one in fetched(FolderSource(disc(tmp_path)))) == 9


def test_a_dicomdir_that_names_a_missing_file_or_one_outside_says_so(tmp_path: Path) -> None:
    path = disc(tmp_path / "disc")
    secret = tmp_path / "SECRET"
    secret.write_bytes(as_file(series(study(), 3)[0]))
    ds = pydicom.dcmread(path)
    records = [r for r in ds.DirectoryRecordSequence if "ReferencedFileID" in r]
    records[0].ReferencedFileID = ["..", "SECRET"]
    records[1].ReferencedFileID = ["GONE"]
    ds.save_as(path)
    source = FolderSource(path)
    assert sum(isinstance(one, Dataset) for one in fetched(source)) == 7
    assert sorted(one.reason for one in source.refused) == ["file-missing", "outside-folder"]


def test_a_dicomdir_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_text("nothing")
    with pytest.raises(Unmappable, match="DICOMDIR"):
        list(FolderSource(tmp_path / "DICOMDIR").find(Wanted()))
