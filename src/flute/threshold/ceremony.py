"""How hubs make a shared key without a dealer: (state, messages, chance) to (new state, answer). No step does I/O.

Every hub deals a random secret; the key is their sum. All n hubs take part, or no key comes out.

    begin    -> KeyCommitment                       to what this hub will deal
    deal     all commitments -> KeyDealing, shares  only now, so that no dealing depends on another
    confirm  all dealings and shares -> KeyConfirmation, or KeyComplaint about a share that does not fit
    finish   all confirmations alike -> KeyShare

Guarantees. Hubs that finish have the same public key, and each a right share of it. The key is uniform, but that a
cheater may end an attempt when it sees what would come out: over a attempts, anything that a uniform key has with
probability p, the key has with probability at most a·p (`MAX_KEY_ATTEMPTS`). Whoever stays away, breaks its
commitment, proves nothing or deals a bad share is named; a false complaint names its sender. A dead hub ends the
attempt; the next has another context, in which no message of this one passes.

Rules of the caller: 1 write the new state to disk (fsync) before the answer leaves; 2 `rand` is fresh and never
stored; 3 seal every `KeyDealtShare` to its holder; keep what left, to send the very same again. A sealed share that
does not open has not come: nobody can show others what is in it.

Source: Pedersen 1991, "A threshold cryptosystem without a trusted party"; shares are checked as in Feldman 1987. That
a plain Pedersen ceremony lets a cheater bias the key is shown by Gennaro et al. 1999; committing first takes that
away up to the aborts above, and is simpler than their second round of commitments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from flute.errors import Cheating, Equivocation, Malformed, MisuseError, OutOfOrder
from flute.messages.threshold import KeyCommitment, KeyComplaint, KeyConfirmation, KeyDealing, KeyDealtShare, KeyTerms
from flute.primitives.keys import SigningKey, digest
from flute.threshold.context import Message, Secret, decode, gather, info, key_context, message_digest, signed
from flute.threshold.dealing import commitment_to, evaluate_at, fits, public_key_of, read_dealing, shows_bad_share
from flute.threshold.group import ORDER, WIDE, Element, multiply_base, read_scalar, scalars_from, write_scalar
from flute.threshold.keys import KeyShare, PublicKey, check_terms, place_of
from flute.threshold.proofs import prove_possession

_SALT_SIZE: Final = 32
_NO_SIGNATURE: Final = bytes(64)
_M = TypeVar("_M", bound=Message)


class Phase(StrEnum):
    COMMITTED = "committed"
    DEALT = "dealt"
    CONFIRMED = "confirmed"
    FINISHED = "finished"
    ENDED = "ended"


class Event(StrEnum):
    DEAL = "deal"
    CONFIRM = "confirm"
    COMPLAIN = "complain"
    FINISH = "finish"
    END = "end"


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.COMMITTED, Event.DEAL): Phase.DEALT,
    (Phase.DEALT, Event.CONFIRM): Phase.CONFIRMED,
    (Phase.DEALT, Event.COMPLAIN): Phase.ENDED,
    (Phase.CONFIRMED, Event.FINISH): Phase.FINISHED,
    (Phase.COMMITTED, Event.END): Phase.ENDED,
    (Phase.DEALT, Event.END): Phase.ENDED,
    (Phase.CONFIRMED, Event.END): Phase.ENDED,
    (Phase.FINISHED, Event.END): Phase.ENDED,  # another hub did not finish: this key is given up, too
    (Phase.ENDED, Event.END): Phase.ENDED,
}
"""Nothing leads out of ENDED: what goes on is a new attempt, with a new state."""


class Ceremony(Secret, frozen=True, tag="threshold-ceremony"):
    """A hub in a key ceremony. What a phase no longer needs is empty.

    coefficients: of this hub's polynomial, until it has confirmed. commitments: everyone's, in the terms' order.
    secret, public: what comes out, once confirmed; unusable before everybody has.
    """

    me: str
    terms: KeyTerms
    phase: Phase
    coefficients: tuple[bytes, ...] = ()
    dealing: KeyDealing | None = None
    commitments: tuple[bytes, ...] = ()
    dealings: tuple[bytes, ...] = ()
    secret: bytes = b""
    public: PublicKey | None = None


def rand_size(terms: KeyTerms) -> int:
    """Fresh random bytes that `begin` needs."""
    return 2 * WIDE * terms.threshold + _SALT_SIZE


def begin(
    me: str, terms: KeyTerms, *, rand: bytes, key: SigningKey, previous: Ceremony | None = None
) -> tuple[Ceremony, KeyCommitment]:
    """key: roster signing key. previous: this study's last attempt, ended; None for a first.

    Raises: MisuseError: terms that do not protect, `rand`'s size, a stranger. OutOfOrder: the last attempt has not
    ended, or had this number or a higher one.
    """
    check_terms(terms)
    place_of(terms, me)
    if previous is not None:
        _check_previous(previous, terms)
    if len(rand) != rand_size(terms):
        raise MisuseError(f"A key ceremony takes {rand_size(terms)} random bytes; another number was given.")
    ctx, k = key_context(terms), terms.threshold
    scalars, salt = scalars_from(rand[:-_SALT_SIZE], 2 * k), rand[-_SALT_SIZE:]
    coefficients, nonces = scalars[:k], scalars[k:]
    elements = tuple(map(multiply_base, coefficients))
    possession = prove_possession(ctx, me, coefficients, elements, nonces)
    dealing = signed(KeyDealing(ctx, me, elements, possession, salt, _NO_SIGNATURE), key)
    state = Ceremony(me, terms, Phase.COMMITTED, tuple(map(write_scalar, coefficients)), dealing)
    return state, signed(KeyCommitment(ctx, me, commitment_to(dealing), _NO_SIGNATURE), key)


def deal(
    state: Ceremony, commitments: Iterable[KeyCommitment], *, keys: Mapping[str, bytes], key: SigningKey
) -> tuple[Ceremony, KeyDealing, tuple[KeyDealtShare, ...]]:
    """Show what was committed to, once all have committed. The shares are secret: one for each other hub.

    Raises: OutOfOrder. TooFewHubs: names whom this waits for. Equivocation, Malformed, BadSignature: as `gather`.
    """
    phase = _follow(state, Event.DEAL)
    heard = _gather(state, commitments, "key commitment", keys)
    own = state.dealing
    if own is None or heard[state.me].commitment != commitment_to(own):
        raise Equivocation(f"What is passed around as the key commitment of {state.me} is not what it sent.")
    committed = tuple(message.commitment for message in heard.values())
    shares = tuple(_share_for(state, own, holder, key) for holder in state.terms.hubs if holder != state.me)
    return replace(state, phase=phase, commitments=committed), own, shares


def confirm(
    state: Ceremony,
    dealings: Iterable[KeyDealing],
    shares: Iterable[KeyDealtShare],
    *,
    keys: Mapping[str, bytes],
    key: SigningKey,
) -> tuple[Ceremony, KeyConfirmation | KeyComplaint]:
    """Check everything that was dealt. shares: those for this hub, opened by the caller.

    A complaint ends the attempt here; sent around, it ends it everywhere (`judge`).
    Raises: OutOfOrder. TooFewHubs: names whom this waits for. Cheating: names whose dealing is bad. Equivocation: a
    dealer showed others, or signed for this hub, something else. Malformed, BadSignature.
    """
    _follow(state, Event.CONFIRM)
    ctx = key_context(state.terms)
    dealt = _gather(state, dealings, "key dealing", keys)
    polynomials = {hub: _check_dealing(state, message) for hub, message in dealt.items()}
    received = _own_shares(state, shares, keys)
    place = place_of(state.terms, state.me)
    secret = evaluate_at(_own_polynomial(state), place)
    for dealer, share in received.items():
        if share.dealing != message_digest(dealt[dealer]):
            raise Equivocation(f"{dealer} signed a key share that belongs to another dealing than it showed.")
        if not fits(share, polynomials[dealer], place):
            complaint = signed(KeyComplaint(ctx, state.me, dealt[dealer], share, _NO_SIGNATURE), key)
            return end(state, Event.COMPLAIN), complaint
        secret += read_scalar(share.share)
    return _confirmed(state, dealt, list(polynomials.values()), secret % ORDER, key)


def judge(terms: KeyTerms, complaint: KeyComplaint, *, keys: Mapping[str, bytes]) -> NoReturn:
    """Who is to blame for a complaint: the dealer, whose own signatures show it, or else who complained. Anybody who
    has the roster can tell; the attempt is over in either case (`end`).

    Raises: Cheating, always, unless the complaint itself is no message of this ceremony: Malformed, Equivocation,
    BadSignature; it is then ignored.
    """
    ctx = key_context(terms)
    gather([complaint], what="key complaint", ctx=ctx, hubs=(complaint.hub,), keys=keys)
    complainer, dealer = complaint.hub, complaint.dealing.hub
    if complainer not in terms.hubs:
        raise Malformed(f"{complainer} takes no part in this key ceremony.")
    if shows_bad_share(terms, complaint, keys):
        raise Cheating(f"{dealer} dealt {complainer} a bad key share; a new attempt is needed.", blamed=(dealer,))
    raise Cheating(f"{complainer} complained without cause; a new attempt is needed.", blamed=(complainer,))


def finish(
    state: Ceremony, confirmations: Iterable[KeyConfirmation], *, keys: Mapping[str, bytes]
) -> tuple[Ceremony, KeyShare]:
    """The key, once all hubs have confirmed the same dealings.

    Raises: OutOfOrder. TooFewHubs: names whom this waits for. Equivocation: hubs saw different dealings; names whose.
    """
    phase = _follow(state, Event.FINISH)
    heard = _gather(state, confirmations, "key confirmation", keys)
    for hub, message in heard.items():
        if message.dealings != state.dealings:
            raise Equivocation(_difference(state, hub, message.dealings))
    if state.public is None:
        raise MisuseError("A confirmed key ceremony holds no key; its stored state is damaged.")
    done = Ceremony(state.me, state.terms, phase, public=state.public)
    return done, KeyShare(state.me, state.public, state.secret)


def end(state: Ceremony, event: Event = Event.END) -> Ceremony:
    """Give the attempt up: everything secret in it is gone. A key that came out of it must be thrown away as well."""
    return Ceremony(state.me, state.terms, _follow(state, event))


def public_key(terms: KeyTerms, dealings: Iterable[KeyDealing], *, keys: Mapping[str, bytes]) -> PublicKey:
    """The key from its dealings, for those who hold no share; hubs that finished have the same (compare digests).

    Raises: as `confirm` about dealings.
    """
    check_terms(terms)
    heard = gather(dealings, what="key dealing", ctx=key_context(terms), hubs=terms.hubs, keys=keys)
    return public_key_of(terms, [read_dealing(terms, message) for message in heard.values()])


def encode_ceremony(state: Ceremony) -> bytes:
    """Bytes for the hub's secret store; one record per study, overwritten each time."""
    return msgspec.msgpack.encode(state)


