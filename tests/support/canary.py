"""A man who cannot be mistaken for another, and a search for him in all that leaves a hub.

Two kinds of search. *Patterns*: his ids, dates and values, in every encoding that a program of ours or of
somebody careless might use; each pattern is at least six bytes long, so that in M bytes of noise one of P
patterns turns up with a chance under M P 2^-48. *Vectors*: the answers themselves, as numbers, against what
a hub without masks or without noise would have sent.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from flute.data.dataset import Dataset
from flute.defaults import FIXED_POINT_BITS, SENTINELS
from flute.deidentify.pseudonyms import pseudonym
from flute.dp.clip import clip
from flute.messages.answer import MaskedAnswer, OwnTotal
from flute.messages.numbers import read_numbers
from flute.messages.question import OwnQuestion, SecureQuestion
from flute.pilot.resources import Man
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement
from flute.study.protection import Price, exact_sum
from support.wiretap import Said

MIN_PATTERN = 6
NEAR = {32: 2**13, 64: 2**32}
"""By width: a coordinate under a mask lies this near to any given number with a chance of 2^-18 and 2^-31; noise of
one hub lies within it, and two such coordinates are taken for a leak."""
ALPHA = 1e-9
"""Chance that one honest own answer is taken for one without noise."""


def canary(hub: str) -> Man:
    """In the cohort, complete, and with values that no simulated man can have (PSA ends at 150, volume at 250)."""
    return Man(
        patient=f"quetzal-{hub}-7319", planted="", gender="male", birth=date(1937, 3, 11), age=81, age_only=False,
        biopsy=date(2019, 2, 27), repeated=1, isup=5, psa=173.93, psa_day=date(2018, 11, 19), psa_unit="ng/mL",
        dre=1, dre_volume_class=3, volume=287.37, volume_unit="cm3", mri=date(2019, 1, 8), pirads=1,
        family_history=1,
    )  # fmt: skip


# --- patterns -------------------------------------------------------------------------------------------


def patterns(man: Man, pseudonym_key: bytes) -> dict[str, bytes]:
    """Label to bytes, of everything that would give him away."""
    assert man.psa is not None
    assert man.volume is not None
    assert man.biopsy is not None
    assert man.mri is not None
    named = pseudonym(pseudonym_key, man.patient)
    texts = {"patient id": man.patient, "pseudonym": named, "psa": f"{man.psa}", "volume": f"{man.volume}"}
    days = {"birth": man.birth, "biopsy": man.biopsy, "mri": man.mri, "psa day": man.psa_day}
    texts |= {f"date of {what}": day.isoformat() for what, day in days.items()}
    texts |= {f"date of {what}, short": day.strftime("%Y%m%d") for what, day in days.items()}
    found: dict[str, bytes] = {}
    for label, text in texts.items():
        found |= {f"{label}, {how}": raw for how, raw in _text_encodings(text.encode(), text).items()}
    numbers = {
        "psa": man.psa, "volume": man.volume, "ln psa": math.log(man.psa), "ln volume": math.log(man.volume),
        "psa in mg/L": man.psa / 1000, "psa to the volume": man.psa / man.volume,
    }  # fmt: skip
    numbers |= {f"time of {what}": _seconds(day) for what, day in days.items()}
    for label, value in numbers.items():
        found |= {f"{label}, {how}": raw for how, raw in _number_encodings(value).items()}
    found["pseudonym, bytes"] = bytes.fromhex(named)
    found["psa and volume, float32"] = struct.pack("<2f", man.psa, man.volume)
    found["psa and volume, float32 big-endian"] = struct.pack(">2f", man.psa, man.volume)
    return _telling(found)


def row_patterns(row: NDArray[np.float64], label: str) -> dict[str, bytes]:
    """His row of a step, as numbers one after the other: the first three that are not 0 or 1."""
    telling = [float(v) for v in row if v not in (0.0, 1.0, -1.0)][:3]
    found: dict[str, bytes] = {}
    for value in telling:
        found |= {f"{label}: {value:g}, {how}": raw for how, raw in _number_encodings(value).items()}
    return _telling(found)


def _telling(found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without the patterns that are mostly zeros: small numbers stand in words of zeros too, so that a time in
    whole seconds as fixed point (three bytes and five zeros) turns up by chance in an honest answer."""
    return {k: v for k, v in found.items() if len(v) >= MIN_PATTERN and len(v.strip(b"\x00\xff")) >= MIN_PATTERN - 1}


def _text_encodings(raw: bytes, text: str) -> dict[str, bytes]:
    return {
        "utf-8": raw,
        "utf-16": text.encode("utf-16-le"),
        "utf-16 big-endian": text.encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "reversed": raw[::-1],
        **{f"base64 at {shift}": _base64_core(raw, shift) for shift in range(3)},
    }


