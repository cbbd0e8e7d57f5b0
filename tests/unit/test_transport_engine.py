"""The guard in front of every frame, and what we rely on in the pinned engine."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from nvflare.fuel.f3.drivers import grpc_driver
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.sfm import conn_manager, sfm_endpoint

from flute.defaults import MAX_ENVELOPE_BYTES, WIRE_RECONNECT_MAX_S
from flute.errors import ChannelError
from flute.transport import engine
from flute.transport.engine import Guard
from flute.transport.link import MAX_PARCEL_BYTES

AT_COORDINATOR = Guard("server", "flute.example", frozenset({"hub-a", "hub-b"}))
AT_HUB = Guard("hub-a", "flute.example", frozenset({"server"}))
PARCEL = Message(None, b"P" + bytes(100))


def test_admitted_peers_under_their_own_certificate_pass() -> None:
    assert AT_COORDINATOR.objection("hub-a", "hub-a", PARCEL) is None
    assert AT_HUB.objection("server", None, PARCEL) is None  # grpc tells a client no name; it checked the host
    assert AT_HUB.objection("server", "flute.example", PARCEL) is None


@pytest.mark.parametrize(
    ("peer", "common_name"),
    [("hub-a", "hub-b"), ("hub-a", None), ("hub-a", ""), ("hub-c", "hub-c"), ("hub-a.child", "hub-a"),
     ("server", "flute.example"), ("server", "server"), ("", "")],
)  # fmt: skip
def test_coordinator_hears_nobody_else(peer: str, common_name: str | None) -> None:
    assert AT_COORDINATOR.objection(peer, common_name, PARCEL) is not None


@pytest.mark.parametrize(
    ("peer", "common_name"),
    [("hub-b", "hub-b"), ("hub-b", None), ("server", "hub-b"), ("server.x", None), ("coordinator", None)],
)
def test_hub_hears_nobody_but_the_coordinator(peer: str, common_name: str | None) -> None:
    assert AT_HUB.objection(peer, common_name, PARCEL) is not None


@pytest.mark.parametrize(
    "message",
    [
        Message({"origin": "server"}, b"P" + bytes(100)), Message(None, None), Message(None, b""),
        Message(None, "text"), Message(None, b"X"), Message(None, b"P"), Message(None, b"R" + bytes(15)),
        Message(None, b"R" + bytes(17)), Message(None, b"Ax"), Message(None, b"P" + bytes(MAX_PARCEL_BYTES + 1)),
    ],
)  # fmt: skip
def test_only_our_own_form_passes(message: Message) -> None:
    assert AT_COORDINATOR.objection("hub-a", "hub-a", message) is not None


def test_objections_name_no_content() -> None:
    objection = AT_COORDINATOR.objection("hub-a", "hub-a", Message({"x": "SECRET"}, b"SECRET"))
    assert objection is not None
    assert "SECRET" not in objection


@pytest.mark.parametrize("url", ["tcp://localhost:1", "http://localhost:1", "grpcs://x:1", "localhost:1", ""])
def test_any_other_scheme_is_refused_in_words(url: str) -> None:
    with pytest.raises(ChannelError, match="grpc only"):
        engine.require_grpc(url)


def test_certificate_that_ended_is_told(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    long_ago = datetime.now(UTC) - timedelta(days=400)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, long_ago, long_ago + timedelta(days=365)
    ).sign(key, hashes.SHA256())
    (tmp_path / "c").write_bytes(certificate.public_bytes(Encoding.PEM))
    path = str(tmp_path / "c")
    settings = engine.EngineSettings("hub-a", "grpc://localhost:1", path, path, path, "localhost")
    with pytest.raises(ChannelError, match="ended on"):
        engine.Engine(settings, (), lambda *_: None, lambda: None)
    with pytest.raises(ChannelError, match="install its kit anew"):
        engine.Engine(replace(settings, key=str(tmp_path / "none")), (), lambda *_: None, lambda: None)


def test_engine_is_the_version_whose_inside_we_know() -> None:
    assert version("nvflare") == "2.9.0"


def test_our_limits_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_driver, "GRPC_DEFAULT_OPTIONS", list(grpc_driver.GRPC_DEFAULT_OPTIONS))
    for name in ("INIT_WAIT", "MAX_WAIT"):
        monkeypatch.setattr(conn_manager, name, getattr(conn_manager, name))
    engine._tune("grpc://localhost:1")
    options = dict(grpc_driver.GrpcDriver().options)
    assert MAX_ENVELOPE_BYTES < options["grpc.max_receive_message_length"] < MAX_ENVELOPE_BYTES + 100_000
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.enable_http_proxy"] == 0
    assert conn_manager.MAX_WAIT == WIRE_RECONNECT_MAX_S
    engine._tune("grpc://flute.example:443")
    assert dict(grpc_driver.GrpcDriver().options)["grpc.enable_http_proxy"] == 1
    assert sfm_endpoint.MAX_CONN_PER_ENDPOINT == 1  # a hub's newest connection is the one that is used
