"""Once per study: a hub's study key, and from everyone's study keys a channel to each other hub.

The study secret is gone once channels stand, and every chain key is replaced after each ticket, so that a
key stolen later opens nothing dealt before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from flute.aggregation.context import study_key_to_sign
from flute.aggregation.masks import channel_key, dealing_key
from flute.aggregation.state import Enrolled, Inbound, MemberState, Phase
from flute.aggregation.terms import check, index_of
from flute.errors import BadSignature, Equivocation, Malformed, MisuseError, NotInRoster, Stale, WrongStudy
from flute.messages.protocol import GroupTerms, StudyKey
from flute.primitives.keys import AgreementKey, SigningKey, verify

ENROL_RAND_SIZE: Final = 32


def enrol(me: str, *, study: str, agreement: bytes, key: SigningKey, rand: bytes) -> tuple[Enrolled, StudyKey]:
    """The hub's key for this study, signed with its roster key. rand: ENROL_RAND_SIZE fresh bytes."""
    if len(rand) != ENROL_RAND_SIZE:
        raise MisuseError(f"A study key needs {ENROL_RAND_SIZE} random bytes.")
    unsigned = StudyKey(study, agreement, me, AgreementKey(rand).public, bytes(64))
    signed = msgspec.structs.replace(unsigned, signature=key.sign(study_key_to_sign(unsigned)))
    return Enrolled(me, study, agreement, rand), signed


def setup(
    enrolled: Enrolled, study_keys: Sequence[StudyKey], *, terms: GroupTerms, keys: Mapping[str, bytes]
) -> MemberState:
    """Channels to every other hub. terms: as this hub itself derives them from the agreement and its roster.

    keys: hub to roster signing key. The state returned replaces `enrolled` on disk, which erases the secret.
    Raises: NotPossible: the terms break a rule. WrongStudy, BadSignature, NotInRoster, Malformed: a study key
    that does not fit, naming its hub. Equivocation: this hub's own key was changed.
    """
    check(terms)
    index_of(terms, enrolled.me)
    if (terms.study, terms.agreement) != (enrolled.study, enrolled.agreement):
        raise WrongStudy(f"The group's terms are not for the agreement that {enrolled.me} consented to.")
    if tuple(sorted(k.hub for k in study_keys)) != terms.hubs:
        raise Malformed("The study keys are not those of the group's hubs, one each.")
    for study_key in study_keys:
        check_study_key(study_key, terms, keys)
    secret = AgreementKey(enrolled.secret)
    publics = {k.hub: k.public for k in study_keys}
    if publics[enrolled.me] != secret.public:
        raise Equivocation(f"The study key shown for {enrolled.me} is not the one it gave.")
    return _with_channels(enrolled.me, secret, publics, terms)


def check_study_key(study_key: StudyKey, terms: GroupTerms, keys: Mapping[str, bytes]) -> None:
    """Raises: WrongStudy, NotInRoster, BadSignature: names the hub."""
    if (study_key.study, study_key.agreement) != (terms.study, terms.agreement):
        raise WrongStudy(f"The study key of {study_key.hub} was given for another study or agreement.")
    try:
        verify(roster_key(keys, study_key.hub), study_key.signature, study_key_to_sign(study_key))
    except BadSignature as error:
        raise BadSignature(f"The study key that claims to come from {study_key.hub} is not signed by it.") from error


def renew(state: MemberState, terms: GroupTerms) -> MemberState:
    """The same group under a newer roster, or what is left of it: live ticket and open round are void, channels stay.

    Channels to hubs that left are erased. A group whose sums no noise covers loses no hub.
    Raises: MisuseError: anything else changed; that takes a new enrolment of every hub. Stale.
    """
    check(terms)
    index_of(terms, state.me)
    known = state.terms
    left = terms.hubs != known.hubs
    if left and (terms.exact or not set(terms.hubs) < set(known.hubs)):
        raise MisuseError("A group may only lose hubs, and none where no noise covers its sums.")
    same = msgspec.structs.replace(terms, roster=known.roster, roster_version=known.roster_version)
    if left:  # fewer hubs have another threshold
        same = msgspec.structs.replace(
            same, hubs=known.hubs, threshold=known.threshold, survivors_min=known.survivors_min
        )
    if same != known:
        raise MisuseError("Only the roster of a group may change; other terms need every hub's new study key.")
    if terms.roster_version < known.roster_version or (terms.roster_version == known.roster_version and not left):
        raise Stale("A group can only move to a newer version of its roster.")
    return msgspec.structs.replace(
        state, terms=terms, phase=Phase.IDLE, dealt=None, round=None,
        outbound={hub: chain for hub, chain in state.outbound.items() if hub in terms.hubs},
        inbound={hub: chain for hub, chain in state.inbound.items() if hub in terms.hubs},
    )  # fmt: skip


def roster_key(keys: Mapping[str, bytes], hub: str) -> bytes:
    """Raises: NotInRoster."""
    try:
        return keys[hub]
    except KeyError:
        raise NotInRoster(f"{hub} is not in the roster; its messages cannot be checked.") from None


def _with_channels(me: str, secret: AgreementKey, publics: Mapping[str, bytes], terms: GroupTerms) -> MemberState:
    outbound: dict[str, bytes] = {}
    inbound: dict[str, Inbound] = {}
    for hub in terms.hubs:
        if hub == me:
            continue
        try:
            channel = channel_key(
                secret, publics[hub], study=terms.study, agreement=terms.agreement, me=me, other=hub
            )
        except Malformed as error:
            raise Malformed(f"The study key of {hub} is not a usable X25519 key.") from error
        outbound[hub] = dealing_key(channel, study=terms.study, dealer=me, holder=hub)
        inbound[hub] = Inbound(dealing_key(channel, study=terms.study, dealer=hub, holder=me), 1)
    return MemberState(me, terms, Phase.IDLE, 1, outbound, inbound)
