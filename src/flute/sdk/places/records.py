"""The researcher's own records for a simulator or a local federation: a CSV file or a frame for each hub.

A column of images holds arrays in a frame; in a file it names `.npy` files in the file's own folder, or below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.intake.rows import ImportReport
from flute.sdk.extras import loaded


def as_files(records: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Hub to CSV file; frames are written below `folder`, with a number for each row in place of an index.

    Raises: MisuseError: no hub, no such file, or something that is neither a path nor a frame."""
    if not isinstance(records, Mapping) or not records:
        raise MisuseError("Give each hub its records: {'north': 'north.csv', 'south': frame, …}.")
    return {hub: _file(hub, given, folder) for hub, given in sorted(records.items())}


def _file(hub: str, given: Any, folder: Path) -> Path:
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise MisuseError(f"Hub {hub}: there is no file {path}.")
        return path.absolute()
    if not hasattr(given, "to_csv"):
        raise MisuseError(
            f"Hub {hub}: give the path of a CSV file or a pandas DataFrame, not {type(given).__name__}."
        )
    path = folder / f"{hub}.csv"
    loaded("pandas")
    _with_files(given.reset_index(drop=True), folder, hub).to_csv(path, index=True, index_label="row")
    path.chmod(0o600)
    return path.absolute()


def _with_files(frame: Any, folder: Path, hub: str) -> Any:
    """The frame with every array written beside it, and its file's name in the array's place."""
    beside = folder / f"{hub}-images"
    for at, name in enumerate(frame.columns):
        if frame.dtypes.iloc[at].kind != "O" or not any(_is_array(cell) for cell in frame[name]):
            continue
        beside.mkdir(mode=0o700, exist_ok=True)
        written = [_write(beside / f"{at}-{row}.npy", cell) for row, cell in enumerate(frame[name])]
        frame = frame.assign(**{name: [f"{beside.name}/{file}" if file else None for file in written]})
    return frame


def _is_array(cell: object) -> bool:
    return hasattr(cell, "__array__") and np.ndim(cell) > 0


def _write(path: Path, cell: object) -> str:
    """The file's name; empty where the cell holds no array, so that this patient has no image."""
    if not _is_array(cell):
        return ""
    np.save(path, np.asarray(cell), allow_pickle=False)
    return path.name


def columns_of(path: Path) -> set[str]:
    with path.open(encoding="utf-8-sig") as file:
        return {name.strip().strip('"') for line in [file.readline()] for sep in ",;\t|" for name in line.split(sep)}


def require_columns(files: Mapping[str, Path], variables: tuple[Variable, ...]) -> None:
    """Raises: MisuseError: a declared variable is no column of a hub's records."""
    for hub, path in files.items():
        lacking = sorted({v.name for v in variables} - columns_of(path))
        if lacking:
            raise MisuseError(
                f"The records of hub {hub} have no column {', '.join(lacking)}, which the study reads. Name "
                "variables as the columns are named."
            )


def require_images(hub: str, variables: Iterable[Variable], report: ImportReport) -> None:
    """Raises: MisuseError: a hub has images, and not one of them is what was declared."""
    for v in (v for v in variables if v.kind == "image"):
        unusable = report.unusable.get(v.name, 0)
        if unusable and unusable + report.missing.get(v.name, 0) == report.rows:
            raise MisuseError(
                f"Hub {hub}: none of its {unusable} images {v.name} is an array of shape {v.shape or ()} with "
                f"numbers from {v.low:g} to {v.high:g}; see to shape (channels first) and range, and that files are "
                "'.npy'."
            )
