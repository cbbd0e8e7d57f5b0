"""A FHIR server that fails in every way at every instant: the import goes on, nothing is lost or comes twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flute.data.reader import Reader
from flute.errors import SourceError, Unmappable, Unreachable
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from support.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from support.standard_server import Asked, Said, StandardServer, Ways, fhir, serving
from support.taking import CutOff, Patience, Taker, plain_transport

RESOURCES = [
    *({"resourceType": "Patient", "id": f"p{n}", "gender": "male"} for n in range(9)),
    *({"resourceType": "Observation", "id": f"o{n}", "status": "final", "valueInteger": n} for n in range(9)),
]
REQUESTS = 9
"""Of one whole import below: metadata, and per type three pages and a question whether the server sorts."""


@pytest.fixture(scope="module")
def server() -> Iterator[StandardServer]:
    with serving(StandardServer()) as running:
        running.put(*RESOURCES)
        yield running


@pytest.fixture(scope="module")
def proxy(server: StandardServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.base) as running:
        yield running


def reader(proxy: FaultyProxy, patience: Patience | None = None, **options: Any) -> Reader:
    chosen = ServerOptions(**{"page_size": 4, "overlap_s": 0, "request_s": 0.4, **options})
    around = (patience or Patience()).around()
    return open_server(
        proxy.base, chosen, queries=["Patient", "Observation"], around=around, transport=plain_transport
    )


def test_without_faults_an_import_makes_as_many_requests_as_the_grid_below_is_wide(
    server: StandardServer, proxy: FaultyProxy
) -> None:
    proxy.fail_once(-1, "")
    taker = Taker()
    taker.take(reader(proxy))
    assert taker.all == server.all()
    assert len(proxy.paths) == REQUESTS


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("at", range(REQUESTS))
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_request_costs_one_more_request(
    server: StandardServer, proxy: FaultyProxy, fault: str, at: int
) -> None:
    proxy.fail_once(at, fault)
    taker, patience = Taker(), Patience()
    taker.take(reader(proxy, patience))
    assert proxy.faults == [fault]
    assert taker.all == server.all()
    assert set(taker.given.values()) == {1}
    assert len(proxy.paths) == REQUESTS + 1
    assert len(patience.slept) == 1
    assert (patience.slept[0] >= 2) == (fault == "status-503-retry-after")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_stays_broken_ends_the_import_and_the_next_one_goes_on(
    server: StandardServer, proxy: FaultyProxy, fault: str
) -> None:
    """From the fourth request on everything fails; what came until then is not read again."""
    proxy.fail_once(-1, "")
    proxy.plan = lambda number, path: fault if number >= 4 else ""
    taker = Taker()
    with pytest.raises(SourceError, match=r"The server 127\.0\.0\.1 .*FLUTE tried 3 times\.") as caught:
        taker.take(reader(proxy, attempts=3))
    assert "Patient/" not in str(caught.value)
    had = set(taker.all)
    assert had == {f"Patient/p{n}" for n in range(7)}
    proxy.fail_once(-1, "")
    taker.given.clear()
    taker.take(reader(proxy))
    assert taker.all == server.all()
    # Besides what was missing only the resource at the very instant of the mark.
    assert set(taker.given) - (set(server.all()) - had) <= {"Patient/p6"}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.dictionaries(st.integers(0, 30), st.sampled_from([f for f in FAULTS if f != "drip"]), max_size=12),
    cuts=st.lists(st.integers(0, 4), max_size=4),
    ways=st.sampled_from([Ways(), Ways(sorts=False), Ways(totals=False, sorts=False), Ways(most=3)]),
)
def test_faults_and_kills_in_any_order_change_nothing_of_the_result(
    server: StandardServer,
    proxy: FaultyProxy,
    faults: dict[int, str],
    cuts: list[int],
    ways: Ways,
) -> None:
    server.ways = ways
    proxy.fail_once(-1, "")
    proxy.plan = lambda number, path: faults.get(number, "")
    taker = Taker()
    try:
        for cut in [*cuts, None, None, None, None, None, None]:
            try:
                taker.take(reader(proxy, attempts=3), cut_after=cut)
            except (CutOff, SourceError):
                continue
        assert taker.all == server.all()
    finally:
        server.ways = Ways()


# --- links -----------------------------------------------------------------------------------------------


@pytest.fixture
def lister() -> Iterator[StandardServer]:
    """Cannot sort, so that its links are followed."""
    with serving(StandardServer(Ways(sorts=False))) as running:
        running.put(*RESOURCES)
        yield running


def changed(server: StandardServer, change: Any, *, at: str) -> None:
    """Every answer to a search at offset `at` is changed."""
    inside: list[bool] = []

    def before(asked: Asked) -> Said | None:
        if asked.path != "/fhir/Patient" or asked.value("_offset", "0") != at or inside:
            return None
        inside.append(True)
        query = "&".join(f"{n}={v}" for n, v in asked.query)
        said = server.answer("GET", f"{asked.path}?{query}", asked.headers, b"")
        inside.clear()
        bundle = json.loads(said.body)
        change(bundle)
        return fhir(bundle)

    server.before = before


def next_of(bundle: Any) -> Any:
    return next(link for link in bundle["link"] if link["relation"] == "next")


def take_all(server: StandardServer) -> Taker:
    taker = Taker()
    options = ServerOptions(page_size=4, attempts=2)
    taker.take(open_server(server.base, options, queries=["Patient"], around=Patience().around()))
    return taker


def test_next_links_in_a_circle_are_noticed(lister: StandardServer) -> None:
    def back(bundle: Any) -> None:
        next_of(bundle)["url"] = f"{lister.base}/Patient?_count=4&_offset=4"

    changed(lister, back, at="4")
    with pytest.raises(Unmappable, match="lead in a circle"):
        take_all(lister)


def test_next_links_that_bring_the_same_for_ever_are_noticed(lister: StandardServer) -> None:
    count = iter(range(10_000))

    def before(asked: Asked) -> Said | None:
        if asked.path != "/fhir/Patient":
            return None
        link = [{"relation": "next", "url": f"{lister.base}/Patient?_page={next(count)}"}]
        entry = [{"resource": {"resourceType": "Patient", "id": "same"}}]
        return fhir({"resourceType": "Bundle", "type": "searchset", "link": link, "entry": entry})

    lister.before = before
    with pytest.raises(Unmappable, match="the same again and again"):
        take_all(lister)


def test_a_page_that_comes_twice_brings_nothing_twice(lister: StandardServer) -> None:
    """The server gives page one again in place of page two, once; the totals do not fit, so it is walked again."""
    times = iter([True])

    def first_again(bundle: Any) -> None:
        if next(times, False):
            bundle["entry"] = [{"resource": lister.all()[f"Patient/p{n}"]} for n in range(4)]

    changed(lister, first_again, at="4")
    taker = take_all(lister)
    assert set(taker.all) == {f"Patient/p{n}" for n in range(9)}
    assert set(taker.given.values()) == {1}


def test_the_unreachable_server_is_said_at_once_and_by_name() -> None:
    patience = Patience()
    nowhere = open_server("http://127.0.0.1:9/fhir", ServerOptions(), queries=["Patient"], around=patience.around())
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be reached.*tried 3 times"):
        list(nowhere.pages(None))
    assert len(patience.slept) == 2
