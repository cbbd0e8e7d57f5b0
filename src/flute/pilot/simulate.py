"""The simulated pilot: three hospitals' men, drawn from a seed. No patient stands behind any of them.

`simulate` draws and keeps the truth; `write_pilot` writes what each hospital would export, as FHIR R4
NDJSON. The same seed, hub and size give the same bytes (with the same numpy). Chance here makes no
secret, so numpy's seeded generator is used, which protocol code may not.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.random import PCG64, Generator  # noqa: TID251 seeded on purpose: simulated men, no secret
from numpy.typing import NDArray

from flute.data.variables import Array
from flute.errors import MisuseError
from flute.pilot.borders import planted_borders
from flute.pilot.model import Columns, draw_men
from flute.pilot.resources import FILES, Man, resources_of
from flute.pilot.tables import (
    HUBS,
    INELIGIBLE_SHARE,
    MISSING_DRE_FACTOR,
    PLANTED_REASONS,
    HubFigures,
)

FIRST_BIOPSY: Final = date(2018, 1, 1)
BIOPSY_DAYS: Final = 2190
"""Biopsies fall into six years."""
TRUTH: Final = (
    "age", "psa", "dre", "biopsy_type", "volume", "pirads", "family_history", "cspca", "isup", "dre_volume_class",
)  # fmt: skip
MAX_PILOT_MEN: Final = 1_000_000
"""Per hub; a size beyond it is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class SimulatedHub:
    """One hospital's men, the truth included.

    `men`: what is written, in file order. `eligible`: patient ids of the men who belong in the cohort.
    `truth`: float64 [len(eligible)] per name of TRUTH, NaN where the value is not recorded.
    `planted`: patient id to the reason for which the man must be left out.
    """

    hub: str
    men: tuple[Man, ...]
    eligible: tuple[str, ...]
    truth: Mapping[str, Array]
    planted: Mapping[str, str]


def simulate(seed: int, sizes: Mapping[str, int] | None = None, *, borders: bool = False) -> dict[str, SimulatedHub]:
    """Draw every hub of `sizes` (eligible men per hub; default: the pilot's three at full size).

    `borders`: every hub has the men on the cohort's borders too, after those who were drawn.
    Raises: MisuseError: an unknown hub, or a size that is not in 1 to MAX_PILOT_MEN.
    """
    wanted = {name: figures.size for name, figures in HUBS.items()} if sizes is None else dict(sizes)
    unknown = sorted(set(wanted) - set(HUBS))
    if unknown:
        raise MisuseError(f"The pilot has no hub called {', '.join(unknown)}; it has {', '.join(HUBS)}.")
    if any(not 1 <= size <= MAX_PILOT_MEN for size in wanted.values()):
        raise MisuseError(f"A simulated hub has between 1 and {MAX_PILOT_MEN} men.")
    drawn = {hub: _simulate_hub(seed, hub, size) for hub, size in wanted.items()}
    return {hub: _with_borders(simulated) for hub, simulated in drawn.items()} if borders else drawn


def _with_borders(drawn: SimulatedHub) -> SimulatedHub:
    figures = HUBS[drawn.hub]
    added = planted_borders(f"{drawn.hub}-border", figures.psa_unit, figures.volume_unit)
    inside = [border for border in added if not border.expected]
    return dataclasses.replace(
        drawn,
        men=(*drawn.men, *(border.man for border in added)),
        eligible=(*drawn.eligible, *(border.man.patient for border in inside)),
        truth={
            name: np.concatenate([values, [border.truth[name] for border in inside]])
            for name, values in drawn.truth.items()
        },
        planted={**drawn.planted, **{border.man.patient: border.expected for border in added if border.expected}},
    )


def _simulate_hub(seed: int, hub: str, size: int) -> SimulatedHub:
    # Each hub has its own stream: leaving one out changes nothing at the others.
    chance = Generator(PCG64([seed, list(HUBS).index(hub)]))
    figures = HUBS[hub]
    extra = max(len(PLANTED_REASONS), round(INELIGIBLE_SHARE * size))
    reasons = sorted((PLANTED_REASONS[i % len(PLANTED_REASONS)] for i in range(extra)), key="no-suspicion".__eq__)
    unsuspicious = reasons.count("no-suspicion")
    columns = _draw_until(chance, figures, size + extra - unsuspicious, unsuspicious)
    planted = np.array([""] * size + reasons)
    order = chance.permutation(len(planted))
    columns, planted = {name: values[order] for name, values in columns.items()}, planted[order]
    _hide(chance, figures, columns, planted)
    men = tuple(_men(chance, figures, hub, columns, planted))
    inside = planted == ""
    return SimulatedHub(
        hub,
        men,
        tuple(man.patient for man in men if not man.planted),
        {name: columns[name][inside] for name in TRUTH},
        {man.patient: man.planted for man in men if man.planted},
    )


