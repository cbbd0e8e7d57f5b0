"""Attacks on who is in: a lying coordinator, colluding owners, whoever sits on the line.

Each attack is shown beside the honest set that it starts from, so that a loader that refuses everything fails too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from flute.defaults import COLLUDING, FRESHNESS_LIFETIME_S, MAX_CLOCK_SKEW_S
from flute.errors import (
    BadMessageError,
    Malformed,
    NotInRoster,
    RosterError,
    RosterExpired,
    RosterRolledBack,
    RosterUnsigned,
    TooLarge,
)
from flute.messages.envelope import bodies, open_envelope, write_envelope
from flute.primitives.keys import AgreementKey, SigningKey, verify
from flute.trust.publishing import publish, refresh
from flute.trust.roster import RosterContent, write_content
from flute.trust.signing import Bundle, propose, sign, standing
from flute.trust.tuf_files import (
    ROSTER_FILE,
    SNAPSHOT_FILE,
    TARGETS_FILE,
    TIMESTAMP_FILE,
    Authority,
    build_root,
    build_snapshot,
    build_targets,
    build_timestamp,
    moment,
    root_file,
    signer,
    tuf_key,
)
from flute.trust.verification import TrustedState, first_trust, learn_roots, load, root_fingerprint
from unit.test_trust_roster import (
    DAY,
    HUBS,
    NOW,
    Federation,
    content,
    coordinator,
    hub,
    owner,
    person,
    signing,
    trust,
)

ONLINE = signing("coordinator")
Files = dict[str, bytes]


def forged(
    new: RosterContent,
    *,
    root: tuple[SigningKey, ...],
    targets: tuple[SigningKey, ...] | None = None,
    online: SigningKey = ONLINE,
    before: Files | None = None,
    stamp: int = 9,
    threshold: int = 2,
    lives: int = FRESHNESS_LIFETIME_S,
    now: int = NOW,
) -> Files:
    """A set built with the same parts as the honest one, none of the honest checks, and any keys."""
    roster, expires = write_content(new), moment(new.expires)
    owners = frozenset(h.owner_key for h in new.hubs if not h.revoked)
    authority = Authority(owners, threshold, new.coordinator.signing_key)
    made: Files = {ROSTER_FILE: roster}
    made[root_file(new.version)] = _signed(build_root(authority, version=new.version, expires=expires), root)
    made[TARGETS_FILE] = _signed(
        build_targets(roster, version=new.version, expires=expires), root if targets is None else targets
    )
    made |= _online(made[TARGETS_FILE], new, online, stamp, now + lives)
    return {name: raw for name, raw in (before or {}).items() if name.endswith("root.json")} | made


def _online(targets: bytes, new: RosterContent, online: SigningKey, stamp: int, until: int) -> Files:
    snapshot = _signed(build_snapshot(targets, version=new.version, expires=moment(new.expires)), (online,))
    return {
        SNAPSHOT_FILE: snapshot,
        TIMESTAMP_FILE: _signed(
            build_timestamp(snapshot, new.version, version=stamp, expires=moment(until)), (online,)
        ),
    }


def _signed(part: Root | Targets | Snapshot | Timestamp, keys: tuple[SigningKey, ...]) -> bytes:
    found = Metadata(part)
    for key in keys:
        found.sign(signer(key), append=True)
    return found.to_bytes()


def owners(*names: str) -> tuple[SigningKey, ...]:
    return tuple(owner(name) for name in names)


@pytest.fixture
def first() -> Files:
    return Federation().step()


@pytest.fixture
def known(first: Files) -> TrustedState:
    return load(trust(first), first, now=NOW)[1]


INVENTED = content(2, hubs=[*map(hub, HUBS), hub("sham1"), hub("sham2")])
"""The coordinator's dream: two hubs of its own, to outvote the honest ones."""


# --- who signed ------------------------------------------------------------------------------


