"""Who is who on the wire: certificates by NVFLARE's own tools, of which a hub's private key never leaves the hub.

    coordinator  make_authority            root key and certificate, and the coordinator's own kit
    hub          request   -> zip          a signing request and two descriptions; the key stays in `folder`
    coordinator  approve   -> zip          a certificate for a year
    hub          install   -> Kit          only if the root is the one whose fingerprint came by another way

These certificates say who may open a connection; whether a party takes part is the roster's word, asked on
every frame. The tools run in a child process (`certificate_tool` shares one between calls: one start of
0.5 s, then 0.05 s per step), with an environment of their own so that their notes stay in the party's folder.

Certificates of the engine's tools are good for either end of a connection. What keeps a hub from posing as
the coordinator is the host name, so a hub of that name is refused here, at both ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import ipaddress
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Meta, Struct

from flute.defaults import CERTIFICATE_DAYS, MAX_JOIN_BYTES, MAX_KIT_BYTES
from flute.errors import Malformed, MisuseError, TooLarge
from flute.messages.limits import PartyId
from flute.transport.certificates import CertificateTool, certificate_tool
from flute.transport.link import PARTY

__all__ = [
    "Authority",
    "Kit",
    "approve",
    "certificate_tool",
    "install",
    "load_kit",
    "make_authority",
    "open_authority",
    "request",
]
_RESERVED: Final = frozenset({"server", "coordinator", "localhost", "admin", "relay"})
"""Names with a meaning in the engine or here."""
_FEDERATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_FINGERPRINT: Final = re.compile(r"SHA256(:[0-9A-F]{2}){32}")


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Kit:
    """One party's certificates on disk. `url`: grpc://host:port of the coordinator; `server_cn`: its common name."""

    path: Path
    ca: Path
    cert: Path
    key: Path
    server_cn: str
    url: str


@dataclass(frozen=True, slots=True)
class Authority:
    """The federation's certificate authority, at the coordinator.

    `fingerprint`: of its root; hubs learn it by another way than the wire (it is in the invitation).
    """

    folder: Path
    federation: str
    host: str
    port: int
    fingerprint: str
    kit: Kit


class _Request(Struct):
    """What we look at in a request before the tool looks at all of it."""

    name: PartyId
    kind: Literal["site"]
    cert_type: Literal["client"]
    project: str


class _Server(Struct):
    host: Annotated[str, Meta(max_length=253)]
    fed_learn_port: Annotated[int, Meta(ge=1, le=65535)]


class _Signed(Struct):
    """What we look at in a signed request; the tool checks its signature."""

    name: PartyId
    project: str
    cert_type: Literal["client"]
    scheme: Literal["grpc"]
    default_connection_security: Literal["mtls"]
    server: _Server


