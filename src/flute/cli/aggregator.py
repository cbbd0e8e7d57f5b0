"""`flute aggregator`: an enclave that adds up shares; what it is made of; and the policies by which hubs know it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.markup import escape

import flute
from flute.cli.output import OUT, FormatOption, show
from flute.defaults.enclaves import AGGREGATOR_PORT
from flute.errors import MisuseError

APP = typer.Typer(
    help="An enclave that adds up shares of hubs' answers (plans enclave, secagg-enclave).", no_args_is_help=True,
    rich_markup_mode="markdown",
)  # fmt: skip
_HERE = Path(flute.__file__).resolve().parents[2]
Source = Annotated[Path | None, typer.Option(help="A clean checkout of the source; else where this runs from.")]


@APP.command()
def serve(
    name: Annotated[str, typer.Argument(help="Its name in study agreements; the roster approves enclave-NAME.")],
    technology: Annotated[
        Literal["tpm", "command"],
        typer.Option(help="tpm: evidence for DEVELOPMENT. command: a program of this machine's operator."),
    ] = "tpm",
    command: Annotated[
        str, typer.Option(help="The program that prints evidence; it gets the report data as its last word.")
    ] = "",
    socket: Annotated[Path | None, typer.Option(help="Listen on this Unix socket.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Else on this port of this machine.")] = AGGREGATOR_PORT,
    tcti: Annotated[str, typer.Option(help="How tpm2-tools reach the TPM, for example swtpm:path=/run/tpm.")] = "",
    source: Source = None,
    write_policy: Annotated[
        Path | None, typer.Option(help="With a TPM: write the policy that takes this TPM and this software.")
    ] = None,
) -> None:
    """Make keys and evidence when a coordinator asks, add up boxes, give one total a round. Nothing is kept on disk.

    Example: `flute aggregator serve first --socket /run/flute/first`
    """
    import shlex

    from flute.aggregator.desk import Desk
    from flute.aggregator.image import measure
    from flute.aggregator.platforms import CommandEvidence, TpmEvidence
    from flute.aggregator.process import serve as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    where = str(socket) if socket else f"port {port}"
    if technology == "command":
        if not command or write_policy:
            raise MisuseError("Technology command needs --command, and its policy is written by hand.")
        OUT.print(f"Aggregator {escape(name)} listens on {escape(where)}. Ctrl-C stops it.")
        run(Desk(name, CommandEvidence(shlex.split(command)), os.urandom), socket=socket, port=port)
        return
    tpm = TpmEvidence(measure(source or _HERE).value, tcti)
    try:
        if write_policy:
            _write(write_policy, tpm.policy())
        OUT.print(
            f"Aggregator {escape(name)} listens on {escape(where)}. Its evidence is DEVELOPMENT: a TPM keeps nobody "
            "who runs this machine from reading it. Ctrl-C stops it."
        )
        run(Desk(name, tpm, os.urandom), socket=socket, port=port)
    finally:
        tpm.close()


@APP.command("measure")
def measure_(source: Source = None, format: FormatOption = "text") -> None:
    """The measurement of the aggregator's software, the same on every machine; a hub compares it with a policy.

    Example: `flute aggregator measure --source .`
    """
    from flute.aggregator.image import measure

    found = measure(source or _HERE)
    facts = {
        "measurement": found.value.hex(), "tpm_register": found.register.hex(), "files": found.files,
        "wheels": found.wheels,
    }  # fmt: skip
    text = (
        f"Measurement: {found.value.hex()}\nIn a TPM's register: {found.register.hex()}\n"
        f"Over {found.files} files and {found.wheels} wheels that the lock file allows."
    )
    show(facts, text, format)


@APP.command()
def build(
    into: Annotated[Path, typer.Argument(help="The archive to write.", metavar="IMAGE.tar")],
    wheels: Annotated[Path, typer.Option(help="Folder of wheels that were fetched by the lock file.")],
    source: Source = None,
    format: FormatOption = "text",
) -> None:
    """Write the aggregator's image; the same source and wheels give the same bytes everywhere.

    Example: `flute aggregator build aggregator.tar --wheels wheels`
    """
    from flute.aggregator.image import write_image

    value = write_image(source or _HERE, wheels, into).hex()
    show({"sha256": value, "image": str(into)}, f"{escape(str(into))}: SHA-256 {value}", format)


@APP.command("policy")
def policy_(
    policy: Annotated[Path, typer.Argument(help="An appraisal policy in YAML or JSON.", metavar="POLICY")],
    into: Annotated[Path | None, typer.Option(help="Write its canonical bytes here; the coordinator needs them.")] = (
        None
    ),
    format: FormatOption = "text",
) -> None:
    """The digest under which the roster approves an aggregator's policy, as enclave-NAME.

    Example: `flute aggregator policy first.yaml --into first.policy`
    """
    from flute.attestation.policy import policy_of, write_policy
    from flute.enclaves.context import policy_digest

    found = policy_of(_read(policy))
    if into is not None:
        _write(into, found)
    value = policy_digest(write_policy(found)).hex()
    show({"digest": value}, f"Approve it in the roster as enclave-NAME: {value}", format)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} is neither YAML nor JSON: {error}.") from error


def _write(path: Path, policy: Any) -> None:
    from flute.attestation.policy import write_policy

    path.write_bytes(write_policy(policy))
