"""The same simulated men through every kind of source give the same table, byte for byte, and the same report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import openpyxl
import pytest

from flute.connectors.files import FilesReader
from flute.data.reader import Reader
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from flute.intake.freeze import Freezing, freeze
from flute.intake.rows import ImportReport
from flute.intake.snapshot import snapshot_path, write_snapshot
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from flute.pilot.exports import write_omop, write_sql, write_tables
from flute.pilot.hospital import hospital_tables
from flute.pilot.mappings import mapping_text
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.recipe import pilot_recipe
from flute.pilot.resources import Man, resources_of
from flute.pilot.simulate import SimulatedHub, simulate, write_pilot
from flute.tabular.mapping_file import read_mapping
from flute.tabular.sheets import SheetsReader
from flute.tabular.sql import SqlReader
from support.fhir_server import sekmet_server
from support.postgres import PASSWORD, Postgres, postgres_server

pytestmark = pytest.mark.requirement("F-SRS-7")
KEY = bytes(range(32))
SIZES = {"huvh": 40, "chu": 40, "irst": 80}
"""chu sends ug/L and mL, irst has biopsies that state only an age."""


@dataclass(frozen=True)
class Taken:
    digest: bytes
    table: tuple[bytes, ...]
    report: ImportReport


def imported(reader: Reader, root: Path) -> Taken:
    """By the hub's own pipeline: pages, checks, recipe, pseudonyms, snapshot. `table`: its rows as CSV, sorted."""
    design = Design(replace(pilot_recipe(), model=PILOT_MODEL))
    with Staging(None, design.views, design.digest) as staging:
        take(reader, staging, design.judge(KEY))
        frozen = freeze(staging, design.recipe, Freezing(KEY, simulated=True))
    digest = write_snapshot(frozen.rows, root)
    out = root / "rows.csv"
    frozen.rows.connection.execute(f"COPY (SELECT * FROM read_parquet('{snapshot_path(root, digest)}')) TO '{out}'")
    return Taken(digest, tuple(sorted(out.read_bytes().splitlines())), frozen.report)


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, SimulatedHub], Path]:
    out = tmp_path_factory.mktemp("pilot")
    return write_pilot(out, 11, SIZES), out


@pytest.fixture(scope="module")
def men(hubs: tuple[dict[str, SimulatedHub], Path]) -> list[Man]:
    return [man for hub in hubs[0].values() for man in hub.men]


@pytest.fixture(scope="module")
def by_ndjson(
    hubs: tuple[dict[str, SimulatedHub], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[Man]], Taken]:
    """The same men as FHIR files."""
    kept: list[Taken] = []

    def taken(men: list[Man]) -> Taken:
        if not kept:
            folder = tmp_path_factory.mktemp("fhir")
            for name in ("Patient", "Observation", "Procedure", "FamilyMemberHistory", "ImagingStudy"):
                parts = [(hubs[1] / hub / f"{name}.ndjson").read_bytes() for hub in hubs[0]]
                (folder / f"{name}.ndjson").write_bytes(b"".join(parts))
            kept.append(imported(FilesReader(folder), tmp_path_factory.mktemp("root")))
        return kept[0]

    return taken


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


def same(one: Taken, other: Taken) -> None:
    assert one.table == other.table
    assert one.digest == other.digest
    assert one.report.refused == other.report.refused == {}
    assert one.report.excluded == other.report.excluded
    assert one.report.patients == other.report.patients
    assert one.report.missing == other.report.missing


def test_the_men_have_what_makes_it_hard(men: list[Man]) -> None:
    """No PSA, an age without a day, earlier and later tests, second lesions, scores reported days after the MRI."""
    assert any(man.psa is None for man in men)
    assert any(man.age_only for man in men)
    assert any(man.earlier_psa for man in men)
    assert any(man.later_psa for man in men)
    assert any(man.second_lesion for man in men)
    assert any(man.report_days and man.pirads for man in men)
    assert any(man.earlier_biopsy for man in men)
    assert any(man.earlier_mri for man in men)
    assert any(man.volume is not None and man.mri is None for man in men)
    assert any(man.second_condition and man.family_history == 0 for man in men)
    assert {man.planted for man in men} >= {"not-male", "no-biopsy", "no-suspicion", "no-mri", "mri-after-biopsy"}
    assert {man.psa_unit for man in men} == {"ng/mL", "ug/L"}


def test_the_table_of_the_files_is_the_simulators_truth(
    hubs: tuple[dict[str, SimulatedHub], Path], men: list[Man], by_ndjson: Callable[[list[Man]], Taken]
) -> None:
    report = by_ndjson(men).report
    assert report.rows == sum(len(hub.eligible) for hub in hubs[0].values())
    assert sum(report.excluded.values()) == sum(len(hub.planted) for hub in hubs[0].values())


