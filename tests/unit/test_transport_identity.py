"""Certificates: a hub's key stays at the hub, and nobody gets a certificate of another's name."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from flute.errors import ChannelError, Malformed, MisuseError, TooLarge
from flute.transport import identity
from flute.transport.identity import Authority, Kit


@pytest.fixture(scope="module", autouse=True)
def one_tool() -> Iterator[None]:
    with identity.certificate_tool():
        yield


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return identity.make_authority(tmp_path_factory.mktemp("authority") / "c", "trial", "localhost", 8102)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> tuple[Path, bytes, bytes, Kit]:
    folder = tmp_path_factory.mktemp("hub") / "hub-a"
    asked = identity.request(folder, "hub-a", "trial")
    signed = identity.approve(authority, "hub-a", asked)
    return folder, asked, signed, identity.install(folder, signed, authority.fingerprint)


def members(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return raw.getvalue()


def test_private_key_never_leaves_the_hub_s_folder(hub: tuple[Path, bytes, bytes, Kit], authority: Authority) -> None:
    folder, asked, signed, kit = hub
    secret = load_pem_private_key(kit.key.read_bytes(), None).private_numbers().d  # type: ignore[union-attr]
    needles = [b"PRIVATE KEY", str(secret).encode(), secret.to_bytes(256, "big")]
    sent = [asked, signed, *members(asked).values(), *members(signed).values()]
    there = [path.read_bytes() for path in authority.folder.rglob("*") if path.is_file()]
    own = {path.name for path in authority.folder.rglob("*.key")}
    assert own == {"rootCA.key", "localhost.key", "server.key"}
    for content in sent:
        assert not any(needle in content for needle in needles)
    assert not any(needle in content for content in there for needle in needles[1:])
    assert sorted(members(asked)) == ["hub-a.csr", "request.json", "site.yaml"]
    assert any(needles[0] in path.read_bytes() for path in folder.rglob("*.key"))  # the search does find keys


def test_keys_are_readable_by_their_owner_alone(hub: tuple[Path, bytes, bytes, Kit], authority: Authority) -> None:
    for folder in (hub[0], authority.folder):
        keys = list(folder.rglob("*.key"))
        assert keys
        assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
        assert (folder.stat().st_mode & 0o777) == 0o700


def test_kit_holds_what_the_wire_needs(hub: tuple[Path, bytes, bytes, Kit], authority: Authority) -> None:
    folder, _, _, kit = hub
    certificate = x509.load_pem_x509_certificate(kit.cert.read_bytes())
    assert certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == "hub-a"
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 365
    assert kit.url == "grpc://localhost:8102"
    assert kit.server_cn == "localhost"
    assert kit.ca.read_bytes() == authority.kit.ca.read_bytes()
    assert identity.load_kit(folder) == kit
    assert identity.open_authority(authority.folder) == authority


def test_root_s_subject_is_the_issuer_of_its_leaves(hub: tuple[Path, bytes, bytes, Kit]) -> None:
    """With `cert init --org` it is not, and every connection fails."""
    root = x509.load_pem_x509_certificate(hub[3].ca.read_bytes())
    leaf = x509.load_pem_x509_certificate(hub[3].cert.read_bytes())
    leaf.verify_directly_issued_by(root)


@pytest.mark.parametrize(
    "name", ["server", "coordinator", "localhost", "Hub", "hub.a", "h", "../hub", "-hub", "hub a"]
)
def test_no_hub_gets_a_name_that_means_something_else(tmp_path: Path, authority: Authority, name: str) -> None:
    with pytest.raises(MisuseError):
        identity.request(tmp_path / "h", name, "trial")
    with pytest.raises(MisuseError):
        identity.approve(authority, name, b"")


def test_no_hub_is_called_as_the_coordinator_s_host(tmp_path: Path) -> None:
    """Its certificate would be good for posing as the coordinator."""
    authority = identity.make_authority(tmp_path / "c", "trial", "fluteserver", 8102)
    asked = identity.request(tmp_path / "h", "fluteserver", "trial")
    with pytest.raises(MisuseError, match="pose"):
        identity.approve(authority, "fluteserver", asked)


def test_request_of_another_hub_or_federation_is_refused(
    tmp_path: Path, authority: Authority, hub: tuple[Path, bytes, bytes, Kit]
) -> None:
    with pytest.raises(Malformed, match="is for hub-a"):
        identity.approve(authority, "hub-b", hub[1])
    with pytest.raises(Malformed):
        identity.approve(authority, "hub-c", identity.request(tmp_path / "h", "hub-c", "elsewhere"))


def test_request_for_the_server_s_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    asked = (authority.folder / "engine/own/localhost.request.zip").read_bytes()
    with pytest.raises(MisuseError):
        identity.approve(authority, "localhost", asked)
    parts = members(asked)
    described = json.loads(parts["request.json"]) | {"name": "hub-x"}
    with pytest.raises(Malformed):
        identity.approve(authority, "hub-x", zipped(parts | {"request.json": json.dumps(described).encode()}))


def test_request_whose_csr_is_another_name_s_is_refused(
    tmp_path: Path, authority: Authority, hub: tuple[Path, bytes, bytes, Kit]
) -> None:
    parts = members(identity.request(tmp_path / "h", "hub-b", "trial"))
    parts["hub-b.csr"] = members(hub[1])["hub-a.csr"]
    with pytest.raises(ChannelError, match="refused"):
        identity.approve(authority, "hub-b", zipped(parts))


@pytest.mark.parametrize("raw", [b"", b"PK", b"x" * 100])
def test_bytes_that_are_no_zip_are_malformed(authority: Authority, tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(Malformed):
        identity.approve(authority, "hub-b", raw)
    with pytest.raises(Malformed):
        identity.install(tmp_path, raw, authority.fingerprint)


def test_oversized_and_bombed_zips_are_refused(authority: Authority) -> None:
    with pytest.raises(TooLarge):
        identity.approve(authority, "hub-b", bytes(2**20))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("request.json", bytes(50_000_000))
    assert len(packed.getvalue()) < 100_000
    with pytest.raises(TooLarge):
        identity.approve(authority, "hub-b", packed.getvalue())


def test_answer_of_another_root_is_not_installed(tmp_path: Path, authority: Authority) -> None:
    foreign = identity.make_authority(tmp_path / "f", "trial", "localhost", 8102)
    asked = identity.request(tmp_path / "h", "hub-b", "trial")
    signed = identity.approve(foreign, "hub-b", asked)
    with pytest.raises(ChannelError, match="refused"):
        identity.install(tmp_path / "h", signed, authority.fingerprint)
    with pytest.raises(MisuseError):
        identity.load_kit(tmp_path / "h")
    with pytest.raises(MisuseError, match="fingerprint"):
        identity.install(tmp_path / "h", signed, "")


def test_answer_changed_on_the_way_is_not_installed(tmp_path: Path, authority: Authority) -> None:
    asked = identity.request(tmp_path / "h", "hub-b", "trial")
    parts = members(identity.approve(authority, "hub-b", asked))
    signed = json.loads(parts["signed.json"])
    signed["server"]["host"] = "elsewhere.example"
    with pytest.raises(ChannelError, match="refused"):
        identity.install(
            tmp_path / "h", zipped(parts | {"signed.json": json.dumps(signed).encode()}), authority.fingerprint
        )


def test_answer_for_another_hub_is_not_installed(
    tmp_path: Path, authority: Authority, hub: tuple[Path, bytes, bytes, Kit]
) -> None:
    identity.request(tmp_path / "h", "hub-b", "trial")
    with pytest.raises(MisuseError, match="elsewhere"):
        identity.install(tmp_path / "h", hub[2], authority.fingerprint)


def test_exchanged_root_is_noticed_when_the_kit_is_loaded(
    tmp_path: Path, hub: tuple[Path, bytes, bytes, Kit], authority: Authority
) -> None:
    shutil.copytree(hub[0], tmp_path / "copy")
    kit = identity.load_kit(tmp_path / "copy")
    kit.ca.write_bytes(kit.cert.read_bytes())
    with pytest.raises(MisuseError, match="not the one"):
        identity.load_kit(tmp_path / "copy")


def test_authority_is_never_overwritten(authority: Authority) -> None:
    with pytest.raises(MisuseError, match="never overwritten"):
        identity.make_authority(authority.folder, "trial", "localhost", 8102)


@pytest.mark.parametrize(
    ("federation", "host", "port"),
    [("tr/ial", "localhost", 1), ("trial", "127.0.0.1", 1), ("trial", "::1", 1), ("trial", "host:1", 1),
     ("trial", "a b", 1), ("trial", "localhost", 0), ("trial", "localhost", 70_000)],
)  # fmt: skip
def test_unusable_federation_host_or_port_is_refused(tmp_path: Path, federation: str, host: str, port: int) -> None:
    with pytest.raises(MisuseError):
        identity.make_authority(tmp_path / "c", federation, host, port)
    assert not (tmp_path / "c").exists()


def test_hub_renews_its_certificate_with_a_new_key(tmp_path: Path, authority: Authority) -> None:
    kits = []
    for _ in range(2):
        signed = identity.approve(authority, "hub-b", identity.request(tmp_path / "h", "hub-b", "trial"))
        kit = identity.install(tmp_path / "h", signed, authority.fingerprint)
        kits.append(kit.key.read_bytes())
    assert kits[0] != kits[1]


def test_tool_writes_into_the_party_s_folder_and_not_into_the_user_s_home(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with identity.certificate_tool():
        identity.request(tmp_path / "h", "hub-b", "trial")
    assert not (tmp_path / "home").exists()
    assert (tmp_path / "h/.nvflare").is_dir()


def test_certificates_of_a_coordinator_and_three_hubs_take_seconds_not_ten(tmp_path: Path) -> None:
    start = time.monotonic()
    with identity.certificate_tool():
        authority = identity.make_authority(tmp_path / "c", "trial", "localhost", 8102)
        for name in ("hub-a", "hub-b", "hub-c"):
            asked = identity.request(tmp_path / name, name, "trial")
            identity.install(tmp_path / name, identity.approve(authority, name, asked), authority.fingerprint)
    assert time.monotonic() - start < 6.0  # 0.8 s on an idle machine, 9.9 s with one process per command


def test_service_does_not_pay_for_the_engine_s_imports() -> None:
    code = (
        "import sys, flute.transport.relay, flute.transport.identity, flute.transport.local;"
        "sys.exit(any(name.split('.')[0] in ('nvflare', 'grpc') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_module_knows_the_engine() -> None:
    package = Path(identity.__file__).parents[1]
    importers = [
        path.name
        for path in package.rglob("*.py")
        if any(line.strip().startswith(("import nvflare", "from nvflare")) for line in path.read_text().splitlines())
    ]
    assert importers == ["engine.py"]
