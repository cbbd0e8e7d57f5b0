"""One import in a process of its own, to be killed; it says every page that is on disk.

python -m support.import_process FOLDER STAGING RECORDS PAGE
"""

from __future__ import annotations

import sys
from pathlib import Path

from flute.connectors import files
from flute.connectors.files import FilesReader
from flute.intake.freeze import Freezing, freeze
from flute.intake.snapshot import write_snapshot
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from flute.pilot.recipe import PILOT_RECIPE

KEY = b"k" * 32


def main(folder: Path, staging_file: Path, records: Path, page: int) -> None:
    files.PAGE_RESOURCES = page  # small pages: more instants at which something can go wrong
    design = Design(PILOT_RECIPE)
    with Staging(staging_file, design.views, design.digest) as staging:
        progress = take(
            FilesReader(folder), staging, design.judge(KEY), say=lambda now: print("page", now.pages, flush=True)
        )
        frozen = freeze(staging, PILOT_RECIPE, Freezing(KEY))
        digest = write_snapshot(frozen.rows, records).hex()
        print("ended", progress.pages, staging.resources(), frozen.report.rows, digest, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
