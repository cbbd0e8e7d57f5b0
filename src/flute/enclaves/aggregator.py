"""An aggregator's side of plan `enclave`: one round, as a table. It runs inside the enclave, and is what is measured.

What an honest aggregator promises, whatever coordinator, hubs and other aggregators do: from one key it gives at most
one total, over exactly one box of every hub of the terms, each signed by that hub for this very round; then, or when
the round is given up, key and sums are gone. So whoever has all other shares still learns nothing but the sum over
all hubs.

It believes nothing that it is told. Hubs' keys and the terms come from bytes whose digests are in its evidence: a
coordinator that tells other ones gets a key that no hub seals to.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from flute.aggregation.codec import Layout
from flute.defaults.enclaves import CHECKS
from flute.enclaves.context import (
    bound_data,
    box_digest,
    box_info,
    check_terms,
    list_digest,
    list_to_sign,
    round_context,
    share_key,
    terms_digest,
    total_to_sign,
)
from flute.errors import (
    BadSignature,
    Cheating,
    Equivocation,
    Malformed,
    MisuseError,
    NotPossible,
    OutOfOrder,
    TooFewHubs,
)
from flute.messages.enclave import (
    AggregatorKeys,
    EnclaveBegin,
    EnclaveBox,
    EnclaveOffer,
    EnclaveTaken,
    EnclaveTerms,
    EnclaveTotal,
)
from flute.primitives.keys import KEY_SIZE, AgreementKey, SigningKey, verify
from flute.primitives.prg import PRG_KEY_SIZE, Stream
from flute.primitives.ring import Ring, add_into, from_bytes, to_bytes

OFFER_RAND_SIZE: Final = 2 * KEY_SIZE
"""Fresh random bytes that one round's keys take."""


class Phase(StrEnum):
    OFFERED = "offered"
    TAKING = "taking boxes"
    SUMMED = "summed"
    CLOSED = "closed"


class Event(StrEnum):
    BEGIN = "begin"
    TAKE = "take a box"
    SUM = "give its total"
    CLOSE = "close"


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.OFFERED, Event.BEGIN): Phase.TAKING,
    (Phase.TAKING, Event.TAKE): Phase.TAKING,
    (Phase.TAKING, Event.SUM): Phase.SUMMED,
    (Phase.OFFERED, Event.CLOSE): Phase.CLOSED,
    (Phase.TAKING, Event.CLOSE): Phase.CLOSED,
    (Phase.SUMMED, Event.CLOSE): Phase.CLOSED,
}
"""Nothing leads back: a key begins one round, and a round gives one total."""


