"""`flute evidence`: what an enclave's evidence says, and whether a policy accepts it. For anyone with a quote in "
"hand."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import yaml
from rich.markup import escape

from flute.attestation.appraise import Accepted, appraise
from flute.attestation.collateral import Collateral, read_collateral
from flute.attestation.evidence import KINDS, MAKERS_OF, Evidence, parse
from flute.attestation.policy import AppraisalPolicy, Unchecked, policy_of, read_policy
from flute.attestation.verify import verify
from flute.cli.output import Format, FormatOption, show
from flute.defaults.evidence import MAX_COLLATERAL_BYTES, MAX_EVIDENCE_BYTES, MAX_POLICY_BYTES, REPORT_DATA_BYTES
from flute.errors import EvidenceError, MalformedEvidence, MisuseError, RejectedEvidence, UntrustedEvidence

APP = typer.Typer(help="Evidence of enclaves.", no_args_is_help=True, rich_markup_mode="markdown")
File = Annotated[
    Path, typer.Argument(help="The evidence, as the platform gave it.", metavar="FILE", exists=True, dir_okay=False)
]
_STAGES: Final = {MalformedEvidence: "parse", UntrustedEvidence: "verify", RejectedEvidence: "appraise"}
_UNBOUND: Final = Unchecked("no --report-data was given, so this evidence is tied to no key")
_LEFT_OUT: Final = frozenset({"raw", "attested", "signature", "r", "s", "platform", "realm"})
"""Fields that `show` does not print: signatures and the signed bytes, whose parts it does print."""


@APP.command("show")
def evidence_show(file: File, format: FormatOption = "text") -> None:
    """What evidence claims. **Nothing of it is checked**: anybody can write such claims down.

    Exit code 1: the file is no evidence. Example: `flute evidence show report.bin`
    """
    try:
        found = parse(_bytes(file, MAX_EVIDENCE_BYTES))
    except EvidenceError as error:
        _refuse(error, format)
    kind = KINDS[type(found)]
    claims = _claims(found)
    maker = MAKERS_OF[kind]
    head = f"[bold]{kind}[/bold] evidence ({maker}). Nothing of it is checked; 'flute evidence verify' does."
    lines = [f"  {escape(name)}: {escape(str(value))}" for name, value in claims.items()]
    show({"kind": kind, "maker": maker, "checked": False, "claims": claims}, "\n".join([head, *lines]), format)


@APP.command("verify")
def evidence_verify(
    file: File,
    policy: Annotated[Path, typer.Option(help="Appraisal policy, YAML or JSON.", exists=True, dir_okay=False)],
    collateral: Annotated[
        Path | None,
        typer.Option(
            help="Certificates and lists: JSON, or AMD's in PEM. A TPM needs none.", exists=True, dir_okay=False
        ),
    ] = None,
    at: Annotated[str, typer.Option(help="Time to judge at: ISO 8601 or Unix seconds. Without it: now.")] = "",
    report_data: Annotated[
        str, typer.Option(help="What the evidence must bind: 128 hexadecimal letters. Without it nobody looks.")
    ] = "",
    format: FormatOption = "text",
) -> None:
    """Whether evidence is genuine (chain of signatures to the maker's root) and what the policy asks for.

    Exit codes: 0 accepted, 1 refused (the text says by which check and what to update), 2 misuse.
    Example: `flute evidence verify report.bin --collateral chain.pem --policy enclaves.yaml --format json`
    """
    wanted, now, bound = _policy(policy), _time(at), _report_data(report_data)
    try:
        found = verify(parse(_bytes(file, MAX_EVIDENCE_BYTES)), collateral=_collateral(collateral), now=now)
        accepted = appraise(found, policy=wanted, report_data=bound)
    except EvidenceError as error:
        _refuse(error, format)
    show(_facts(accepted), _sentences(accepted), format)


# --- what goes in ----------------------------------------------------------------------------


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)  # one more than is allowed, so that what is too large is refused as such


def _collateral(path: Path | None) -> Collateral | None:
    return None if path is None else read_collateral(_bytes(path, MAX_COLLATERAL_BYTES))


def _policy(path: Path) -> AppraisalPolicy:
    raw = _bytes(path, MAX_POLICY_BYTES)
    try:
        if raw.lstrip().startswith(b"{"):
            return read_policy(raw)
        return policy_of(yaml.load(raw.decode(), Loader=yaml.BaseLoader))  # noqa: S506 - makes strings, lists, maps
    except (MisuseError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from None


def _time(said: str) -> int:
    if not said:
        return int(time.time())
    if said.isascii() and said.isdigit() and len(said) <= 11:
        return int(said)
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise typer.BadParameter("--at is a time as in 2026-05-01T12:00:00Z, or Unix seconds.") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _report_data(said: str) -> bytes | Unchecked:
    if not said:
        return _UNBOUND
    try:
        raw = bytes.fromhex(said)
    except ValueError:
        raw = b""
    if len(raw) != REPORT_DATA_BYTES:
        raise typer.BadParameter(f"--report-data is {2 * REPORT_DATA_BYTES} hexadecimal letters.")
    return raw


# --- what comes out --------------------------------------------------------------------------


def _claims(found: Evidence) -> dict[str, Any]:
    return {
        field.name: _plain(getattr(found, field.name))
        for field in dataclasses.fields(found)
        if field.name not in _LEFT_OUT
    }


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal, structures as maps; keys as their kind."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value if isinstance(value, str | int | None) else type(value).__name__


def _facts(found: Accepted) -> dict[str, Any]:
    return {
        "accepted": True,
        "kind": found.kind,
        "maker": found.maker,
        "development": found.development,
        "measurement": found.measurement.hex(),
        "registers": {name: value.hex() for name, value in found.registers},
        "report_data": found.report_data.hex(),
        "appraised_at": _iso(found.appraised_at),
        "stated_at": None if found.stated_at is None else _iso(found.stated_at),
        "unchecked": dict(found.unchecked),
    }


def _sentences(found: Accepted) -> str:
    label = "[yellow]DEVELOPMENT[/yellow] " if found.development else ""
    lines = [f"[green]Accepted[/green]: {label}{found.kind} evidence ({found.maker}), at {_iso(found.appraised_at)}."]
    lines += [f"  measured  {name}: {value.hex()}" for name, value in found.registers]
    lines.append(f"  binds     {found.report_data.hex()}")
    if found.stated_at is None:
        lines.append("  age       no statement of the maker on revocations and firmware was looked at")
    else:
        days = (found.appraised_at - found.stated_at) / 86_400
        lines.append(f"  age       the maker's statement was {days:.1f} days old ({_iso(found.stated_at)})")
    lines += [f"  [yellow]unchecked[/yellow] {escape(name)}: {escape(reason)}" for name, reason in found.unchecked]
    return "\n".join(lines)


def _refuse(error: EvidenceError, format: Format) -> NoReturn:
    """Raises: typer.Exit with 1, after saying which check refused and what to do."""
    stage = _STAGES[type(error)]
    facts = {"accepted": False, "stage": stage, "code": error.code, "reason": error.reason, "text": error.text}
    show(facts, f"[red]Refused[/red] ({stage}, {escape(error.reason)}): {escape(error.text)}", format)
    raise typer.Exit(1)


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
