"""Who FLUTE is to a FHIR server: nobody, a fixed token, a name and password, or (in `smart`) a signed request.

Secrets come from a file that other accounts cannot read or from an environment variable, never from a command
line, which every account of a machine can see.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Final, Protocol

from flute.errors import MisuseError
from flute.fhirserver.options import Basic, Bearer
from flute.fhirserver.wire import Secret
from flute.homes import read_secret_file

_TOKEN: Final = re.compile(r"[\x21-\x7e]+\Z")
"""What can stand in a header without ending it."""


class Credentials(Protocol):
    """`travels`: may be shown to a file host that the operator allowed, not only to the FHIR server itself."""

    travels: bool

    def header(self) -> Secret | None:
        """The value of Authorization. Raises: Unreachable, Unmappable: none can be had."""
        ...

    def renew(self) -> bool:
        """After a 401: whether another attempt, with something fresh, makes sense."""
        ...


class Anonymous:
    travels = False

    def header(self) -> Secret | None:
        return None

    def renew(self) -> bool:
        return False


class Fixed:
    """A header that stays the same. It never travels: who has it can use it for years."""

    travels = False

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def header(self) -> Secret | None:
        return self._secret

    def renew(self) -> bool:
        return False


def fixed_credentials(auth: Bearer | Basic) -> Fixed:
    """Raises: MisuseError, KeyFileError: the secret cannot be had, or cannot be sent."""
    if isinstance(auth, Bearer):
        token = read_secret(auth.file, auth.environment, "token").reveal()
        if _TOKEN.match(token) is None:
            raise MisuseError("The bearer token holds a space, a line break or a letter that no header can carry.")
        return Fixed(Secret(f"Bearer {token}"))
    password = read_secret(auth.file, auth.environment, "password").reveal()
    if ":" in auth.user:
        raise MisuseError("A user name for basic authentication holds no colon.")
    pair = base64.b64encode(f"{auth.user}:{password}".encode()).decode()
    return Fixed(Secret(f"Basic {pair}"))


def read_secret(file: str, environment: str, what: str) -> Secret:
    """From exactly one of the two places, without the line break at its end.

    Raises: MisuseError: none or both are named, or the variable is not set. KeyFileError: see `read_secret_file`.
    """
    if bool(file) == bool(environment):
        raise MisuseError(
            f"Name one place for the {what}: 'file: PATH' or 'environment: NAME' below auth in the server's options."
        )
    if environment:
        text = os.environ.get(environment, "")
    else:
        text = read_secret_file(Path(file)).decode("utf-8", errors="replace")
    text = text.strip("\r\n")
    if not text:
        raise MisuseError(f"The {what} is empty: the environment variable is not set, or the file holds nothing.")
    return Secret(text)
