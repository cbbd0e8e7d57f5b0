"""`flute coordinator`: make one, invite and admit hubs, propose rosters, serve."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.markup import escape

from flute.attestation.policy import policy_of, write_policy
from flute.cli.output import OUT, FormatOption, show
from flute.coordinator.doors.client import CoordinatorClient
from flute.coordinator.federation.enrolments import Enrolments
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.federation.setup import init_coordinator, next_roster
from flute.coordinator.home import CoordinatorConfig, CoordinatorHome
from flute.coordinator.plans.aggregators import AggregatorConfig
from flute.coordinator.store import open_store
from flute.defaults import LOOPBACK, MIN_HUBS
from flute.enclaves.context import policy_digest
from flute.errors import MisuseError
from flute.local.processes import follow_parent
from flute.primitives.keys import fingerprint
from flute.transport.identity import open_authority
from flute.trust.enrolment import TOKEN_SIZE
from flute.trust.keyfiles import load_party_keys
from flute.trust.people import read_card
from flute.trust.roster import Person, Role

APP = typer.Typer(help="The federation's coordinator.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The coordinator's folder.", metavar="FOLDER")]


@APP.command()
def init(
    folder: Folder,
    federation: Annotated[str, typer.Option(help="The federation's name.")],
    host: Annotated[str, typer.Option(help="DNS name under which hubs reach it.")] = "localhost",
    engine_port: Annotated[int, typer.Option(help="Port of the wire.")] = 8702,
    api_host: Annotated[str, typer.Option(help="Address that the API binds.")] = LOOPBACK,
    api_port: Annotated[int, typer.Option(help="Port of the API.")] = 8700,
) -> None:
    """Make a coordinator: keys, certificate authority, configuration.

    Example: `flute coordinator init /srv/flute-coordinator --federation prostate`
    """
    config = CoordinatorConfig(federation, host, engine_port, api_host, api_port)
    shown = init_coordinator(folder, config, os.urandom)
    OUT.print(f"Coordinator of {escape(federation)}. Fingerprint, to be compared by phone:\n  {shown}")


@APP.command()
def invite(
    folder: Folder,
    hub: Annotated[str, typer.Argument(help="The hub's name.")],
    out: Annotated[Path, typer.Option(help="Where to write the invitation.")] = Path("invitation.txt"),
) -> None:
    """Write an invitation for one hub, to be mailed to its owner.

    Example: `flute coordinator invite /srv/flute-coordinator huvh --out huvh.txt`
    """
    config = CoordinatorHome(folder).config()
    url = f"http://{config.api_host}:{config.api_port}"
    text = _enrolments(folder).invite(hub, api_url=url, now=int(time.time()), rand=os.urandom(TOKEN_SIZE))
    out.write_text(text, encoding="utf-8")
    OUT.print(f"Wrote {escape(str(out))}. It is a secret until it is used; it serves once.")


@APP.command()
def admit(folder: Folder, hub: Annotated[str, typer.Argument(help="The hub's name.")]) -> None:
    """Admit a hub that asked to join, after its fingerprint was compared by phone.

    Example: `flute coordinator admit /srv/flute-coordinator huvh`
    """
    enrolments = _enrolments(folder)
    entry = next((h for h in enrolments.waiting() if h.id == hub), None)
    if entry is None:
        raise MisuseError(f"{hub} has not asked to join yet.")
    OUT.print(f"{escape(hub)} shows the fingerprint\n  {fingerprint(entry.signing_key)}")
    if not typer.confirm("Has its owner read out the same by phone?"):
        raise MisuseError(f"{hub} was not admitted.")
    enrolments.admit(hub, b"")
    OUT.print(f"{escape(hub)} is admitted. It becomes a member with the next roster: flute coordinator propose.")


@APP.command()
def propose(
    folder: Folder,
    person: Annotated[list[Path] | None, typer.Option(help="A researcher's card file (repeatable).")] = None,
) -> None:
    """Propose the next roster: admitted hubs, people, and the algorithms installed here. Owners sign it.

    Example: `flute coordinator propose /srv/flute-coordinator --person ada.card`
    """
    home = CoordinatorHome(folder)
    keys, now = load_party_keys(home.keys), int(time.time())
    book = RosterBook(home.roster, keys.signing)
    files = book.files()
    people = [Person(*read_card(path.read_text(encoding="utf-8")), Role.RESEARCHER) for path in person or []]
    previous = book.roster(now) if files else None
    hubs = _enrolments(folder).admitted()
    if len(hubs) + (len(previous.hubs()) if previous else 0) < MIN_HUBS:
        raise MisuseError(f"A roster needs at least {MIN_HUBS} hubs; {len(hubs)} were admitted so far.")
    config = home.config()
    policies = {name: Path(a.policy).read_bytes() for name, a in config.aggregators.items()}
    bundle = next_roster(
        config.federation, keys, previous, files, hubs=hubs, people=people, now=now, policies=policies
    )
    book.propose(bundle)
    OUT.print("Proposed. Each owner now runs: flute roster sign FOLDER")


@APP.command()
def aggregator(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Its name in agreements and in the roster, for example 'snp'.")],
    at: Annotated[str, typer.Option(help="Its Unix socket, or http://127.0.0.1:PORT of a forwarded port.")],
    policy: Annotated[Path, typer.Option(help="Appraisal policy (JSON or YAML) that hubs are to hold it to.")],
) -> None:
    """Make an enclave known that adds up answers under plan enclave. Serve anew for it to be used.

    Hubs trust neither the address nor the policy: they appraise evidence themselves, under the policy whose digest
    the owners signed. So propose a roster after this (`flute coordinator propose`).
    Example: `flute coordinator aggregator /srv/flute-coordinator snp --at /run/flute/snp.sock --policy snp.yaml`
    """
    home = CoordinatorHome(folder)
    config = home.config()
    raw = write_policy(policy_of(yaml.safe_load(policy.read_text(encoding="utf-8"))))
    kept = home.folder / "aggregators" / f"{name}.json"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    kept.write_bytes(raw)
    known = config.aggregators | {name: AggregatorConfig(at, str(kept))}
    home.write_config(msgspec.structs.replace(config, aggregators=known))
    OUT.print(
        f"Aggregator {escape(name)} at {escape(at)}. Its policy's digest, for owners to compare: "
        f"{policy_digest(raw).hex()}\nNext: flute coordinator propose {escape(str(folder))}"
    )


@APP.command()
def serve(folder: Folder) -> None:
    """Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).

    Example: `flute coordinator serve /srv/flute-coordinator`
    """
    from flute.coordinator.process import serve_coordinator

    follow_parent()
    serve_coordinator(folder)


@APP.command()
def status(folder: Folder, format: FormatOption = "text") -> None:
    """Is it running, which version, which hubs are connected?

    Example: `flute coordinator status /srv/flute-coordinator`
    """
    config = CoordinatorHome(folder).config()
    with CoordinatorClient(f"http://{config.api_host}:{config.api_port}", config.federation, None) as client:
        found = client.get("/health")
    connected = ", ".join(found["connected"]) or "nobody"
    show(found, escape(f"{found['federation']} runs, version {found['version']}. Connected: {connected}."), format)


def _enrolments(folder: Path) -> Enrolments:
    home = CoordinatorHome(folder)
    config = home.config()
    return Enrolments(
        open_store(home.database), config.federation, load_party_keys(home.keys), open_authority(home.authority)
    )