def decode_ceremony(raw: bytes) -> Ceremony:
    """Raises: MisuseError: not a state of this version."""
    return decode(raw, Ceremony, "key ceremony")


def _follow(state: Ceremony, event: Event) -> Phase:
    try:
        return TRANSITIONS[state.phase, event]
    except KeyError:
        raise OutOfOrder(
            f"{state.me} cannot {event.value} now; attempt {state.terms.attempt} of its key ceremony "
            f"is {state.phase.value}."
        ) from None


def _check_previous(previous: Ceremony, terms: KeyTerms) -> None:
    if previous.phase is not Phase.ENDED or terms.attempt <= previous.terms.attempt:
        raise OutOfOrder(
            f"Attempt {previous.terms.attempt} of this study's key is {previous.phase.value}. "
            "End it first; the next one needs a higher number."
        )


def _gather(state: Ceremony, messages: Iterable[_M], what: str, keys: Mapping[str, bytes]) -> dict[str, _M]:
    return gather(messages, what=what, ctx=key_context(state.terms), hubs=state.terms.hubs, keys=keys)


def _own_polynomial(state: Ceremony) -> list[int]:
    return [read_scalar(coefficient) for coefficient in state.coefficients]


def _share_for(state: Ceremony, dealing: KeyDealing, holder: str, key: SigningKey) -> KeyDealtShare:
    share = write_scalar(evaluate_at(_own_polynomial(state), place_of(state.terms, holder)))
    unsigned = KeyDealtShare(dealing.ctx, state.me, holder, message_digest(dealing), share, _NO_SIGNATURE)
    return signed(unsigned, key)


