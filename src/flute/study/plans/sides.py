"""The two sides of plan `secagg`, as a study uses them: a hub's and the coordinator's.

Thin: it derives the group's terms from the signed agreement and the roster (each party for itself, so that
nobody can be told other terms), and it stores a hub's new state before an answer is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.aggregation import channels, collector, member
from flute.aggregation.codec import Bounds, Layout
from flute.aggregation.context import context, pub_digest, terms_digest
from flute.aggregation.state import Enrolled, MemberState, decode_state, encode_state
from flute.aggregation.terms import default_threshold
from flute.aggregation.tickets import DEAL_RAND_SIZE
from flute.errors import Equivocation, OutOfOrder
from flute.messages.protocol import (
    Echo,
    Echoes,
    GroupTerms,
    Masked,
    MaskedBlock,
    Shares,
    Start,
    StudyKey,
    Survivors,
    Ticket,
)
from flute.primitives.keys import SigningKey, digest
from flute.primitives.ring import Integers
from flute.study.agreement import Agreement
from flute.study.plans.quorum import among
from flute.trust.roster import Roster


def group_terms(agreement: Agreement, agreement_digest: bytes, roster: Roster) -> GroupTerms:
    """Who aggregates under which rules, as the agreement and the roster say."""
    hubs = tuple(sorted(agreement.hubs))
    return GroupTerms(
        study=agreement.study,
        agreement=agreement_digest,
        roster=roster.digest,
        roster_version=roster.version,
        hubs=hubs,
        threshold=default_threshold(len(hubs), agreement.plan.colluding),
        colluding=agreement.plan.colluding,
        survivors_min=len(hubs) - agreement.plan.dropouts,
        mode="echo" if agreement.plan.echo else "passive",
        exact=agreement.mode == "exact",
    )


def step_digest(agreement: bytes, question: str, step: int, attempt: int, parameters: bytes) -> bytes:
    """Names one step of one question; it enters the masks, so hubs that were asked different things do not
    cancel. parameters: as they travel."""
    numbers = step.to_bytes(8, "big") + attempt.to_bytes(8, "big")
    return digest(b"flute/step/v1", agreement, question.encode(), numbers, parameters)


def hub_keys(agreement: Agreement, roster: Roster) -> dict[str, bytes]:
    """Hub to roster signing key. Raises: NotInRoster."""
    return {hub: roster.signing_key(hub) for hub in agreement.hubs}


class HubSide:
    """A hub in one study. `load` and `save` reach its secret store; `save` returns once it is on disk.

    `save(state, vector)` also keeps a masked vector, before the state; `vector()` gives the last one kept.
    """

    def __init__(
        self,
        me: str,
        agreement: Agreement,
        agreement_digest: bytes,
        roster: Roster,
        *,
        load: Callable[[], bytes | None],
        save: Callable[[bytes, bytes | None], None],
        vector: Callable[[], bytes],
        key: SigningKey,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._me = me
        self._agreement = agreement
        self._digest = agreement_digest
        self._roster = roster
        self._load = load
        self._save = save
        self._vector = vector
        self._key = key
        self._entropy = entropy

    def study_key(self) -> StudyKey:
        """This hub's key for this study: made at the first call, the same again until channels are set up.

        Raises: OutOfOrder: channels stand; a new key would cut this hub off from the others."""
        raw = self._load()
        known = None if raw is None else decode_state(raw)
        if isinstance(known, MemberState):
            raise OutOfOrder(f"{self._me} gave its key for study {self._agreement.study} before; rounds use it.")
        rand = self._entropy(channels.ENROL_RAND_SIZE) if known is None else known.secret
        state, key = channels.enrol(
            self._me, study=self._agreement.study, agreement=self._digest, key=self._key, rand=rand
        )
        self._save(encode_state(state), None)
        return key

    def ticket(self, keys: Sequence[StudyKey], after: int) -> tuple[Ticket, bytes]:
        """This hub's live ticket and its digest; the first call sets up the channels to the other hubs.

        keys: of all hubs that carry out the study. Raises: Equivocation: others than before, other than that some
        left a private study. TooFewHubs: fewer than agreed.
        """
        raw = self._load()
        if raw is None:
            raise OutOfOrder(f"{self._me} has no key for study {self._agreement.study}; it has to consent anew.")
        state = decode_state(raw)
        if isinstance(state, Enrolled):
            terms = self._terms(self._named(keys))
            state = channels.setup(state, keys, terms=terms, keys=self._keys(terms))
        else:
            state = self._renewed(state, self._still(state, self._named(keys)))
        state, ticket = member.deal(state, key=self._key, rand=self._entropy(DEAL_RAND_SIZE), after=after)
        self._save(encode_state(state), None)
        return ticket, ticket_digest(ticket)

    def begin(self, start: Start, question: bytes, layout: Layout) -> Masked | None:
        """Check message 0 and burn its tickets. The stored answer, where these very bytes had one.

        layout: of the step as the agreement prices it. Raises: Equivocation: message 0 names another.
        """
        if Layout(start.width, start.size) != layout:
            raise Equivocation("Message 0 asks for vectors of another size or width than this step was agreed with.")
        before = self._member()
        state, answer = member.begin(before, start, question=question, keys=self._keys(before.terms))
        self._save(encode_state(state), None)
        return answer and msgspec.structs.replace(answer, vector=self._vector())

    def mask(self, vector: NDArray[np.int64], bounds: Bounds) -> Masked:
        """Message 1, once per ticket. Raises: MisuseError: a number beyond the step's bounds."""
        state, answer = member.mask(self._member(), vector, bounds=bounds, key=self._key)
        self._save(encode_state(state), answer.vector)
        return answer

    def mask_blocks(self, part: Callable[[slice], Integers], bounds: Bounds) -> Iterator[MaskedBlock | Masked]:
        """Message 1 of a vector of many blocks: the blocks in order, then the message that signs them.

        part: the answer's coordinates of a slice, asked for once each, in order. Once per ticket, as `mask`: the
        masks leave the disk before the first block leaves the hub, so a hub that is interrupted drops out.
        """
        state, masking = member.begin_mask(self._member())
        self._save(encode_state(state), b"")
        for index in range(masking.layout.blocks):
            yield masking.block(part(masking.layout.values_of(index)), bounds=bounds)
        state, answer = member.finish_mask(state, masking, key=self._key)
        self._save(encode_state(state), None)
        yield answer

    def told(self, survivors: Survivors) -> Echo | Shares:
        """Message 2: signed, or, where the agreement does without the echo, answered with shares at once."""
        if self._agreement.plan.echo:
            state, echo = member.echo(self._member(), survivors, key=self._key)
            self._save(encode_state(state), None)
            return echo
        rand = self._entropy(DEAL_RAND_SIZE)
        state, shares = member.unmask_without_echo(self._member(), survivors, key=self._key, rand=rand)
        self._save(encode_state(state), None)
        return shares

    def unmask(self, echoes: Echoes) -> tuple[Shares, tuple[str, ...]]:
        """Shares, with the next ticket; and the hubs whose tags were wrong."""
        before = self._member()
        keys = self._keys(before.terms)
        state, answer, wrong = member.unmask(
            before, echoes, keys=keys, key=self._key, rand=self._entropy(DEAL_RAND_SIZE)
        )  # fmt: skip
        self._save(encode_state(state), None)
        return answer, wrong

    def _member(self) -> MemberState:
        raw = self._load()
        state = None if raw is None else decode_state(raw)
        if not isinstance(state, MemberState):
            raise OutOfOrder(f"{self._me} has dealt no ticket in study {self._agreement.study} yet.")
        return self._renewed(state, state.terms.hubs)

    def _named(self, keys: Sequence[StudyKey]) -> tuple[str, ...]:
        """Raises: Equivocation: this hub is not among them."""
        hubs = tuple(sorted(key.hub for key in keys))
        if self._me not in hubs:
            raise Equivocation(
                f"A round of study {self._agreement.study} was called at {self._me} without {self._me}."
            )
        return hubs

    def _still(self, state: MemberState, hubs: tuple[str, ...]) -> tuple[str, ...]:
        """Those of this hub's set that are still called. Raises: Equivocation: the set may not change so."""
        fixed = state.terms.hubs
        if hubs == fixed:
            return fixed
        if not set(hubs) <= set(fixed) or state.terms.exact:
            only = "stays as it was when the first was asked" if state.terms.exact else "only ever gets smaller"
            raise Equivocation(
                f"{self._me} carries out study {self._agreement.study} with {', '.join(fixed)}, and now "
                f"{', '.join(hubs)} are named: the set of hubs {only}."
            )
        return hubs

    def _terms(self, hubs: Sequence[str]) -> GroupTerms:
        """Raises: TooFewHubs, Equivocation: the study cannot be carried out by these hubs."""
        return group_terms(among(self._agreement, hubs), self._digest, self._roster)

    def _keys(self, terms: GroupTerms) -> dict[str, bytes]:
        """Raises: NotInRoster."""
        return {hub: self._roster.signing_key(hub) for hub in terms.hubs}

    def _renewed(self, state: MemberState, hubs: tuple[str, ...]) -> MemberState:
        """A newer roster, or fewer hubs, void the live ticket and the open round; channels stay."""
        terms = self._terms(hubs)
        return state if state.terms == terms else channels.renew(state, terms)