def make_authority(folder: Path, federation: str, host: str, port: int) -> Authority:
    """Make the root key (0600, it stays in `folder`) and the coordinator's own kit.

    `host`: the DNS name under which hubs reach the coordinator ("localhost" on one machine); never an address,
    since hubs check it against the certificate's name. Raises: MisuseError, ChannelError.
    """
    _require_names(federation, host, port)
    if (folder / "authority.json").exists():
        raise MisuseError(f"{folder.name} already holds a federation's authority; it is never overwritten.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder / "engine", ignore_errors=True)  # what an interrupted call left
    (folder / "engine").mkdir(mode=0o700)
    _write_json(folder / "profile.yaml", _profile(federation, host, port))
    _write_json(folder / "server.yaml", _participant(federation, host, "server"))
    with certificate_tool() as tool:
        tool.run(folder, "cert", "init", "--profile", "profile.yaml", "-o", "engine/ca")  # never --org: broken chains
        root = _fingerprint(folder / "engine/ca/rootCA.pem")
        tool.run(folder, "cert", "request", "-p", "server.yaml", "--out", "engine/own")
        _sign(tool, folder, f"engine/own/{host}.request.zip", "engine/own.signed.zip")
        _package(tool, folder, "engine/own.signed.zip", "engine/own", root)
    _write_json(folder / "authority.json", {"federation": federation, "host": host, "port": port})
    return open_authority(folder)


def open_authority(folder: Path) -> Authority:
    """The authority that `make_authority` made. Raises: MisuseError: there is none, or half of one."""
    try:
        noted = json.loads((folder / "authority.json").read_bytes())
        federation, host, port = str(noted["federation"]), str(noted["host"]), int(noted["port"])
        root = _fingerprint(folder / "engine/ca/rootCA.pem")
    except (OSError, ValueError, KeyError) as error:
        raise MisuseError(f"{folder.name} holds no federation's authority; make one first.") from error
    kit = _kit(folder, federation, host, "server", host, port)
    return Authority(folder, federation, host, port, root, kit)


def request(folder: Path, hub: str, federation: str) -> bytes:
    """Make the hub's key (0600, it stays in `folder`) and a request for a certificate; zip bytes for the coordinator.

    Asking again makes a new key; the old kit stays in use until `install`. Raises: MisuseError, ChannelError.
    """
    _require_hub_name(hub)
    _require(_FEDERATION, federation, "federation")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder / "engine/request", ignore_errors=True)
    (folder / "engine").mkdir(mode=0o700, exist_ok=True)
    _write_json(folder / "hub.yaml", _participant(federation, hub, "client"))
    with certificate_tool() as tool:
        tool.run(folder, "cert", "request", "-p", "hub.yaml", "--out", "engine/request")
    return (folder / "engine/request" / f"{hub}.request.zip").read_bytes()


def approve(authority: Authority, hub: str, requested: bytes) -> bytes:
    """Sign the request of `hub`, the name that its invitation says; zip bytes for the hub.

    Raises: TooLarge, Malformed: it is not a hub's request, or another hub's. MisuseError: a name no hub may
    have. ChannelError: the tool refuses it.
    """
    _require_hub_name(hub)
    if hub == authority.host:
        raise MisuseError(f"No hub may be called {hub}: it is the coordinator's host name, and could pose as it.")
    asked = _from_zip(requested, "request.json", _Request, MAX_JOIN_BYTES)
    if asked.name != hub or asked.project != authority.federation:
        raise Malformed(
            f"This request is for {asked.name} in {asked.project}, not for {hub} in {authority.federation}."
        )
    with _scratch(authority.folder) as scratch, certificate_tool() as tool:
        (scratch / "request.zip").write_bytes(requested)
        base = scratch.relative_to(authority.folder)
        _sign(tool, authority.folder, f"{base}/request.zip", f"{base}/signed.zip")
        return (scratch / "signed.zip").read_bytes()


def install(folder: Path, signed: bytes, fingerprint: str) -> Kit:
    """Put the signed certificate beside the key it was requested with.

    `fingerprint`: of the federation's root, learnt by another way than `signed` (it is in the invitation).
    Raises: TooLarge, Malformed; MisuseError: no request was made here; ChannelError: another root, another
    key or a bad signature.
    """
    _require(_FINGERPRINT, fingerprint, "fingerprint")
    answer = _from_zip(signed, "signed.json", _Signed, MAX_KIT_BYTES)
    if not (folder / "engine/request" / f"{answer.name}.key").exists():
        raise MisuseError(f"No request of {answer.name} was made in {folder.name}; the answer belongs elsewhere.")
    _require_names(answer.project, answer.server.host, answer.server.fed_learn_port)
    if answer.name in _RESERVED or answer.name == answer.server.host:
        raise Malformed(f"The answer is for the name {answer.name}, which no hub may have.")
    (folder / "engine/hub.signed.zip").write_bytes(signed)
    with certificate_tool() as tool:
        _package(tool, folder, "engine/hub.signed.zip", "engine/request", fingerprint)
    server = {"host": answer.server.host, "port": answer.server.fed_learn_port}
    _write_json(folder / "kit.json", {"hub": answer.name, "federation": answer.project, "root": fingerprint} | server)
    return load_kit(folder)


