"""`flute hub`: what needs a second person, and what to do about an older copy of the journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from flute.cli.output import OUT, FormatOption, show
from flute.errors import MisuseError
from flute.hub.decisions.change import Change, Confirmation, PolicyChange, StewardIn, StewardOut, Wanted
from flute.hub.doors.client import HubClient
from flute.hub.home import HubHome
from flute.hub.store import HubPolicy
from flute.trust.keyfiles import load_party_keys, load_person_key
from flute.trust.people import read_card

Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
Person = Annotated[str, typer.Option(help="Who does it; it goes into the journal.")]
Keys = Annotated[Path | None, typer.Option(help="Folder of your own key ('flute person init' makes one).")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the journal.")]


def register(app: typer.Typer) -> None:
    for name, command in (
        ("steward", steward), ("changes", changes), ("sign-change", sign_change), ("confirm", confirm),
        ("drop-change", drop_change), ("witness", witness), ("recover", recover),
    ):  # fmt: skip
        app.command(name)(command)


def steward(
    folder: Folder,
    person: Person,
    card: Annotated[Path | None, typer.Argument(help="The card of whom to enrol.", metavar="CARD")] = None,
    remove: Annotated[str, typer.Option(help="Whose key is to count no more.")] = "",
    keys: Keys = None,
) -> None:
    """Enrol those whose keys count when this hub is to allow more; without a card, list them.

    The first two are enrolled at once. A third, or a removal, is a change: propose it with --keys, and let another
    steward confirm it. Examples: `flute hub steward /srv/flute berta.card --person eva` · `flute hub steward
    /srv/flute --person eva` · `flute hub steward /srv/flute --remove berta --person eva --keys keys/eva`
    """
    with HubClient(folder) as door:
        if remove or (card is not None and keys is not None):
            wanted: Wanted = StewardOut(remove) if remove else StewardIn(*read_card(_text(card)))
            _said(propose(door, folder, wanted, person, keys))
        elif card is not None:
            enrolled = door.enrol_steward(_text(card), person=person)["steward"]
            OUT.print(f"Steward {escape(enrolled)} is enrolled. Compare the fingerprint by phone: flute hub steward.")
        else:
            for found in door.get("/stewards"):
                OUT.print(f"{escape(found['steward'])}: {found['fingerprint']}")


def _text(card: Path | None) -> str:
    if card is None:
        raise MisuseError("Name the card of whom to enrol, or --remove whom to remove.")
    return card.read_text(encoding="utf-8")


def propose(door: HubClient, folder: Path, wanted: Wanted, person: str, keys: Path | None) -> Any:
    """Sign a change with a steward's own key, and give it to the hub. Raises: MisuseError: no key."""
    if keys is None:
        raise MisuseError("This needs two stewards. Propose it with your own key: --keys FOLDER.")
    own = load_person_key(keys)
    if own.party != person:
        raise MisuseError(f"The key in {keys} is {own.party}'s, not {person}'s.")
    public = load_party_keys(HubHome(folder).keys).signing.public
    change = Change(public, wanted, person, int(time.time()))
    return door.propose(change, change.proposed_by(own.key))


def propose_policy(door: HubClient, folder: Path, policy: HubPolicy, person: str, keys: Path) -> None:
    _said(propose(door, folder, PolicyChange(policy), person, keys))


def _said(shown: Any) -> None:
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(shown["ends"]))
    OUT.print(
        f"Change {shown['id'][:12]} waits until {until} for another steward: {escape(shown['says'])}\n"
        f"Next: flute hub confirm FOLDER {shown['id'][:12]} --keys …, by somebody else."
    )


def changes(
    folder: Folder,
    change: Annotated[str, typer.Argument(help="One change, by the first letters of its id.", metavar="CHANGE")] = "",
    out: Annotated[Path | None, typer.Option(help="Write that change to a file, to be signed elsewhere.")] = None,
    format: FormatOption = "text",
) -> None:
    """Changes that wait for a second steward. A change in a file can be signed where that steward's key is.

    Examples: `flute hub changes /srv/flute` · `flute hub changes /srv/flute 3f2a --out change.json`
    """
    with HubClient(folder) as door:
        found = door.get("/changes")
    if change:
        found = [_chosen(found, change)]
    if out is not None:
        if not change:
            raise MisuseError("Name the change that is to be written.")
        out.write_bytes(msgspec.json.encode(found[0]["change"]))
    lines = [f"{c['id'][:12]}  by {escape(c['proposer'])}: {escape(c['says'])}" for c in found]
    show(found, "\n".join(lines) or "Nothing waits.", format)


def _chosen(found: list[Any], change: str) -> Any:
    fitting = [c for c in found if c["id"].startswith(change)]
    if len(fitting) != 1:
        raise MisuseError(f"{len(fitting)} waiting changes begin with {change!r}; 'flute hub changes' lists them.")
    return fitting[0]


