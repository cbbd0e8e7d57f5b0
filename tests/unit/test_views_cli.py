"""`flute view run` as it is typed: each source, each format, and one sentence where it cannot be."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flute.cli.records.view import APP
from flute.errors import FluteError
from support.fhir_server import sekmet_server

VIEW: dict[str, Any] = {
    "resourceType": "ViewDefinition",
    "name": "patients",
    "resource": "Patient",
    "select": [
        {"column": [{"name": "id", "path": "getResourceKey()"}, {"name": "gender", "path": "gender"}]},
        {"forEachOrNull": "name", "column": [{"name": "family", "path": "family"}]},
    ],
}
PATIENTS = [
    {"resourceType": "Patient", "id": "a", "gender": "male", "name": [{"family": "Puig"}, {"family": "Roig"}]},
    {"resourceType": "Patient", "id": "b"},
]
ROWS = [
    {"id": "a", "gender": "male", "family": "Puig"},
    {"id": "a", "gender": "male", "family": "Roig"},
    {"id": "b", "gender": None, "family": None},
]
NDJSON = "".join(json.dumps(r) + "\n" for r in [*PATIENTS, {"resourceType": "Basic", "id": "x"}]).encode()


def bundle(resources: list[dict[str, Any]], kind: str = "collection") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": r} for r in resources]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "view.json").write_text(json.dumps(VIEW))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.ndjson").write_bytes(NDJSON)
    return tmp_path


def flute(folder: Path, *arguments: str, view: str = "view.json") -> Result:
    """The command in this process, as it is typed in `folder`."""
    with chdir(folder):
        return CliRunner().invoke(APP, ["run", "--view", view, *arguments])


def rows(done: Result) -> Any:
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def refusal(done: Result) -> str:
    """The one sentence that `flute` says and ends with exit code 1."""
    assert isinstance(done.exception, FluteError), done.exception
    assert "\n" not in done.exception.text
    return done.exception.text


def test_every_kind_of_file_gives_the_same_rows(folder: Path) -> None:
    data = folder / "data"
    (data / "q.ndjson.gz").write_bytes(gzip.compress(NDJSON))
    (data / "b.json").write_text(json.dumps(bundle(PATIENTS)))
    (data / "b.json.gz").write_bytes(gzip.compress((data / "b.json").read_bytes()))
    for name in ("p.ndjson", "q.ndjson.gz", "b.json", "b.json.gz"):
        assert rows(flute(folder, "--resources", f"data/{name}")) == ROWS, name
    (data / "one.json").write_text(json.dumps(PATIENTS[1]))
    assert rows(flute(folder, "--resources", "data/one.json")) == ROWS[2:]
    assert rows(flute(folder, "--resources", "data")) == [*ROWS * 2, ROWS[2], *ROWS * 2]


def test_entries_of_a_transaction_are_known_by_their_final_ids(folder: Path) -> None:
    urn = "urn:uuid:7e5f9b1c-3a80-4e8a-9b0e-2f1d5a1f4c11"
    entries = [
        {"fullUrl": urn, "resource": {"resourceType": "Patient", "gender": "female"},
         "request": {"method": "POST", "url": "Patient"}},
        {"fullUrl": urn[:-1] + "2", "request": {"method": "POST", "url": "Basic"},
         "resource": {"resourceType": "Basic", "subject": {"reference": urn}}},
    ]  # fmt: skip
    (folder / "t.json").write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    view = {"resource": "Basic", "select": [{"column": [{"name": "p", "path": "subject.getReferenceKey(Patient)"}]}]}
    (folder / "v2.json").write_text(json.dumps(view))
    assert rows(flute(folder, "--resources", "t.json", view="v2.json")) == [{"p": urn.removeprefix("urn:uuid:")}]


def test_parquet_goes_to_a_file(folder: Path) -> None:
    done = flute(folder, "--resources", "data", "--format", "parquet", "--out", "t.parquet")
    assert (done.exception, done.stdout) == (None, "")
    assert duckdb.sql(f"FROM '{folder / 't.parquet'}'").fetchall() == [tuple(row.values()) for row in ROWS]


def test_boundaries_see_the_digits_that_are_written(folder: Path) -> None:
    view = {"resource": "Observation", "select": [{"column": [
        {"name": "low", "path": "value.ofType(Quantity).value.lowBoundary()", "type": "decimal"}]}]}  # fmt: skip
    (folder / "b.json").write_text(json.dumps(view))
    observation = '{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.00}}'
    (folder / "o.ndjson").write_text(observation)
    (folder / "o.json").write_text(observation)
    for name in ("o.ndjson", "o.json"):
        assert rows(flute(folder, "--resources", name, view="b.json")) == [{"low": 0.995}]


BAD_FILES = {
    "broken.ndjson": (NDJSON + b"{", "broken.ndjson, line 4 is no JSON"),
    "cut.ndjson.gz": (gzip.compress(NDJSON * 100)[:-9], "cut.ndjson.gz cannot be read to its end"),
    "broken.json": (b"{", "broken.json"),
    "twins.json": (b'{"resourceType":"Patient","id":"a","id":"b"}', "twins.json: Write each key once"),
    "list.json": (b"[]", "list.json is no FHIR resource"),
    "kind.json": (json.dumps(bundle(PATIENTS, "history")).encode(), "kind.json"),
    "noid.json": (json.dumps(bundle([{"resourceType": "Patient"}])).encode(), "noid.json, entry 1"),
    "table.csv": (b"a,b", "table.csv is none of"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_one_sentence_and_no_table(folder: Path, name: str) -> None:
    content, says = BAD_FILES[name]
    (folder / name).write_bytes(content)
    done = flute(folder, "--resources", name, "--format", "csv", "--out", "t.csv")
    assert says in refusal(done)
    assert not (folder / "t.csv").exists()


def test_a_resource_that_does_not_fit_is_named_by_its_place(folder: Path) -> None:
    with (folder / "data" / "p.ndjson").open("a") as file:
        file.write('{"resourceType":"Patient","id":"c","gender":["male","female"]}\n')
    done = flute(folder, "--resources", "data")
    assert "p.ndjson, line 4: View patients: Column gender holds more than one value" in refusal(done)


BAD_VIEWS = {
    "no JSON": (b"{", "no JSON"),
    "a list": (b"[]", "no JSON object"),
    "another resource": (b'{"resourceType":"Patient"}', "another type"),
    "a function": (json.dumps(VIEW | {"where": [{"path": "name.foo()"}]}).encode(), "foo"),
}


@pytest.mark.parametrize("what", BAD_VIEWS)
def test_a_view_that_cannot_run_is_one_sentence(folder: Path, what: str) -> None:
    content, says = BAD_VIEWS[what]
    (folder / "view.json").write_bytes(content)
    done = flute(folder, "--resources", "data")
    assert says in refusal(done)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resources", "nowhere"], "no file or folder nowhere"),
        (["--resources", "empty"], "holds no FHIR file"),
        (["--resources", "data", "--format", "parquet"], "--out"),
        (["--resources", "data", "--out", "no/t.json"], "no folder"),
        (["--resources", "http://fhir.example/r4"], "http"),
    ],
)
def test_a_command_that_cannot_be_is_one_sentence(folder: Path, arguments: list[str], says: str) -> None:
    (folder / "empty").mkdir()
    done = flute(folder, *arguments)
    assert says in refusal(done)


def test_as_a_program_it_says_one_sentence_and_ends_with_1_and_a_closed_pipe_is_no_error(folder: Path) -> None:
    """The only test that starts Python anew: each start takes a second."""
    (folder / "data" / "p.ndjson").write_bytes(NDJSON * 3_000)
    run = f"{sys.executable} -m flute view run --view view.json --resources"
    script = f"{run} data --format ndjson | head -1; echo ${{PIPESTATUS[0]}}; {run} nowhere; echo $?"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    first, *codes = done.stdout.splitlines()
    assert (json.loads(first), codes) == (ROWS[0], ["0", "1"])
    assert done.stderr == "source-unreachable: There is no file or folder nowhere.\n"


@pytest.mark.requirement("F-HUF-19")
def test_a_fhir_server_gives_the_rows_of_the_same_files(folder: Path) -> None:
    (folder / "options.yaml").write_text("allow_http: true\n")
    with sekmet_server() as server:
        server.put(PATIENTS)
        done = flute(folder, "--resources", server.url, "--server-options", "options.yaml")
    assert sorted(map(str, rows(done))) == sorted(map(str, ROWS))
