"""One FHIR server, as FLUTE talks to it: addresses checked, credentials added, answers recognised and decoded.

Everything that is asked of a server goes through here, so that these hold everywhere: nothing is fetched from
outside the allowed places, redirects included; credentials go to the server's own origin (a short-lived token also
to a file host that the operator allowed); a web page, XML or garbage is called so; no text quotes an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import httpx
import msgspec
from msgspec import Struct

from flute.defaults.records import MAX_FHIR_REDIRECTS, MAX_FHIR_REFUSAL_BYTES
from flute.errors import Unmappable, Unreachable
from flute.fhirserver.address import Base, Origin
from flute.fhirserver.auth import Anonymous, Credentials
from flute.fhirserver.wire import Again, Arriving, Call, Wire

T = TypeVar("T", bound=Struct)
R = TypeVar("R")
FHIR_JSON: Final = "application/fhir+json"
_BOM: Final = b"\xef\xbb\xbf"
_CODE: Final = re.compile(r"[a-z_-]{2,30}\Z")
_MOVED: Final = frozenset({301, 302, 303, 307, 308})


class Declined(Unreachable):
    """The server answered that it will not: `status` is its HTTP status, `said` its FHIR issue code or empty."""

    def __init__(self, text: str, status: int, said: str) -> None:
        super().__init__(text)
        self.status, self.said = status, said

    @property
    def is_about_the_request(self) -> bool:
        """The server does not know what was asked for, rather than who asks."""
        return self.status in {400, 404, 405, 406, 410, 412, 415, 422, 501}


class _Issue(Struct):
    code: str = ""


class _Outcome(Struct):
    """An OperationOutcome, or the answer of a token endpoint (`error`, RFC 6749 section 5.2)."""

    issue: tuple[_Issue, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """An address that passed its check, and whether credentials may be shown there."""

    url: str
    trusted: bool


Check = Callable[[str], Place]


class Connection:
    """`base`: everything is asked below it unless a call says otherwise."""

    def __init__(self, base: Base, wire: Wire, credentials: Credentials | None = None) -> None:
        self.base, self.wire = base, wire
        self.credentials: Credentials = credentials or Anonymous()

    @property
    def host(self) -> str:
        return self.base.host

    # --- where ---------------------------------------------------------------------------------------

    def below(self, what: str) -> Check:
        """A check that lets pass what lies below the base address."""
        return lambda url: Place(self.base.below(url, what), trusted=True)

    def own(self, what: str) -> Check:
        """A check that lets pass what lies on the server's own origin, on any path."""
        return lambda url: Place(self.base.at_origins(url, (), what, "")[0], trusted=True)

    def among(self, others: tuple[Origin, ...], what: str, option: str) -> Check:
        """A check that also lets pass other origins; a fixed secret is not shown there."""

        def check(url: str) -> Place:
            found, origin = self.base.at_origins(url, others, what, option)
            return Place(found, trusted=origin == self.base.origin or self.credentials.travels)

        return check

    # --- asking --------------------------------------------------------------------------------------

    def read(self, url: str, kind: type[T], *, check: Check, headers: Mapping[str, str] | None = None) -> T:
        """The JSON at an address, as `kind`.

        Raises: Declined: the server says no. Unreachable: it does not answer. Unmappable: no FHIR in JSON.
        """
        wanted = {"accept": FHIR_JSON, **(headers or {})}
        return self.ask(Call(url, headers=wanted), check=check, read=lambda a: self.decoded(self.whole(a), kind))

    def ask(self, call: Call, *, check: Check, read: Callable[[Arriving], R], authorised: bool = True) -> R:
        """One request, tried again as often as the limits say. `read` turns the answer into something or raises
        Again. `authorised`: with credentials, where the place may see them."""
        renewed = False
        while True:
            try:
                return self.wire.persist(lambda: self._once(call, check, read, authorised))
            except Declined as declined:
                if declined.status != 401 or renewed or not authorised or not self.credentials.renew():
                    raise
                renewed = True

    def _once(self, call: Call, check: Check, read: Callable[[Arriving], R], authorised: bool) -> R:
        with self.following(call, check, authorised=authorised) as answer:
            made = read(answer)
        self.wire.heard = True
        return made

    @contextmanager
    def following(
        self, call: Call, check: Check, *, authorised: bool = True, time_s: float | None = None
    ) -> Iterator[Arriving]:
        """One attempt: an answer with a status of 2xx, after at most a few redirects that pass the check too."""
        url = call.url
        for _ in range(MAX_FHIR_REDIRECTS + 1):
            place = check(url)
            secret = self.credentials.header() if authorised and place.trusted else None
            with self.wire.open(replace(call, url=place.url, secret=secret), time_s=time_s) as answer:
                if answer.status in _MOVED and call.method == "GET":
                    url = answer.headers.get("location", "")
                    continue
                if not 200 <= answer.status < 300:
                    raise self._declined(answer)
                yield answer
                return
        raise Unmappable(f"The server {self.host} sends FLUTE from one address to the next without an end.")

    def whole(self, answer: Arriving) -> Answer:
        return Answer(answer.status, answer.headers, answer.read(self.wire.limits.answer_bytes))

    def decoded(self, answer: Answer, kind: type[T]) -> T:
        """Raises: Again: it is not what was asked for; a proxy's page may stand in the way for a while."""
        body = answer.body.removeprefix(_BOM)
        self.recognise(body[:200], answer.headers.get("content-type", ""))
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # From None: the decoder's text may quote a name of a resource.
            raise Again(
                f"The server {self.host} gives an answer that is damaged, or that is not {kind.__name__} in JSON.",
                kind=Unmappable,
            ) from None

    def recognise(self, start: bytes, content_type: str = "") -> None:
        """`start`: how an answer begins. Raises: Again: it is a web page or XML, where JSON was asked for."""
        start = start.lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html")) or "html" in content_type:
            raise Again(
                f"The server {self.host} answers with a web page where FHIR belongs, perhaps to ask for a login. See "
                "that the address is the one of its FHIR interface and that the options name credentials.",
                kind=Unmappable,
            )
        if start.startswith(b"<"):
            raise Again(f"The server {self.host} answers in XML; FLUTE asks for FHIR in JSON.", kind=Unmappable)

    def _declined(self, answer: Arriving) -> Declined:
        status, said = answer.status, self._said(answer)
        doing = {
            401: "does not accept FLUTE's credentials. See auth in the server's options",
            403: "does not allow this to FLUTE. Its operator grants read access to what is asked for",
            404: "has nothing at this address. See that it is the base address of its FHIR interface",
            410: "has nothing at this address any more",
        }.get(status, "declines what FLUTE asks")
        also = f", it says {said}" if said else ""
        return Declined(f"The server {self.host} {doing} (status {status}{also}).", status, said)

    def _said(self, answer: Arriving) -> str:
        """The FHIR issue code of a refusal. It comes from a closed list; free text is not shown."""
        try:
            outcome = msgspec.json.decode(answer.read(MAX_FHIR_REFUSAL_BYTES), type=_Outcome)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Again, Unmappable):
            return ""
        codes = [code for code in (outcome.error, *(i.code for i in outcome.issue)) if _CODE.match(code)]
        return codes[0] if codes else ""
