"""A real FHIR server (sekmet) with the simulated pilot's resources: search, bulk export, logins, faults, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.data.reader import Reader
from flute.errors import Unreachable
from flute.fhirserver.options import Basic, Bearer, ServerOptions, Smart
from flute.fhirserver.server import open_server
from flute.pilot.resources import resources_of
from flute.pilot.simulate import simulate
from flute.pilot.views import PILOT_VIEWS
from flute.views.view import compile_view
from support.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from support.fhir_server import Sekmet, sekmet_server
from support.taking import CutOff, Patience, Taker, plain_transport

Resource = dict[str, Any]
KINDS = ("Patient", "Observation", "Procedure", "FamilyMemberHistory", "ImagingStudy")
SOURCE: dict[str, Resource] = {
    f"{r['resourceType']}/{r['id']}": r for man in simulate(1, {"huvh": 40})["huvh"].men for r in resources_of(man)
}


SMALL = dict(list(SOURCE.items())[:150])


@pytest.fixture(scope="module")
def sekmet() -> Iterator[Sekmet]:
    """Never written to after it was loaded."""
    with sekmet_server() as running:
        running.put(SOURCE.values())
        yield running


@pytest.fixture(scope="module")
def proxy(sekmet: Sekmet) -> Iterator[FaultyProxy]:
    with faulty_proxy(sekmet.url) as running:
        yield running


def reader(url: str, *queries: str, **options: Any) -> Reader:
    chosen = ServerOptions(**{"page_size": 60, "overlap_s": 0, "request_s": 2.0, **options})
    around = Patience(now=datetime.now(UTC)).around()
    return open_server(url, chosen, queries=queries or KINDS, around=around, transport=plain_transport)


def bare(resource: Resource) -> Resource:
    """Without what the server adds: version and time."""
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    return {**resource, "meta": meta}


def same_as_source(found: dict[str, Resource], source: dict[str, Resource] = SOURCE) -> None:
    assert found.keys() == source.keys()
    assert all(bare(found[key]) == source[key] for key in source)


def rows_of(resources: dict[str, Resource]) -> bytes:
    """The pilot's views over resources, as bytes, sorted."""
    rows = [
        (name, row)
        for name, declaration in PILOT_VIEWS.items()
        for view in [compile_view(name, declaration)]
        for resource in resources.values()
        if resource["resourceType"] == view.resource
        for row in view.rows(resource)
    ]
    return b"\n".join(sorted(msgspec.json.encode(row) for row in rows))


# --- search ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.requirement("F-PIL-16")
def test_a_search_brings_the_cohort_byte_for_byte(sekmet: Sekmet) -> None:
    """Loaded by transactions: hundreds of resources of one instant, several pages of it."""
    taker = Taker()
    taker.take(reader(sekmet.url))
    same_as_source(taker.all)
    assert not taker.refused
    assert set(taker.given.values()) == {1}
    assert rows_of(taker.all) == rows_of(SOURCE)
    assert rows_of(taker.all).count(b"\n") > 400


def test_a_search_by_code_brings_what_bears_the_code(sekmet: Sekmet) -> None:
    taker = Taker()
    taker.take(reader(sekmet.url, "Observation?code=http://loinc.org|2857-1"))
    wanted = {
        key: r
        for key, r in SOURCE.items()
        if r["resourceType"] == "Observation" and r["code"]["coding"][0]["code"] == "2857-1"
    }
    assert len(wanted) > 40
    same_as_source(taker.all, wanted)


def test_a_second_import_brings_changes_and_deletions_of_the_real_server() -> None:
    queries = ("Patient", "Observation?code=http://loinc.org|2857-1", "Procedure")
    with sekmet_server() as running:
        running.put(SMALL.values())
        taker = Taker()
        taker.take(reader(running.url, *queries))
        before = dict(taker.all)
        keys = [key for key in before if key.startswith("Observation/")]
        changed = {**bare(before[keys[0]]), "status": "amended"}
        recoded = {**bare(before[keys[1]]), "code": {"text": "something else"}}
        running.put([changed, recoded, {"resourceType": "Patient", "id": "new"}])
        running.delete(keys[2])
        taker.given.clear()
        pages = taker.take(reader(running.url, *queries))
        assert bare(taker.all[keys[0]]) == changed
        assert {gone for page in pages for gone in page.gone} == {keys[1], keys[2]}
        assert taker.all.keys() == (before.keys() | {"Patient/new"}) - {keys[1], keys[2]}
        assert {"Patient/new", keys[0]} <= taker.given.keys()


