"""Talking to a hub through its steward's door, from the same machine and user."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import msgspec

from flute.defaults import IMPORT_POLL_S, LOCAL_CALL_TIMEOUT_S
from flute.errors import Answered, PeerUnreachable
from flute.http import read_answer
from flute.hub.decisions.change import Change, Confirmation
from flute.hub.home import HubHome
from flute.hub.records.plans import AttachPlan, ImportPlan
from flute.hub.store import HubPolicy, Part
from flute.ledger.charge import Place


class HubClient:
    """One hub's door. Raises PeerUnreachable where no service answers, FluteError with the hub's own words."""

    def __init__(self, folder: Path) -> None:
        self._home = HubHome(folder)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._home.socket)),
            base_url="http://hub",
            timeout=LOCAL_CALL_TIMEOUT_S,
        )

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=params)

    def import_records(self, plan: ImportPlan, say: Callable[[Any], None] | None = None) -> Any:
        """Start an import and wait until it has ended; gives its last state. `say`: told of every state meanwhile.

        Raises: Answered: the import failed, in the hub's own words; the dataset is as it was."""
        return self._wait_for(self._call("POST", "/imports", json=msgspec.to_builtins(plan)), say)

    def import_again(self, dataset: str, say: Callable[[Any], None] | None = None) -> Any:
        """The last import of this dataset once more: what changed since is read."""
        return self._wait_for(self._call("POST", f"/imports/{dataset}/again"), say)

    def attach_images(self, plan: AttachPlan, say: Callable[[Any], None] | None = None) -> Any:
        """A column of images for a dataset that is there; waits, and raises, as `import_records`."""
        return self._wait_for(self._call("POST", "/attached", json=msgspec.to_builtins(plan)), say)

    def _wait_for(self, state: Any, say: Callable[[Any], None] | None) -> Any:
        while state["state"] == "running":
            if say is not None:
                say(state)
            time.sleep(IMPORT_POLL_S)
            state = self.get(f"/imports/{state['dataset']}")
        if state["state"] == "failed":
            raise Answered(state["code"], state["text"])
        return state

    def decide_by_hand(self, dataset: str, **asked: Any) -> Any:
        return self._call("POST", f"/datasets/{dataset}/decisions", json=asked)

    def withdraw_patient(self, patient: str, *, person: str, reason: str) -> Any:
        return self._call("POST", "/withdrawals", json={"patient": patient, "person": person, "reason": reason})

    def decide(self, study: str, decision: str, *, person: str, reason: str = "", alike: float = 0.0) -> Any:
        asked = {"decision": decision, "person": person, "reason": reason, "alike": alike}
        return self._call("POST", f"/studies/{study}/decision", json=asked)

    def set_policy(self, policy: HubPolicy, *, person: str) -> Any:
        return self._call("PUT", "/policy", json={"policy": msgspec.to_builtins(policy), "person": person})

    def allot(self, place: Place, part: Part, *, person: str, reason: str) -> Any:
        asked = {"place": msgspec.to_builtins(place), "part": msgspec.to_builtins(part)}
        return self._call("PUT", "/allotments", json={**asked, "person": person, "reason": reason})

    def move(self, source: Place, target: Place, part: Part, *, person: str, reason: str) -> Any:
        asked = {"source": msgspec.to_builtins(source), "target": msgspec.to_builtins(target)}
        asked |= {"part": msgspec.to_builtins(part), "person": person, "reason": reason}
        return self._call("POST", "/allotments/move", json=asked)

    def enrol_steward(self, card: str, *, person: str) -> Any:
        return self._call("POST", "/stewards", json={"card": card, "person": person})

    def propose(self, change: Change, signature: bytes) -> Any:
        return self._call("POST", "/changes", json={"change": change, "signature": signature})

    def confirm(self, confirmation: Confirmation) -> Any:
        return self._call("POST", "/changes/confirm", json=confirmation)

    def drop_change(self, change: bytes, *, person: str, reason: str) -> Any:
        return self._call("POST", "/changes/drop", json={"change": change, "person": person, "reason": reason})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> HubClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, *, params: Any = None, json: Any = None) -> Any:
        content = None if json is None else msgspec.json.encode(json)
        try:
            answer = self._http.request(method, path, params=params, content=content)
        except httpx.TransportError as error:
            raise PeerUnreachable(
                f"No hub service answers in {self._home.folder}; 'flute hub serve {self._home.folder}' starts it."
            ) from error
        return read_answer(answer)
