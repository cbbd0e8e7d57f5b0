"""The `flute` command. `flute --help` shows what there is; every command's help has examples."""

from __future__ import annotations


def main() -> None:
    from flute.cli.app import run

    run()