# --- faults ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "drip"])
def test_a_server_that_fails_every_third_time_gives_everything_once(proxy: FaultyProxy, fault: str) -> None:
    """Its links show its own address, which is not the proxy's: the proxy writes them over, as a real one does."""
    proxy.fail_once(-1, "")
    proxy.plan = lambda number, path: fault if number % 3 == 1 else ""
    taker = Taker()
    taker.take(reader(proxy.base, page_size=40))
    same_as_source(taker.all)
    assert set(taker.given.values()) == {1}
    assert len(proxy.faults) > 3


def test_a_server_that_is_killed_and_comes_back_is_read_on() -> None:
    with sekmet_server() as running:
        running.put(SMALL.values())
        taker = Taker()
        with pytest.raises(CutOff):
            taker.take(reader(running.url, page_size=20), cut_after=4)
        running.kill()
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be reached"):
            taker.take(reader(running.url))
        running.start()
        had = len(taker.all)
        assert 0 < had < len(SMALL)
        taker.take(reader(running.url))
        same_as_source(taker.all, SMALL)


IMPORTER = """
    import json, os, sys
    from pathlib import Path
    from flute.fhirserver.server import open_server
    from flute.fhirserver.options import ServerOptions

    url, options, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    store = folder / "store"
    held = json.loads(store.read_text()) if store.exists() else {"mark": None, "resources": {}}
    import msgspec
    reader = open_server(url, msgspec.json.decode(options, type=ServerOptions), queries=%r)
    for page in reader.pages(None if held["mark"] is None else held["mark"].encode()):
        for record in page.records:
            held["resources"][record.key] = record.resource
        held["mark"] = page.mark.decode()
        (folder / "next").write_text(json.dumps(held))
        os.replace(folder / "next", store)
        print(len(held["resources"]), flush=True)
    print("done", flush=True)
"""


@pytest.mark.parametrize("read", ["search", "bulk"])
def test_an_import_killed_again_and_again_ends_complete(sekmet: Sekmet, tmp_path: Path, read: str) -> None:
    """A process of its own, killed with -9 after one page more each time."""
    options = msgspec.json.encode(ServerOptions(read=read, page_size=80)).decode()  # type: ignore[arg-type]
    code = textwrap.dedent(IMPORTER) % (KINDS,)
    for kills in range(1, 40):
        command = [sys.executable, "-c", code, sekmet.url, options, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = ""
            for _ in range(kills if kills < 4 else 1_000):
                said = process.stdout.readline().strip()
                if said in ("done", ""):
                    break
            os.kill(process.pid, signal.SIGKILL)
        if said == "done":
            break
    held = json.loads((tmp_path / "store").read_text())["resources"]
    same_as_source(held)
    assert kills == 4, "three were killed under way"


# --- bulk export -----------------------------------------------------------------------------------------


def in_compartments(source: dict[str, Resource]) -> dict[str, Resource]:
    """sekmet does not count FamilyMemberHistory to a patient's compartment, as the standard does."""
    return {key: r for key, r in source.items() if r["resourceType"] != "FamilyMemberHistory"}


@pytest.mark.parametrize("level", ["system", "patient"])
def test_an_export_brings_the_cohort(sekmet: Sekmet, level: str) -> None:
    taker = Taker()
    taker.take(reader(sekmet.url, read="bulk", level=level))
    same_as_source(taker.all, SOURCE if level == "system" else in_compartments(SOURCE))
    assert set(taker.given.values()) == {1}
    assert list((sekmet.folder / "data" / "bulk").iterdir()) == [], "the server was told to delete its files"


def test_an_export_of_a_group_brings_its_patients() -> None:
    men = sorted(key for key in SOURCE if key.startswith("Patient/"))[:3]
    group = {"resourceType": "Group", "id": "g", "member": [{"entity": {"reference": key}} for key in men]}
    with sekmet_server() as running:
        running.put([*SMALL.values(), group])
        taker = Taker()
        taker.take(reader(running.url, read="bulk", level="group", group="g"))
        wanted = {k: r for k, r in SMALL.items() if k in men or any(m in json.dumps(r) for m in men)}
        same_as_source(taker.all, in_compartments(wanted))


def test_changes_by_export_and_deletions_by_reading_all_again() -> None:
    """sekmet lists no deletions in its exports."""
    with sekmet_server() as running:
        running.put(SMALL.values())
        taker = Taker()
        taker.take(reader(running.url, read="bulk"))
        gone = next(key for key in SMALL if key.startswith("Observation/"))
        running.delete(gone)
        running.put([{"resourceType": "Patient", "id": "new"}])
        taker.given.clear()
        taker.take(reader(running.url, read="bulk"))
        assert "Patient/new" in taker.given
        assert gone in taker.all
        taker.take(reader(running.url, read="bulk", deletions="reread"))
        assert taker.all.keys() == (SMALL.keys() | {"Patient/new"}) - {gone}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "drip"])
