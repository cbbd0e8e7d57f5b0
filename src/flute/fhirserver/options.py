"""How a hub reads its FHIR server: a small YAML file that the operator writes.

The file names where secrets lie (a file, an environment variable); it never holds one. Paths in it are taken from
the folder of the file. Every element is described in docs/how-to/fhir-server.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from flute.defaults.records import (
    FHIR_ATTEMPTS,
    FHIR_FIRST_ATTEMPTS,
    FHIR_IMPORT_S,
    FHIR_OVERLAP_S,
    FHIR_PAGE,
    FHIR_REQUEST_S,
    MAX_FHIR_ANSWER_BYTES,
    MAX_FHIR_PAGE_ENTRIES,
    MAX_OPTIONS_BYTES,
)
from flute.errors import MisuseError

_Text = Annotated[str, Meta(max_length=1_000)]
_Needed = Annotated[str, Meta(min_length=1, max_length=1_000)]
_Name = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9.\-]*$")]
Deletions = Literal["auto", "history", "sweep", "reread", "none"]
_QUOTED: Final = re.compile(r"'[^']*'")


class Bearer(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bearer"):
    """A fixed bearer token, from a file or from an environment variable."""

    file: _Text = ""
    environment: _Text = ""


class Basic(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="basic"):
    """A user name and a password; the password from a file or from an environment variable."""

    user: _Needed
    file: _Text = ""
    environment: _Text = ""


class Smart(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="smart"):
    """SMART backend services: a private key whose public half the server knows.

    `algorithm`: empty means by the key. `scope`: empty means read-only for all types, in the server's own spelling.
    `token_endpoint`: needed only where it is on another host than the FHIR server.
    """

    client_id: _Needed
    key_file: _Needed
    key_id: _Text = ""
    algorithm: Literal["", "RS384", "ES384"] = ""
    scope: _Text = ""
    token_endpoint: _Text = ""


Auth = Bearer | Basic | Smart


class ServerOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """`queries`: what is read, "Observation?code=…"; empty means what the caller asks for. `level`, `group`,
    `type_filters`, `file_hosts`: for `read: bulk` alone."""

    read: Literal["search", "bulk"] = "search"
    queries: Annotated[tuple[Annotated[str, Meta(max_length=2_000)], ...], Meta(max_length=200)] = ()
    auth: Auth | None = None
    deletions: Deletions = "auto"
    overlap_s: Annotated[int, Meta(ge=0, le=7 * 86_400)] = FHIR_OVERLAP_S
    page_size: Annotated[int, Meta(ge=1, le=MAX_FHIR_PAGE_ENTRIES)] = FHIR_PAGE
    level: Literal["system", "patient", "group"] = "system"
    group: _Name = ""
    type_filters: bool = False
    file_hosts: Annotated[tuple[_Text, ...], Meta(max_length=20)] = ()
    ca_file: _Text = ""
    allow_http: bool = False
    attempts: Annotated[int, Meta(ge=1, le=100)] = FHIR_ATTEMPTS
    request_s: Annotated[float, Meta(gt=0, le=86_400)] = FHIR_REQUEST_S
    whole_s: Annotated[float, Meta(gt=0, le=30 * 86_400)] = FHIR_IMPORT_S
    max_response_mb: Annotated[int, Meta(ge=1, le=4_096)] = MAX_FHIR_ANSWER_BYTES // 2**20

    @property
    def first_attempts(self) -> int:
        return min(self.attempts, FHIR_FIRST_ATTEMPTS)


def read_server_options(path: Path) -> ServerOptions:
    """Raises: MisuseError: no such file, no YAML, or an element that is not as expected; no value is quoted."""
    try:
        if path.stat().st_size > MAX_OPTIONS_BYTES:
            raise MisuseError(f"{path.name} is too large for a file of server options.")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"The server options {path.name} cannot be read as a text file.") from error
    except (yaml.YAMLError, RecursionError):
        # From None: PyYAML quotes the line, and somebody may have written a secret there.
        raise MisuseError(f"{path.name} is not YAML; write lines of 'name: value'.") from None
    try:
        options = msgspec.convert(document if document is not None else {}, ServerOptions)
    except (msgspec.ValidationError, RecursionError) as error:
        said = _QUOTED.sub("this value", str(error)).replace("`", "")
        raise MisuseError(f"The server options {path.name} are not as expected: {said}.") from None
    return _from_folder(options, path.resolve().parent)


def _from_folder(options: ServerOptions, folder: Path) -> ServerOptions:
    """Relative paths are meant from the file's own folder."""
    auth = options.auth
    if isinstance(auth, Smart):
        auth = msgspec.structs.replace(auth, key_file=_found(auth.key_file, folder))
    elif auth is not None:
        auth = msgspec.structs.replace(auth, file=_found(auth.file, folder))
    return msgspec.structs.replace(options, auth=auth, ca_file=_found(options.ca_file, folder))


def _found(name: str, folder: Path) -> str:
    return str(folder / name) if name else ""