# --- the coordinator's side ------------------------------------------------------------------


def check_study_key(key: StudyKey, terms: GroupTerms, keys: Mapping[str, bytes]) -> None:
    """Raises: WrongStudy, NotInRoster, BadSignature: names the hub."""
    channels.check_study_key(key, terms, keys)


def ticket_digest(ticket: Ticket) -> bytes:
    return pub_digest(ticket.pub)


def usable(ticket: Ticket, terms: GroupTerms) -> bool:
    """Was it dealt under these very terms? A newer roster voids all tickets of the older one."""
    return ticket.pub.terms == terms_digest(terms)


def starts(
    terms: GroupTerms, round_number: int, question: bytes, layout: Layout, tickets: Mapping[str, Ticket],
    keys: Mapping[str, bytes],
) -> dict[str, Start]:  # fmt: skip
    """Message 0 for every hub that gave a ticket."""
    return collector.start(
        terms, round_number=round_number, question=question, size=layout.size, width=layout.width, tickets=tickets,
        keys=keys,
    )  # fmt: skip


def check_masked(start: Start, message: Masked, keys: Mapping[str, bytes]) -> None:
    """Raises: Equivocation, BadSignature, NotInRoster: it is no vector for this round, as its hub sent it."""
    collector.check_masked(start, context(start), message, keys)


