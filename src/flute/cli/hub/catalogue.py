"""`flute hub catalogue`: what outsiders may know of a dataset, what that costs, and the files to publish."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flute.cli.output import FormatOption, show
from flute.errors import MisuseError

Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]


def catalogue(
    folder: Folder,
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    person: Annotated[str, typer.Option(help="Who does it; it goes into the journal.")] = "",
    entry: Annotated[Path | None, typer.Option(help="The entry's file (YAML), to be kept from now on.")] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Release statistics under noise. This is charged, once per snapshot.")
    ] = False,
    epsilon: Annotated[float | None, typer.Option(min=1e-3, max=100, help="Price of --release.")] = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="Describe this variable only (repeatable); all visible ones otherwise.")
    ] = None,
    publish: Annotated[
        bool | None,
        typer.Option("--publish/--unpublish", help="Show the entry to the federation's researchers, or no more."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the entry's files into this folder.")] = None,
    format: FormatOption = "text",
) -> None:
    """Describe a dataset for catalogues: HealthDCAT-AP, Croissant, statistics under noise, a synthetic sample.

    Looking costs nothing. Examples: `flute hub catalogue /srv/flute --dataset heart` ·
    `flute hub catalogue /srv/flute --dataset heart --entry heart.yaml --person eva` ·
    `flute hub catalogue /srv/flute --dataset heart --release --epsilon 0.5 --out entry/ --person eva` ·
    `flute hub catalogue /srv/flute --dataset heart --publish --person eva`
    """
    from flute.hub.doors.catalogue_client import CatalogueClient

    if (entry is not None or release or publish is not None) and not person:
        raise MisuseError("Say who does this, with --person; it goes into the journal.")
    if release != (epsilon is not None):
        raise MisuseError("--release and --epsilon go together: a release has its price, for example --epsilon 0.5.")
    if variable and not release:
        raise MisuseError("--variable chooses what --release describes; give both.")
    with CatalogueClient(folder) as door:
        if entry is not None:
            door.declare(dataset, _text(entry), person=person)
        if epsilon is not None:
            door.release(dataset, epsilon=epsilon, person=person, variables=variable or ())
        if publish is not None:
            _publish(folder, door.publish(dataset, person=person, shown=publish))
        found = door.catalogue(dataset)
        files = door.files(dataset) if out is not None else {}
    written = _write(out, files) if out is not None else []
    found["files"], found["published"] = written, publish
    show(found, _words(found), format)


def _publish(folder: Path, signed: Any) -> None:
    """The signed listing, handed to the coordinator, which checks the signature before it keeps it."""
    from flute.coordinator.doors.client import CoordinatorClient
    from flute.hub.setup import invitation_of

    invitation = invitation_of(folder, int(time.time()))
    with CoordinatorClient(invitation.api_url, invitation.federation, None) as coordinator:
        coordinator.post("/catalogue", signed)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MisuseError(f"{path} is not UTF-8 text.") from error


def _write(out: Path, files: dict[str, bytes]) -> list[str]:
    """Names of files come from the hub; they are names, never paths."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if Path(name).name != name:
            raise MisuseError("The hub gave a file a name that is a path; is it of another version?")
        (out / name).write_bytes(content)
    return sorted(files)


def _words(found: dict[str, Any]) -> str:
    budget, statistics = found["budget"], found["statistics"]
    lines = [
        f"[bold]{escape(found['dataset'])}[/bold]"
        + ("" if found["declared"] else " · no entry yet: write its file and give it with --entry"),
        f"Catalogue budget: epsilon {budget['epsilon_spent']:.3g} of {budget['ceiling_epsilon']:g} spent at delta "
        f"{budget['delta']:g}; {budget['epsilon_left']:.3g} left.",
    ]
    if statistics is None:
        lines.append("Nothing was released yet: no number about a record is in the entry.")
    else:
        lines.append(escape(found["sentence"]) + ("" if found["current"] else " Of an earlier snapshot; not shown."))
        lines.append(f"Persons: {_shown(statistics['persons'])}")
        lines += [_variable(v) for v in statistics["variables"]]
    if found["published"] is not None:
        lines.append(
            "Shown to the federation's researchers from now on."
            if found["published"]
            else "No longer shown to the federation's researchers; what they have read they have read."
        )
    if found["files"]:
        lines.append(f"Written: {escape(', '.join(found['files']))}")
    return "\n".join(lines)


def _variable(v: dict[str, Any]) -> str:
    words = f"  {escape(v['name'])}: {_shown(v['n'])} with a value"
    if v["mean"] is not None:
        return f"{words}, mean {_shown(v['mean'])}, median {_shown(v['quantiles']['50'])}"
    return f"{words}; " + ", ".join(f"{escape(level)} {_shown(n)}" for level, n in v["levels"].items())


def _shown(estimate: dict[str, Any]) -> str:
    """A number and the 95 % interval that includes its noise."""
    if estimate["value"] is None:
        return "not told by the noise"
    return f"{estimate['value']:.4g} ({estimate['low']:.4g} to {estimate['high']:.4g})"