def test_the_forge_itself_makes_sets_that_pass_when_enough_owners_sign(first: Files, known: TrustedState) -> None:
    good = forged(INVENTED, root=owners("chu", "irst"), before=first)
    assert load(known, good, now=NOW)[0].version == 2


@pytest.mark.parametrize(
    "keys",
    [
        (),
        owners("chu"),
        owners("chu", "chu"),
        owners("chu", "sham1"),
        owners("chu", "sham1", "sham2"),
        (owner("chu"), ONLINE),
        (ONLINE,),
        (signing("chu"), signing("huvh"), signing("irst")),
        owners("sham1", "sham2"),
    ],
    ids=["nobody", "one", "one twice", "one and a sham", "one and both shams", "one and the coordinator",
         "the coordinator", "service keys instead of owner keys", "only new owners"],
)  # fmt: skip
def test_a_roster_that_too_few_old_owners_signed_is_refused(
    first: Files, known: TrustedState, keys: tuple[SigningKey, ...]
) -> None:
    with pytest.raises(RosterUnsigned):
        load(known, forged(INVENTED, root=keys, before=first), now=NOW)


def test_a_roster_that_only_old_owners_signed_is_refused(first: Files, known: TrustedState) -> None:
    """Two owners are replaced: the new owners have to agree too, or the federation would be lost to dead keys."""
    new = content(2, hubs=[hub("chu"), hub("huvh", revoked=True), hub("irst", revoked=True), hub("sant")])
    with pytest.raises(RosterUnsigned, match="its own owners"):
        load(known, forged(new, root=owners("huvh", "irst"), before=first), now=NOW)
    both = forged(new, root=owners("chu", "huvh", "sant"), targets=owners("chu", "sant"), before=first)
    assert load(known, both, now=NOW)[0].version == 2


def test_the_coordinators_key_cannot_sign_the_roster_under_an_honest_root(first: Files) -> None:
    new = content(people=[person("mallory")])
    swapped = first | {ROSTER_FILE: write_content(new)}
    swapped[TARGETS_FILE] = _signed(
        build_targets(swapped[ROSTER_FILE], version=1, expires=moment(new.expires)), (ONLINE,)
    )
    swapped |= _online(swapped[TARGETS_FILE], new, ONLINE, 9, NOW + DAY)
    with pytest.raises(RosterUnsigned, match=r"targets\.json is not signed"):
        load(trust(first), swapped, now=NOW)


@pytest.mark.parametrize("keys", [(), owners("chu"), owners("sham1", "sham2"), (ONLINE,)])
def test_a_first_root_that_its_owners_did_not_sign_is_not_trusted_under_its_own_fingerprint(
    keys: tuple[SigningKey, ...],
) -> None:
    raw = forged(content(), root=keys)[root_file(1)]
    with pytest.raises(RosterUnsigned, match="not signed by 2"):
        first_trust(raw, root_fingerprint(raw))


def test_an_owner_who_signs_twice_is_counted_once() -> None:
    bundle = propose(content(), previous=None, now=NOW)
    for _ in range(3):
        bundle = sign(bundle, owner("chu"), now=NOW, trusted=None)
    assert standing(bundle).missing_new == 1
    with pytest.raises(RosterUnsigned):
        publish(bundle, ONLINE, previous=None, now=NOW)


def test_a_signature_repeated_in_the_file_is_malformed(first: Files, known: TrustedState) -> None:
    files = forged(INVENTED, root=owners("chu"), before=first)
    files[root_file(2)] = _edit(files[root_file(2)], lambda m: m["signatures"].append(m["signatures"][0]))
    with pytest.raises(Malformed):
        load(known, files, now=NOW)


