"""Make the environment that `benchmarks/flower_secagg.py` runs in, and print the path of its Python.

    python benchmarks/flower_environment.py [--folder .bench-flower]

Flower is run beside ours in a benchmark and nowhere else: it has an environment of its own, and nothing of flute
imports it. Needs a package registry the first time; later calls find what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-flower.txt")
FOLDER = Path(__file__).resolve().parents[1] / ".bench-flower"
DONE = "installed"
"""A file in the environment, written last: the digest of the requirements that it was made from."""


def flower_python(folder: Path = FOLDER) -> Path:
    """The Python that can import Flower; made now if it is missing, half made or made from other requirements.

    Raises: CalledProcessError: a package cannot be had, or is not the one that was pinned. FileExistsError: the
    folder holds other things.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    done, python = folder / DONE, folder / "bin" / "python"
    if done.is_file() and done.read_text(encoding="ascii") == wanted:
        return python
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other things than an environment: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes")
    subprocess.run([*install, "-r", REQUIREMENTS], check=True, stdout=sys.stderr)
    done.write_text(wanted, encoding="ascii")
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description="Make an environment with Flower in it; prints its Python.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it lies (default: .bench-flower)")
    print(flower_python(parser.parse_args().folder.absolute()))


if __name__ == "__main__":
    main()
