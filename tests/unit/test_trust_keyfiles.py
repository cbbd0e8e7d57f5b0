"""Key files: private, whole, never replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flute.errors import KeyFileError, MisuseError
from flute.primitives.keys import verify
from flute.trust.keyfiles import (
    KeyKind,
    key_path,
    load_owner_key,
    load_party_keys,
    load_person_key,
    make_coordinator_keys,
    make_hub_keys,
    make_person_key,
)

RAND = bytes(range(96))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    make_hub_keys(made, "chu", rand=RAND)
    return made


def test_a_hubs_keys_are_the_random_bytes_in_order_and_differ(folder: Path) -> None:
    keys = load_party_keys(folder)
    assert (keys.party, keys.signing.raw, keys.sealing.raw) == ("chu", RAND[:32], RAND[32:64])
    owner = load_owner_key(folder)
    assert (owner.party, owner.key.raw) == ("chu", RAND[64:])
    verify(owner.key.public, owner.key.sign(b"x"), b"x")


def test_files_are_0600_in_a_folder_0700_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_person_key(tmp_path / "deep" / "keys", "ada", rand=RAND[:32])
    finally:
        os.umask(before)
    folder = tmp_path / "deep" / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "signing.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["signing.key"]
    assert load_person_key(folder).party == "ada"


def test_a_coordinator_has_no_owner_key(tmp_path: Path) -> None:
    make_coordinator_keys(tmp_path / "c", "coordinator", rand=RAND[:64])
    assert load_party_keys(tmp_path / "c").party == "coordinator"
    with pytest.raises(KeyFileError, match="no key file"):
        load_owner_key(tmp_path / "c")


def test_the_hub_service_needs_no_owner_key(folder: Path) -> None:
    key_path(folder, KeyKind.OWNER).unlink()
    assert load_party_keys(folder).party == "chu"


def test_an_existing_key_is_never_replaced(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyFileError, match="exists already"):
        make_hub_keys(folder, "chu", rand=bytes(range(100, 196)))
    key_path(folder, KeyKind.SIGNING).unlink()
    with pytest.raises(KeyFileError, match="exists already"):
        make_hub_keys(folder, "chu", rand=bytes(range(100, 196)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: raw for name, raw in before.items() if name != "signing.key"
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_open_to_others_is_refused_with_the_command_that_helps(folder: Path, mode: int) -> None:
    path = key_path(folder, KeyKind.SIGNING)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=r"chmod 600 .*signing\.key"):
        load_party_keys(folder)
    path.chmod(0o600)
    load_party_keys(folder)


def test_a_folder_open_to_others_is_refused_for_reading_and_for_making(folder: Path, tmp_path: Path) -> None:
    folder.chmod(0o750)
    with pytest.raises(KeyFileError, match="chmod 700"):
        load_owner_key(folder)
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        make_hub_keys(tmp_path / "open", "chu", rand=RAND)
    assert list((tmp_path / "open").iterdir()) == []


def _first_line(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    return lambda raw: (change(raw.decode().splitlines()[0]) + "\n" + raw.decode().splitlines()[1] + "\n").encode()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda raw: b"", "damaged"),
        (lambda raw: raw[:-3], "damaged"),
        (lambda raw: raw + b"\n", "damaged"),
        (lambda raw: raw.replace(b"A", b"\xff", 1), "damaged"),
        (lambda raw: b"x" * 300, "too many"),
        (_first_line(lambda line: line.replace("v1", "v2")), "version 2"),
        (_first_line(lambda line: line.replace("signing", "sealing")), "a sealing key where a signing key belongs"),
        (_first_line(lambda line: line.replace("chu", "huvh")), "keys in a folder of its own"),
        (_first_line(lambda line: line.replace("chu", "../x")), "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_words_without_its_secret(
    folder: Path, damage: Callable[[bytes], bytes], why: str
) -> None:
    path = key_path(folder, KeyKind.SIGNING)
    secret = path.read_text().splitlines()[1]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(KeyFileError, match=why) as caught:
        load_party_keys(folder)
    assert secret not in caught.value.text


def test_links_pipes_and_folders_are_not_read_as_keys(folder: Path, tmp_path: Path) -> None:
    path = key_path(folder, KeyKind.OWNER)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="it is a link"):
        load_owner_key(folder)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileError, match="not an ordinary file"):
        load_owner_key(folder)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(KeyFileError, match="not an ordinary file"):
        load_owner_key(folder)


def test_a_missing_folder_or_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="nowhere"):
        load_party_keys(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="file"):
        make_person_key(tmp_path / "file", "ada", rand=RAND[:32])


def test_broken_randomness_makes_no_keys(tmp_path: Path) -> None:
    for rand in (bytes(96), RAND[:32] * 3, RAND[:95], RAND + b"x", RAND[:64] + bytes(32)):
        with pytest.raises(MisuseError):
            make_hub_keys(tmp_path / "keys", "chu", rand=rand)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("name", ["", "a", "Chu", "chu\n", "../chu", "c" * 33, "1chu", "chu hub"])
def test_a_name_that_is_no_party_id_makes_no_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(MisuseError, match="no party id"):
        make_hub_keys(tmp_path / "keys", name, rand=RAND)


def test_secrets_do_not_appear_when_keys_are_printed(folder: Path) -> None:
    shown = repr(load_party_keys(folder)) + repr(load_owner_key(folder))
    for raw in (RAND[:32], RAND[32:64], RAND[64:]):
        assert repr(raw)[2:12] not in shown
        assert raw.hex() not in shown
