"""Draws the rooms of `docs/images/architecture.svg` anew, from the floors below. The processes stay as drawn.

Usage: python docs/make_architecture_picture.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PICTURE: Final = Path(__file__).with_name("images") / "architecture.svg"
FLOORS: Final = {
    "TOP": "cli demo pilot testing sdk local report",
    "SHELLS": "face hub coordinator aggregator",
    "EDGES": "imaging intake transport",
    "READERS": "connectors fhirserver tabular catalogue deidentify",
    "WORK": "attacks study ledger questions summaries models deep algorithms joint",
    "PROMISES": "dp aggregation mpc threshold enclaves attestation trust",
    "RECORDS": "sandbox cohort conformance views fhirpath",
    "GROUND": "data messages primitives homes http errors defaults",
}
_LEFT, _RIGHT, _STEP, _GAP = 130.0, 950.0, 62, 8.0


def floor(name: str, rooms: list[str], top: float) -> str:
    """One band with its rooms, all of one width."""
    width = (_RIGHT - _LEFT - _GAP * (len(rooms) - 1)) / len(rooms)
    drawn = [
        f'<rect class="f" x="20" y="{top:g}" width="940" height="54" rx="8"/>'
        f'<text class="g l" x="34" y="{top + 32:g}">{name}</text>'
    ]
    for index, room in enumerate(rooms):
        x = _LEFT + index * (width + _GAP)
        drawn += [
            "<g>",
            f'<rect class="m" x="{x:.1f}" y="{top + 8:g}" width="{width:.1f}" height="38" rx="6"/>',
            f'<text class="t" x="{x + width / 2:.1f}" y="{top + 32:g}">{room}</text>',
            "</g>",
        ]
    return "\n".join(drawn)


def main() -> None:
    picture = PICTURE.read_text(encoding="utf-8")
    start = picture.index('<rect class="f" x="20"', picture.index(">Rooms"))
    top = float(re.findall(r'y="([0-9.]+)"', picture[start:])[0])
    floors = [floor(name, rooms.split(), top + k * _STEP) for k, (name, rooms) in enumerate(FLOORS.items())]
    PICTURE.write_text(picture[:start] + "\n".join(floors) + "\n</svg>\n", encoding="utf-8")


if __name__ == "__main__":
    main()