def test_one_key_under_two_ids_does_not_make_two_owners() -> None:
    """TUF counts key ids; a root that lists one owner's key under two ids is refused before anything is counted."""

    def twice(metadata: dict) -> None:  # type: ignore[type-arg]
        signed = metadata["signed"]
        keyid = signed["roles"]["root"]["keyids"][0]
        signed["keys"]["00" * 32] = signed["keys"][keyid]
        for role in ("root", "targets"):
            signed["roles"][role]["keyids"] = [keyid, "00" * 32]

    bare = _edit(forged(content(), root=())[root_file(1)], twice)
    one = Metadata[Root].from_bytes(bare)
    raw = _sign_as(one, owner_of(one), ids=list(one.signed.roles["root"].keyids))
    one.signed.verify_delegate(
        "root", Metadata[Root].from_bytes(raw).signed_bytes, Metadata[Root].from_bytes(raw).signatures
    )
    with pytest.raises(Malformed, match="shape"):
        first_trust(raw, root_fingerprint(raw))


def owner_of(root: Metadata[Root]) -> SigningKey:
    public = root.signed.keys[root.signed.roles["root"].keyids[0]].keyval["public"]
    return next(owner(name) for name in HUBS if owner(name).public.hex() == public)


def _sign_as(metadata: Metadata[Root], key: SigningKey, ids: list[str]) -> bytes:
    for keyid in ids:
        metadata.signatures[keyid] = Signature(keyid, key.sign(metadata.signed_bytes).hex())
    return metadata.to_bytes()


def test_a_root_that_one_owner_could_change_is_refused_however_it_is_signed(
    first: Files, known: TrustedState
) -> None:
    weak = forged(content(2), root=owners(*HUBS), before=first, threshold=COLLUDING)
    with pytest.raises(RosterUnsigned, match="does not hold against 1 colluding"):
        load(known, weak, now=NOW)


def test_a_key_that_anybody_can_sign_for_is_not_enrolled() -> None:
    neutral = b"\x01" + bytes(31)
    verify(neutral, neutral + bytes(32), b"anything at all")  # the library alone takes it
    with pytest.raises(Malformed, match="anybody can sign"):
        write_content(content(hubs=[msgspec.structs.replace(hub("chu"), owner_key=neutral)], people=()))


def test_every_weak_agreement_key_is_refused_both_by_us_and_by_the_library() -> None:
    for number in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18,
                   325606250916557431795983626356110631294008115727848805560023387167927233504,
                   39382357235489614581723060781553021112529911719440698176882885853963445705823):  # fmt: skip
        weak = number.to_bytes(32, "little")
        with pytest.raises(Malformed):
            AgreementKey(b"k" * 32).agree(weak)
        with pytest.raises(Malformed, match="anybody can sign"):
            write_content(content(hubs=[msgspec.structs.replace(hub("chu"), sealing_key=weak)], people=()))


# --- freezing --------------------------------------------------------------------------------


def test_a_frozen_timestamp_is_refused_after_a_day_and_the_same_files_pass_before(
    first: Files, known: TrustedState
) -> None:
    load(known, first, now=NOW + DAY - 1)
    with pytest.raises(RosterExpired, match="ran out"):
        load(known, first, now=NOW + DAY)


def test_the_coordinator_cannot_confirm_for_longer_than_a_day(first: Files, known: TrustedState) -> None:
    new = content()
    for lives, passes in [
        (FRESHNESS_LIFETIME_S, True),
        (FRESHNESS_LIFETIME_S + MAX_CLOCK_SKEW_S + 1, False),
        (30 * DAY, False),
    ]:
        files = first | _online(first[TARGETS_FILE], new, ONLINE, 9, NOW + lives)
        if passes:
            load(trust(first), files, now=NOW)
            continue
        with pytest.raises(RosterUnsigned, match="one day at a time"):
            load(trust(first), files, now=NOW)


def test_a_stranger_cannot_confirm(first: Files) -> None:
    for key in (owner("chu"), signing("huvh"), signing("stranger")):
        stamp = _online(first[TARGETS_FILE], content(), key, 9, NOW + DAY)
        for part in (TIMESTAMP_FILE, SNAPSHOT_FILE):
            with pytest.raises(RosterUnsigned):
                load(trust(first), first | {part: stamp[part]}, now=NOW)


