"""Talking to a coordinator: each call is signed by a person's key."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any

import httpx
import msgspec

from flute.defaults import API_CALL_TIMEOUT_S
from flute.errors import PeerUnreachable
from flute.http import read_answer
from flute.study.agreement import Agreement, sign_agreement, write_agreement
from flute.trust.keyfiles import NamedKey
from flute.trust.people import NONCE_SIZE, sign_request


class CoordinatorClient:
    """Raises PeerUnreachable where nobody answers, Answered with the coordinator's own words."""

    def __init__(self, url: str, federation: str, person: NamedKey | None) -> None:
        self._http = httpx.Client(base_url=url, timeout=API_CALL_TIMEOUT_S)
        self._url = url
        self._federation = federation
        self._person = person

    def get(self, path: str) -> Any:
        return read_answer(self.call("GET", path))

    def propose(self, agreement: Agreement) -> Any:
        assert self._person is not None
        raw = write_agreement(agreement)
        posted = {"agreement": raw, "signature": sign_agreement(raw, self._person.key)}
        return self.post("/studies", posted)

    def run(self, study: str) -> Any:
        return self.post(f"/studies/{study}/run", {})

    def post(self, path: str, body: Any) -> Any:
        return read_answer(self.call("POST", path, msgspec.json.encode(body)))

    def call(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        request = self._http.build_request(method, path, content=body or None)
        if self._person is not None:
            request.headers.update(
                sign_request(
                    self._person.key,
                    person=self._person.party,
                    federation=self._federation,
                    method=method,
                    target=request.url.raw_path.decode(),
                    body=body,
                    now=int(time.time()),
                    rand=os.urandom(NONCE_SIZE),
                )
            )
        try:
            return self._http.send(request)
        except httpx.TransportError as error:
            raise PeerUnreachable(f"No coordinator answers at {self._url}. Is it running there?") from error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> CoordinatorClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
