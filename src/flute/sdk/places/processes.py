"""A federation of real processes on this machine over the researcher's own records; it ends with the notebook."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from flute.data.variables import Variable
from flute.defaults import DISCLOSURE_FLOOR
from flute.errors import MisuseError
from flute.hub.store import HubPolicy
from flute.intake.rows import ImportReport
from flute.local.federation import LocalFederation
from flute.local.run import STEWARD, StudyStopped, import_csv, set_policy
from flute.sdk.places.connected import ConnectedPlace
from flute.sdk.places.records import as_files, require_columns, require_images
from flute.sdk.terms import OWN_RECORDS, Conditions
from flute.study.agreement import Agreement

_PROPOSAL_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.05
OWN_CONDITIONS: Final = Conditions(OWN_RECORDS, "none needed for one's own records", "2099-12-31")
"""What stands in agreements about records that nobody else holds."""
OWN_DATASET: Final = "records"
"""What a study of one's own records calls them, unless it says another name."""


class LocalPlace(ConnectedPlace):
    """`epsilon`: what every hub allows over its records in all; `floor`: of exact counts, 1: none is refused.

    folder: kept, and used again where it holds a federation of these hubs already. Raises: ServiceDied."""

    conditions: Conditions | None = OWN_CONDITIONS

    def __init__(
        self, records: Mapping[str, Any], *, researcher: str, epsilon: float, floor: int, simulated: bool,
        id_column: str | None, folder: Path | None, max_numbers: int,
    ) -> None:  # fmt: skip
        self._scratch = Path(tempfile.mkdtemp(prefix="flute-"))
        self._id_column = id_column
        self._imported: dict[str, dict[str, Variable]] = {}
        named = list(records or ())
        self._local = LocalFederation(folder or self._scratch / "federation", named, researcher=researcher)
        atexit.register(self.close)
        try:
            self._files = as_files(records, self._scratch)
            made = not self._local.coordinator_home.folder.exists()
            if made:
                self._local.folder.mkdir(parents=True, exist_ok=True)
                self._local.build()
            self._local.start()
            if made:
                set_policy(self._local, _policy(epsilon, floor, max_numbers))
            super().__init__(_url(self._local), self._local.person_folder, hubs=self._local.hubs, simulated=simulated)
        except BaseException:
            self.close()
            raise
        self.name = "local federation"

    @property
    def federation(self) -> LocalFederation:
        """The processes, for whoever wants to look at their folders and logs."""
        return self._local

    def prepare(self, agreement: Agreement) -> None:
        """Import what the study reads, unless it was imported under the very same declarations."""
        have = self._imported.setdefault(agreement.dataset, {})
        wanted = {v.variable.name: v.variable for v in agreement.variables}
        used = {name: wanted[name] for name in agreement.fields()}
        if all(have.get(name) == variable for name, variable in used.items()):
            return
        require_columns(self._files, tuple(used.values()))
        declared = have | used
        for hub, path in self._files.items():
            report = import_csv(
                self._local, hub, agreement.dataset, path, tuple(declared.values()), id_column=self._id_column,
                simulated=self.simulated,
            )  # fmt: skip
            require_images(hub, declared.values(), msgspec.convert(report, ImportReport))
        have.update(used)

    def propose(self, agreement: Agreement) -> None:
        """Proposed, and consented to at every hub: the records are the researcher's own."""
        super().propose(agreement)
        for hub in self._local.hubs:
            self._consent(hub, agreement.study)

    def _consent(self, hub: str, study: str) -> None:
        deadline = time.monotonic() + _PROPOSAL_TIMEOUT_S
        with self._local.hub(hub) as door:
            while study not in {one["study"] for one in door.get("/status")["studies"]}:
                if time.monotonic() > deadline:
                    raise StudyStopped(f"The proposal of {study} did not reach {hub}; see {self._local.folder}/logs.")
                time.sleep(_POLL_S)
            door.decide(study, "grant", person=STEWARD)

    def catalogue(self) -> list[dict[str, Any]]:
        return own_catalogue(self._imported, self._files)

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            super().close()
        self._local.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        atexit.unregister(self.close)


def own_catalogue(imported: Mapping[str, Mapping[str, Variable]], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What was declared so far of the researcher's own records; before that, which columns there are to declare."""
    if not imported:
        return [
            {
                "hub": hub,
                "dataset": OWN_DATASET,
                "variables": (),
                "about": f"{_columns(path)}, which no study declared",
            }
            for hub, path in files.items()
        ]
    return [
        {"hub": hub, "dataset": dataset, "variables": tuple(variables.values()), "about": f"the file {path.name}"}
        for dataset, variables in imported.items()
        for hub, path in files.items()
    ]


def _columns(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    names = max((first.split(separator) for separator in ",;\t|"), key=len)
    said = ", ".join(name.strip().strip('"') for name in names)
    return f"the file {path.name} with the columns {said}"


def _policy(epsilon: float, floor: int, max_numbers: int) -> HubPolicy:
    """All records are the researcher's own, so exact results are allowed."""
    if floor < 1 or floor > DISCLOSURE_FLOOR * 10_000:
        raise MisuseError("The floor of exact counts is a number of persons, at least 1.")
    return HubPolicy(
        epsilon=epsilon, epsilon_all=epsilon, epsilon_catalogue=min(epsilon, HubPolicy().epsilon_catalogue),
        exact_allowed=True, max_numbers=max_numbers, floor=floor,
    )  # fmt: skip


def _url(federation: LocalFederation) -> str:
    config = federation.coordinator_home.config()
    return f"http://{config.api_host}:{config.api_port}"