def test_an_expired_roster_is_refused_though_the_coordinator_confirms_it(first: Files, known: TrustedState) -> None:
    end = content().expires
    files = first | _online(first[TARGETS_FILE], content(), ONLINE, 9, end + 100)
    load(known, files, now=end - 1)
    with pytest.raises(RosterExpired, match="sign a new one"):
        load(known, files, now=end)


def test_under_an_expired_root_nothing_else_is_looked_at(first: Files, known: TrustedState) -> None:
    with pytest.raises(RosterExpired):
        load(known, {root_file(1): first[root_file(1)]}, now=content().expires)


# --- rolling back ----------------------------------------------------------------------------


def test_an_older_complete_set_is_refused() -> None:
    federation = Federation().steps(2)
    old, new = federation.past
    _, state = load(trust(old), new, now=NOW)
    with pytest.raises(RosterRolledBack):
        load(state, old, now=NOW)
    with pytest.raises(RosterRolledBack):
        load(state, refresh(old, ONLINE, now=NOW + 10), now=NOW + 10)


@pytest.mark.parametrize("part", [TARGETS_FILE, SNAPSHOT_FILE, ROSTER_FILE])
def test_an_older_part_under_a_fresh_word_is_refused(part: str) -> None:
    """The coordinator signs whatever it likes with its own key; the parts still have to be the newest known."""
    federation = Federation().steps(2)
    old, new = federation.past
    _, state = load(trust(old), new, now=NOW)
    mixed = new | {part: old[part]}
    if part == TARGETS_FILE:
        mixed |= _online(mixed[TARGETS_FILE], content(2), ONLINE, 9, NOW + DAY)
    if part == SNAPSHOT_FILE:
        mixed[TIMESTAMP_FILE] = _signed(
            build_timestamp(old[SNAPSHOT_FILE], 1, version=9, expires=moment(NOW + DAY)), (ONLINE,)
        )
    with pytest.raises((RosterRolledBack, Malformed)) as caught:
        load(state, mixed, now=NOW)
    assert part == ROSTER_FILE or caught.type is RosterRolledBack
    with pytest.raises((RosterRolledBack, Malformed)):
        load(trust(old), mixed, now=NOW)  # a newcomer is not fooled either


def test_an_older_word_is_refused(first: Files, known: TrustedState) -> None:
    later = refresh(first, ONLINE, now=NOW + 100)
    _, state = load(known, later, now=NOW + 100)
    with pytest.raises(RosterRolledBack):
        load(state, first, now=NOW + 100)


def test_a_set_without_the_root_that_is_known_is_refused() -> None:
    federation = Federation().steps(2)
    _, state = load(trust(federation.past[0]), federation.past[1], now=NOW)
    for missing in (root_file(1), root_file(2)):
        cut = {name: raw for name, raw in federation.past[1].items() if name != missing}
        if missing == root_file(2):
            with pytest.raises(RosterRolledBack, match="root version 2"):
                load(state, cut, now=NOW)
        else:
            load(state, cut, now=NOW)  # a hub that is up to date needs no history


def test_a_root_version_is_not_skipped(first: Files, known: TrustedState) -> None:
    skipping = forged(content(3), root=owners(*HUBS), before=first)
    with pytest.raises(Malformed, match="parts are missing"):
        load(known, skipping, now=NOW)
    renamed = {root_file(2) if name == root_file(3) else name: raw for name, raw in skipping.items()}
    with pytest.raises(Malformed, match="carries version 3"):
        load(known, renamed, now=NOW)


# --- two stories -----------------------------------------------------------------------------


def test_another_roster_under_the_same_version_is_refused_even_if_all_owners_sign_it(
    first: Files, known: TrustedState
) -> None:
    other = forged(content(1, people=[person("mallory")]), root=owners(*HUBS))
    load(trust(other), other, now=NOW)  # by itself it is a fine set
    with pytest.raises(RosterRolledBack, match="Two different files"):
        load(known, other | {root_file(1): first[root_file(1)]}, now=NOW)
    with pytest.raises(RosterRolledBack, match="Two different files"):
        load(known, forged(content(1, expires=NOW + 9 * DAY), root=owners(*HUBS)), now=NOW)


