"""The hub's FHIR face: valid, read-only, for holders of a token, journaled, and silent about everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fhirkit
import httpx
import pyfhircheck
import pytest
from fastapi.testclient import TestClient

from flute.defaults.records import FACE_MAX_PAGE_RESOURCES, FACE_MAX_QUERY_CHARS, FACE_MAX_TOKENS, FACE_TOKEN_BYTES
from flute.errors import KeyFileError, MisuseError, PeerUnreachable
from flute.face.access import FILE, make_token, read_tokens, require_address, void_token
from flute.face.app import Read, make_face
from flute.face.shelf import Shelf
from flute.primitives.keys import digest
from support.face_shelves import IMPORTED, SHOWN, VARIABLES, columns, entry, pseudonyms, shelf

N = 30
HOLDER, TOKEN = "viewer", "flute-token"
AUTH = {"authorization": f"Bearer {TOKEN}"}
FIRST, SECOND, THIRD, FOURTH = pseudonyms(N)[:4]


class Face:
    """The application with a client; `reads` is what was journaled."""

    def __init__(self, shown: Shelf) -> None:
        self.shelf = shown
        self.reads: list[Read] = []
        self.fails: Exception | None = None
        app = make_face(lambda: {"heart": self.shelf}, lambda t: HOLDER if t == TOKEN else None, self.note, "1.2.3")
        self.http = TestClient(app, base_url="http://127.0.0.1:8095", headers=AUTH, raise_server_exceptions=False)

    def note(self, read: Read) -> None:
        if self.fails is not None:
            raise self.fails
        self.reads.append(read)

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        answer = self.http.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/fhir+json"
        return answer.json()


@pytest.fixture
def face() -> Iterator[Face]:
    opened = Face(shelf(N))
    with opened.http:
        yield opened


def valid(resource: Any) -> None:
    assert fhirkit.validate(json.dumps(resource)) == []
    report = pyfhircheck.Validator().validate_resource(resource)
    assert not report.errors, report.errors


def walk(face: Face, path: str) -> list[dict[str, Any]]:
    """All resources of a search, page by page."""
    found, pages = [], 0
    while path:
        bundle = face.get(path)
        found += [e["resource"] for e in bundle.get("entry", [])]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        path = urlsplit(links["next"]).path + "?" + urlsplit(links["next"]).query if "next" in links else ""
        pages += 1
        assert pages < 200
    return found


# --- valid ---------------------------------------------------------------------------------------


@pytest.mark.requirement("F-STD-8")
@pytest.mark.requirement("F-STD-9")
def test_the_capability_statement_is_valid_and_says_what_is_there(face: Face) -> None:
    statement = face.get("/heart/metadata")
    valid(statement)
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["kind"] == "instance"
    assert statement["implementation"]["url"] == "http://127.0.0.1:8095/heart"
    listed = {r["type"]: r for r in statement["rest"][0]["resource"]}
    assert list(listed) == ["Patient", "Observation", "Procedure", "FamilyMemberHistory"]
    for kind, said in listed.items():
        assert [i["code"] for i in said["interaction"]] == ["read", "search-type"]
        for parameter in said["searchParam"]:
            value = {"_id": FIRST, "_lastUpdated": "ge2020", "code": "x"}.get(parameter["name"], FIRST)
            face.get(f"/heart/{kind}?{parameter['name']}={value}")


def test_a_validator_would_notice_a_broken_statement(face: Face) -> None:
    statement = face.get("/heart/metadata")
    for name in ("status", "kind", "fhirVersion", "format"):
        broken = {k: v for k, v in statement.items() if k != name}
        assert fhirkit.validate(json.dumps(broken)) != [], name


def test_every_resource_and_every_bundle_is_valid(face: Face) -> None:
    for kind in face.shelf.kinds:
        bundle = face.get(f"/heart/{kind}?_count=1000")
        valid(bundle)
        for entry_ in bundle["entry"]:
            valid(entry_["resource"])
            assert face.get(urlsplit(entry_["fullUrl"]).path) == entry_["resource"]


def test_every_error_is_a_valid_operation_outcome(face: Face) -> None:
    for path, status in ERRORS.values():
        outcome = face.get(path, status)
        valid(outcome)
        assert outcome["resourceType"] == "OperationOutcome"
        assert outcome["issue"][0]["diagnostics"].endswith((".", "…'"))
        assert "Traceback" not in json.dumps(outcome)


ERRORS = {
    "no such dataset": ("/lungs/metadata", 404),
    "no such type": ("/heart/Condition", 404),
    "no such patient": ("/heart/Patient/ffff", 404),
    "no such observation": (f"/heart/Observation/{FIRST}-pressure", 404),
    "another type's id": (f"/heart/Procedure/{SECOND}-pressure", 404),
    "nothing there": ("/", 404),
    "a history": (f"/heart/Patient/{FIRST}/_history", 404),
    "an unknown parameter": ("/heart/Observation?value-quantity=gt5", 400),
    "a modifier": ("/heart/Patient?_id:exact=1", 400),
    "an include": ("/heart/Observation?_include=Observation:subject", 400),
    "a code of a patient": ("/heart/Patient?code=x", 400),
    "a subject of relatives": (f"/heart/FamilyMemberHistory?subject={FIRST}", 400),
    "a count of minus one": ("/heart/Patient?_count=-1", 400),
    "a count in words": ("/heart/Patient?_count=all", 400),
    "no value": ("/heart/Patient?_id=", 400),
    "a hostile id": ("/heart/Patient?_id=%27%20OR%201%3D1", 400),
    "an id of a group": ("/heart/Observation?patient=Group/1", 400),
    "another sort": ("/heart/Patient?_sort=birthdate", 400),
    "another summary": ("/heart/Patient?_summary=text", 400),
    "a date that is none": ("/heart/Patient?_lastUpdated=ge2026-13-01", 400),
    "a page of nothing": ("/heart/Patient?_page=abc.x", 400),
    "an older page": ("/heart/Patient?_page=000000000000.5", 410),
    "a parameter of a read": (f"/heart/Patient/{FIRST}?_elements=id", 400),
    "another form": ("/heart/Patient?_format=xml", 406),
    "too long a search": ("/heart/Patient?_id=" + "a" * FACE_MAX_QUERY_CHARS, 414),
}


@pytest.mark.parametrize(("path", "status"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_asked_is_refused(face: Face, path: str, status: int) -> None:
    face.get(path, status)


# --- what is shown -------------------------------------------------------------------------------


def test_a_resource_has_the_rows_values_and_its_labels(face: Face) -> None:
    made = columns(N)
    found = face.get(f"/heart/Observation/{FOURTH}-pressure")
    assert found["valueQuantity"] == {
        "value": made["pressure"][3], "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]",
    }  # fmt: skip
    assert found["subject"] == {"reference": f"Patient/{FOURTH}"}
    assert found["meta"]["security"][0]["code"] == "PSEUDED"
    assert {t["code"] for t in found["meta"]["tag"]} == {"HTEST", "SIMULATED"}
    assert face.get(f"/heart/Observation/{FOURTH}-nyha-class")["valueInteger"] == made["grade"][3] + 1
    echo = face.get(f"/heart/Procedure/{FOURTH}-echo")
    assert echo["performedAge"]["value"] == made["age"][3]
    assert echo["category"]["coding"][0]["code"] == ("27582007" if made["again"][3] else "884001")
    assert face.get(f"/heart/Patient/{FOURTH}")["gender"] == "male"


def test_records_that_are_not_simulated_are_not_called_so() -> None:
    face = Face(shelf(N, simulated=False))
    assert "tag" not in face.get(f"/heart/Patient/{FIRST}")["meta"]
    assert "SIMULATED" not in json.dumps(face.get("/heart/metadata"))


def test_nothing_is_shown_that_the_model_does_not_name(face: Face) -> None:
    everything = json.dumps([walk(face, f"/heart/{kind}") for kind in face.shelf.kinds])
    for value in columns(N)["secret"].tolist():
        assert repr(value)[:10] not in everything
    assert "secret" not in {v.name for v in Shelf.variables(entry(), SHOWN, ())}


def test_a_hidden_variable_is_invisible() -> None:
    face = Face(shelf(N, hidden=("pressure",)))
    kept = {r["code"]["coding"][0]["code"] for r in walk(face, "/heart/Observation")}
    assert kept == {"420816009"}
    assert face.get(f"/heart/Observation/{FOURTH}-pressure", 404)
    assert {v.name for v in VARIABLES} - {v.name for v in Shelf.variables(entry(), SHOWN, ("pressure",))} == {
        "pressure", "secret",
    }  # fmt: skip


def test_an_examination_without_its_age_is_not_half_shown() -> None:
    face = Face(shelf(N, hidden=("age",)))
    assert "Procedure" not in face.shelf.kinds
    face.get("/heart/Procedure", 404)


def test_what_is_missing_has_no_resource(face: Face) -> None:
    ids = {r["id"] for r in walk(face, "/heart/Observation")}
    assert len(ids) == 2 * N - 2
    assert f"{FIRST}-pressure" not in ids
    assert f"{SECOND}-nyha-class" not in ids
    assert len(walk(face, "/heart/Procedure")) == N - 1
    assert len(walk(face, "/heart/FamilyMemberHistory")) == N


# --- search --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 58, 1000])
def test_pages_give_everything_once_and_in_order(face: Face, size: int) -> None:
    found = walk(face, f"/heart/Observation?_count={size}")
    assert len(found) == 58
    assert len({r["id"] for r in found}) == 58
    assert [r["id"] for r in found] == [r["id"] for r in walk(face, "/heart/Observation")]


def test_a_search_finds_what_it_names_and_nothing_else(face: Face) -> None:
    def ids(query: str, kind: str = "Observation") -> set[str]:
        return {r["id"] for r in walk(face, f"/heart/{kind}?{query}&_count=20")}

    assert ids(f"patient={FOURTH}") == {f"{FOURTH}-pressure", f"{FOURTH}-nyha-class"}
    assert ids(f"subject=Patient/{FOURTH}") == ids(f"patient={FOURTH}")
    assert ids(f"subject=http://127.0.0.1:8095/heart/Patient/{FOURTH}") == ids(f"patient={FOURTH}")
    assert ids(f"patient={FOURTH},{FIRST}") == {f"{FOURTH}-pressure", f"{FOURTH}-nyha-class", f"{FIRST}-nyha-class"}
    assert ids(f"patient={FOURTH}&subject={FIRST}") == set()
    assert ids("patient=nobody") == set()
    assert ids(f"code=8480-6&patient={FOURTH}") == {f"{FOURTH}-pressure"}
    assert len(ids("code=http://loinc.org|8480-6")) == N - 1
    assert len(ids("code=http://loinc.org|")) == N - 1
    assert len(ids("code=8480-6,420816009")) == 2 * N - 2
    assert ids("code=http://snomed.info/sct|8480-6") == set()
    assert ids("code=|8480-6") == set()
    assert ids(f"_id={FOURTH}-pressure,{FIRST}-pressure,{FIRST}-nyha-class") == {
        f"{FOURTH}-pressure", f"{FIRST}-nyha-class",
    }  # fmt: skip
    assert ids(f"_id={FOURTH}-pressure&code=420816009") == set()
    assert ids(f"_id={FOURTH}-pressure&patient={FIRST}") == set()
    relatives = columns(N)["relatives"]
    assert len(ids("code=84114007", "FamilyMemberHistory")) == int(relatives.sum())
    assert ids(f"_id={FIRST},nobody", "Patient") == {FIRST}


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        ("ge2020-01-01", True), ("ge2099", False), ("lt2020-01", False), ("le2099-01-01", True), ("2026", True),
        ("2026-09", True), ("2025", False), ("ne2026", False), ("gt2026-09-20T00:00:00Z", True), ("sa2027", False),
        ("eb2027", True), ("eq2026-09-21", True), ("ge2026-09-21T14:13:20Z", True), ("gt2026-09-21T14:13:20Z", False),
        ("ge2026-09-21T16:13:20%2B02:00", True), ("lt2026-09-21T14:13:20.000Z", False),
    ],
)  # fmt: skip
def test_the_instant_of_the_snapshot_is_compared_as_fhir_says(face: Face, bound: str, found: bool) -> None:
    assert IMPORTED == 1_790_000_000  # 2026-09-21T14:13:20Z
    assert bool(walk(face, f"/heart/Patient?_lastUpdated={bound}")) is found


def test_counts_are_exact_and_a_summary_gives_nothing_else(face: Face) -> None:
    bundle = face.get("/heart/Observation?_summary=count")
    assert bundle["total"] == 58
    assert "entry" not in bundle
    assert face.get("/heart/Observation?_count=0")["total"] == 58
    assert face.get("/heart/Observation?code=8480-6&_count=2")["total"] == 29
    assert face.get("/heart/Patient?_lastUpdated=ge2099")["total"] == 0


def test_a_page_is_bounded_whatever_is_asked(face: Face) -> None:
    big = Face(shelf(700))
    bundle = big.get("/heart/Observation?_count=999999")
    assert len(bundle["entry"]) == FACE_MAX_PAGE_RESOURCES
    assert {link["relation"] for link in bundle["link"]} == {"self", "next"}
    assert len(face.get("/heart/Patient")["entry"]) == N


def test_a_new_snapshot_ends_a_search_that_was_under_way(face: Face) -> None:
    bundle = face.get("/heart/Observation?_count=5")
    url = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
    face.shelf = shelf(N, snapshot=bytes(range(1, 33)))
    outcome = face.get(f"{urlsplit(url).path}?{urlsplit(url).query}", 410)
    assert outcome["issue"][0]["code"] == "expired"


# --- HTTP ----------------------------------------------------------------------------------------


def test_a_read_has_an_etag_and_is_not_sent_twice(face: Face) -> None:
    answer = face.http.get(f"/heart/Patient/{FIRST}")
    assert answer.headers["etag"] == f'W/"{face.shelf.version}"'
    assert answer.headers["last-modified"] == "Mon, 21 Sep 2026 14:13:20 GMT"
    assert answer.headers["cache-control"] == "private, no-store"
    again = face.http.get(f"/heart/Patient/{FIRST}", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert face.http.get(f"/heart/Patient/{FIRST}", headers={"if-none-match": 'W/"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/heart/metadata", "/heart/Patient", f"/heart/Patient/{FIRST}"])
def test_head_says_what_get_would(face: Face, path: str) -> None:
    got, headed = face.http.get(path), face.http.head(path)
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-type"] == got.headers["content-type"]
    if path != "/heart/Patient":  # a search says when it was made
        assert headed.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/heart/Patient", f"/heart/Patient/{FIRST}", "/heart/metadata", "/"])
def test_there_is_no_way_to_write(face: Face, method: str, path: str) -> None:
    answer = face.http.request(method, path, content=b"{}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert face.reads == []


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json", 200), ("application/fhir+json; fhirVersion=4.0", 200), ("application/json", 200),
        ("*/*", 200), ("text/html, application/fhir+xml;q=0.9, */*;q=0.1", 200), ("application/fhir+xml", 406),
        ("text/html", 406),
    ],
)  # fmt: skip
def test_one_form_is_spoken(face: Face, accept: str, status: int) -> None:
    face.get("/heart/Patient", status, accept=accept)
    face.get("/heart/Patient?_format=application/fhir%2Bjson", 200, accept="text/html")
    face.get("/heart/Patient?_format=json", 200, accept="text/html")


# --- who, and what is written down ---------------------------------------------------------------


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "Basic dmlld2VyOng=", "Bearer", TOKEN, f"bearer  {TOKEN} x"])
def test_without_a_token_nothing_is_said(face: Face, sent: str | None) -> None:
    bare = httpx.Client(transport=face.http._transport, base_url="http://127.0.0.1:8095")
    headers = {} if sent is None else {"authorization": sent}
    for path in ("/heart/metadata", "/heart/Patient", f"/heart/Patient/{FIRST}", "/lungs/metadata"):
        answer = bare.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="flute"'
        assert "heart" not in answer.text
    assert face.reads == []


def test_every_read_is_noted_before_it_is_answered(face: Face) -> None:
    face.get("/heart/metadata")
    face.get(f"/heart/Patient/{FIRST}")
    face.get("/heart/Patient/ffff", 404)
    face.get("/heart/Observation?_count=5")
    face.get(f"/heart/Observation?patient={FIRST}")
    face.get(f"/heart/Observation?patient={FIRST},{SECOND}")
    whose = digest(FIRST.encode())
    assert face.reads == [
        Read(HOLDER, "heart", "metadata", "CapabilityStatement", b"", 1),
        Read(HOLDER, "heart", "read", "Patient", whose, 1),
        Read(HOLDER, "heart", "read", "Patient", digest(b"ffff"), 0),
        Read(HOLDER, "heart", "search", "Observation", b"", 5),
        Read(HOLDER, "heart", "search", "Observation", whose, 1),
        Read(HOLDER, "heart", "search", "Observation", b"", 2),
    ]


def test_what_cannot_be_noted_is_not_shown(face: Face) -> None:
    face.fails = PeerUnreachable("No hub service answers in /srv/flute.")
    for path in ("/heart/metadata", f"/heart/Patient/{FIRST}", "/heart/Observation"):
        outcome = face.get(path, 503)
        assert FIRST not in json.dumps(outcome)
        assert "/srv/flute" not in json.dumps(outcome)


def test_a_bug_is_told_nobody_but_the_log(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    face.fails = RuntimeError("the value was 131.5")
    outcome = face.get(f"/heart/Patient/{FIRST}", 500)
    assert "131.5" not in json.dumps(outcome)
    assert "131.5" in caplog.text


# --- tokens and addresses ------------------------------------------------------------------------


def test_a_token_is_kept_as_a_digest_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    token = make_token(tmp_path, "viewer", bytes(range(FACE_TOKEN_BYTES)))
    path = tmp_path / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    assert token.removeprefix("flute-") not in path.read_text()
    tokens = read_tokens(tmp_path)
    assert tokens.holder(token) == "viewer"
    for wrong in ("", token[:-1], token + "0", token.upper(), "flute-" + "0" * 64):
        assert tokens.holder(wrong) is None
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_tokens(tmp_path)


def test_a_second_token_voids_the_first_and_a_void_one_opens_nothing(tmp_path: Path) -> None:
    first = make_token(tmp_path, "viewer", bytes(32))
    second = make_token(tmp_path, "viewer", bytes(range(32)))
    other = make_token(tmp_path, "pacs", bytes(range(1, 33)))
    assert read_tokens(tmp_path).holder(first) is None
    assert read_tokens(tmp_path).holder(second) == "viewer"
    void_token(tmp_path, "viewer")
    assert read_tokens(tmp_path).holder(second) is None
    assert read_tokens(tmp_path).holder(other) == "pacs"
    with pytest.raises(MisuseError, match="viewer has no token here; there are pacs"):
        void_token(tmp_path, "viewer")


def test_tokens_are_bounded_and_made_of_enough_chance(tmp_path: Path) -> None:
    with pytest.raises(MisuseError):
        make_token(tmp_path, "viewer", bytes(8))
    for i in range(FACE_MAX_TOKENS):
        make_token(tmp_path, f"tool-{i}", bytes(32))
    with pytest.raises(MisuseError, match="take one away"):
        make_token(tmp_path, "one-more", bytes(32))


ADDRESSES = {
    "loopback": ("127.0.0.1", False, False, ""),
    "another loopback": ("127.0.0.2", False, False, ""),
    "loopback, version 6": ("::1", False, False, ""),
    "the local network, meant, with TLS": ("10.1.2.3", True, True, ""),
    "the local network, version 6": ("fd00::1", True, True, ""),
    "the local network, by accident": ("192.168.1.5", False, True, "--private-network"),
    "the local network, in the clear": ("192.168.1.5", True, False, "in the clear"),
    "everywhere": ("0.0.0.0", True, True, "never listens"),
    "everywhere, version 6": ("::", True, True, "never listens"),
    "the internet": ("8.8.8.8", True, True, "never listens"),
    "the internet, version 6": ("2a00:1450::1", True, True, "never listens"),
    "a group of machines": ("224.0.0.1", True, True, "never listens"),
    "a name": ("hospital.example.org", True, True, "no IP address"),
    "nothing": ("", True, True, "no IP address"),
}


@pytest.mark.parametrize(("host", "private", "tls", "says"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_face_listens_only_where_it_may(host: str, private: bool, tls: bool, says: str) -> None:
    if not says:
        require_address(host, private_network=private, tls=tls)
        return
    with pytest.raises(MisuseError, match=says):
        require_address(host, private_network=private, tls=tls)
