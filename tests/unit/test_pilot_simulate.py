"""The simulated hospitals: what the recipe reads out of their files is what was drawn, value by value."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError
from flute.intake.build import build
from flute.intake.rows import ImportReport, Rows
from flute.intake.snapshot import SnapshotSource, write_snapshot
from flute.pilot.recipe import PILOT_RECIPE, PILOT_VARIABLES
from flute.pilot.resources import FILES, Man
from flute.pilot.simulate import TRUTH, SimulatedHub, plant_canary, simulate, write_pilot
from flute.pilot.tables import HUBS, PLANTED_REASONS

KEY = bytes(range(32))
Pilot = tuple[Path, dict[str, SimulatedHub]]
Imports = dict[str, tuple[Rows, ImportReport]]
CODED_FROM_ONE = {"pirads", "dre_volume_class"}
"""Categories are coded by position; these scores begin at 1."""


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, SimulatedHub]]:
    out = tmp_path_factory.mktemp("pilot")
    return out, write_pilot(out, seed=7)


@pytest.fixture(scope="module")
def imports(pilot: Pilot) -> dict[str, tuple[Rows, ImportReport]]:
    return {hub: build(pilot[0] / hub, PILOT_RECIPE, key=KEY) for hub in HUBS}


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


@pytest.mark.requirement("F-PIL-9")
@pytest.mark.requirement("F-PIL-27")
@pytest.mark.requirement("F-PIL-28")
@pytest.mark.requirement("F-PIL-29")
@pytest.mark.requirement("F-PIL-30")
@pytest.mark.requirement("F-PIL-31")
@pytest.mark.requirement("F-PIL-32")
@pytest.mark.requirement("NF-PIL-1")
@pytest.mark.requirement("F-PIL-5")
@pytest.mark.parametrize("hub", HUBS)
def test_every_value_read_from_a_hub_equals_the_one_that_was_drawn(
    hub: str,
    pilot: Pilot,
    imports: Imports,
    tmp_path: Path,
) -> None:
    drawn, (rows, _) = pilot[1][hub], imports[hub]
    dataset = SnapshotSource(tmp_path, write_snapshot(rows, tmp_path)).open(PILOT_VARIABLES)
    place = {name: i for i, name in enumerate(dataset.pseudonyms)}
    order = [place[pseudonym(KEY, patient)] for patient in drawn.eligible]
    assert sorted(order) == list(range(HUBS[hub].size))
    for name in TRUTH:
        read = dataset.column(name)[order] + (1 if name in CODED_FROM_ONE else 0)
        np.testing.assert_array_equal(read, drawn.truth[name], err_msg=name)


@pytest.mark.requirement("F-PIL-1")
@pytest.mark.requirement("F-PIL-2")
@pytest.mark.parametrize("hub", HUBS)
def test_every_planted_man_is_found_out_with_the_planted_reason(hub: str, pilot: Pilot, imports: Imports) -> None:
    planted = list(pilot[1][hub].planted.values())
    report = imports[hub][1]
    assert report.excluded == {reason: planted.count(reason) for reason in PLANTED_REASONS}
    assert (report.rows, report.refused) == (HUBS[hub].size, {})
    assert report.patients == HUBS[hub].size + len(planted)


def test_a_report_counts_missing_values_and_holds_no_patient(pilot: Pilot, imports: Imports) -> None:
    drawn, report = pilot[1]["chu"], imports["chu"][1]
    assert report.missing == {name: int(np.isnan(drawn.truth[name]).sum()) for name in TRUTH}
    assert not any(report.unusable.values())
    assert b"chu-0" not in msgspec.json.encode(report)


def test_files_are_small_work_for_one_core(pilot: Pilot, tmp_path: Path) -> None:
    """CPU time of this process, with a margin of three over what a slow core was seen to need."""
    start = time.process_time()
    write_pilot(tmp_path, seed=8)
    written = time.process_time() - start
    for hub in HUBS:
        build(tmp_path / hub, PILOT_RECIPE, key=KEY)
    assert written < 5
    assert time.process_time() - start - written < 15


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    sizes = {"chu": 30, "irst": 20}
    write_pilot(tmp_path / "a", 5, sizes)
    write_pilot(tmp_path / "b", 5, sizes)
    write_pilot(tmp_path / "c", 6, sizes)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_men_on_the_borders_are_written_only_when_asked_for(tmp_path: Path) -> None:
    write_pilot(tmp_path / "plain", 5, {"chu": 20})
    drawn = write_pilot(tmp_path / "borders", 5, {"chu": 20}, borders=True)["chu"]
    plain = (tmp_path / "plain" / "chu" / "Patient.ndjson").read_bytes()
    written = (tmp_path / "borders" / "chu" / "Patient.ndjson").read_bytes()
    assert written.startswith(plain)
    assert b"border" not in plain
    assert written.count(b"chu-border-") == len(drawn.men) - 26
    hub = json.loads((tmp_path / "borders" / "manifest.json").read_text(encoding="utf-8"))["hubs"]["chu"]
    assert (hub["eligible"], hub["planted"]) == (len(drawn.eligible), len(drawn.planted))
    assert all(len(values) == len(drawn.eligible) for values in drawn.truth.values())


def test_leaving_a_hub_out_changes_nothing_at_the_others() -> None:
    assert simulate(5, {"irst": 20})["irst"].men == simulate(5, {"chu": 30, "irst": 20})["irst"].men


def test_every_resource_says_that_it_is_simulated(tmp_path: Path) -> None:
    write_pilot(tmp_path, 5, {"chu": 20})
    lines = [line for kind in FILES for line in (tmp_path / "chu" / f"{kind}.ndjson").read_bytes().splitlines()]
    tags = [{tag["code"] for tag in json.loads(line)["meta"]["tag"]} for line in lines]
    assert len(tags) > 200
    assert all(tag == {"SIMULATED", "HTEST"} for tag in tags)
    assert "No patient" in (tmp_path / "chu" / "SIMULATED.txt").read_text(encoding="utf-8")


def test_the_manifest_says_seed_and_counts(tmp_path: Path) -> None:
    write_pilot(tmp_path, 5, {"chu": 20})
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    hub = manifest["hubs"]["chu"]
    assert (manifest["seed"], manifest["simulated"], hub["eligible"], hub["planted"]) == (5, True, 20, 6)
    assert hub["resources"]["Patient"] == 26
    content = b"".join((tmp_path / "chu" / f"{kind}.ndjson").read_bytes() for kind in FILES)
    assert hub["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_profile_is_claimed_only_where_it_is_met(tmp_path: Path) -> None:
    write_pilot(tmp_path, 5, {"chu": 40, "huvh": 40})
    for hub, claims in (("chu", False), ("huvh", True)):
        observations = [json.loads(x) for x in (tmp_path / hub / "Observation.ndjson").read_bytes().splitlines()]
        psa = [o for o in observations if o["code"]["coding"][0]["code"] == "2857-1"]
        assert psa
        assert all(("profile" in o["meta"]) is claims for o in psa)
        none = [o for o in observations if o["id"].endswith("-isup") and "profile" not in o["meta"]]
        assert none
        assert {o["valueCodeableConcept"]["coding"][0]["code"] for o in none} == {"110396000"}


@pytest.mark.parametrize("sizes", [{"paris": 10}, {"chu": 0}])
def test_an_unknown_hub_or_an_empty_one_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(MisuseError):
        simulate(1, sizes)


CANARY = Man(
    patient="canary-81549300", planted="", gender="male", birth=date(1951, 1, 7), age=71, age_only=False,
    biopsy=date(2022, 11, 3), repeated=1, isup=4, psa=81.7, psa_day=date(2022, 9, 2), psa_unit="ug/L", dre=1,
    dre_volume_class=3, volume=241.9, volume_unit="mL", mri=date(2022, 9, 9), pirads=5, family_history=1,
)  # fmt: skip


def test_a_canary_stands_in_the_files_and_in_the_rows_but_not_under_its_name(tmp_path: Path) -> None:
    write_pilot(tmp_path, 5, {"chu": 20})
    plant_canary(tmp_path / "chu", CANARY)
    rows, report = build(tmp_path / "chu", PILOT_RECIPE, key=KEY)
    assert report.rows == 21
    found = rows.connection.execute("SELECT patient, volume, isup FROM rows WHERE psa = 81.7").fetchall()
    assert found == [(pseudonym(KEY, CANARY.patient), 241.9, "4")]
    digest = write_snapshot(rows, tmp_path)
    assert b"81549300" not in (tmp_path / "records" / f"{digest.hex()}.parquet").read_bytes()


def test_a_canary_is_never_written_into_real_files(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="simulated"):
        plant_canary(tmp_path, CANARY)
    assert list(tmp_path.iterdir()) == []