def vector_hash(start: Start, hub: str) -> collector.VectorHash:
    """Checks one hub's vector block by block."""
    return collector.VectorHash(start, context(start), hub)


def survivors(start: Start, hubs: Sequence[str]) -> Survivors:
    """Message 2, from the hubs whose vectors were checked. Raises: TooFewHubs."""
    return collector.survivors(start, hubs)


def echoes(
    start: Start, told: Survivors, received: Mapping[str, Echo], keys: Mapping[str, bytes]
) -> tuple[Echoes, tuple[str, ...]]:
    """Message 4, and the hubs whose tags were wrong."""
    return collector.echoes(start, told, received, keys)


def total(
    start: Start,
    told: Survivors,
    masked: Mapping[str, Masked],
    tickets: Mapping[str, Ticket],
    shares: Mapping[str, Shares],
    bounds: Bounds,
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The opened sum int64 [size], noise and all, and the hubs that sent shares which do not hold.

    Raises: BadShare, BadTotal: names who is at fault.
    """
    opened = collector.total(start, told, masked, tickets, shares, bounds=bounds)
    return opened.total.astype(np.int64), opened.bad_shares


def masks_left(
    start: Start, told: Survivors, tickets: Mapping[str, Ticket], shares: Mapping[str, Shares]
) -> collector.Unmasking:
    """What covers the sum of all vectors still, once hubs have shown their shares, where enclaves gave that sum.

    Raises: BadShare, Equivocation, TooFewHubs.
    """
    return collector.unmask(start, told, tickets, shares)


def total_blocks(
    start: Start,
    told: Survivors,
    tickets: Mapping[str, Ticket],
    shares: Mapping[str, Shares],
    read: collector.ReadBlock,
    bounds: Bounds,
) -> Iterator[Integers]:
    """The opened sum of long vectors block by block; nothing of it may be used before the iterator has ended."""
    left = collector.unmask(start, told, tickets, shares)
    return collector.sum_blocks(start, told, left, read, bounds=bounds)


def named_tickets(start: Start) -> tuple[bytes, ...]:
    """Digests of the tickets that a message 0 names and so burns."""
    return tuple(pub_digest(pub) for pub in start.pubs)
