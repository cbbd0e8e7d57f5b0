"""The file that says how a hub reads its FHIR server, and where its secrets lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.errors import KeyFileError, MisuseError
from flute.fhirserver.auth import read_secret, read_secret_file
from flute.fhirserver.options import Basic, Bearer, ServerOptions, Smart, read_server_options
from flute.fhirserver.wire import Secret

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "fhir-server.md"


def options(folder: Path, text: str) -> ServerOptions:
    path = folder / "server.yaml"
    path.write_text(text)
    return read_server_options(path)


def test_a_file_is_read_with_its_paths_taken_from_its_own_folder(tmp_path: Path) -> None:
    found = options(
        tmp_path,
        "read: bulk\nqueries: [Patient, 'Observation?code=http://loinc.org|2857-1']\nca_file: ca.pem\n"
        "auth: {kind: smart, client_id: hub, key_file: keys/hub.pem}\n",
    )
    assert found.read == "bulk"
    assert found.queries == ("Patient", "Observation?code=http://loinc.org|2857-1")
    assert found.ca_file == str(tmp_path / "ca.pem")
    assert found.auth == Smart(client_id="hub", key_file=str(tmp_path / "keys/hub.pem"))


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert options(tmp_path, "") == ServerOptions()


@pytest.mark.parametrize(
    "auth", [Bearer(file="/s/t"), Bearer(environment="TOKEN"), Basic(user="u", file="/s/p"), Smart("c", "/s/k.pem")]
)
def test_options_survive_being_written_as_json(auth: Any) -> None:
    """A hub keeps them in its plan of imports."""
    chosen = ServerOptions(auth=auth, file_hosts=("https://f.example",))
    assert msgspec.json.decode(msgspec.json.encode(chosen), type=ServerOptions) == chosen


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("read: [", "is not YAML"),
        ("- a\n", "not as expected"),
        ("raed: bulk", "unknown field"),
        ("read: telepathy", "read"),
        ("page_size: 0", "page_size"),
        ("attempts: many", "attempts"),
        ("auth: {kind: bearer, token: hunter2hunter2}", "unknown field"),
        ("auth: {kind: hunter2hunter2}", "auth"),
        ("auth: hunter2hunter2", "auth"),
        ("auth: {kind: basic, user: u, password: 'hunter2hunter2'}", "unknown field"),
        ("x: &hunter2hunter2 [\n", "is not YAML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_and_never_quoted(tmp_path: Path, text: str, sentence: str) -> None:
    """Somebody may have written a secret where a file name belongs."""
    with pytest.raises(MisuseError, match=sentence) as caught:
        options(tmp_path, text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_too_large_or_absent_is_said(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="too large"):
        options(tmp_path, "#" * 70_000)
    with pytest.raises(MisuseError, match="cannot be read"):
        read_server_options(tmp_path / "absent.yaml")


def test_every_option_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8")
    kinds = (ServerOptions, Bearer, Basic, Smart)
    names = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    assert {name for name in names if f"`{name}`" not in page} == set()


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret!r} {secret!s} {secret}"
    assert secret.reveal() == "hunter2"
    with pytest.raises(MisuseError):
        __import__("pickle").dumps(secret)


def test_a_secret_comes_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("abc\n")
    path.chmod(0o640)
    assert read_secret(str(path), "", "token").reveal() == "abc"
    monkeypatch.setenv("FLUTE_TEST_TOKEN", "def")
    assert read_secret("", "FLUTE_TEST_TOKEN", "token").reveal() == "def"
    for file, environment in (("", ""), (str(path), "FLUTE_TEST_TOKEN")):
        with pytest.raises(MisuseError, match="Name one place for the token"):
            read_secret(file, environment, "token")
    with pytest.raises(MisuseError, match="is empty"):
        read_secret("", "FLUTE_TEST_ABSENT", "token")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc")
    for mode in (0o604, 0o602, 0o601, 0o644):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=r"every account of this machine.*chmod o-rwx"):
            read_secret_file(path)
    for bad, sentence in ((tmp_path / "absent", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(KeyFileError, match=sentence):
            read_secret_file(bad)
