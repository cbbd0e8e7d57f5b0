"""`flute hub images`: images as a variable of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from flute.cli.output import FormatOption, show
from flute.cli.records.import_text import attached_text, import_progress
from flute.cli.records.places import existing
from flute.cli.records.slips import require_names
from flute.data.variables import Variable
from flute.defaults.images import GRID_SIZE, GRID_SPACING_MM
from flute.errors import MisuseError
from flute.hub.doors.client import HubClient
from flute.hub.records.images import ImageColumn
from flute.hub.records.plans import AttachPlan

Folder = Annotated[Path, typer.Argument(help="The hub's folder.", metavar="FOLDER")]

_SIZE: Final = "x".join(map(str, GRID_SIZE))
_SPACING: Final = "x".join(f"{side:g}" for side in GRID_SPACING_MM)


def images(
    folder: Folder,
    dataset: Annotated[str, typer.Option(help="Name of the dataset.")],
    name: Annotated[str, typer.Option("--as", help="What the variable is called in studies.")],
    person: Annotated[str, typer.Option(help="Who does it; it goes into the journal.")],
    size: Annotated[str, typer.Option(help="Slices x rows x columns that are made of the hub's own images.")] = _SIZE,
    spacing: Annotated[str, typer.Option(help="Millimetres between slices, rows and columns.")] = _SPACING,
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder with PATIENT.npy, in place of the hub's own images.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="With --from: channels x … of every array, e.g. 1x64x64.")] = None,
    low: Annotated[float, typer.Option(help="With --from: the lowest value.")] = 0.0,
    high: Annotated[float, typer.Option(help="With --from: the highest value.")] = 1.0,
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="With --from: the files are called by this hub's pseudonyms.")
    ] = False,
    label: Annotated[str, typer.Option(help="A line that says what it is.")] = "",
    format: FormatOption = "text",
) -> None:
    """Give every patient of a dataset an image: T2W, ADC and high-b DWI of those the hub keeps, or a `.npy` file.

    The dataset gets a new snapshot, and every later import makes the images anew. Patients without one count as
    missing, images of another shape or with values out of range as unusable.

    Examples: `flute hub images /srv/flute --dataset pilot --as mri --size 16x64x64 --person eva` ·
    `… --dataset xray --as chest --from arrays/ --shape 1x64x64 --low 0 --high 255 --person eva`
    """
    require_names(dataset, person)
    column = _column(name, size, spacing, source, shape, (low, high), label, pseudonyms=pseudonyms)
    with HubClient(folder) as door, import_progress(quiet=format == "json") as say:
        ended = door.attach_images(AttachPlan(dataset, person, column), say)
    show(ended, attached_text(ended["attached"]), format)


def _column(
    name: str, size: str, spacing: str, source: Path | None, shape: str | None, ends: tuple[float, float], label: str,
    *, pseudonyms: bool,
) -> ImageColumn:  # fmt: skip
    if (source is None) != (shape is None):
        raise MisuseError("--from and --shape go together: the folder of the arrays, and the shape of each.")
    try:
        if source is not None and shape is not None:
            sides = tuple(int(side) for side in shape.split("x"))
            variable = Variable(name, "image", *ends, label=label, shape=sides)
            return ImageColumn(variable, str(existing(source)), pseudonyms)
        sides = (3, *(int(side) for side in size.split("x")))
        slices, rows, columns = (float(side) for side in spacing.split("x"))
        variable = Variable(name, "image", -1.0, 1.0, label=label, shape=sides)
        return ImageColumn(variable, spacing=(slices, rows, columns))
    except ValueError as error:
        raise MisuseError(
            f"These images cannot be made ({error}). Sizes and shapes are whole numbers such as 16x64x64, spacings "
            "numbers such as 3x0.75x0.75."
        ) from error