def sign_change(
    change: Annotated[Path, typer.Argument(help="The change, as 'flute hub changes --out' wrote it.")],
    keys: Annotated[Path, typer.Option(help="Folder of your own key.")],
    out: Annotated[Path, typer.Option(help="Where to write your confirmation, to be given to the hub.")],
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked; for scripts.")] = False,
) -> None:
    """Read a change and sign it, on whatever machine your key is.

    Example: `flute hub sign-change change.json --keys keys/berta --out berta.confirmed`
    """
    try:
        found = msgspec.json.decode(change.read_bytes(), type=Change)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MisuseError(f"{change} is no change; 'flute hub changes --out' writes one.") from error
    OUT.print(f"{escape(found.proposer)} proposes to {escape(found.words)}")
    if not yes and not typer.confirm("Confirm it?"):
        raise MisuseError("Nothing was signed.")
    own = load_person_key(keys)
    out.write_bytes(msgspec.json.encode(Confirmation(found.id, own.party, found.confirmed_by(own.key))))
    OUT.print(f"Wrote {escape(str(out))}. Next, at the hub: flute hub confirm FOLDER --signed {escape(str(out))}")


def confirm(
    folder: Folder,
    change: Annotated[str, typer.Argument(help="The change, by the first letters of its id.", metavar="CHANGE")] = "",
    keys: Keys = None,
    signed: Annotated[Path | None, typer.Option(help="What 'flute hub sign-change' wrote.")] = None,
) -> None:
    """A second steward's word: the change takes effect.

    Examples: `flute hub confirm /srv/flute 3f2a --keys keys/berta` · `flute hub confirm /srv/flute --signed
    berta.confirmed`
    """
    with HubClient(folder) as door:
        if signed is not None:
            said = msgspec.json.decode(signed.read_bytes(), type=Confirmation)
        elif keys is not None and change:
            own = load_person_key(keys)
            found = msgspec.convert(_chosen(door.get("/changes"), change)["change"], Change)
            said = Confirmation(found.id, own.party, found.confirmed_by(own.key))
        else:
            raise MisuseError("Name the change and your key (--keys), or what was signed elsewhere (--signed).")
        done = door.confirm(said)
    OUT.print(f"Change {done['id'][:12]} took effect: {escape(done['says'])}")


def drop_change(
    folder: Folder,
    change: Annotated[str, typer.Argument(help="The change, by the first letters of its id.", metavar="CHANGE")],
    person: Person,
    reason: Reason = "",
) -> None:
    """Drop a change that waits. One person is enough: nothing more is allowed by it.

    Example: `flute hub drop-change /srv/flute 3f2a --person eva --reason "not agreed"`
    """
    with HubClient(folder) as door:
        found = _chosen(door.get("/changes"), change)
        door.drop_change(bytes.fromhex(found["id"]), person=person, reason=reason)
    OUT.print(f"Change {found['id'][:12]} was dropped.")


def witness(
    folder: Folder,
    to: Annotated[
        Path | None, typer.Option(help="Folder to keep it in from now on; the hub must be stopped.")
    ] = None,
) -> None:
    """Where the newest head of the journal is kept, so that a restored older copy is noticed.

    It must be on no backup that holds the journal, and best on another disk or share.
    Examples: `flute hub witness /srv/flute` · `flute hub witness /srv/flute --to /mnt/other/flute`
    """
    from flute.hub.witness import set_witness_folder, witness_of

    home = HubHome(folder)
    key = load_party_keys(home.keys).signing
    if to is not None:
        set_witness_folder(home, to, key)
    OUT.print(f"The newest head is kept in {escape(witness_of(home, key.public).place)}.")


def recover(
    folder: Folder,
    person: Person,
    reason: Annotated[str, typer.Option(help="What happened; it goes into the journal.")],
    export: Annotated[
        Path | None, typer.Option(help="An export that has the missing lines ('flute audit export').")
    ] = None,
) -> None:
    """Go on from an older copy of the journal, knowingly. The hub must be stopped.

    Lines that an export has are put back. If some stay unknown, every study and dataset counts as having spent all
    that its ceiling allows, for good. Example: `flute hub recover /srv/flute --person eva --reason "disk failed"`
    """
    from flute.hub.store import HubStore
    from flute.hub.witness import recover_hub

    home = HubHome(folder)
    store = HubStore(home.folder)
    try:
        key = load_party_keys(home.keys).signing
        found = recover_hub(home, key, store, person=person, reason=reason, now=int(time.time()), export=export)
    finally:
        store.close()
    if found is not None:
        OUT.print(f"{found.brought_back} lines were put back; the journal ends at line {found.position.line}.")
    if found is not None and found.charged:
        OUT.print("What is missing is unknown: every study and dataset counts as having spent all it might have.")
    OUT.print(f"Policy now: {escape(_policy(home))}")


def _policy(home: HubHome) -> str:
    from flute.hub.store import HubStore

    store = HubStore(home.folder)
    try:
        return store.policy().sentence
    finally:
        store.close()
