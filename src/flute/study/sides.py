"""The two sides of plan `secagg`, as a study uses them: a hub's and the coordinator's.

Thin: it derives the group's terms from the signed agreement and the roster (each party for itself, so that
nobody can be told other terms), and it stores a hub's new state before an answer is handed out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.aggregation import channels, collector, member
from flute.aggregation.codec import largest_part
from flute.aggregation.context import pub_digest, terms_digest
from flute.aggregation.state import Enrolled, MemberState, decode_state, encode_state
from flute.aggregation.terms import default_threshold
from flute.aggregation.tickets import DEAL_RAND_SIZE
from flute.errors import OutOfOrder
from flute.messages.protocol import Echo, Echoes, GroupTerms, Masked, Shares, Start, StudyKey, Survivors, Ticket
from flute.primitives.keys import SigningKey, digest
from flute.study.agreement import Agreement
from flute.trust.roster import Roster

MODE: Final = "echo"


def group_terms(agreement: Agreement, agreement_digest: bytes, roster: Roster) -> GroupTerms:
    """Who aggregates under which rules. Stage 1 tolerates no dropout: every hub must answer every round."""
    hubs = tuple(sorted(agreement.hubs))
    return GroupTerms(
        study=agreement.study,
        agreement=agreement_digest,
        roster=roster.digest,
        roster_version=roster.version,
        hubs=hubs,
        threshold=default_threshold(len(hubs), agreement.plan.colluding),
        colluding=agreement.plan.colluding,
        survivors_min=len(hubs),
        mode=MODE,
        exact=agreement.mode == "exact",
    )


def step_digest(agreement: bytes, question: str, step: int, attempt: int, parameters: Sequence[float]) -> bytes:
    """Names one step of one question; it enters the masks, so hubs that were asked different things do not
    cancel."""
    raw = struct.pack(f"<{len(parameters)}d", *parameters)
    numbers = step.to_bytes(8, "big") + attempt.to_bytes(8, "big")
    return digest(b"flute/step/v1", agreement, question.encode(), numbers, raw)


def hub_keys(agreement: Agreement, roster: Roster) -> dict[str, bytes]:
    """Hub to roster signing key. Raises: NotInRoster."""
    return {hub: roster.signing_key(hub) for hub in agreement.hubs}


class HubSide:
    """A hub in one study. `load` and `save` reach its secret store; `save` returns once it is on disk."""

    def __init__(
        self,
        me: str,
        agreement: Agreement,
        agreement_digest: bytes,
        roster: Roster,
        *,
        load: Callable[[], bytes | None],
        save: Callable[[bytes], None],
        key: SigningKey,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._me = me
        self._agreement = agreement
        self._digest = agreement_digest
        self._terms = group_terms(agreement, agreement_digest, roster)
        self._keys = hub_keys(agreement, roster)
        self._load = load
        self._save = save
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
        self._save(encode_state(state))
        return key

    def ticket(self, keys: Sequence[StudyKey], after: int) -> tuple[Ticket, bytes]:
        """This hub's live ticket and its digest; the first call sets up the channels to the other hubs."""
        raw = self._load()
        if raw is None:
            raise OutOfOrder(f"{self._me} has no key for study {self._agreement.study}; it has to consent anew.")
        state = decode_state(raw)
        if isinstance(state, Enrolled):
            state = channels.setup(state, keys, terms=self._terms, keys=self._keys)
        else:
            state = self._renewed(state)
        state, ticket = member.deal(state, key=self._key, rand=self._entropy(DEAL_RAND_SIZE), after=after)
        self._save(encode_state(state))
        return ticket, ticket_digest(ticket)

    def begin(self, start: Start, question: bytes) -> Masked | None:
        """Check message 0 and burn its tickets. The stored answer, where these very bytes had one."""
        state, answer = member.begin(self._member(), start, question=question, keys=self._keys)
        self._save(encode_state(state))
        return answer

    def mask(self, vector: NDArray[np.int64]) -> Masked:
        """Message 1, once per ticket. Raises: MisuseError: a number that the sum could not hold."""
        bound = largest_part(len(self._agreement.hubs))
        state, answer = member.mask(self._member(), vector, part_bound=bound, key=self._key)
        self._save(encode_state(state))
        return answer

    def echo(self, survivors: Survivors) -> Echo:
        state, answer = member.echo(self._member(), survivors, key=self._key)
        self._save(encode_state(state))
        return answer

    def unmask(self, echoes: Echoes) -> tuple[Shares, tuple[str, ...]]:
        """Shares, with the next ticket; and the hubs whose tags were wrong."""
        state, answer, wrong = member.unmask(
            self._member(), echoes, keys=self._keys, key=self._key, rand=self._entropy(DEAL_RAND_SIZE)
        )
        self._save(encode_state(state))
        return answer, wrong

    def _member(self) -> MemberState:
        raw = self._load()
        state = None if raw is None else decode_state(raw)
        if not isinstance(state, MemberState):
            raise OutOfOrder(f"{self._me} has dealt no ticket in study {self._agreement.study} yet.")
        return self._renewed(state)

    def _renewed(self, state: MemberState) -> MemberState:
        """A newer roster voids the live ticket and the open round; the channels stay."""
        if state.terms == self._terms:
            return state
        return channels.renew(state, self._terms)


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
    terms: GroupTerms, round_number: int, question: bytes, size: int, tickets: Mapping[str, Ticket],
    keys: Mapping[str, bytes],
) -> dict[str, Start]:  # fmt: skip
    """Message 0 for every hub."""
    return collector.start(terms, round_number=round_number, question=question, size=size, tickets=tickets, keys=keys)


def survivors(start: Start, masked: Mapping[str, Masked], keys: Mapping[str, bytes]) -> Survivors:
    return collector.survivors(start, masked, keys)


def echoes(
    start: Start, told: Survivors, received: Mapping[str, Echo], keys: Mapping[str, bytes]
) -> tuple[Echoes, tuple[str, ...]]:
    """Message 4, and the hubs whose tags were wrong."""
    return collector.echoes(start, told, received, keys)


def total(
    start: Start, told: Survivors, masked: Mapping[str, Masked], shares: Mapping[str, Shares]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The opened sum int64 [size], noise and all, and the hubs that sent shares which do not hold.

    Raises: BadShare, BadTotal: names who is at fault.
    """
    opened = collector.total(start, told, masked, shares, part_bound=largest_part(len(told.hubs)))
    return opened.total, opened.bad_shares


def named_tickets(start: Start) -> tuple[bytes, ...]:
    """Digests of the tickets that a message 0 names and so burns."""
    return tuple(pub_digest(pub) for pub in start.pubs)
