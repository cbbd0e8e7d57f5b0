"""Requests within limits: pauses, sizes, times, certificates."""

from __future__ import annotations

import gzip
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from flute.defaults.records import FHIR_PAUSE_MAX_S, FHIR_RETRY_AFTER_MAX_S
from flute.errors import MisuseError, SourceError, Unmappable, Unreachable
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.server import open_server
from flute.fhirserver.wire import Again, Limits, Wire
from support.standard_server import Asked, Said, StandardServer, serving
from support.taking import Patience, Taker, plain_transport


@pytest.fixture
def server() -> Iterator[StandardServer]:
    with serving(StandardServer()) as running:
        running.put(*({"resourceType": "Patient", "id": f"p{n}"} for n in range(9)))
        yield running


def take(server: StandardServer, patience: Patience | None = None, **options: Any) -> Taker:
    taker = Taker()
    around = (patience or Patience()).around()
    chosen = ServerOptions(**{"page_size": 2, "overlap_s": 0, **options})
    taker.take(open_server(server.base, chosen, queries=["Patient"], around=around, transport=plain_transport))
    return taker


def failing(server: StandardServer, *said: Said, after: int = 1) -> None:
    """The answers in place of real ones, after so many requests."""
    rest = list(said)

    def before(asked: Asked) -> Said | None:
        return rest.pop(0) if asked.number >= after and rest else None

    server.before = before


# --- pauses -----------------------------------------------------------------------------------------------


def test_pauses_double_up_to_a_bound_and_are_drawn_below_it(server: StandardServer) -> None:
    patience = Patience(chance=1.0)
    failing(server, *([Said(500)] * 9))
    take(server, patience, attempts=10)
    assert patience.slept == [0.5, 1, 2, 4, 8, 16, FHIR_PAUSE_MAX_S, FHIR_PAUSE_MAX_S, FHIR_PAUSE_MAX_S]
    half = Patience(chance=0.5)
    server.asked.clear()
    failing(server, Said(500), Said(500))
    take(server, half)
    assert half.slept == [0.25, 0.5]


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("7", 7.0),
        ("Mon, 02 Mar 2026 00:00:42 GMT", 42.0),
        ("Sun, 01 Mar 2026 00:00:00 GMT", 0.0),
        ("999999", FHIR_RETRY_AFTER_MAX_S),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1e9", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after_is_honoured_up_to_a_bound(server: StandardServer, header: str, pause: float) -> None:
    patience = Patience(chance=0.0)
    failing(server, Said(429, headers={"retry-after": header}))
    take(server, patience)
    assert patience.slept == [pause]


def test_the_last_attempt_says_what_is_wrong(server: StandardServer) -> None:
    failing(server, *([Said(429)] * 99))
    with pytest.raises(Unreachable, match=r"asks too often \(429\).*FLUTE tried 5 times"):
        take(server, attempts=5)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 418, 451, 501, 505])
def test_a_plain_no_is_not_asked_again(server: StandardServer, status: int) -> None:
    server.before = lambda asked: Said(status) if asked.path == "/fhir/Patient" else None
    patience = Patience()
    with pytest.raises(SourceError, match=f"status {status}"):
        take(server, patience)
    assert patience.slept == []


def test_an_import_has_an_end(server: StandardServer) -> None:
    """What was read stays; the next import goes on."""
    failing(server, *([Said(503, headers={"retry-after": "500"})] * 8), after=4)
    taker = Taker()
    options = ServerOptions(page_size=2, overlap_s=0, whole_s=3_000)
    reader = open_server(server.base, options, queries=["Patient"], around=Patience().around())
    with pytest.raises(Unreachable, match=r"longer than 0.833 hours. What was read stays.*whole_s"):
        taker.take(reader)
    assert taker.all
    server.before = lambda asked: None
    taker.take(reader)
    assert taker.all == server.all()


# --- sizes --------------------------------------------------------------------------------------------------


def big(server: StandardServer, body: bytes, **headers: str) -> None:
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    server.before = lambda asked: Said(200, body, given_headers) if asked.path == "/fhir/Patient" else None


def test_an_answer_that_is_too_large_is_left(server: StandardServer) -> None:
    big(server, b" " * (2**20 + 1))
    with pytest.raises(Unmappable, match=r"more than 1 MiB.*page_size.*max_response_mb"):
        take(server, max_response_mb=1)


def test_a_compressed_bomb_is_left_at_the_same_size(server: StandardServer) -> None:
    big(server, gzip.compress(b" " * 50_000_000, 1), content_encoding="gzip")
    with pytest.raises(Unmappable, match="more than 1 MiB"):
        take(server, max_response_mb=1)


def test_a_bomb_in_a_bomb_is_no_json(server: StandardServer) -> None:
    big(server, gzip.compress(gzip.compress(b" " * 1_000_000)), content_encoding="gzip")
    with pytest.raises(Unmappable, match="is damaged"):
        take(server, attempts=1)


def test_compression_that_nobody_asked_for_is_refused(server: StandardServer) -> None:
    big(server, b"x", content_encoding="br")
    with pytest.raises(Unmappable, match="compresses in a way that FLUTE did not ask for"):
        take(server)


@given(data=st.binary(max_size=300_000), level=st.integers(0, 9), cuts=st.lists(st.integers(1, 9_000), max_size=30))
def test_unpacking_gives_what_was_packed_however_it_is_cut(data: bytes, level: int, cuts: list[int]) -> None:
    """And anything less than the whole is noticed."""
    wire = Wire("h", None, Limits(), Patience().around())  # type: ignore[arg-type]
    packed = gzip.compress(data, level) + gzip.compress(data[:50])
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(packed[at : at + cut])
        at += cut
    pieces.append(packed[at:])
    assert b"".join(wire.unzipped(iter(pieces))) == data + data[:50]
    assert max((len(piece) for piece in wire.unzipped(iter(pieces))), default=0) <= 2**16
    with pytest.raises(Again):
        list(wire.unzipped(iter([packed[:-1]])))


# --- certificates ---------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed for 127.0.0.1: nobody on this machine trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1)).add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    public, private = folder / "ca.pem", folder / "key.pem"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private


@contextmanager
def encrypted(folder: Path) -> Iterator[str]:
    """A server that says no to everything, over TLS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(418)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    public, private = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{httpd.server_address[1]}/fhir"
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_a_certificate_that_nobody_vouches_for_is_refused_and_a_hospitals_own_authority_helps(tmp_path: Path) -> None:
    with encrypted(tmp_path) as url:
        patience = Patience()
        stranger = open_server(url, ServerOptions(), queries=["Patient"], around=patience.around())
        with pytest.raises(Unmappable, match=r"certificate of 127\.0\.0\.1 is not trusted.*ca_file"):
            list(stranger.pages(None))
        assert patience.slept == [], "a certificate does not get better by waiting"
        options = ServerOptions(ca_file=str(tmp_path / "ca.pem"))
        with pytest.raises(Unreachable, match="status 418"):
            list(open_server(url, options, queries=["Patient"]).pages(None))


def test_a_file_of_authorities_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    for name in ("ca.pem", "absent.pem"):
        with pytest.raises(MisuseError, match="ca_file"):
            open_server("https://h.example/fhir", ServerOptions(ca_file=str(tmp_path / name)), queries=["Patient"])
