"""Plan `mpc` as a study uses it: sums of covered vectors, and what algorithms compute on shares.

Each hub derives session, hubs and keys from the signed agreement, the roster and the question it admitted, so that
hubs which were told different things do not understand each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, encode_exact
from flute.algorithms.contract import JointAlgorithm, Setting
from flute.data.dataset import Dataset
from flute.defaults.joint import KEY_BYTES
from flute.errors import BadTotal, MisuseError
from flute.messages.question import JointQuestion
from flute.mpc.party import Party
from flute.mpc.setup import Circle, setup
from flute.primitives.keys import SigningKey, digest
from flute.study.agreement import Agreement
from flute.study.plans.sides import hub_keys
from flute.study.plans.talk import HELLO_RAND_SIZE, Program, Talk, session_digest
from flute.study.protection import Price
from flute.trust.roster import Roster

Vector = NDArray[np.int64]


Work = Callable[[Party], Program[Vector]]
"""What a hub computes with the others: int64 [d] that was opened, the same at every hub."""


def joint_talk(
    me: str,
    agreement: Agreement,
    roster: Roster,
    asked: JointQuestion,
    work: Work,
    *,
    key: SigningKey,
    entropy: Callable[[int], bytes],
) -> Talk[Vector]:
    """This hub's end of `work` among the study's hubs."""
    hubs = tuple(sorted(agreement.hubs))
    session = session_digest(asked.agreement, roster.digest, hubs, question_digest(asked))
    circle = Circle(hubs.index(me) + 1, len(hubs), session, agreement.plan.colluding, hubs)

    def program() -> Program[Vector]:
        keys = yield from setup(circle, rand=entropy(KEY_BYTES))
        return (yield from work(Party(circle, keys)))

    return Talk(me, hubs, session, hub_keys(agreement, roster), key, entropy(HELLO_RAND_SIZE), program)


def summed(vector: Vector, bounds: Bounds) -> Work:
    """The total of all hubs' vectors.

    Every hub's coordinates are proven to be within `input_bits` of 0 before they are added, so that no hub weighs
    more than the agreement's max_patients could, but for a factor below 2.
    Raises, at work: Cheating, Equivocation: a hub changed something; nothing was opened. BadTotal: beyond what the
    hubs' patients can make.
    """

    def work(party: Party) -> Program[Vector]:
        total = yield from party.summed(vector, bound=input_bits(bounds))
        opened = yield from party.open(total)
        if opened is None or np.any(np.abs(opened) > bounds.total):
            raise BadTotal("The opened total is beyond what the hubs' patients can come to; it is not used.")
        return opened.astype(np.int64)

    return work


def computed(algorithm: JointAlgorithm, spec: Any, setting: Setting, data: Dataset, price: Price) -> Work:
    """What an algorithm on shares opens, in the step's fixed point."""

    def work(party: Party) -> Program[Vector]:
        opened = yield from algorithm.program(spec, setting, data, party)
        if opened.shape != (price.shape.size,):
            raise MisuseError("A computation opened another number of figures than its step was agreed with.")
        return encode_exact(opened, hubs=1, bits=price.fraction_bits)

    return work


def input_bits(bounds: Bounds) -> int:
    """|v| < 2^this for every coordinate of an honest hub's vector."""
    return bounds.part.bit_length()


def question_digest(asked: JointQuestion) -> bytes:
    """Names one attempt at one step of one question, parameters included."""
    return digest(b"flute/joint-question/v1", msgspec.msgpack.encode(asked))