def _number_encodings(value: float) -> dict[str, bytes]:
    fixed = round(value * 2**FIXED_POINT_BITS) % 2**64  # two's complement; what is too large wraps, as it would
    little, big = struct.pack("<d", value), struct.pack(">d", value)
    return {
        "float64": little,
        "float64 big-endian": big,
        "fixed point": fixed.to_bytes(8, "little"),
        "fixed point big-endian": fixed.to_bytes(8, "big"),
        "float64 in hex": little.hex().encode(),
        "float64 big-endian in hex": big.hex().encode(),
        **{f"float64 in base64 at {shift}": _base64_core(little, shift) for shift in range(3)},
        "as text": repr(value).encode(),
    }


def _base64_core(raw: bytes, shift: int) -> bytes:
    """The part of a base64 text that does not depend on what stands before and after these bytes."""
    coded = base64.b64encode(bytes(shift) + raw)
    first = -(-8 * shift // 6)
    last = 8 * (shift + len(raw)) // 6
    return coded[first:last]


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def search(where: str, content: bytes, wanted: Mapping[str, bytes]) -> list[str]:
    return [f"{where}: {label}" for label, raw in wanted.items() if raw in content]


def false_alarm(size: int, wanted: Iterable[bytes]) -> float:
    """Chance that `size` bytes of noise hold any of these."""
    return sum(size * 256.0 ** -len(raw) for raw in wanted)


# --- vectors ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One answered step as the hub computed it. `rows`: [n, d]; `mine`: which row is the canary's."""

    price: Price
    rows: NDArray[np.float64]
    mine: int

    @property
    def in_clear(self) -> NDArray[np.int64]:
        """What would leave without mask and noise."""
        if self.price.mechanism is None:
            exact: NDArray[np.int64] = np.rint(np.ldexp(exact_sum(self.rows), FIXED_POINT_BITS)).astype(np.int64)
            return exact
        clipped = clip(self.rows, self.price.mechanism.clip_norm) * self.price.mechanism.scale
        noiseless: NDArray[np.int64] = np.rint(clipped.sum(axis=0)).astype(np.int64)
        return noiseless

    @property
    def canary_alone(self) -> NDArray[np.int64]:
        only = self.rows[self.mine : self.mine + 1]
        return Step(self.price, only, 0).in_clear


def step_of(
    agreement: Agreement, prices: Mapping[str, tuple[Price, ...]], asked: SecureQuestion | OwnQuestion,
    data: Dataset, mine: str,
) -> Step:  # fmt: skip
    """Recompute what a hub computed for this question over `data`."""
    what = agreement.question(asked.question).what
    rows = algorithm_for(what).update(what, agreement.setting, asked.step, read_numbers(asked.parameters), data)
    return Step(prices[asked.question][asked.step], rows, data.pseudonyms.tolist().index(mine))


def vector_findings(said: Said, step: Step) -> list[str]:
    """What is wrong with an answer's numbers: not masked, not noised, or one patient's alone."""
    hub, body = said.header.sender, said.body
    if isinstance(body, MaskedAnswer):
        words = np.frombuffer(body.masked.vector, dtype=f"<u{step.price.layout.word_bytes}")
        return _masked_findings(f"{hub}'s masked answer", words, step)
    assert isinstance(body, OwnTotal)
    return _own_findings(f"{hub}'s own answer", np.frombuffer(body.total, dtype="<i8"), step)


def _masked_findings(where: str, words: NDArray[np.unsignedinteger], step: Step) -> list[str]:
    """Residues mod 2^32 or 2^64; the pilot's steps need no less."""
    found, near_by = [], NEAR[step.price.layout.width]
    residue = words.dtype.type
    if (words[-SENTINELS:] == 1).any():
        found.append(f"{where}: its check numbers stand in clear")
    for what, clear in (("the hub's own sum", step.in_clear), ("the canary's row", step.canary_alone)):
        with np.errstate(over="ignore"):
            distance = words[:-SENTINELS] - clear.astype(residue)
            near = int((np.minimum(distance, residue(0) - distance) < near_by).sum())
        if near >= min(2, len(clear)):
            found.append(f"{where}: {near} of {len(clear)} numbers are {what}, not masked")
    return found


def _own_findings(where: str, total: NDArray[np.int64], step: Step) -> list[str]:
    """The noise that is in it, against the noise that was agreed: chi-squared, one-sided, at ALPHA."""
    assert step.price.mechanism is not None
    noise = (total - step.in_clear).astype(np.float64) / step.price.mechanism.hub_sigma
    found = []
    if float((noise**2).sum()) < chi2.ppf(ALPHA, len(noise)):
        found.append(f"{where}: less noise in it than agreed")
    if len(total) >= 4 and (np.abs(total - step.canary_alone) <= 1).all():
        found.append(f"{where}: the canary's row, scaled")
    return found