def test_another_word_under_the_same_version_is_refused(first: Files, known: TrustedState) -> None:
    again = first | _online(first[TARGETS_FILE], content(), ONLINE, 1, NOW + DAY - 5)
    with pytest.raises(RosterRolledBack, match="Two different files"):
        load(known, again, now=NOW)


def test_parts_of_two_sets_do_not_mix() -> None:
    """Two valid sets of the same two versions, signed by owners in two calls; every proper mixture is refused."""
    left, right = Federation(), Federation()
    left.step()
    right.files, right.past = left.files, list(left.past)
    one = left.step(content(2))
    two = right.step(content(2, codes=()), signers=("huvh", "irst"))
    parts = [name for name in one if one[name] != two[name]]
    assert len(parts) >= 4
    state = trust(left.past[0])
    for mask in range(1, 2 ** len(parts) - 1):
        mixed = one | {name: two[name] for i, name in enumerate(parts) if mask >> i & 1}
        if {name for name in parts if mixed[name] != one[name]} <= {root_file(2)}:
            continue  # the two roots differ in nothing but who signed; either belongs to both
        if {name for name in parts if mixed[name] != two[name]} <= {root_file(2)}:
            continue
        with pytest.raises((RosterError, Malformed)):
            load(state, mixed, now=NOW)


def test_the_roster_of_another_federation_is_not_taken_over(first: Files, known: TrustedState) -> None:
    other = forged(content(2, federation="other-net"), root=owners(*HUBS), before=first)
    with pytest.raises(Malformed, match="other-net"):
        load(known, other, now=NOW)


def test_a_roster_whose_owners_are_not_those_of_its_root_is_refused(first: Files, known: TrustedState) -> None:
    """Owners sign a root and, under it, a roster that names others: a hub would show people the wrong owners."""
    new, shown = content(2), content(2, hubs=[hub("chu"), hub("huvh"), hub("sham1")])
    files = forged(new, root=owners(*HUBS), before=first)
    files[ROSTER_FILE] = write_content(shown)
    files[TARGETS_FILE] = _signed(
        build_targets(files[ROSTER_FILE], version=2, expires=moment(new.expires)), owners(*HUBS)
    )
    files |= _online(files[TARGETS_FILE], new, ONLINE, 9, NOW + DAY)
    with pytest.raises(Malformed, match="other owners"):
        load(known, files, now=NOW)


# --- altered files ---------------------------------------------------------------------------

_CHAIN = Federation().steps(2).past[-1]
_START = trust(_CHAIN)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(_CHAIN)), st.integers(0, 2**20), st.integers(0, 7))
def test_no_bit_of_any_file_can_be_flipped(name: str, place: int, bit: int) -> None:
    """Signed by exactly the threshold, every bit counts."""
    raw = bytearray(_CHAIN[name])
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises((RosterError, BadMessageError)):
        load(_START, _CHAIN | {name: bytes(raw)}, now=NOW)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(_CHAIN)),
    st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace")),
)
def test_arbitrary_bytes_in_place_of_any_file_are_refused_in_words(name: str, raw: bytes) -> None:
    with pytest.raises((RosterError, BadMessageError)):
        load(_START, _CHAIN | {name: raw}, now=NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([n for n in sorted(_CHAIN) if n != ROSTER_FILE]), st.data())
def test_no_value_in_the_metadata_can_be_replaced(name: str, data: st.DataObject) -> None:
    """Structure-aware: any one value anywhere becomes any other JSON; only refusals of ours come out."""
    tree = json.loads(_CHAIN[name])
    node, key = data.draw(st.sampled_from(list(_places(tree))))
    value = data.draw(_JSON)
    if node[key] == value and type(node[key]) is type(value):
        return
    node[key] = value
    raw = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises((RosterError, BadMessageError)):
        load(_START, _CHAIN | {name: raw}, now=NOW)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([n for n in sorted(_CHAIN) if n not in (ROSTER_FILE, root_file(1))]), st.data())
