"""Small tables to try things with, one per hospital: SIMULATED, and shipped with FLUTE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from flute.errors import MisuseError
from flute.sdk.variables import Variables

_DICTIONARY: Final = "private.yaml"
"""The study file of an example, whose variables are its dictionary."""


class Example(Mapping[str, Path]):
    """Hub to CSV file. `variables`: as the example's public dictionary declares them."""

    simulated = True

    def __init__(self, folder: Path) -> None:
        self._files = {file.stem: file for file in sorted(folder.glob("*.csv"))}
        self.variables = Variables.read(folder / _DICTIONARY)

    def __getitem__(self, hub: str) -> Path:
        return self._files[hub]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"<SIMULATED tables of {', '.join(self)}>"


def example(name: str = "heart") -> Example:
    """Raises: MisuseError: no such example."""
    folder = examples_folder() / name
    if not (folder / _DICTIONARY).is_file():
        raise MisuseError(f"There is no example {name!r}; write flute.example('heart').")
    return Example(folder)


def examples_folder() -> Path:
    """Beside the installed package, or in the repository that it is installed from."""
    package = Path(str(files("flute")))
    installed = package / "examples"
    return installed if installed.is_dir() else package.parents[1] / "examples"
