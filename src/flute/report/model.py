"""What a report holds: closed structs, filled by whoever ran the studies, the same for HTML and JSON.

Nothing here knows any study's variables: labels and units come with each study. Results are kept as they
were released; a part that is absent leaves its section out. Counts of patients appear only as they were
released, with their noise.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from flute.errors import Malformed, TooLarge
from flute.study.release import ReleaseReceipt

SCHEMA: Final = "flute/report/v1"
MAX_REPORT_BYTES: Final = 64 * 2**20
"""A report of the largest study (30 hubs, 64 variables, 1,024 bins) has some 40 MB of JSON."""
Mode = Literal["private", "exact"]


class Row(Struct, frozen=True):
    """A label and what stands beside it."""

    label: str
    value: str


class HubConditionsReport(Struct, frozen=True):
    """On what ground a hub takes part."""

    hub: str
    legal_basis: str = ""
    ethics_approval: str = ""
    retain_until: int | None = None
    """Unix seconds."""


class ThreatCell(Struct, frozen=True):
    """One of the nine cells: against whom, with which enclaves, holds or fails, and why."""

    parties: str
    enclaves: str
    holds: bool
    because: str = ""
    test: str = ""


class QuestionReport(Struct, frozen=True):
    """One question of the fixed list. `label`: for readers, the id where it is empty."""

    id: str
    algorithm: str = ""
    scope: str = "pooled"
    share: float | None = None
    label: str = ""


class StudyReport(Struct, frozen=True):
    """One study: what was agreed, what came out, what vouches for it.

    results: by reference (`model`, `own@north`), as released. labels, units: per variable. references: per
    category variable, the level that the others are compared with.
    """

    id: str
    title: str
    mode: Mode
    purpose: str = ""
    epsilon: float | None = None
    delta: float | None = None
    statement: str = ""
    plan: str = ""
    agreement: tuple[Row, ...] = ()
    conditions: tuple[HubConditionsReport, ...] = ()
    cells: tuple[ThreatCell, ...] = ()
    questions: tuple[QuestionReport, ...] = ()
    results: dict[str, dict[str, Any]] = {}
    receipts: tuple[ReleaseReceipt, ...] = ()
    labels: dict[str, str] = {}
    units: dict[str, str] = {}
    references: dict[str, str] = {}
    analysis_plan: str = ""
    missing: dict[str, str] = {}
    """Hub to why it took no part, or not to the end."""


class Budget(Struct, frozen=True):
    """What one hub's ledger says of one patient. epsilon_left: None where no ceiling is set or nothing can be
    told. unbounded: exact results were opened; `epsilon` then is what the noised answers add."""

    epsilon: float | None = None
    epsilon_left: float | None = None
    odds_factor: float | None = None
    sentence: str = ""
    unbounded: bool = False


class JournalReport(Struct, frozen=True):
    """`verified`: what the check said, in words; empty where nobody checked."""

    lines: int = 0
    verified: str = ""
    head: str = ""


class NoisyCount(Struct, frozen=True):
    """A count as it was released."""

    value: float | None
    noise_se: float | None = None


class HubReport(Struct, frozen=True):
    hub: str
    label: str = ""
    patients: NoisyCount | None = None
    """Only a released count; never the true number of rows."""
    budget_before: Budget | None = None
    budget_after: Budget | None = None
    journal: JournalReport | None = None


class TrafficRow(Struct, frozen=True):
    """Messages of one kind from one party to another. `fields`: what such a message holds, in plain words."""

    sender: str
    recipient: str
    kind: str
    messages: int = 0
    bytes: int = 0
    fields: str = ""


class StepTime(Struct, frozen=True):
    name: str
    seconds: float | None = None


class Command(Struct, frozen=True):
    command: str
    shows: str = ""


class ComparatorReport(Struct, frozen=True):
    """A published figure, not computed here. `auc` None: the source is named without a figure."""

    name: str
    auc: float | None = None
    source: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """See the module's head. made_at: Unix seconds."""

    schema: Literal["flute/report/v1"] = "flute/report/v1"
    title: str
    simulated: bool
    made_at: Annotated[int, Meta(ge=0, le=2**40)]
    federation: str = ""
    version: str = ""
    studies: tuple[StudyReport, ...] = ()
    hubs: tuple[HubReport, ...] = ()
    traffic: tuple[TrafficRow, ...] = ()
    steps: tuple[StepTime, ...] = ()
    peak_memory_bytes: int | None = None
    commands: tuple[Command, ...] = ()
    comparators: tuple[ComparatorReport, ...] = ()


def to_json(report: Report) -> bytes:
    """The report as JSON, keys sorted, two spaces of indent. NaN and infinities become null."""
    return msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=2)


def from_json(raw: bytes) -> Report:
    """Raises: TooLarge. Malformed: these bytes are no report of this schema."""
    if len(raw) > MAX_REPORT_BYTES:
        raise TooLarge(f"A report may have {MAX_REPORT_BYTES} bytes; this one has {len(raw)}.")
    try:
        return msgspec.json.decode(raw, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"This is not a report of schema {SCHEMA}.") from error