@pytest.mark.parametrize("varied", [False, True], ids=["plain", "varied"])
def test_csv_files_give_the_same_table(
    varied: bool, men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    place = write_tables(men, tmp_path / "csv", "csv", varied=varied)
    mapping = read_mapping((place / "mapping.yaml").read_text(encoding="utf-8"), PILOT_MODEL)
    same(imported(SheetsReader(place, mapping, PILOT_MODEL), tmp_path), by_ndjson(men))


@pytest.mark.parametrize("varied", [False, True], ids=["plain", "varied"])
def test_a_workbook_gives_the_same_table(
    varied: bool, men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    place = tmp_path / "hospital.xlsx"
    write_workbook(men, place, varied=varied)
    mapping = read_mapping(mapping_text("xlsx-varied" if varied else "xlsx"), PILOT_MODEL)
    same(imported(SheetsReader(place, mapping, PILOT_MODEL), tmp_path), by_ndjson(men))


def write_workbook(men: list[Man], place: Path, *, varied: bool) -> None:
    book = openpyxl.Workbook(write_only=True)
    for table in hospital_tables(men, varied=varied):
        sheet = book.create_sheet(table.name)
        for row in [["SIMULATED"], []] if varied else []:
            sheet.append(row)
        sheet.append(list(table.columns))
        for cells in table.rows:
            sheet.append(list(cells))
    book.save(place)


@pytest.mark.parametrize("varied", [False, True], ids=["plain", "varied"])
@pytest.mark.parametrize("form", ["sql", "omop"])
def test_an_sqlite_database_gives_the_same_table(
    form: str, varied: bool, men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    place = write_tables(men, tmp_path / form, form, varied=varied)  # type: ignore[arg-type]
    mapping = read_mapping((place.parent / "mapping.yaml").read_text(encoding="utf-8"), PILOT_MODEL)
    same(imported(SqlReader(f"sqlite:///{place}", mapping, PILOT_MODEL), tmp_path), by_ndjson(men))


@pytest.mark.parametrize("varied", [False, True], ids=["plain", "varied"])
@pytest.mark.parametrize("form", ["sql", "omop"])
def test_a_postgresql_database_gives_the_same_table(
    form: str,
    varied: bool,
    men: list[Man],
    by_ndjson: Callable[[list[Man]], Taken],
    tmp_path: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = postgres.fresh("hospital")
    write = write_sql if form == "sql" else write_omop
    write(men, database.full_url, varied=varied)
    monkeypatch.setenv("HOSPITAL_PASSWORD", PASSWORD)
    name = "sql-varied" if (form, varied) == ("sql", True) else form
    text = mapping_text(name) + "login: {password_env: HOSPITAL_PASSWORD}\n"
    reader = SqlReader(database.url, read_mapping(text, PILOT_MODEL), PILOT_MODEL)
    same(imported(reader, tmp_path), by_ndjson(men))


def test_a_fhir_server_gives_the_same_table(
    men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    with sekmet_server() as server:
        server.put(resource for man in men for resource in resources_of(man))
        kinds = ("Patient", "Observation", "Procedure", "FamilyMemberHistory", "ImagingStudy")
        reader = open_server(server.url, ServerOptions(allow_http=True), queries=kinds)
        same(imported(reader, tmp_path), by_ndjson(men))


@pytest.mark.parametrize("lost", ["lab_results.csv", "lesions.csv", "biopsies.csv"])
def test_one_row_less_is_seen(
    lost: str, men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    """The comparison would notice: without one man's index row the table is another."""
    place = write_tables(men, tmp_path / "csv", "csv")
    index = {"lab_results.csv": "-psa,", "lesions.csv": "-lesion-1,", "biopsies.csv": "-biopsy,"}[lost]
    inside = next(man.patient for man in men if not man.planted and man.psa and man.pirads and not man.earlier_psa
                  and not man.second_lesion)  # fmt: skip
    lines = (place / lost).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{inside}{index}")]
    assert len(kept) == len(lines) - 1
    (place / lost).write_text("".join(kept), encoding="utf-8")
    mapping = read_mapping((place / "mapping.yaml").read_text(encoding="utf-8"), PILOT_MODEL)
    assert imported(SheetsReader(place, mapping, PILOT_MODEL), tmp_path).table != by_ndjson(men).table


def test_a_factor_that_is_forgotten_is_seen(
    men: list[Man], by_ndjson: Callable[[list[Man]], Taken], tmp_path: Path
) -> None:
    """Milligrams taken for nanograms: other table."""
    place = write_tables(men, tmp_path / "csv", "csv", varied=True)
    text = (place / "mapping.yaml").read_text(encoding="utf-8")
    wrong = text.replace("values: {ng/ml: ng/mL, µg/L: ug/L}", "values: {ng/ml: ng/mL, µg/L: ug/L, mg/L: ng/mL}")
    assert wrong != text
    taken = imported(SheetsReader(place, read_mapping(wrong, PILOT_MODEL), PILOT_MODEL), tmp_path)
    assert taken.table != by_ndjson(men).table


def test_simulate_is_what_was_written(hubs: tuple[dict[str, SimulatedHub], Path]) -> None:
    assert {name: len(hub.eligible) for name, hub in hubs[0].items()} == SIZES
    assert {name: hub.men for name, hub in simulate(11, SIZES).items()} == {n: h.men for n, h in hubs[0].items()}