def test_a_changed_value_under_a_good_signature_is_refused_in_words(name: str, data: st.DataObject) -> None:
    """The same, signed anew by whoever may sign that file: the shape, or the other files, still give it away."""
    tree = json.loads(_CHAIN[name])
    node, key = data.draw(st.sampled_from(list(_places(tree["signed"]))))
    value = data.draw(_JSON)
    if node[key] == value:
        return
    node[key] = value
    try:
        payload = encode_canonical(tree["signed"]).encode()
    except (FormatError, UnicodeEncodeError):
        payload = b""
    keys = (ONLINE,) if name in (SNAPSHOT_FILE, TIMESTAMP_FILE) else owners("chu", "huvh")
    tree["signatures"] = [{"keyid": tuf_key(k.public).keyid, "sig": k.sign(payload).hex()} for k in keys]
    raw = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
    with contextlib.suppress(RosterError, BadMessageError):
        load(_START, _CHAIN | {name: raw}, now=NOW)
        assert name == TIMESTAMP_FILE
        assert key in ("version", "expires", "spec_version")  # its own to say, within bounds


def _places(tree):  # type: ignore[no-untyped-def]
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


@pytest.mark.parametrize("name", sorted(_CHAIN))
def test_a_missing_or_huge_file_is_refused(name: str) -> None:
    if name != root_file(2):
        with pytest.raises((RosterError, Malformed)):
            load(_START, {n: raw for n, raw in _CHAIN.items() if n != name}, now=NOW)
    with pytest.raises(TooLarge):
        load(_START, _CHAIN | {name: _CHAIN[name] + b" " * 2**20}, now=NOW)


def test_deep_nesting_is_malformed(first: Files) -> None:
    with pytest.raises(Malformed):
        load(trust(first), first | {TIMESTAMP_FILE: b"[" * 100_000 + b"]" * 100_000}, now=NOW)


def test_unsigned_extra_fields_are_refused(first: Files) -> None:
    def extra(metadata: dict) -> None:  # type: ignore[type-arg]
        metadata["note"] = "trust me"

    for name in (root_file(1), TARGETS_FILE, SNAPSHOT_FILE, TIMESTAMP_FILE):
        with pytest.raises(Malformed):
            load(trust(first), first | {name: _edit(first[name], extra)}, now=NOW)


def test_a_delegation_to_the_coordinator_is_refused_even_if_owners_signed_it(
    first: Files, known: TrustedState
) -> None:
    new = content(2)
    files = forged(new, root=owners(*HUBS), before=first)
    online = Metadata[Root].from_bytes(files[root_file(2)]).signed.roles["timestamp"].keyids[0]
    keys = json.loads(files[root_file(2)])["signed"]["keys"]

    def delegate(metadata: dict) -> None:  # type: ignore[type-arg]
        role = {"name": "more", "keyids": [online], "threshold": 1, "terminating": False, "paths": ["*"]}
        metadata["signed"]["delegations"] = {"keys": {online: keys[online]}, "roles": [role]}
        metadata["signatures"] = []

    bare = Metadata[Targets].from_bytes(_edit(files[TARGETS_FILE], delegate))
    files[TARGETS_FILE] = _signed(bare.signed, owners(*HUBS))
    files |= _online(files[TARGETS_FILE], new, ONLINE, 9, NOW + DAY)
    with pytest.raises(Malformed, match=r"targets\.json"):
        load(known, files, now=NOW)


def test_a_damaged_state_is_said_to_be_damaged(known: TrustedState) -> None:
    raw = known.to_bytes()
    with pytest.raises(Malformed, match="stored trust"):
        TrustedState.from_bytes(raw[:-1])
    with pytest.raises(Malformed):
        load(TrustedState(b"{}"), _CHAIN, now=NOW)