def test_an_export_through_a_failing_line_gives_everything_once(proxy: FaultyProxy, fault: str) -> None:
    proxy.fail_once(-1, "")
    proxy.plan = lambda number, path: fault if number % 3 == 1 else ""
    taker = Taker()
    taker.take(reader(proxy.base, read="bulk"))
    same_as_source(taker.all)
    assert set(taker.given.values()) == {1}


# --- logins ----------------------------------------------------------------------------------------------


def keys_of(folder: Path, algorithm: str) -> tuple[str, Any]:
    """As an operator makes them, by the server's own command."""
    path = folder / f"{algorithm}.pem"
    command = [sys.executable, "-c", "from sekmet.cli import app; app()", "keys", "generate"]
    subprocess.run([*command, "--out", str(path), "--alg", algorithm], check=True, capture_output=True, cwd=folder)
    return str(path), json.loads(path.with_suffix(".jwks.json").read_text())


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_backend_services_open_search_and_export_of_the_real_server(tmp_path: Path, algorithm: str) -> None:
    """The server enforces scopes: reading is allowed, and nothing else was asked for."""
    key_file, jwks = keys_of(tmp_path, algorithm)
    client = {"client_id": "flute-hub", "jwks": jwks, "scopes": "system/*.rs"}
    auth = {"types": ["smart", "bearer"], "smart_clients": [client], "tokens": ["loader"]}
    with sekmet_server(server_auth=auth) as running:
        running.token = "loader"
        running.put(SMALL.values())
        smart = Smart(client_id="flute-hub", key_file=key_file, key_id=jwks["keys"][0]["kid"])
        for read in ("search", "bulk"):
            taker = Taker()
            # Time is the real one here: the server checks how old an assertion is.
            options = ServerOptions(read=read, auth=smart)  # type: ignore[arg-type]
            taker.take(open_server(running.url, options, queries=KINDS))
            same_as_source(taker.all, SMALL)
        stranger = Smart(client_id="somebody-else", key_file=key_file)
        with pytest.raises(Unreachable, match=r"no access token \(status 401, it says invalid_client\)"):
            Taker().take(open_server(running.url, ServerOptions(auth=stranger), queries=KINDS))


def test_fixed_tokens_and_passwords_open_the_real_server(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    auth = {"types": ["basic", "bearer"], "users": {"hub": "s3cret"}, "tokens": ["s3cret"]}
    with sekmet_server(server_auth=auth) as running:
        running.token = "s3cret"
        running.put([{"resourceType": "Patient", "id": "a"}])
        for kind in (Bearer(file=str(secret)), Basic(user="hub", file=str(secret))):
            taker = Taker()
            taker.take(reader(running.url, "Patient", auth=kind))
            assert set(taker.all) == {"Patient/a"}
        with pytest.raises(Unreachable, match=r"does not accept FLUTE's credentials.*status 401"):
            Taker().take(reader(running.url, "Patient", auth=Basic(user="other", file=str(secret))))
        with pytest.raises(Unreachable, match="See auth in the server's options"):
            Taker().take(reader(running.url, "Patient"))