def _draw_until(chance: Generator, figures: HubFigures, eligible: int, others: int) -> Columns:
    """Columns of `eligible` men who show a reason for suspicion, followed by `others` who show none."""
    inside: list[Columns] = []
    outside: list[Columns] = []
    while _length(inside) < eligible or _length(outside) < others:
        drawn = draw_men(chance, figures, 256 + eligible // 2)
        suspicious = (drawn["psa"] > 3.0) | (drawn["dre"] == 1)
        inside.append({name: values[suspicious] for name, values in drawn.items()})
        outside.append({name: values[~suspicious] for name, values in drawn.items()})
    return {
        name: np.concatenate(
            [
                np.concatenate([part[name] for part in inside])[:eligible],
                np.concatenate([part[name] for part in outside])[:others],
            ]
        )
        for name in inside[0]
    }


def _length(parts: list[Columns]) -> int:
    return sum(len(part["age"]) for part in parts)


def _hide(chance: Generator, figures: HubFigures, columns: Columns, planted: NDArray[np.str_]) -> None:
    """Values that a hospital has not recorded become NaN, at random.

    A man whose only reason for suspicion is the examination keeps it, and one without any keeps his PSA:
    otherwise the records could not show why he is in or out.
    """
    n = len(planted)
    factor = np.where(columns["biopsy_type"] == 1, MISSING_DRE_FACTOR[1], MISSING_DRE_FACTOR[0])
    no_dre = (chance.random(n) < figures.missing_dre * factor) & (columns["psa"] > 3.0)
    columns["dre"][no_dre] = np.nan
    columns["dre_volume_class"][no_dre] = np.nan
    columns["family_history"][chance.random(n) < figures.missing_family_history] = np.nan
    columns["volume"][chance.random(n) < figures.missing_volume] = np.nan
    columns["psa"][(chance.random(n) < figures.missing_psa) & (planted != "no-suspicion")] = np.nan
    columns["pirads"][chance.random(n) < figures.missing_pirads] = np.nan


# --- dates, and what else a chart holds --------------------------------------------------------


def _men(chance: Generator, figures: HubFigures, hub: str, columns: Columns, planted: NDArray[np.str_]) -> list[Man]:
    n = len(planted)
    days = {
        "biopsy": chance.integers(0, BIOPSY_DAYS, n),
        "since_birthday": chance.integers(0, 365, n),
        "mri": chance.integers(10, 301, n),
        "late_mri": chance.integers(5, 201, n),
        "old_mri": chance.integers(367, 1201, n),
        "psa": chance.integers(0, 121, n),
        "report": chance.integers(0, 4, n),
        "past": chance.integers(400, 1500, n),
    }
    coins = chance.random((n, 7))
    return [
        _man(figures, f"{hub}-{i + 1:05d}", {k: v[i] for k, v in columns.items()},
             {k: int(v[i]) for k, v in days.items()}, coins[i], str(planted[i]))
        for i in range(n)
    ]  # fmt: skip


def _man(
    figures: HubFigures,
    patient: str,
    values: Mapping[str, float],
    days: Mapping[str, int],
    coins: Array,
    planted: str,
) -> Man:
    biopsy = FIRST_BIOPSY + timedelta(days["biopsy"])
    mri = _mri_day(biopsy, days, planted)
    psa_day = (biopsy - timedelta(days["mri"])) - timedelta(days["psa"])
    psa, pirads = _or_none(values["psa"]), _int_or_none(values["pirads"])
    age_only = bool(coins[0] < figures.age_only) and not planted
    plain = not planted
    had_one_before = plain and not age_only and values["biopsy_type"] == 1
    past = biopsy - timedelta(days["past"])
    return Man(
        patient=patient,
        planted=planted,
        gender="female" if planted == "not-male" else "male",
        birth=_years_before(biopsy, int(values["age"])) - timedelta(days["since_birthday"] % 360),
        age=int(values["age"]),
        age_only=age_only,
        biopsy=None if planted == "no-biopsy" else biopsy,
        repeated=int(values["biopsy_type"]),
        isup=None if planted == "no-biopsy" else int(values["isup"]),
        psa=psa,
        psa_day=psa_day,
        psa_unit=figures.psa_unit,
        dre=_int_or_none(values["dre"]),
        dre_volume_class=_int_or_none(values["dre_volume_class"]),
        volume=_or_none(values["volume"]),
        volume_unit=figures.volume_unit,
        mri=mri,
        pirads=None if mri is None else pirads,
        report_days=0 if planted else days["report"],
        second_lesion=max(1, pirads - 1) if pirads and coins[1] < 0.2 else None,
        family_history=_int_or_none(values["family_history"]),
        second_condition=bool(coins[2] < 0.2),
        earlier_psa=(past, max(0.1, round(0.8 * psa, 1))) if plain and psa and coins[3] < 0.3 else None,
        later_psa=(biopsy + timedelta(40), 0.4) if plain and not age_only and coins[4] < 0.1 else None,
        earlier_biopsy=(past, 1) if had_one_before and coins[5] < 0.4 else None,
        earlier_mri=(past, 5) if plain and coins[6] < 0.1 else None,
    )


def _mri_day(biopsy: date, days: Mapping[str, int], planted: str) -> date | None:
    match planted:
        case "no-mri":
            return None
        case "mri-after-biopsy":
            return biopsy + timedelta(days["late_mri"])
        case "mri-older-than-1y":
            return biopsy - timedelta(days["old_mri"])
        case _:
            return biopsy - timedelta(days["mri"])


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:  # 29 February
        return day.replace(year=day.year - years, day=28)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _int_or_none(value: float) -> int | None:
    return None if np.isnan(value) else int(value)


# --- files -----------------------------------------------------------------------------------

_NOTICE: Final = """SIMULATED. No patient stands behind any record in this folder.
Drawn by flute.pilot.simulate; every resource carries the tags SIMULATED and HTEST in meta.tag.
"""


def write_pilot(
    out: Path, seed: int, sizes: Mapping[str, int] | None = None, *, borders: bool = False
) -> dict[str, SimulatedHub]:
    """Write `out/<hub>/*.ndjson`, a notice per hub and `out/manifest.json`; give what was drawn.

    The manifest holds seed, sizes, resources per file and one SHA-256 per hub over its files: running this
    again with the same arguments gives the same digests.
    """
    hubs = simulate(seed, sizes, borders=borders)
    manifest: dict[str, object] = {"simulated": True, "seed": seed, "hubs": {}}
    entries: dict[str, object] = {}
    for hub, drawn in hubs.items():
        entries[hub] = _write_hub(out / hub, drawn)
    manifest["hubs"] = entries
    (out / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest, order="sorted")) + b"\n")
    return hubs