class Aggregator:
    """One aggregator in one round.

    Args: keys: every hub of the terms to its roster key. rand: OFFER_RAND_SIZE fresh bytes made inside.
    Raises: NotPossible: the terms break a rule, or do not name this aggregator. MisuseError: a hub without a key, or
    `rand` of another length.
    """

    def __init__(
        self, terms: EnclaveTerms, keys: Mapping[str, bytes], *, name: str, round_number: int, rand: bytes
    ) -> None:
        check_terms(terms)
        if name not in terms.aggregators:
            raise NotPossible(f"Study {terms.study} was not agreed with an aggregator {name}.")
        if set(keys) != set(terms.hubs) or len(rand) != OFFER_RAND_SIZE:
            raise MisuseError(f"An aggregator takes every hub's key and {OFFER_RAND_SIZE} fresh bytes.")
        self._terms, self._keys, self._name, self._round = terms, dict(keys), name, round_number
        self._place = terms.aggregators.index(name)
        self._sealing: AgreementKey | None = AgreementKey(rand[:KEY_SIZE])
        self._signing: SigningKey | None = SigningKey(rand[KEY_SIZE:])
        self.public = AggregatorKeys(name, self._sealing.public, self._signing.public)
        self._phase = Phase.OFFERED
        self._begin: EnclaveBegin | None = None
        self._ctx = b""
        self._layout = Layout(16, 1)
        self._sum: Ring | None = None
        self._lists: dict[str, bytes] = {}
        self._total: EnclaveTotal | None = None

    @property
    def report_data(self) -> bytes:
        """What this enclave has to put into its evidence."""
        return bound_data(self._terms, self.public, self._round)

    def offer(self, evidence: bytes, collateral: bytes) -> EnclaveOffer:
        """Message 1; the same again whenever it is asked for."""
        public = self.public
        return EnclaveOffer(
            terms_digest(self._terms), self._name, self._round, public.sealing_key, public.signing_key, evidence,
            collateral,
        )  # fmt: skip

    def begin(self, begin: EnclaveBegin) -> EnclaveTaken:
        """Message 2. Raises: Equivocation: of another round, or without this aggregator's keys. OutOfOrder: a second
        one that says something else."""
        if begin == self._begin and self._phase is Phase.TAKING:
            return self._taken()
        phase = self._follow(Event.BEGIN)
        names = tuple(keys.aggregator for keys in begin.keys)
        if (begin.terms, begin.round) != (self._terms, self._round) or names != self._terms.aggregators:
            raise Equivocation(f"Aggregator {self._name} offered its key for another round, agreement or roster.")
        if begin.keys[self._place] != self.public:
            raise Equivocation(f"The keys that hubs are told of are not those of aggregator {self._name}.")
        layout = Layout(begin.width, begin.size)
        if layout.blocks != 1:
            raise NotPossible(f"Aggregator {self._name} adds up vectors of one block; this one has {layout.blocks}.")
        self._layout, self._begin, self._ctx = layout, begin, round_context(begin)
        self._phase = phase
        return self._taken()

    def take(self, box: EnclaveBox) -> EnclaveTaken:
        """Message 4: checked, opened, added. The very same list again changes nothing, also after
        the total: so a coordinator that was killed goes on by sending everything again.

        Raises: OutOfOrder. Equivocation: of another round or a hub outside it, or it is not the box that was signed
        (the coordinator's doing). BadSignature: the hub did not sign this list. Cheating: the hub, named, signed two
        lists, or sealed what is no share.
        """
        signed = list_digest(box.ctx, box.hub, box.digests)
        known = self._lists.get(box.hub)
        if known == signed and box_digest(box.box) == box.digests[self._place]:
            return self._taken()
        phase = self._follow(Event.TAKE)
        if box.ctx != self._ctx or box.hub not in self._keys or len(box.digests) != len(self._terms.aggregators):
            raise Equivocation(
                f"Aggregator {self._name} was given a box of another round, or of somebody who takes no part in it."
            )
        if box_digest(box.box) != box.digests[self._place]:
            raise Equivocation(f"The box that came for aggregator {self._name} is not the one that {box.hub} listed.")
        self._check_signature(box)
        if known is not None:
            raise Cheating(
                f"{box.hub} signed two different lists of boxes for one round; its first one stays.",
                blamed=(box.hub,),
            )
        self._add(box)
        self._lists[box.hub] = signed
        self._phase = phase
        return self._taken()

    def finish(self) -> EnclaveTotal:
        """The sum of the shares of all hubs, once; the same again when asked again. The sealing key is gone then.

        Raises: TooFewHubs: names whose box is missing; nothing is given. OutOfOrder.
        """
        if self._total is not None:
            return self._total
        phase = self._follow(Event.SUM)
        missing = [hub for hub in self._terms.hubs if hub not in self._lists]
        if missing or self._sum is None or self._signing is None:
            raise TooFewHubs(
                f"Aggregator {self._name} adds up the boxes of all hubs or none; it waits for {', '.join(missing)}."
            )
        lists = tuple(self._lists[hub] for hub in self._terms.hubs)
        total = EnclaveTotal(self._ctx, self._name, lists, to_bytes(self._sum), bytes(64))
        self._total = EnclaveTotal(
            total.ctx, total.aggregator, total.lists, total.words, self._signing.sign(total_to_sign(total))
        )
        self._sum = self._sealing = self._signing = None
        self._phase = phase
        return self._total

    def close(self) -> None:
        """The round ends here; nothing of it is left. Raises: OutOfOrder: it has ended."""
        self._phase = self._follow(Event.CLOSE)
        self._sum = self._sealing = self._signing = self._total = None
        self._lists = {}

    def _follow(self, event: Event) -> Phase:
        try:
            return TRANSITIONS[self._phase, event]
        except KeyError:
            raise OutOfOrder(
                f"Aggregator {self._name} cannot {event.value} now; its round is {self._phase.value}."
            ) from None

    def _taken(self) -> EnclaveTaken:
        return EnclaveTaken(self._ctx, tuple(sorted(self._lists)))

    def _check_signature(self, box: EnclaveBox) -> None:
        try:
            verify(self._keys[box.hub], box.signature, list_to_sign(box.ctx, box.hub, box.digests))
        except BadSignature as error:
            raise BadSignature(
                f"The list of boxes that claims to come from {box.hub} is not signed by it."
            ) from error

    def _add(self, box: EnclaveBox) -> None:
        """The share inside, to the sum. Its hub signed this very box, so what is wrong with it is the hub's doing."""
        if self._sealing is None:
            raise OutOfOrder(f"Aggregator {self._name} has no key any more.")
        size = self._layout.block_words(0) + CHECKS
        if self._sum is None:
            self._sum = from_bytes(bytes(size * self._layout.word_bytes), size, self._layout.word_bytes).copy()
        try:
            share = self._sealing.open(box.box, info=box_info(self._ctx, box.hub, self._name))
            if self._place + 1 == len(self._terms.aggregators):
                add_into(self._sum, from_bytes(share, size, self._layout.word_bytes))
                return
        except Malformed as error:
            raise self._no_share(box.hub) from error
        if len(share) != PRG_KEY_SIZE:
            raise self._no_share(box.hub)
        Stream(share_key(share, self._ctx, box.hub, self._name)).add_to(self._sum)

    def _no_share(self, hub: str) -> Cheating:
        return Cheating(
            f"What {hub} sealed to aggregator {self._name} is no share of this round. Nothing is added up; the round "
            "has to be repeated.",
            blamed=(hub,),
        )
