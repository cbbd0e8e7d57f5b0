"""`flute roster`: see, sign, accept and verify who is in. `flute person`: a person's key."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.coordinator.doors.client import CoordinatorClient
from flute.errors import MisuseError
from flute.hub.home import HubHome
from flute.hub.setup import accept_roster, invitation_of, sign_roster
from flute.hub.trusted import Trust
from flute.primitives.keys import KEY_SIZE, fingerprint
from flute.trust.changes import changes
from flute.trust.keyfiles import load_person_key, make_person_key
from flute.trust.people import write_card
from flute.trust.roster import read_content
from flute.trust.signing import Bundle, check_bundle
from flute.trust.verification import TrustedState, load, root_fingerprint

APP = typer.Typer(help="Who is in the federation.", no_args_is_help=True, rich_markup_mode="markdown")
PEOPLE = typer.Typer(help="A person's key.", no_args_is_help=True, rich_markup_mode="markdown")
Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]


@APP.command("show")
def show_(folder: Folder, format: FormatOption = "text") -> None:
    """The roster that this hub trusts.

    Example: `flute roster show /srv/flute`
    """
    roster = Trust.at(HubHome(folder), int(time.time())).roster
    people = {p.id: p.role.value for p in roster.content.people if not p.revoked}
    facts = {"version": roster.version, "hubs": [h.id for h in roster.hubs()], "people": people}
    show(facts, escape(roster.explain()), format)


@APP.command()
def sign(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked; for scripts.")] = False,
) -> None:
    """Look at the proposed roster and sign it with this hub's owner key.

    Compare new fingerprints by phone first. Example: `flute roster sign /srv/flute`
    """
    now = int(time.time())
    invitation = invitation_of(folder, now)
    with CoordinatorClient(invitation.api_url, invitation.federation, None) as client:
        from flute.http import read_answer

        answer = client.call("GET", "/roster/proposal")
        if answer.status_code != 200:
            read_answer(answer)
        bundle = Bundle.from_bytes(answer.content)
        content = check_bundle(bundle)
        before = read_content(bundle.previous_roster) if bundle.previous_roster else None
        for change in changes(before, content):
            OUT.print(f"• {escape(change)}")
        OUT.print(f"Fingerprint of this proposal, to be compared by phone:\n  {root_fingerprint(bundle.root)}")
        if not yes and not typer.confirm("Sign it?"):
            raise MisuseError("Nothing was signed.")
        signed = sign_roster(folder, bundle, now)
        said = read_answer(client.call("POST", "/roster/proposal", signed.to_bytes()))
    OUT.print(escape(said["text"]))


@APP.command()
def accept(
    folder: Folder,
    heard: Annotated[str, typer.Option("--fingerprint", help="What another owner read out by phone.")],
) -> None:
    """Trust the federation's first roster, because its fingerprint is the one heard by phone.

    Example: `flute roster accept /srv/flute --fingerprint "ABCD EFGH …"`
    """
    now = int(time.time())
    invitation = invitation_of(folder, now)
    with CoordinatorClient(invitation.api_url, invitation.federation, None) as client:
        files = {name: base64.b64decode(raw) for name, raw in client.get("/roster").items()}
    roster = accept_roster(folder, files, heard, now)
    OUT.print(f"Roster version {roster.version} is trusted: {', '.join(h.id for h in roster.hubs())}.")


@APP.command()
def verify(folder: Folder) -> None:
    """Check the stored roster's signatures and dates again, now.

    Example: `flute roster verify /srv/flute`
    """
    state = TrustedState.from_bytes(HubHome(folder).roster_state.read_bytes())
    roster, _ = load(state, state.files(), now=int(time.time()))
    OUT.print(f"Roster version {roster.version} holds: signed by enough owners, not expired, confirmed as newest.")


@PEOPLE.command("init")
def person_init(
    folder: Annotated[Path, typer.Argument(help="Where to keep the key.", metavar="FOLDER")],
    name: Annotated[str, typer.Option(help="Your id, for example ada.")],
    card: Annotated[Path, typer.Option(help="Where to write your card, to be given to the coordinator.")],
) -> None:
    """Make a person's key, and the card that enrols it.

    Example: `flute person init keys/ada --name ada --card ada.card`
    """
    make_person_key(folder, name, rand=os.urandom(KEY_SIZE))
    key = load_person_key(folder).key
    card.write_text(write_card(name, key), encoding="utf-8")
    OUT.print(f"Wrote {escape(str(card))}. Fingerprint, to be compared by phone:\n  {fingerprint(key.public)}")