def _check_dealing(state: Ceremony, dealing: KeyDealing) -> tuple[Element, ...]:
    """Raises: Cheating: names the dealer."""
    if commitment_to(dealing) != state.commitments[place_of(state.terms, dealing.hub) - 1]:
        raise Cheating(f"{dealing.hub} dealt something else than it committed to.", blamed=(dealing.hub,))
    return read_dealing(state.terms, dealing)


def _own_shares(
    state: Ceremony, shares: Iterable[KeyDealtShare], keys: Mapping[str, bytes]
) -> dict[str, KeyDealtShare]:
    """By dealer, one of every other hub. Raises: as `gather`; Malformed: one that is not for this hub."""
    mine = list(shares)
    if any(share.holder != state.me for share in mine):
        raise Malformed(f"{state.me} was handed a key share that is for another hub.")
    others = tuple(hub for hub in state.terms.hubs if hub != state.me)
    return gather(mine, what="key share", ctx=key_context(state.terms), hubs=others, keys=keys)


def _confirmed(
    state: Ceremony,
    dealt: Mapping[str, KeyDealing],
    polynomials: Sequence[tuple[Element, ...]],
    secret: int,
    key: SigningKey,
) -> tuple[Ceremony, KeyConfirmation]:
    public = public_key_of(state.terms, polynomials)
    seen = tuple(
        digest(info("seen"), commitment, message_digest(dealing))
        for commitment, dealing in zip(state.commitments, dealt.values(), strict=True)
    )
    phase = _follow(state, Event.CONFIRM)
    done = Ceremony(state.me, state.terms, phase, dealings=seen, secret=write_scalar(secret), public=public)
    return done, signed(KeyConfirmation(key_context(state.terms), state.me, seen, _NO_SIGNATURE), key)


def _difference(state: Ceremony, hub: str, theirs: tuple[bytes, ...]) -> str:
    """Whose dealing two hubs saw differently."""
    pairs = zip(state.terms.hubs, state.dealings, theirs, strict=False)
    dealers = [dealer for dealer, mine, other in pairs if mine != other]
    return (
        f"{hub} confirms other dealings than {state.me}, of {', '.join(dealers) or 'another number of hubs'}. "
        "Whose signature is under both made both; nothing of this attempt may be used."
    )
