"""Limits of images as variables of a study, and how magnetic resonance images become ones."""

from __future__ import annotations

from typing import Final

MAX_IMAGE_SIDE: Final = 512
"""Channels, slices, rows or columns of one image: what the scanners of clinical routine give."""

MAX_IMAGE_NUMBERS: Final = 4_000_000
"""Numbers of one patient's image, 16 MB: a hub holds those of all its patients in memory while it trains."""

MAX_IMAGE_COLUMNS: Final = 8
"""Of one dataset: a study reads one."""

GRID_SIZE: Final = (16, 80, 80)
"""Slices, rows, columns of a made image: 48 mm from foot to head and 60 mm across, which most glands fit into."""

GRID_SPACING_MM: Final = (3.0, 0.75, 0.75)
"""Between slices, rows, columns: PI-RADS v2.1 asks for slices of 3 mm; in the plane coarse enough for DWI (2.5 mm)
and fine enough for a lesion of 5 mm."""

ADC_RANGE: Final = (0.0, 3000.0)
"""1e-6 mm2/s, mapped to [-1, 1]: free water at body temperature has 3,000. Fixed: ADC has a unit."""

SIGNAL_PERCENTS: Final = (1.0, 99.0)
"""Of the own volume, mapped to [-1, 1]: T2W and DWI signals have no unit, and a few voxels are very bright."""

HIGH_B_LEAST: Final = 800.0
"""s/mm2: the smallest b-value of a diffusion image that shows lesions bright (PI-RADS v2.1)."""