def load_kit(folder: Path) -> Kit:
    """The kit that `install` made. Raises: MisuseError: there is none, or its root is not the agreed one."""
    try:
        noted = json.loads((folder / "kit.json").read_bytes())
        kit = _kit(folder, noted["federation"], noted["hub"], "client", noted["host"], int(noted["port"]))
        same_root = _fingerprint(kit.ca) == noted["root"]
    except (OSError, ValueError, KeyError) as error:
        raise MisuseError(
            f"{folder.name} holds no kit; the hub has not been admitted to a federation yet."
        ) from error
    if not same_root:
        raise MisuseError(f"The root certificate in {folder.name} is not the one whose fingerprint was agreed.")
    return kit


# --- steps ---------------------------------------------------------------------------------------


def _sign(tool: CertificateTool, folder: Path, requested: str, signed: str) -> None:
    tool.run(
        folder, "cert", "approve", requested, "-c", "engine/ca", "--profile", "profile.yaml",
        "--out", signed, "--valid-days", str(CERTIFICATE_DAYS),
    )  # fmt: skip


def _package(tool: CertificateTool, folder: Path, signed: str, key_folder: str, root: str) -> None:
    tool.run(
        folder, "package", signed, "--request-dir", key_folder, "--fingerprint", root, "-w", "engine/kit", "--force"
    )


# --- forms and checks ----------------------------------------------------------------------------


def _profile(federation: str, host: str, port: int) -> dict[str, object]:
    server = {"host": host, "fed_learn_port": port, "admin_port": port}
    return {"name": federation, "scheme": "grpc", "connection_security": "mtls", "server": server}


def _participant(federation: str, name: str, kind: str) -> dict[str, object]:
    organisation = re.sub(r"[^A-Za-z0-9_]", "_", name)  # the tool's alphabet; nothing rests on it
    return {"name": federation, "participants": [{"name": name, "org": organisation, "type": kind}]}


def _kit(folder: Path, federation: str, name: str, side: str, host: str, port: int) -> Kit:
    path = folder / "engine/kit" / federation / "prod_00" / name / "startup"
    kit = Kit(path, path / "rootCA.pem", path / f"{side}.crt", path / f"{side}.key", host, f"grpc://{host}:{port}")
    for part in (kit.ca, kit.cert, kit.key):
        if not part.is_file():
            raise MisuseError(f"The kit in {folder.name} is incomplete: {part.name} is missing.")
    return kit


def _from_zip(raw: bytes, member: str, form: type[_T], limit: int) -> _T:
    """One JSON member of a zip, bounded before and after it is unpacked."""
    if len(raw) > limit:
        raise TooLarge(f"A certificate message of {len(raw)} bytes is over the limit of {limit}.")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive, archive.open(member) as packed:
            content = packed.read(limit + 1)
        if len(content) > limit:
            raise TooLarge(f"{member} in a certificate message is over the limit of {limit} bytes.")
        return msgspec.json.decode(content, type=form)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Malformed(
            f"These bytes are not a certificate message of a hub: {member} is not as it should be."
        ) from error


def _fingerprint(certificate: Path) -> str:
    """SHA-256 of the DER certificate, in the engine's spelling."""
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return "SHA256:" + hashlib.sha256(der).digest().hex(":").upper()


def _require(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value):
        raise MisuseError(f"{value[:80]!r} is not a usable {what}.")


def _require_names(federation: str, host: str, port: int) -> None:
    _require(_FEDERATION, federation, "federation name")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        raise MisuseError(f"{host} is an address; hubs check the coordinator's certificate by its DNS name.")
    _require(_HOST, host, "host name (lower case)")
    if not 1 <= port <= 65535:
        raise MisuseError(f"{port} is not a port number.")


def _require_hub_name(hub: str) -> None:
    _require(PARTY, hub, "hub name (lower case letters, digits, hyphens)")
    if hub in _RESERVED:
        raise MisuseError(f"No hub may be called {hub}: the name has a meaning in the engine.")


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder of this call alone, gone afterwards."""
    path = folder / "engine" / f"approving-{os.getpid()}-{threading.get_ident()}"
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _write_json(path: Path, value: object) -> None:
    """JSON is YAML, which is what the tool reads."""
    path.write_text(json.dumps(value), encoding="utf-8")