def _write_hub(folder: Path, drawn: SimulatedHub) -> dict[str, object]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SIMULATED.txt").write_text(_NOTICE, encoding="utf-8")
    counts, state = {}, hashlib.sha256()
    for kind, lines in _lines(drawn.men).items():
        content = b"".join(lines)
        (folder / f"{kind}.ndjson").write_bytes(content)
        counts[kind] = len(lines)
        state.update(content)
    return {
        "eligible": len(drawn.eligible),
        "planted": len(drawn.planted),
        "resources": counts,
        "sha256": state.hexdigest(),
    }


def _lines(men: Sequence[Man]) -> dict[str, list[bytes]]:
    encode = msgspec.json.Encoder().encode
    lines: dict[str, list[bytes]] = {kind: [] for kind in FILES}
    for man in men:
        for resource in resources_of(man):
            lines[resource["resourceType"]].append(encode(resource) + b"\n")
    return lines


def plant_canary(folder: Path, man: Man) -> None:
    """Append one man with the caller's own unusual values, ids and dates to a written hub.

    A test then looks for those values in everything that leaves the hub.
    Raises: MisuseError: `folder` holds no simulated hub (so that no real export is ever written to).
    """
    if not (folder / "SIMULATED.txt").is_file():
        raise MisuseError(f"{folder.name} is no simulated hub; a canary is planted in simulated files only.")
    for kind, lines in _lines([man]).items():
        with (folder / f"{kind}.ndjson").open("ab") as file:
            file.writelines(lines)
