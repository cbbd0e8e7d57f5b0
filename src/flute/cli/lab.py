"""`flute lab`: JupyterLab with this installation's kernel and FLUTE's notebooks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from flute.cli.output import ERR
from flute.errors import MisuseError
from flute.sdk.examples import examples_folder

_FOLDER = Path("flute-notebooks")


def lab(
    folder: Annotated[Path, typer.Argument(help="Where the notebooks are put, and opened.")] = _FOLDER,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    port: Annotated[int, typer.Option(help="Of JupyterLab, on this machine alone.")] = 8888,
    start: Annotated[
        bool, typer.Option(help="Start JupyterLab; otherwise the notebooks are put there, no more.")
    ] = True,
) -> None:
    """Open JupyterLab with FLUTE's notebooks. Notebooks that are there already are left as they are.

    Example: `flute lab`
    """
    require_jupyter()
    copied = put_notebooks(folder)
    ERR.print(f"{len(copied)} notebooks put into {folder}." if copied else f"The notebooks are in {folder}.")
    if start:
        raise typer.Exit(subprocess.run(command(folder, port, browser), env=_environment(), check=False).returncode)


def require_jupyter() -> None:
    """Raises: MisuseError: the extra is not installed."""
    lacking = [name for name in ("jupyterlab", "ipykernel") if find_spec(name) is None]
    if lacking:
        raise MisuseError(f"JupyterLab needs {' and '.join(lacking)}, not installed here: pip install 'flute[lab]'.")


def put_notebooks(folder: Path) -> list[Path]:
    """Copies, so that what is tried in them changes no installation. Raises: MisuseError: none are shipped."""
    source = examples_folder() / "notebooks"
    shipped = sorted(source.glob("*.ipynb"))
    if not shipped:
        raise MisuseError("This installation ships no notebooks.")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = [file for file in shipped if not (folder / file.name).exists()]
    return [Path(shutil.copyfile(file, folder / file.name)) for file in fresh]


def command(folder: Path, port: int, browser: bool) -> list[str]:
    """JupyterLab of this very interpreter, whose kernel `python3` it offers; reachable from this machine alone.

    As root, which is who one is in most containers, JupyterLab would only start with a flag of its own."""
    return [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.absolute()}", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """A kernel started by name finds this interpreter first."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