def _edit(raw: bytes, change: Callable[[dict], None]) -> bytes:  # type: ignore[type-arg]
    tree = json.loads(raw)
    change(tree)
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


# --- what a roster is for --------------------------------------------------------------------


class _Ping(msgspec.Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    number: int


def test_a_revoked_hub_is_not_heard_and_gets_no_sealed_message() -> None:
    federation = Federation()
    before, state = load(trust(federation.step()), federation.past[0], now=NOW)
    revoked = content(2, hubs=[hub("chu"), hub("huvh"), hub("irst", revoked=True)])
    after, _ = load(state, federation.step(revoked), now=NOW)

    def call(version: int) -> bytes:
        return write_envelope(
            _Ping(1),
            key=signing("irst"),
            sender="irst",
            recipient="chu",
            roster_version=version,
            now=NOW,
            rand=bytes(16),
        )

    open_envelope(call(1), me="chu", roster=before, accepts=bodies(_Ping), now=NOW)
    with pytest.raises(NotInRoster, match="revoked"):
        open_envelope(call(2), me="chu", roster=after, accepts=bodies(_Ping), now=NOW)
    with pytest.raises(NotInRoster, match="revoked"):
        after.sealing_key("irst")


def test_a_revoked_owners_signature_counts_no_more() -> None:
    federation = Federation()
    federation.step()
    gone = [hub("chu"), hub("huvh"), hub("irst", revoked=True)]
    two = federation.step(content(2, hubs=gone))
    _, state = load(trust(two, 2), two, now=NOW)
    with pytest.raises(RosterUnsigned):
        load(state, forged(content(3, hubs=gone, codes=()), root=owners("chu", "irst"), before=two), now=NOW)


# --- attacks on those who sign ---------------------------------------------------------------


def test_a_bundle_whose_parts_do_not_belong_together_is_not_signed() -> None:
    """What owners read is the roster; what they sign is root and targets. A bundle where they differ is refused."""
    shown = propose(content(), previous=None, now=NOW)
    meant = propose(content(people=[person("mallory")]), previous=None, now=NOW)
    other = propose(content(coordinator=coordinator("boss")), previous=None, now=NOW)
    for trick in (
        msgspec.structs.replace(meant, roster=shown.roster),
        msgspec.structs.replace(shown, targets=meant.targets),
        msgspec.structs.replace(shown, root=other.root),
        msgspec.structs.replace(shown, previous_root=shown.root),
        msgspec.structs.replace(shown, previous_root=shown.root, previous_roster=shown.roster),
    ):
        with pytest.raises(Malformed):
            sign(trick, owner("chu"), now=NOW, trusted=None)
        with pytest.raises(Malformed):
            Bundle.from_bytes(trick.to_bytes())


def test_a_forged_signature_in_a_bundle_is_not_counted() -> None:
    bundle = sign(propose(content(), previous=None, now=NOW), owner("chu"), now=NOW, trusted=None)

    def borrow(metadata: dict) -> None:  # type: ignore[type-arg]
        mine = metadata["signatures"][0]
        for keyid in metadata["signed"]["roles"]["root"]["keyids"]:
            if keyid != mine["keyid"]:
                metadata["signatures"].append({"keyid": keyid, "sig": mine["sig"]})

    trick = msgspec.structs.replace(bundle, root=_edit(bundle.root, borrow))
    assert standing(trick).signed == ("chu",)
    with pytest.raises(RosterUnsigned):
        publish(trick, ONLINE, previous=None, now=NOW)


def test_learning_roots_takes_the_same_care_as_loading(first: Files, known: TrustedState) -> None:
    made = forged(INVENTED, root=owners("chu", "sham1", "sham2"), before=first)
    with pytest.raises(RosterUnsigned, match="the owners of the roster before it"):
        learn_roots(known, made)
