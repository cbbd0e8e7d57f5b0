"""The researcher's own records for a simulator or a local federation: a CSV file or a frame for each hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flute.data.variables import Variable
from flute.errors import MisuseError
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
    given.reset_index(drop=True).to_csv(path, index=True, index_label="row")
    path.chmod(0o600)
    return path.absolute()


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
