"""A FHIR server, or somebody in its place, that turns the hub against the hospital's network or fishes for secrets.

The trap is a second server that nobody allowed. Without FLUTE's checks it is reached, with them it hears nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flute.data.reader import Reader
from flute.errors import FluteError, MisuseError, SourceError, Unmappable
from flute.fhirserver.address import read_base
from flute.fhirserver.options import Basic, Bearer, ServerOptions, Smart
from flute.fhirserver.server import open_server
from support.standard_server import Asked, Said, StandardServer, Ways, fhir, outcome, serving
from support.taking import Patience, Taker, plain_transport

TOKEN = "hunter2-the-token-nobody-may-see"
PATIENT_NAME = "Janneke Deheersmaecker"


@pytest.fixture
def server() -> Iterator[StandardServer]:
    with serving(StandardServer(Ways(sorts=False, token=TOKEN))) as running:
        running.put(*({"resourceType": "Patient", "id": f"p{n}"} for n in range(9)))
        yield running


@pytest.fixture
def trap() -> Iterator[StandardServer]:
    """Answers like a FHIR server, so that a reader that comes here would go on happily."""
    with serving(StandardServer()) as running:
        running.put({"resourceType": "Patient", "id": "planted"})
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return str(path)


def reader(server: StandardServer, token_file: str, auth: Any = None, **options: Any) -> Reader:
    chosen = ServerOptions(**{"page_size": 4, "attempts": 2, "auth": auth or Bearer(file=token_file), **options})
    return open_server(
        server.base, chosen, queries=["Patient"], around=Patience().around(), transport=plain_transport
    )


def with_next(server: StandardServer, url: str) -> None:
    entry = [{"resource": server.all()["Patient/p0"]}]
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": entry,
        "link": [{"relation": "next", "url": url}],
    }
    server.before = lambda asked: fhir(bundle) if asked.path == "/fhir/Patient" else None


ELSEWHERE = {
    "another port": "http://127.0.0.1:{port}/fhir/Patient",
    "another name for it": "http://localhost:{port}/fhir/Patient",
    "the base as a user name": "http://127.0.0.1:{own}@127.0.0.1:{port}/fhir/Patient",
    "without its scheme": "//127.0.0.1:{port}/fhir/Patient",
    "a backslash": "http://127.0.0.1:{port}\\@127.0.0.1:{own}/fhir/Patient",
    "outside the base": "http://127.0.0.1:{own}/admin",
    "beside the base": "http://127.0.0.1:{own}/fhir-admin/Patient",
    "above the base": "http://127.0.0.1:{own}/fhir/../admin",
    "above the base, hidden": "http://127.0.0.1:{own}/fhir/%2e%2e/admin",
    "above the base, hidden twice": "http://127.0.0.1:{own}/fhir/..%2fadmin",
    "relative, above the base": "../admin",
    "absolute path": "/admin",
    "a file": "file:///etc/passwd",
    "another protocol": "gopher://127.0.0.1:{port}/_x",
    "another scheme": "https://127.0.0.1:{own}/fhir/Patient",
    "no address": "http://[::1/fhir",
    "a port that is none": "http://127.0.0.1:99999/fhir/Patient",
    "metadata of a cloud": "http://169.254.169.254/latest/meta-data",
}


@pytest.mark.parametrize("url", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_next_link_leads_the_hub_nowhere_else(
    server: StandardServer, trap: StandardServer, token_file: str, url: str
) -> None:
    own, port = (s.base.split(":")[2].removesuffix("/fhir") for s in (server, trap))
    with_next(server, url.format(own=own, port=port))
    taker = Taker()
    with pytest.raises(Unmappable, match=r"gives a next link that leads to .* FLUTE does not follow it"):
        taker.take(reader(server, token_file))
    assert trap.asked == []
    assert {asked.path for asked in server.asked} <= {"/fhir/metadata", "/fhir/Patient"}
    assert set(taker.all) == {"Patient/p0"}, "what the honest page brought stays"


def test_a_client_that_follows_links_is_led_there_with_its_token(
    server: StandardServer, trap: StandardServer
) -> None:
    """The attack wins where nobody checks."""
    with_next(server, f"{trap.base}/Patient")
    with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}) as client:
        url = f"{server.base}/Patient"
        while url:
            bundle = client.get(url).json()
            url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert [asked.headers["authorization"] for asked in trap.asked] == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_not_followed(
    server: StandardServer, trap: StandardServer, token_file: str, status: int
) -> None:
    server.before = lambda asked: Said(status, headers={"location": f"{trap.base}/Patient"})
    with pytest.raises(Unmappable, match="FLUTE does not follow it"):
        Taker().take(reader(server, token_file))
    assert trap.asked == []


def test_a_redirect_below_the_base_is_followed_and_a_circle_of_them_is_left(
    server: StandardServer, token_file: str
) -> None:
    def moved(asked: Asked) -> Said | None:
        if asked.path == "/fhir/metadata":
            return Said(302, headers={"location": "/fhir/v4/metadata"})
        return fhir({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}) if "v4" in asked.path else None

    server.before = moved
    taker = Taker()
    taker.take(reader(server, token_file))
    assert taker.all == server.all()
    server.before = lambda asked: Said(302, headers={"location": asked.path})
    with pytest.raises(Unmappable, match="without an end"):
        Taker().take(reader(server, token_file))


# --- bulk export -------------------------------------------------------------------------------------------


def bulk(server: StandardServer, token_file: str, **options: Any) -> Reader:
    return reader(server, token_file, read="bulk", **options)


def test_an_export_status_elsewhere_is_not_asked_for(
    server: StandardServer, trap: StandardServer, token_file: str
) -> None:
    def before(asked: Asked) -> Said | None:
        return Said(202, headers={"content-location": f"{trap.base}/job/j1"}) if "$export" in asked.path else None

    server.before = before
    with pytest.raises(Unmappable, match="an export's status on another host"):
        Taker().take(bulk(server, token_file))
    assert trap.asked == []


def test_export_files_elsewhere_are_fetched_only_where_the_operator_said_so_and_never_with_a_fixed_secret(
    server: StandardServer, trap: StandardServer, token_file: str
) -> None:
    server.change(export_files_at=trap.base, export_wants_token=True)
    with pytest.raises(Unmappable, match=r"an export file on another host, http://127.0.0.1:\d+.*file_hosts"):
        Taker().take(bulk(server, token_file))
    assert trap.asked == []
    trap.before = lambda asked: Said(200, b'{"resourceType":"Patient","id":"p0"}\n' * 9)
    taker = Taker()
    taker.take(bulk(server, token_file, file_hosts=(trap.base.removesuffix("/fhir"),)))
    assert set(taker.all) == {"Patient/p0"}
    assert trap.asked
    assert not [asked for asked in trap.asked if "authorization" in asked.headers]


def test_a_file_that_is_moved_elsewhere_is_not_followed(
    server: StandardServer, trap: StandardServer, token_file: str
) -> None:
    server.before = lambda a: Said(307, headers={"location": f"{trap.base}/f"}) if "/file/" in a.path else None
    with pytest.raises(Unmappable, match="an export file on another host"):
        Taker().take(bulk(server, token_file))
    assert trap.asked == []


# --- tokens --------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)
    return str(path)


def test_an_assertion_is_not_sent_to_a_token_endpoint_elsewhere(
    server: StandardServer, trap: StandardServer, key_file: str
) -> None:
    server.before = lambda asked: (
        Said(200, json.dumps({"token_endpoint": f"{trap.base}/token"}).encode())
        if "well-known" in asked.path
        else None
    )
    auth = Smart(client_id="hub", key_file=key_file)
    with pytest.raises(Unmappable, match=r"a token endpoint on another host.*token_endpoint below auth"):
        Taker().take(reader(server, "", auth))
    assert trap.asked == []


def test_a_token_may_go_to_an_allowed_file_host_if_the_server_says_that_it_is_wanted(
    server: StandardServer, trap: StandardServer, key_file: str
) -> None:
    def before(asked: Asked) -> Said | None:
        if "well-known" in asked.path:
            return Said(200, json.dumps({"token_endpoint": f"{server.base}/token"}).encode())
        if asked.path == "/fhir/token":
            return Said(200, json.dumps({"access_token": TOKEN, "token_type": "bearer"}).encode())
        return None

    server.before = before
    trap.before = lambda asked: Said(200, b'{"resourceType":"Patient","id":"p0"}\n' * 9)
    auth, hosts = Smart(client_id="hub", key_file=key_file), (trap.base.removesuffix("/fhir"),)
    for wanted in (False, True):
        trap.asked.clear()
        server.change(export_files_at=trap.base, export_wants_token=wanted)
        Taker().take(reader(server, "", auth, read="bulk", file_hosts=hosts))
        shown = {asked.headers.get("authorization") for asked in trap.asked}
        assert shown == ({f"Bearer {TOKEN}"} if wanted else {None})


# --- secrets and records in texts -----------------------------------------------------------------------------


HOSTILE_ANSWERS: dict[str, Said] = {
    "a refusal": outcome(401, "login"),
    "another refusal": outcome(403, "forbidden"),
    "an error": Said(500, PATIENT_NAME.encode()),
    "garbage": Said(200, f'{{"resourceType":"{PATIENT_NAME}'.encode()),
    "a name where a number belongs": Said(
        200, json.dumps({"resourceType": "Bundle", "total": PATIENT_NAME}).encode()
    ),
    "a name as a version": fhir({"resourceType": "CapabilityStatement", "fhirVersion": PATIENT_NAME}),
    "a name as a code": fhir({"resourceType": "OperationOutcome", "issue": [{"code": PATIENT_NAME}]}, 409),
    "a page": Said(200, f"<html>{PATIENT_NAME}</html>".encode()),
    "a link with a name": Said(302, headers={"location": f"https://evil.example/{PATIENT_NAME.replace(' ', '-')}"}),
    "a host with a name": Said(302, headers={"location": f"https://{PATIENT_NAME.replace(' ', '.')}%41/"}),
    "nesting": Said(200, b'{"a":' + b"[" * 500_000),
    "a wrong length of time": Said(503, headers={"retry-after": PATIENT_NAME}),
}


@pytest.mark.parametrize("at", ["/fhir/metadata", "/fhir/Patient"])
@pytest.mark.parametrize("said", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_no_error_or_log_holds_a_secret_or_a_record(
    server: StandardServer, token_file: str, caplog: pytest.LogCaptureFixture, said: Said, at: str, kind: str
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = Bearer(file=token_file) if kind == "bearer" else Basic(user="hub", file=token_file)
    server.change(token="")
    server.before = lambda asked: said if asked.path == at else None
    opened = reader(server, token_file, auth)
    with pytest.raises(SourceError) as caught:
        Taker().take(opened)
    shown = "".join(traceback.format_exception(caught.value)) + repr(opened) + str(caught.value)
    told = "".join(record.getMessage() for record in caplog.records if record.levelno >= logging.INFO)
    for record in (PATIENT_NAME, "Janneke", "SECRET-DIAGNOSTICS"):
        assert record not in shown + told
    for secret in (TOKEN, base64.b64encode(f"hub:{TOKEN}".encode()).decode()):
        assert secret not in shown + caplog.text, "not even where a network library tells everything"
    assert "127.0.0.1" in str(caught.value)
    assert server.asked[0].headers["authorization"].startswith("Bearer" if kind == "bearer" else "Basic")


def test_addresses_are_not_logged_since_they_name_patients(
    server: StandardServer, token_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    taker = Taker()
    taker.take(reader(server, token_file))
    server.delete("Patient/p3")
    taker.take(reader(server, token_file, deletions="sweep"))
    assert "/fhir/" not in caplog.text
    with httpx.Client() as client:
        client.get(f"{server.base}/Patient?_id=p3")
    assert "_id=p3" in caplog.text, "httpx's own client would have logged it"


@pytest.mark.parametrize("secret", ["two words", "line\r\nX-Evil: 1", "näme"])
def test_a_token_that_would_end_its_header_is_refused_unseen(
    server: StandardServer, tmp_path: Path, secret: str
) -> None:
    path = tmp_path / "bad"
    path.write_text(secret)
    path.chmod(0o600)
    with pytest.raises(MisuseError, match="no header can carry") as caught:
        reader(server, str(path))
    assert secret not in str(caught.value)


# --- addresses that an operator gives -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "", "fhir.example", "ftp://fhir.example/fhir", "https://", "https:///fhir", "https://user:pw@fhir.example/fhir",
        "https://fhir.example/fhir?x=1", "https://fhir.example/fhir#x", "https://fhir.example/a/../fhir",
        "https://fhir.example/a/%2e%2e/fhir", "https://fhir.example:port/fhir", "http://fhir.example/fhir",
        "http://10.0.0.7/fhir", "http://127.0.0.1.evil.example/fhir", "http://localhost.evil.example/fhir",
    ],
)  # fmt: skip
def test_an_address_that_hides_something_or_is_not_encrypted_is_refused(url: str) -> None:
    with pytest.raises(MisuseError) as caught:
        open_server(url, ServerOptions(), queries=["Patient"])
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/fhir", "http://localhost/fhir", "http://[::1]:8080/fhir", "https://fhir.example/"]
)
def test_loopback_needs_no_encryption_and_others_have_it(url: str) -> None:
    assert read_base(url, allow_http=False).url == url.rstrip("/")


def test_http_to_another_machine_only_by_the_operators_word() -> None:
    assert (
        open_server("http://10.0.0.7/fhir", ServerOptions(allow_http=True), queries=["Patient"]).name
        == "10.0.0.7/fhir"
    )


def test_every_error_of_this_room_is_one_of_ours(server: StandardServer, token_file: str) -> None:
    """A parser's or a network library's own error would reach people as a trace."""
    for said in HOSTILE_ANSWERS.values():
        server.before = lambda asked, said=said: said  # type: ignore[misc]
        with pytest.raises(FluteError):
            Taker().take(reader(server, token_file))
