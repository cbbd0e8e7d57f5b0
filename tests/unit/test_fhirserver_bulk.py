"""A FHIR server read by its bulk export: waited for, fetched once, gone on with after a kill, cleaned up."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from flute.data.reader import Reader
from flute.errors import MisuseError, SourceError, Unmappable, Unreachable
from flute.fhirserver import bulk_files
from flute.fhirserver.bulk_files import ExportFile, lines_of
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from support.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from support.standard_server import Asked, Said, StandardServer, Ways, outcome, serving
from support.taking import CutOff, Patience, Taker, plain_transport

KINDS = ("Patient", "Observation")
LOAD = [
    *({"resourceType": "Patient", "id": f"p{n}"} for n in range(7)),
    *({"resourceType": "Observation", "id": f"o{n}", "status": "final", "valueInteger": n} for n in range(7)),
]


@pytest.fixture
def server() -> Iterator[StandardServer]:
    with serving(StandardServer(Ways(per_file=4))) as running:
        running.put(*LOAD)
        yield running


def reader(base: str, patience: Patience | None = None, queries: tuple[str, ...] = KINDS, **options: Any) -> Reader:
    chosen = ServerOptions(**{"read": "bulk", "page_size": 3, "request_s": 0.4, **options})
    around = (patience or Patience()).around()
    return open_server(base, chosen, queries=queries, around=around, transport=plain_transport)


def kick_offs(server: StandardServer) -> list[Asked]:
    return [asked for asked in server.asked if asked.path.endswith("$export")]


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_an_export_brings_everything_once(server: StandardServer, packed: bool) -> None:
    server.change(export_gzip=packed)
    taker, patience = Taker(), Patience()
    pages = taker.take(reader(server.base, patience))
    assert taker.all == server.all()
    assert set(taker.given.values()) == {1}
    assert [(p.scope, p.ends) for p in pages if p.ends] == [(kind, "complete") for kind in KINDS]
    assert patience.slept == [3.0], "the server asked for three seconds"
    assert server.exports == 0, "files of records do not lie about"


def test_the_kick_off_says_what_the_standard_wants(server: StandardServer) -> None:
    Taker().take(reader(server.base))
    (asked,) = kick_offs(server)
    assert asked.path == "/fhir/$export"
    assert asked.headers["prefer"] == "respond-async"
    assert asked.headers["accept"] == "application/fhir+json"
    assert dict(asked.query) == {"_type": "Patient,Observation", "_outputFormat": "application/fhir+ndjson"}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"level": "patient"}, "/fhir/Patient/$export"),
        ({"level": "group", "group": "g.1"}, "/fhir/Group/g.1/$export"),
    ],
)
def test_levels_have_their_own_address(server: StandardServer, options: Any, path: str) -> None:
    Taker().take(reader(server.base, **options))
    assert [asked.path for asked in kick_offs(server)] == [path]


def test_filters_go_along_where_the_operator_says_so(server: StandardServer) -> None:
    queries = ("Observation?code=http://loinc.org|2857-1&status=final", "Patient")
    Taker().take(reader(server.base, queries=queries))
    Taker().take(reader(server.base, queries=queries, type_filters=True))
    plain, filtered = kick_offs(server)
    assert plain.value("_typeFilter") == ""
    assert [v for n, v in filtered.query if n == "_typeFilter"] == [queries[0]]


# --- the second import ---------------------------------------------------------------------------------


def test_a_second_import_asks_for_what_changed_and_hears_what_is_gone(server: StandardServer) -> None:
    taker = Taker()
    taker.take(reader(server.base))
    server.time += server.step
    server.put({"resourceType": "Patient", "id": "p3", "gender": "male"}, {"resourceType": "Patient", "id": "new"})
    server.delete("Observation/o4")
    taker.given.clear()
    pages = taker.take(reader(server.base))
    assert taker.all == server.all()
    assert {"Patient/p3", "Patient/new"} <= set(taker.given) <= {"Patient/p3", "Patient/new", "Observation/o6"}
    assert [gone for page in pages for gone in page.gone] == ["Observation/o4"]
    assert {p.ends for p in pages if p.ends} == {"changes"}
    assert kick_offs(server)[1].value("_since")


def test_reread_asks_for_everything_and_finds_deletions_that_no_one_lists(server: StandardServer) -> None:
    server.change(export_deletions=False)
    taker = Taker()
    taker.take(reader(server.base))
    server.delete("Observation/o4")
    taker.take(reader(server.base))
    assert "Observation/o4" in taker.all
    taker.take(reader(server.base, deletions="reread"))
    assert taker.all == server.all()
    assert kick_offs(server)[2].value("_since") == ""


def test_after_a_failed_export_nothing_is_taken_for_gone_and_all_is_asked_again(server: StandardServer) -> None:
    taker = Taker()
    taker.take(reader(server.base, deletions="reread"))
    server.change(export_errors=("error", "warning", "information"))
    server.delete("Observation/o4")
    pages = taker.take(reader(server.base, deletions="reread"))
    assert "Observation/o4" in taker.all
    assert {p.ends for p in pages if p.ends} == {"changes"}
    assert [r.finding.path for r in taker.refused] == ["OperationOutcome.issue"] * 2
    fresh = Taker()
    fresh.take(reader(server.base))
    server.change(export_errors=())
    fresh.take(reader(server.base))
    assert kick_offs(server)[-1].value("_since") == "", "what failed is asked for again"
    assert fresh.all == server.all()


def test_types_that_are_no_longer_read_are_closed(server: StandardServer) -> None:
    taker = Taker()
    taker.take(reader(server.base))
    taker.take(reader(server.base, queries=("Patient",)))
    assert {key.partition("/")[0] for key in taker.all} == {"Patient"}


# --- kills, faults, lost exports -------------------------------------------------------------------------


def test_killed_after_any_page_an_import_goes_on_with_the_same_export(server: StandardServer) -> None:
    whole = len(Taker().take(reader(server.base)))
    for cut in range(1, whole):
        server.asked.clear()
        taker = Taker()
        with pytest.raises(CutOff):
            taker.take(reader(server.base), cut_after=cut)
        server.put({"resourceType": "Patient", "id": f"later{cut}"})
        taker.take(reader(server.base))
        assert len(kick_offs(server)) == 1
        assert set(taker.given.values()) == {1}
        assert f"Patient/later{cut}" not in taker.all, "the export is of its own time"
        taker.take(reader(server.base))
        assert taker.all == server.all()


def test_an_export_that_is_gone_is_begun_anew(server: StandardServer) -> None:
    for cut in range(1, 8):
        taker = Taker()
        with pytest.raises(CutOff):
            taker.take(reader(server.base), cut_after=cut)
        server.forget_exports()
        taker.take(reader(server.base))
        assert taker.all == server.all()


def test_a_file_that_expires_while_it_is_read_is_said_and_the_next_import_begins_anew(server: StandardServer) -> None:
    gone = iter([True])
    server.before = lambda asked: outcome(410, "expired") if "/file/" in asked.path and next(gone, False) else None
    taker = Taker()
    with pytest.raises(Unreachable, match=r"lost its export.*Start the import again"):
        taker.take(reader(server.base))
    taker.take(reader(server.base))
    assert taker.all == server.all()


def test_an_export_that_fails_at_the_server_is_given_up_by_the_next_import(server: StandardServer) -> None:
    server.before = lambda asked: Said(500) if asked.path == "/fhir/job/j1" else None
    taker = Taker()
    with pytest.raises(Unreachable, match="fails with status 500"):
        taker.take(reader(server.base))
    taker.take(reader(server.base))
    assert taker.all == server.all()


@pytest.fixture
def proxy(server: StandardServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.base) as running:
        yield running


NO_ERROR_AT_KICK_OFF = {f for f in FAULTS if not f.startswith("status-")} - {"dropped-before"}
"""Status 200: no error by its number, and yet no kick-off."""


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_request_of_an_export_changes_nothing(
    server: StandardServer, proxy: FaultyProxy, fault: str, at: int
) -> None:
    """Kick-off, two looks, four files. A kick-off that is repeated leaves one export behind, which expires."""
    proxy.fail_once(at, fault)
    taker = Taker()
    if at == 0 and fault in NO_ERROR_AT_KICK_OFF:
        with pytest.raises(SourceError):
            taker.take(reader(proxy.base))
    taker.take(reader(proxy.base))
    assert not taker.refused
    assert taker.all == server.all()
    assert set(taker.given.values()) == {1}


def test_a_file_without_announced_count_that_breaks_off_is_fetched_again(
    server: StandardServer, proxy: FaultyProxy
) -> None:
    """Nobody says how much there is, and the connection just ends: half a line tells."""
    body = b'{"resourceType":"Patient","id":"a"}\n{"resourceType":"Patient","id":"b-with-a-longer-id"}'
    for fault in ("no-length-and-cut", "dropped-midway"):
        server.before = lambda asked: Said(200, body) if "/file/" in asked.path else None
        proxy.fail_once(3, fault)
        opened = reader(proxy.base)
        connection = opened._connect()  # type: ignore[attr-defined]
        file = ExportFile(f"{proxy.base}/file/j1/x", connection.own("a file"), authorised=False)
        proxy.fail_once(0, fault)
        assert [line.text for line in lines_of(connection, file)] == body.split(b"\n")
        assert len(proxy.paths) == 2
        connection.wire.close()


# --- lines ------------------------------------------------------------------------------------------------


def files_say(server: StandardServer, body: bytes) -> None:
    server.change(per_file=1_000)
    server.before = lambda asked: Said(200, body) if "/file/" in asked.path and "Patient" in asked.path else None


def test_a_bad_line_costs_itself_alone(server: StandardServer) -> None:
    lines = [
        b'{"resourceType":"Patient","id":"a"}',
        b'{"resourceType":"Patient","id":"b"',
        b"",
        b'{"resourceType":"Observation","id":"c"}',
        b'{"resourceType":"Patient"}',
        b'{"resourceType":"Patient","id":"d"} ',
        b'{"resourceType":"Patient","id":"long","text":"' + b"x" * 5_000_000 + b'"}',
        b'{"resourceType":"Patient","id":"z"}',
    ]
    files_say(server, b"\r\n".join(lines))
    taker = Taker()
    taker.take(reader(server.base, queries=("Patient",)))
    assert set(taker.all) == {"Patient/a", "Patient/d", "Patient/z"}
    assert [(r.finding.reason, r.origin) for r in taker.refused] == [
        ("malformed-json", "127.0.0.1, Patient file 1, line 2"),
        ("wrong-type", "127.0.0.1, Patient file 1, line 4"),
        ("required-element-missing", "127.0.0.1, Patient file 1, line 5"),
        ("too-long", "127.0.0.1, Patient file 1, line 7"),
    ]


def test_a_file_of_fewer_resources_than_announced_is_not_taken_for_whole(server: StandardServer) -> None:
    files_say(server, b'{"resourceType":"Patient","id":"a"}\n')
    with pytest.raises(Unreachable, match="fewer resources than it announced"):
        Taker().take(reader(server.base, attempts=2, queries=("Patient",)))


def test_gzip_in_several_members_is_one_file(server: StandardServer) -> None:
    lines = [b'{"resourceType":"Patient","id":"%d"}\n' % n for n in range(7)]
    files_say(server, b"".join(gzip.compress(line) for line in lines))
    taker = Taker()
    taker.take(reader(server.base, queries=("Patient",)))
    assert len(taker.all) == 7


def test_a_gzip_bomb_stops_at_the_limit(server: StandardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of blanks in 20 kB."""
    monkeypatch.setattr(bulk_files, "MAX_IMPORT_FILE_BYTES", 2**20)
    files_say(server, gzip.compress(b" " * 20_000_000, 1))
    with pytest.raises(Unmappable, match="more than 1 MiB"):
        Taker().take(reader(server.base, queries=("Patient",)))


# --- what cannot be ----------------------------------------------------------------------------------------


def test_a_server_without_export_is_said(server: StandardServer) -> None:
    server.change(export=False)
    with pytest.raises(
        Unmappable, match=r"offers no bulk export of this kind \(level: system; status 404\).*read: search"
    ):
        Taker().take(reader(server.base))


def test_a_kick_off_that_is_answered_otherwise_is_said(server: StandardServer) -> None:
    server.before = lambda asked: Said(200, b"{}")
    with pytest.raises(Unmappable, match="202 and Content-Location"):
        Taker().take(reader(server.base))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": "group"}, "go together"),
        ({"group": "g"}, "go together"),
        ({"deletions": "sweep"}, "lists deletions itself"),
        ({"deletions": "history"}, "lists deletions itself"),
        ({"file_hosts": ("files.example",)}, "An allowed host is written like"),
        ({"file_hosts": ("http://files.example",)}, "unencrypted"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, sentence: str) -> None:
    with pytest.raises(MisuseError, match=sentence):
        reader("https://h.example/fhir", **options)
