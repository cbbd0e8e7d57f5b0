"""`flute hub face`: the hub's read-only FHIR face, for the hospital's own tools; and who may read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from flute.cli.output import OUT
from flute.conformance.model import Model
from flute.data.variables import Variable
from flute.defaults import LOOPBACK
from flute.defaults.records import FACE_PORT, FACE_TOKEN_BYTES
from flute.errors import MisuseError
from flute.face.shelf import Column, Fixed, Shown
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.recipe import PILOT_VARIABLES

Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]
PILOT_SHOWN: Final[Shown] = {
    "patient": {"gender": Fixed("male")},
    "psa": {"value": Column("psa")},
    "volume": {"value": Column("volume")},
    "pirads": {"value": Column("pirads")},
    "dre": {"value": Column("dre")},
    "biopsy": {"category": Column("biopsy_type", {"0": "initial", "1": "repeated"}), "age": Column("age")},
    "outcome": {"value": Column("isup")},
    "family_history": {"value": Column("family_history")},
    "dre_volume_class": {"value": Column("dre_volume_class")},
}
"""Where the resources of the pilot's common model come from in the rows that its recipe makes. Its cohort is of men;
dates are not kept, so none is shown. The MRI has no row of its own: it was used to choose the others."""
_ALIKE: Final = 3


def faces(variables: Sequence[Variable]) -> tuple[Model, Shown] | None:
    """The pilot's model, for a dataset with at least three variables that are declared as the pilot's recipe does.

    What any other variable means as FHIR nobody has declared, so it is not shown."""
    alike = {v.name for v in variables if v in PILOT_VARIABLES}
    if len(alike) < _ALIKE:
        return None
    return PILOT_MODEL, {
        element: {
            part: source for part, source in parts.items() if isinstance(source, Fixed) or source.variable in alike
        }
        for element, parts in PILOT_SHOWN.items()
    }


def face(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Where to listen: this machine, or an address of the local network.")] = (
        LOOPBACK
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = FACE_PORT,
    private_network: Annotated[
        bool, typer.Option("--private-network", help="Listen on an address of the hospital's network.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), needed beyond this machine.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Show the hub's datasets as FHIR R4, read-only, to the hospital's own tools. The hub has to be running.

    Example: `flute hub face /srv/flute` then `curl -H "Authorization: Bearer $TOKEN" 127.0.0.1:8095/pilot/metadata`
    """
    from flute.face.access import require_address
    from flute.face.client import FaceDoor
    from flute.face.process import serve_face

    if (tls_cert is None) != (tls_key is None):
        raise MisuseError("TLS needs both: --tls-cert and --tls-key.")
    tls = (tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    require_address(host, private_network=private_network, tls=tls is not None)
    OUT.print(f"Listening on {escape(host)}:{port}; every read goes into the hub's journal. Ctrl-C stops it.")
    with FaceDoor(folder) as door:
        serve_face(folder, faces, door, host=host, port=port, private_network=private_network, tls=tls)


def face_token(
    folder: Folder,
    holder: Annotated[str, typer.Argument(help="The tool or person that reads, for example viewer.")],
    void: Annotated[bool, typer.Option("--void", help="Take the holder's token away.")] = False,
) -> None:
    """Make a token for one tool or person, or take it away. It is shown once; the hub keeps its digest only.

    Examples: `flute hub face-token /srv/flute viewer` · `flute hub face-token /srv/flute viewer --void`
    """
    from flute.face.access import make_token, void_token
    from flute.hub.home import HubHome

    HubHome(folder).config()
    if void:
        void_token(folder, holder)
        OUT.print(f"{escape(holder)} can no longer read.")
        return
    OUT.print(f"Token of {escape(holder)}, shown once:\n  {make_token(folder, holder, os.urandom(FACE_TOKEN_BYTES))}")
