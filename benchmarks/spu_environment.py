"""Make the environment that `benchmarks/spu_regression.py` runs in, and print the path of its Python.

    python benchmarks/spu_environment.py [--folder .bench-spu]

SPU is run beside ours in a benchmark and nowhere else: it has an environment of its own (about 1 GB: it brings JAX
and an older numpy), and nothing of flute imports it. Its wheels are for Python 3.10 and 3.11. Needs a package
registry the first time; later calls find what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-spu.txt")
FOLDER = Path(__file__).resolve().parents[1] / ".bench-spu"
DONE = "installed"
"""A file in the environment, written last: the digest of the requirements that it was made from."""
PYTHON = "python3.11"
"""The one for which requirements are pinned."""


def spu_python(folder: Path = FOLDER) -> Path:
    """The Python that can import SPU; made now if it is missing, half made or made from other requirements.

    Raises: CalledProcessError: a package cannot be had, or is not the one that was pinned. FileExistsError: the
    folder holds other things. FileNotFoundError: there is no Python 3.11.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    done, python = folder / DONE, folder / "bin" / "python"
    if done.is_file() and done.read_text(encoding="ascii") == wanted:
        return python
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other things than an environment: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([fitting_python(), "-m", "venv", folder], check=True, stdout=sys.stderr)
    (folder / ".gitignore").write_text("*\n", encoding="ascii")
    install = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes")
    subprocess.run([*install, "-r", REQUIREMENTS], check=True, stdout=sys.stderr)
    done.write_text(wanted, encoding="ascii")
    return python


def fitting_python() -> str:
    if sys.version_info[:2] == (3, 11):
        return sys.executable
    found = shutil.which(PYTHON)
    if found is None:
        raise FileNotFoundError(f"SPU needs {PYTHON}: its wheels stop there")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Make an environment with SPU in it; prints its Python.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it lies (default: .bench-spu)")
    print(spu_python(parser.parse_args().folder.absolute()))


if __name__ == "__main__":
    main()
