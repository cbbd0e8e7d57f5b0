"""A FHIR server read by search: everything once, changes and deletions later, whatever the server cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flute.data.reader import Reader
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from support.standard_server import START, Asked, Said, StandardServer, Ways, fhir, outcome, serving
from support.taking import CutOff, Patience, Taker, plain_transport

CODE = "http://loinc.org|2857-1"
OTHER = "http://loinc.org|8480-6"


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def observation(key: str, code: str = CODE, value: int = 1, **more: Any) -> dict[str, Any]:
    system, _, number = code.partition("|")
    coding = [{"system": system, "code": number}]
    base = {"resourceType": "Observation", "id": key, "status": "final", "code": {"coding": coding}}
    return {**base, "valueInteger": value, **more}


@pytest.fixture
def server() -> Iterator[StandardServer]:
    with serving(StandardServer()) as running:
        yield running


def reader(server: StandardServer, *queries: str, known: Any = None, **options: Any) -> Reader:
    chosen = ServerOptions(**{"page_size": 10, "overlap_s": 0, **options})
    return open_server(
        server.base,
        chosen,
        queries=queries or ("Patient",),
        known=known,
        around=Patience().around(),
        transport=plain_transport,
    )


SERVERS = {
    "by the book": Ways(),
    "that cannot sort": Ways(sorts=False),
    "that refuses what it does not know": Ways(sorts=False, refuses_unknown=True),
    "that cannot ask by time": Ways(filters_by_time=False),
    "that refuses to be asked by time": Ways(filters_by_time=False, sorts=False, refuses_unknown=True),
    "without totals": Ways(totals=False),
    "without totals or sorting": Ways(totals=False, sorts=False),
    "that does not say its time": Ways(says_time=False),
    "that stamps nothing": Ways(stamps_resources=False, says_time=False),
    "without a CapabilityStatement": Ways(capabilities=False),
    "that keeps finer times than it shows": Ways(exact_instants=True),
    "with tiny pages": Ways(most=3),
    "that shows whole seconds": Ways(whole_seconds=True),
}


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("ways", SERVERS.values(), ids=SERVERS)
def test_every_resource_comes_whatever_the_server_cannot_do(server: StandardServer, ways: Ways) -> None:
    """Two bulk loads at one instant each, one after other resources, both larger than a page."""
    server.ways = ways
    server.put(*(patient(f"b{n}") for n in range(25)), at_once=True)
    server.put(*(patient(f"s{n}") for n in range(25)))
    server.put(*(patient(f"t{n}") for n in range(25)), at_once=True)
    server.put(*(observation(f"o{n}") for n in range(12)), patient("last"))
    taker = Taker()
    pages = taker.take(reader(server, "Patient", "Observation"))
    assert taker.all == server.all()
    assert not taker.refused
    assert [(p.scope, p.ends) for p in pages if p.ends] == [("Patient", "complete"), ("Observation", "complete")]


@pytest.mark.parametrize("ways", SERVERS.values(), ids=SERVERS)
def test_a_second_import_brings_what_changed_and_what_is_gone(server: StandardServer, ways: Ways) -> None:
    server.ways = ways
    server.put(*(patient(f"p{n}") for n in range(25)))
    taker = Taker()
    taker.take(reader(server))
    server.put(patient("p3", gender="male"), patient("new"))
    server.delete("Patient/p4")
    taker.take(reader(server))
    assert taker.all == server.all()


def test_a_second_import_reads_only_what_changed(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(25)))
    taker = Taker()
    taker.take(reader(server))
    server.put(patient("p3", gender="male"), patient("new"))
    server.delete("Patient/p4")
    taker.given.clear()
    pages = taker.take(reader(server))
    # p24 bears the very instant at which the first import began, and is read again: its time could hold more.
    assert set(taker.given) == {"Patient/p3", "Patient/new", "Patient/p24"}
    assert [gone for page in pages for gone in page.gone] == ["Patient/p4"]
    assert pages[-1].ends == "changes"


def test_where_nothing_changed_no_page_comes(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(25)))
    server.time += server.step
    taker = Taker()
    taker.take(reader(server))
    server.asked.clear()
    assert taker.take(reader(server)) == []
    assert [asked.path for asked in server.asked] == ["/fhir/metadata", "/fhir/Patient", "/fhir/Patient/_history"]


def test_the_overlap_reads_again_what_a_slow_node_stamped_early(server: StandardServer) -> None:
    """Written after the import, but stamped two seconds before it began."""
    server.put(*(patient(f"p{n}") for n in range(5)))
    late = server.time
    server.time += 300 * server.step
    taker = Taker()
    taker.take(reader(server))
    now, server.time = server.time, late
    server.put(patient("late"))
    server.time = now
    without = Taker(mark=taker.mark)
    without.take(reader(server, overlap_s=0))
    assert "Patient/late" not in without.given
    taker.take(reader(server, overlap_s=5))
    assert taker.all == server.all()


# --- while the hospital works on -------------------------------------------------------------------------


def busy(server: StandardServer, every: int) -> None:
    """Touches what was read before, deletes and adds, between the pages."""
    count = 0

    def before(asked: Asked) -> None:
        nonlocal count
        if asked.path != "/fhir/Patient" or asked.value("_count") == "1":
            return
        count += 1
        if count % every == 0 and count <= 8 * every:
            keys = sorted(server.all())
            server.touch(keys[count % len(keys)])
            server.delete(keys[(count * 7) % len(keys)])
            server.put(patient(f"new{count}"))

    server.before = before  # type: ignore[assignment]


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("ways", [Ways(), Ways(sorts=False), Ways(totals=False)], ids=["sorts", "lists", "no totals"])
def test_a_resource_that_changes_between_pages_is_neither_lost_nor_doubled(
    server: StandardServer, ways: Ways, every: int
) -> None:
    server.ways = ways
    server.put(*(patient(f"p{n:02}") for n in range(60)))
    still = set(server.all())
    busy(server, every)
    taker = Taker()
    for _ in range(4):
        with suppress(Unreachable):
            taker.take(reader(server))
            break
    still &= set(server.all())
    assert still <= set(taker.all)
    server.before = lambda asked: None
    taker.take(reader(server))
    assert taker.all == server.all()


def test_following_the_links_alone_would_lose_one(server: StandardServer) -> None:
    """The trap is real: one resource that moves to the end hides another."""
    server.put(*(patient(f"p{n:02}") for n in range(30)))
    moved: list[bool] = []

    def before(asked: Asked) -> None:
        if asked.value("_offset") == "10" and not moved:
            moved.append(True)
            server.touch("Patient/p00")

    server.before = before  # type: ignore[assignment]
    import httpx

    url, seen = f"{server.base}/Patient?_count=10", []
    while url:
        bundle = httpx.get(url).json()
        seen += [entry["resource"]["id"] for entry in bundle["entry"]]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert len(seen) == 30
    assert set(seen) == {f"p{n:02}" for n in range(30)} - {"p10"}


def test_a_list_that_never_holds_still_is_given_up_in_words(server: StandardServer) -> None:
    server.ways = Ways(sorts=False)
    server.put(*(patient(f"p{n:02}") for n in range(30)))
    count = iter(range(10_000))
    server.before = lambda asked: server.put(patient(f"x{next(count)}"))  # type: ignore[func-returns-value]
    with pytest.raises(Unreachable, match=r"changes while it is read.*quieter hour"):
        Taker().take(reader(server))


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("ways", [Ways(), Ways(sorts=False), Ways(totals=False)], ids=["sorts", "lists", "no totals"])
def test_killed_after_any_page_an_import_goes_on_and_ends_the_same(server: StandardServer, ways: Ways) -> None:
    server.ways = ways
    server.put(*(patient(f"p{n}") for n in range(22)))
    server.put(*(observation(f"o{n}") for n in range(22)), at_once=True)
    whole = len(Taker().take(reader(server, "Patient", "Observation")))
    for cut in range(whole):
        taker = Taker()
        with pytest.raises(CutOff):
            taker.take(reader(server, "Patient", "Observation"), cut_after=cut)
        server.asked.clear()
        taker.take(reader(server, "Patient", "Observation"))
        assert taker.all == server.all()
    # The last cut was before the last page: only the second type was left to do.
    assert not [a for a in server.asked if a.path == "/fhir/Patient"]


def test_a_link_that_the_server_forgot_is_no_loss(server: StandardServer) -> None:
    server.ways = Ways(sorts=False)
    server.put(*(patient(f"p{n}") for n in range(35)))
    taker = Taker()
    with pytest.raises(CutOff):
        taker.take(reader(server), cut_after=2)
    server.before = lambda asked: outcome(410, "expired") if asked.value("_offset") == "20" and not fired() else None
    times = iter([False])

    def fired() -> bool:
        return next(times, True)

    taker.take(reader(server))
    assert taker.all == server.all()


# --- what is gone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "history", "sweep", "reread"])
def test_what_no_longer_matches_a_search_is_gone(server: StandardServer, how: str) -> None:
    """A code that was corrected: the resource changed, is still there, and is none of ours any more."""
    query = f"Observation?code={CODE}"
    server.put(*(observation(f"o{n}") for n in range(15)), *(observation(f"x{n}", OTHER) for n in range(5)))
    taker = Taker()
    taker.take(reader(server, query))
    assert len(taker.all) == 15
    server.put(observation("o7", OTHER), observation("x2", CODE), observation("x3", OTHER, value=2))
    server.delete("Observation/o8")
    taker.take(reader(server, query, deletions=how, known=lambda scope: list(taker.held[scope])))
    assert {k for k in taker.all if k.startswith("Observation/o")} == {f"Observation/o{n}" for n in range(15)} - {
        "Observation/o7",
        "Observation/o8",
    }
    assert taker.all["Observation/x2"] == server.all()["Observation/x2"]


def test_two_searches_of_one_type_do_not_take_from_each_other(server: StandardServer) -> None:
    queries = (f"Observation?code={CODE}", f"Observation?code={OTHER}")
    server.put(*(observation(f"o{n}") for n in range(5)), *(observation(f"x{n}", OTHER) for n in range(5)))
    taker = Taker()
    taker.take(reader(server, *queries))
    server.put(observation("o1", OTHER), observation("x1", CODE))
    taker.take(reader(server, *queries))
    assert taker.all == server.all()


def test_created_and_deleted_again_and_back_once_more(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(5)))
    taker = Taker()
    taker.take(reader(server))
    server.delete("Patient/p1")
    server.put(patient("p1", gender="female"))
    server.put(patient("brief"))
    server.delete("Patient/brief")
    taker.take(reader(server))
    assert taker.all == server.all()


def test_a_history_that_forgets_since_in_its_links_is_left_early(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(200)))
    taker = Taker()
    taker.take(reader(server))
    server.ways.history_since = False
    server.delete("Patient/p7")
    server.asked.clear()
    taker.take(reader(server))
    assert taker.all == server.all()
    assert len([a for a in server.asked if a.path.endswith("_history")]) <= 2


def test_without_history_deletions_are_found_by_a_sweep_of_ids_alone(server: StandardServer) -> None:
    server.ways = Ways(history=False)
    server.put(*(patient(f"p{n}") for n in range(15)))
    taker = Taker()
    taker.take(reader(server))
    server.delete("Patient/p4")
    taker.given.clear()
    server.asked.clear()
    taker.take(reader(server, deletions="auto"))
    assert "Patient/p4" in taker.all, "auto does nothing that is costly"
    taker.take(reader(server, deletions="sweep", known=lambda scope: list(taker.held[scope])))
    assert taker.all == server.all()
    assert [a.value("_elements") for a in server.asked if a.value("_elements")] == ["id", "id"]


def test_a_sweep_that_misses_one_takes_nothing_away(server: StandardServer) -> None:
    """A list of ids that shifted under our feet: what it does not hold is asked for by id."""
    server.put(*(patient(f"p{n}") for n in range(25)))
    taker = Taker()
    taker.take(reader(server))

    def before(asked: Asked) -> Said | None:
        if asked.value("_elements"):
            entry = [{"resource": patient("p1")}]
            return fhir({"resourceType": "Bundle", "type": "searchset", "total": 1, "entry": entry})
        return None

    server.before = before
    taker.take(reader(server, deletions="sweep", known=lambda scope: list(taker.held[scope])))
    assert taker.all == server.all()


def test_a_server_that_ignores_ids_is_not_believed(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(15)))
    taker = Taker()
    taker.take(reader(server))
    server.ways = Ways(ids=False)
    server.delete("Patient/p4")
    with pytest.raises(Unmappable, match=r"ignores _id.*deletions: reread"):
        taker.take(reader(server, deletions="sweep", known=lambda scope: list(taker.held[scope])))


def test_a_history_that_is_demanded_and_not_there_is_said(server: StandardServer) -> None:
    server.put(patient("p1"))
    taker = Taker()
    taker.take(reader(server))
    server.ways = Ways(history=False)
    with pytest.raises(Unmappable, match=r"gives no history of Patient.*deletions: sweep"):
        taker.take(reader(server, deletions="history"))


def test_other_searches_read_everything_anew_and_close_what_is_no_longer_read(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(5)), *(observation(f"o{n}") for n in range(5)))
    taker = Taker()
    taker.take(reader(server, "Patient", "Observation"))
    pages = taker.take(reader(server, "Patient"))
    assert {k.partition("/")[0] for k in taker.all} == {"Patient"}
    assert [(p.scope, p.ends) for p in pages if p.ends] == [("Observation", "complete"), ("Patient", "complete")]
    assert taker.take(reader(server, "Patient")) == []


def test_a_mark_of_another_reader_begins_anew(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(5)))
    for mark in (b"", b"{}", b'{"form":"fhir-bulk-1","source":"x"}', b"\xff\x00", b'["a.csv", 7]'):
        taker = Taker(mark=mark)
        taker.take(reader(server))
        assert taker.all == server.all()


# --- what a page may hold ----------------------------------------------------------------------------------


def entries(server: StandardServer, *found: Any, **more: Any) -> None:
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": list(found), **more}
    server.before = lambda asked: fhir(bundle) if asked.path == "/fhir/Patient" else None


BAD_ENTRIES = {
    "without an id": ({"resource": {"resourceType": "Patient"}}, "required-element-missing", "id"),
    "without a resource": ({"fullUrl": "http://x/Patient/1"}, "required-element-missing", "entry.resource"),
    "of another type": ({"resource": observation("o")}, "wrong-type", "resourceType"),
    "with an id that is none": ({"resource": patient("a b")}, "id-invalid", "id"),
    "with an id of another kind": ({"resource": {"resourceType": "Patient", "id": 7}}, "wrong-type", "id"),
    "that is no resource": ({"resource": [1, 2]}, "wrong-type", ""),
    "that is no entry": ("Patient/1", "wrong-type", "entry"),
    "included unasked": ({"resource": patient("i"), "search": {"mode": "include"}}, "wrong-type", "search.mode"),
    "that warns": (
        {
            "resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "value"}]},
            "search": {"mode": "outcome"},
        },
        "wrong-type",
        "OperationOutcome.issue",
    ),
    "that is too long": ({"resource": patient("l", text={"div": "x" * 5_000_000})}, "too-long", ""),
}


@pytest.mark.parametrize(("entry", "reason", "path"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_bad_entry_costs_itself_alone(server: StandardServer, entry: Any, reason: str, path: str) -> None:
    entries(server, {"resource": patient("a")}, entry, {"resource": patient("z")})
    taker = Taker()
    taker.take(reader(server))
    assert set(taker.all) == {"Patient/a", "Patient/z"}
    assert [(r.finding.reason, r.finding.path) for r in taker.refused] == [(reason, path)]
    assert taker.refused[0].finding.mend
    assert taker.refused[0].origin.startswith("127.0.0.1")


def test_a_word_of_information_is_nothing_to_report(server: StandardServer) -> None:
    issue = [{"severity": "information", "code": "informational"}]
    entries(server, {"resource": {"resourceType": "OperationOutcome", "issue": issue}}, {"resource": patient("a")})
    taker = Taker()
    taker.take(reader(server))
    assert set(taker.all) == {"Patient/a"}
    assert not taker.refused


@pytest.mark.parametrize(
    ("issue", "sentence"),
    [
        ({"severity": "error", "code": "timeout"}, "is not whole"),
        ({"severity": "warning", "code": "not-supported"}, "ignores a parameter"),
    ],
)
def test_an_answer_that_is_not_whole_is_not_taken(server: StandardServer, issue: Any, sentence: str) -> None:
    said = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}, "search": {"mode": "outcome"}}
    entries(server, {"resource": patient("a")}, said)
    taker = Taker()
    with pytest.raises(Unmappable, match=sentence):
        taker.take(reader(server))
    assert taker.all == {}


def test_a_server_that_ignores_a_filter_is_noticed(server: StandardServer) -> None:
    server.ways = Ways(ignores=("code",))
    server.put(observation("o"))
    with pytest.raises(Unmappable, match=r"ignores code in the search for Observation.*out of queries"):
        Taker().take(reader(server, f"Observation?code={CODE}"))


def test_a_filter_that_the_server_refuses_is_said_by_name_alone(server: StandardServer) -> None:
    server.ways = Ways(ignores=("code",), refuses_unknown=True)
    with pytest.raises(Unmappable, match=r"does not offer a search for Observation by code \(status 400") as caught:
        Taker().take(reader(server, f"Observation?code={CODE}"))
    assert "2857" not in str(caught.value)


def test_a_server_that_gives_everything_at_once_is_stopped(server: StandardServer) -> None:
    entries(server, *({"resource": patient(f"p{n}")} for n in range(10_001)))
    with pytest.raises(Unmappable, match="more than 10000 resources at once"):
        Taker().take(reader(server))


@pytest.mark.parametrize(
    ("ways", "sentence"),
    [(Ways(version="3.0.2"), r"speaks FHIR version 3.0.2; FLUTE reads R4"), (Ways(version="5.0.0"), "5.0.0")],
)
def test_another_version_of_fhir_is_refused(server: StandardServer, ways: Ways, sentence: str) -> None:
    server.ways = ways
    with pytest.raises(Unmappable, match=sentence):
        Taker().take(reader(server))


def test_an_address_that_is_not_the_base_is_refused(server: StandardServer) -> None:
    server.before = lambda asked: fhir({"resourceType": "Patient", "id": "x"})
    with pytest.raises(Unmappable, match="shows no CapabilityStatement at this address"):
        Taker().take(reader(server))


@pytest.mark.parametrize("at_once", [False, True], ids=["several instants", "one instant"])
def test_a_page_that_is_in_order_by_chance_is_no_proof_of_sorting(server: StandardServer, at_once: bool) -> None:
    """Listed as created; the last of the first page was changed since. Going on from its time would skip the rest."""
    server.ways = Ways(sorts=False, keeps_places=True)
    server.put(*(patient(f"p{n}") for n in range(30)))
    if at_once:
        server.put(*(patient(f"p{n}") for n in range(10)), at_once=True)
    else:
        server.touch("Patient/p9")
    taker = Taker()
    taker.take(reader(server))
    assert taker.all == server.all()


def test_a_server_that_sorts_by_the_minute_alone_loses_nothing(server: StandardServer) -> None:
    """Asked for the last it gives a late one; within a minute they come as they lie."""
    server.ways = Ways(sorts_by_minute=True, keeps_places=True)
    for n in range(60):
        server.time = START + timedelta(minutes=n // 20, seconds=n * 7 % 20)
        server.put(patient(f"p{n}"))
    taker = Taker()
    taker.take(reader(server, page_size=5))
    assert taker.all == server.all()


def test_times_that_go_back_and_forth_are_left_for_the_list(server: StandardServer) -> None:
    """A server that makes up its times could lead a reader in a circle of instants."""
    server.put(*(patient(f"p{n}") for n in range(25)))
    count = iter(range(1_000))

    def before(asked: Asked) -> Said | None:
        if asked.path != "/fhir/Patient" or "_sort" not in dict(asked.query):
            return None
        second = "10" if next(count) % 2 else "00"
        meta = {"lastUpdated": f"2026-03-01T08:00:{second}.000Z"}
        link = [{"relation": "next", "url": f"{server.base}/Patient?_offset=1"}]
        entry = [{"resource": patient("p1", meta=meta)}]
        return fhir({"resourceType": "Bundle", "type": "searchset", "entry": entry, "link": link})

    server.before = before
    taker = Taker()
    taker.take(reader(server))
    assert taker.all.keys() == server.all().keys()
    assert next(count) < 10


def test_a_history_that_repeats_itself_is_left(server: StandardServer) -> None:
    server.put(*(patient(f"p{n}") for n in range(5)))
    taker = Taker()
    taker.take(reader(server))
    count = iter(range(1_000))

    def before(asked: Asked) -> Said | None:
        if not asked.path.endswith("_history"):
            return None
        link = [{"relation": "next", "url": f"{server.base}/Patient/_history?page={next(count)}"}]
        entry = [{"request": {"method": "DELETE", "url": "Patient/p1"}}]
        return fhir({"resourceType": "Bundle", "type": "history", "entry": entry, "link": link})

    server.before = before
    with pytest.raises(Unmappable, match="the same again and again"):
        taker.take(reader(server))
    assert set(taker.all) == set(server.all()), "nothing of it was believed"


# --- what can be asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "resource type"),
        ("patient", "resource type"),
        ("Patient/7", "resource type"),
        ("../Patient", "resource type"),
        ("Patient?_count=5", "which FLUTE sets itself"),
        ("Patient?_lastUpdated=gt2020", "which FLUTE sets itself"),
        ("Observation?_include=Observation:subject", "a search of its own"),
        ("Observation?=7", "without a proper name"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_a_call(server: StandardServer, query: str, sentence: str) -> None:
    with pytest.raises(MisuseError, match=sentence):
        reader(server, query)
    assert server.asked == []


def test_options_go_before_what_the_caller_asks_for(server: StandardServer) -> None:
    server.put(patient("p"), observation("o"))
    taker = Taker()
    taker.take(reader(server, "Patient", "Observation", queries=("Observation",)))
    assert set(taker.all) == {"Observation/o"}


def test_without_anything_to_read_one_is_told(server: StandardServer) -> None:
    with pytest.raises(MisuseError, match="Say what to read"):
        open_server(server.base, ServerOptions())


def test_a_reader_says_its_host_and_the_last_of_its_path(server: StandardServer) -> None:
    assert reader(server).name == "127.0.0.1/fhir"
    assert open_server("https://h.example/a/secret/r4/", ServerOptions(), queries=["Patient"]).name == "h.example/r4"
