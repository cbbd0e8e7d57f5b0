"""The roster: what owners sign, who may sign it, how it is published and loaded. Also: a federation to build on."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from flute.defaults import FRESHNESS_LIFETIME_S, MAX_CLOCK_SKEW_S, MAX_HUBS, ROSTER_LIFETIME_DAYS
from flute.errors import (
    CodeNotApproved,
    Malformed,
    MisuseError,
    NotAllowed,
    NotInRoster,
    RosterExpired,
    RosterRolledBack,
    RosterUnsigned,
)
from flute.messages.envelope import Roster as EnvelopeRoster
from flute.primitives.keys import AgreementKey, SigningKey, fingerprint
from flute.trust.changes import changes
from flute.trust.publishing import publish, refresh
from flute.trust.roster import (
    ApprovedCode,
    Coordinator,
    Hub,
    Person,
    Role,
    Roster,
    RosterContent,
    arranged,
    content_digest,
    read_content,
    taken_keys,
    taken_names,
    write_content,
)
from flute.trust.signing import Bundle, merge, propose, sign, standing
from flute.trust.tuf_files import ROSTER_FILE, TIMESTAMP_FILE, default_threshold, root_file
from flute.trust.verification import TrustedState, first_trust, learn_roots, load, root_fingerprint

NOW = 1_800_000_000
DAY = 24 * 3600
HUBS = ("chu", "huvh", "irst")


def signing(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"s")[:32])


def owner(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"o")[:32])


def sealing(name: str) -> AgreementKey:
    return AgreementKey(name.encode().ljust(32, b"x")[:32])


def hub(name: str, *, revoked: bool = False) -> Hub:
    return Hub(name, signing(name).public, sealing(name).public, owner(name).public, f"{name}.example", revoked)


def person(name: str, role: Role = Role.RESEARCHER, home: str = "", *, revoked: bool = False) -> Person:
    return Person(name, signing(name).public, role, home, revoked)


def coordinator(name: str = "coordinator") -> Coordinator:
    return Coordinator(name, signing(name).public, sealing(name).public)


def content(
    version: int = 1,
    hubs: Iterable[Hub] = tuple(map(hub, HUBS)),
    people: Iterable[Person] = (person("ada"), person("sten", Role.STEWARD, "chu")),
    **other: object,
) -> RosterContent:
    fields: dict[str, object] = {
        "federation": "cancer-net",
        "expires": NOW + 200 * DAY,
        "coordinator": coordinator(),
        "codes": (ApprovedCode("logistic", bytes(31) + b"\x01"),),
    }
    fields |= other
    return arranged(RosterContent(version=version, hubs=tuple(hubs), people=tuple(people), **fields))  # type: ignore[arg-type]


@dataclass
class Federation:
    """Three hubs whose owners keep signing rosters; `files` is what the coordinator gives out now."""

    files: dict[str, bytes] | None = None
    past: list[dict[str, bytes]] = field(default_factory=list)

    def step(
        self,
        new: RosterContent | None = None,
        signers: Iterable[str] = ("chu", "huvh"),
        *,
        now: int = NOW,
        online: str = "coordinator",
        threshold: int | None = None,
    ) -> dict[str, bytes]:
        new = new or content(len(self.past) + 1)
        bundle = propose(new, previous=self.files, now=now, threshold=threshold)
        for name in signers:
            bundle = sign(bundle, owner(name), now=now, trusted=None)
        self.files = publish(bundle, signing(online), previous=self.files, now=now)
        self.past.append(self.files)
        return self.files

    def steps(self, count: int) -> Federation:
        for _ in range(count):
            self.step()
        return self


def trust(files: dict[str, bytes], version: int = 1) -> TrustedState:
    raw = files[root_file(version)]
    return first_trust(raw, root_fingerprint(raw))


def roster_of(new: RosterContent) -> Roster:
    return Roster(new, 2, NOW + DAY)


# --- content ---------------------------------------------------------------------------------


def test_a_roster_that_is_written_reads_back_the_same() -> None:
    assert read_content(write_content(content())) == content()


def test_the_digest_changes_with_any_field() -> None:
    other = [
        content(2),
        content(federation="other-net"),
        content(expires=NOW),
        content(people=()),
        content(codes=()),
        content(coordinator=coordinator("boss")),
    ]
    assert len({content_digest(c) for c in [content(), *other]}) == 7
    assert len(content_digest(content())) == 32


def test_a_key_that_stands_twice_is_refused_wherever_it_stands() -> None:
    chu = hub("chu")
    doubles = [
        content(hubs=[chu, msgspec.structs.replace(hub("huvh"), signing_key=chu.signing_key), hub("irst")]),
        content(hubs=[msgspec.structs.replace(chu, owner_key=chu.signing_key), hub("huvh"), hub("irst")]),
        content(people=[msgspec.structs.replace(person("ada"), signing_key=chu.owner_key)]),
        content(people=[msgspec.structs.replace(person("ada"), signing_key=signing("coordinator").public)]),
        content(hubs=[chu, msgspec.structs.replace(hub("huvh"), sealing_key=sealing("coordinator").public)]),
        content(people=[msgspec.structs.replace(person("ada"), signing_key=signing("sten").public), person("sten")]),
        content(
            hubs=[hub("chu", revoked=True), msgspec.structs.replace(hub("huvh"), owner_key=chu.owner_key)], people=()
        ),
    ]
    for double in doubles:
        with pytest.raises(Malformed, match="stands twice"):
            write_content(double)


def test_an_id_names_one_party_only() -> None:
    with pytest.raises(Malformed, match="two parties"):
        write_content(content(people=[person("chu")]))
    with pytest.raises(Malformed, match="stands twice"):
        write_content(content(hubs=[hub("chu"), hub("chu")]))


def test_names_that_would_be_mistaken_on_the_wire_are_refused() -> None:
    for name in ("server", "SERVER"):
        with pytest.raises(Malformed, match="coordinator on the wire"):
            write_content(content(hubs=[msgspec.structs.replace(hub("chu"), tls_common_name=name)]))
    with pytest.raises(Malformed, match="TLS name"):
        write_content(
            content(hubs=[hub("chu"), msgspec.structs.replace(hub("huvh"), tls_common_name="CHU.example")], people=())
        )
    for spoiled in (
        content(hubs=[msgspec.structs.replace(hub("chu"), id="chu\n")], people=()),
        content(people=[msgspec.structs.replace(person("ada"), id="ada\n")]),
        content(hubs=[msgspec.structs.replace(hub("chu"), tls_common_name="chu.example\n")], people=()),
    ):
        with pytest.raises(Malformed):
            write_content(spoiled)


def test_a_person_is_at_home_at_a_hub_of_the_roster() -> None:
    with pytest.raises(Malformed, match="not a hub of this roster"):
        write_content(content(people=[person("ada", home="nowhere")]))


def test_a_roster_out_of_order_or_not_canonical_is_refused() -> None:
    backwards = msgspec.structs.replace(content(), hubs=content().hubs[::-1])
    with pytest.raises(Malformed, match="order"):
        write_content(backwards)
    with pytest.raises(Malformed, match="canonical"):
        read_content(msgspec.json.format(write_content(content())))


def test_too_many_active_hubs_are_refused_and_revoked_ones_do_not_count() -> None:
    many = [hub(f"h{i:03}") for i in range(MAX_HUBS + 1)]
    with pytest.raises(Malformed, match=f"{MAX_HUBS + 1} active hubs"):
        write_content(content(hubs=many, people=()))
    write_content(content(hubs=[hub("h000", revoked=True), *many[1:]], people=()))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_bit_flip_in_the_roster_is_refused_or_says_something_else(place: int, bit: int) -> None:
    raw = bytearray(write_content(content()))
    raw[place % len(raw)] ^= 1 << bit
    with contextlib.suppress(Malformed):
        assert read_content(bytes(raw)) != content()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read_content(raw)


# --- asking a roster -------------------------------------------------------------------------


def test_a_roster_serves_envelopes() -> None:
    served: EnvelopeRoster = roster_of(content())
    assert served.version == 1
    assert served.signing_key("chu") == signing("chu").public
    assert served.sealing_key("coordinator") == sealing("coordinator").public
    assert served.signing_key("ada") == signing("ada").public


def test_unknown_and_revoked_parties_have_no_keys() -> None:
    roster = roster_of(content(hubs=[hub("chu", revoked=True), hub("huvh"), hub("irst")]))
    for ask in (roster.signing_key, roster.sealing_key, roster.hub):
        with pytest.raises(NotInRoster, match="revoked by hub owners"):
            ask("chu")
        with pytest.raises(NotInRoster, match="not in roster version 1"):
            ask("stranger")
    with pytest.raises(NotInRoster, match="no sealing key"):
        roster.sealing_key("ada")
    assert [h.id for h in roster.hubs()] == ["huvh", "irst"]
    assert [name for name, _ in roster.owners] == ["huvh", "irst"]


def test_roles_are_required_by_name() -> None:
    roster = roster_of(content(people=[person("ada"), person("sten", Role.STEWARD), person("old", revoked=True)]))
    assert roster.require_role("sten", Role.STEWARD, Role.ADMINISTRATOR).id == "sten"
    with pytest.raises(NotAllowed, match="ada is a researcher; this needs a steward or administrator"):
        roster.require_role("ada", Role.STEWARD, Role.ADMINISTRATOR)
    for stranger in ("chu", "coordinator", "nobody", "old"):
        with pytest.raises(NotInRoster):
            roster.require_role(stranger, Role.RESEARCHER)


def test_only_listed_code_is_approved() -> None:
    assert roster_of(content()).approved("logistic") == bytes(31) + b"\x01"
    with pytest.raises(CodeNotApproved, match="'survival' is not approved"):
        roster_of(content()).approved("survival")


def test_a_roster_explains_itself_with_fingerprints_and_says_who_is_revoked() -> None:
    text = roster_of(content(hubs=[hub("chu", revoked=True), hub("huvh"), hub("irst")])).explain()
    for name in ("huvh", "irst", "coordinator", "ada"):
        assert fingerprint(signing(name).public) in text
    assert fingerprint(owner("huvh").public) in text
    assert "Hub chu (revoked)" in text
    assert "needs 2 of 2 hub owners" in text


def test_a_roster_in_memory_ends_a_day_after_the_last_confirmation() -> None:
    roster = roster_of(content())
    roster.require_current(NOW + DAY - 1)
    with pytest.raises(RosterExpired, match="Nobody has confirmed"):
        roster.require_current(NOW + DAY)
    with pytest.raises(RosterExpired, match="has expired"):
        Roster(content(), 2, NOW + 300 * DAY).require_current(NOW + 200 * DAY)


def test_names_and_keys_of_revoked_parties_stay_taken() -> None:
    roster = content(hubs=[hub("chu", revoked=True), hub("huvh"), hub("irst")])
    assert {"chu", "chu.example", "ada", "coordinator"} <= taken_names(roster)
    assert {owner("chu").public, sealing("chu").public, signing("ada").public} <= taken_keys(roster)


# --- proposing and signing -------------------------------------------------------------------


def test_the_default_threshold_is_a_majority_and_more_than_the_colluders() -> None:
    assert [default_threshold(n, colluding=1) for n in (2, 3, 4, 5, 30)] == [2, 2, 3, 3, 16]
    assert default_threshold(3, colluding=2) == 3


@pytest.mark.parametrize(("threshold", "colluding"), [(1, 0), (1, 1), (2, 2), (4, 1), (0, 0)])
def test_a_threshold_that_does_not_hold_is_not_proposed(threshold: int, colluding: int) -> None:
    with pytest.raises(RosterUnsigned):
        propose(content(), previous=None, threshold=threshold, colluding=colluding, now=NOW)


def test_a_roster_that_lives_too_long_or_has_ended_is_not_proposed() -> None:
    for expires in (NOW, NOW - 1, NOW + ROSTER_LIFETIME_DAYS * DAY + MAX_CLOCK_SKEW_S + 1):
        with pytest.raises(MisuseError):
            propose(content(expires=expires), previous=None, now=NOW)


def test_owners_sign_side_by_side_and_the_copies_are_merged() -> None:
    bundle = propose(content(), previous=None, now=NOW)
    assert standing(bundle).missing_new == 2
    one = sign(bundle, owner("chu"), now=NOW, trusted=None)
    two = sign(bundle, owner("irst"), now=NOW, trusted=None)
    assert standing(one).signed == ("chu",)
    assert not standing(one).complete
    assert "Missing: 1" in standing(one).explain()
    both = Bundle.from_bytes(merge(one, two).to_bytes())
    assert standing(both).signed == ("chu", "irst")
    assert standing(both).complete
    roster, _ = load(*_published(both), now=NOW)
    assert roster.content == content()


def _published(bundle: Bundle) -> tuple[TrustedState, dict[str, bytes]]:
    files = publish(bundle, signing("coordinator"), previous=None, now=NOW)
    return trust(files), files


def test_two_different_proposals_are_not_merged() -> None:
    one = propose(content(), previous=None, now=NOW)
    for other in (
        propose(content(people=()), previous=None, now=NOW),
        propose(content(), previous=None, now=NOW, threshold=3),
    ):
        with pytest.raises(Malformed, match="two different proposals"):
            merge(one, other)


def test_a_stranger_cannot_sign() -> None:
    bundle = propose(content(), previous=None, now=NOW)
    for stranger in (owner("stranger"), signing("chu"), signing("coordinator")):
        with pytest.raises(MisuseError, match="no owner"):
            sign(bundle, stranger, now=NOW, trusted=None)


def test_an_owner_does_not_sign_what_does_not_follow_the_roster_it_knows() -> None:
    federation = Federation().steps(2)
    known = load(trust(federation.past[1], 2), federation.past[1], now=NOW)[1]
    behind = propose(content(2, codes=()), previous=federation.past[0], now=NOW)
    anew = propose(content(1, codes=()), previous=None, now=NOW)
    for bundle in (behind, anew):
        with pytest.raises(RosterRolledBack, match="does not follow"):
            sign(bundle, owner("chu"), now=NOW, trusted=known)
    follows = propose(content(3), previous=federation.past[1], now=NOW)
    assert standing(sign(follows, owner("chu"), now=NOW, trusted=known)).signed == ("chu",)


def test_a_roster_follows_the_one_before_it() -> None:
    federation = Federation()
    federation.step(content(1, people=[person("ada"), person("eve", revoked=True)]))
    for new, why in [
        (content(3, people=[person("ada"), person("eve", revoked=True)]), "must be version 2"),
        (content(2, federation="other", people=[person("ada"), person("eve", revoked=True)]), "same federation"),
        (content(2, people=[person("ada"), person("eve")]), "revoked key"),
        (content(2, people=[person("eve", revoked=True)]), "must stay listed"),
        (
            content(
                2,
                people=[
                    person("ada"),
                    person("eve", revoked=True),
                    msgspec.structs.replace(person("eva"), signing_key=signing("eve").public),
                ],
            ),
            "stands twice",
        ),
    ]:
        with pytest.raises(Malformed, match=why):
            propose(new, previous=federation.files, now=NOW)


def test_changes_are_said_in_sentences() -> None:
    before = content()
    rekeyed = msgspec.structs.replace(hub("irst"), signing_key=signing("irst-2").public)
    after = content(
        2,
        hubs=[hub("chu", revoked=True), hub("huvh"), rekeyed, hub("sant")],
        people=[person("ada", Role.STEWARD)],
        codes=(),
    )
    said = "\n".join(changes(before, after))
    assert "Revoked: Hub chu" in said
    assert "NEW KEYS" in said
    assert fingerprint(signing("irst-2").public) in said
    assert "New: Hub sant" in said
    assert "Changed: Person ada, steward" in said
    assert "Gone: Person sten" in said
    assert "logistic will no longer be approved" in said
    assert "huvh" not in said
    assert len(changes(None, before)) == 1 + 1 + 3 + 2 + 1
    assert changes(before, before) == ()


# --- publishing and loading ------------------------------------------------------------------


def test_a_hub_follows_every_change_of_owners() -> None:
    federation = Federation()
    federation.step()
    state = trust(federation.past[0])
    federation.step(content(2, hubs=[*map(hub, HUBS), hub("sant")]), signers=("chu", "huvh", "sant"))
    federation.step(
        content(3, hubs=[hub("chu", revoked=True), hub("huvh"), hub("irst"), hub("sant")]),
        signers=("huvh", "irst", "sant"),
    )
    roster, state = load(
        state,
        federation.step(
            content(4, hubs=[hub("chu", revoked=True), hub("huvh"), hub("irst"), hub("sant")]),
            signers=("irst", "sant"),
        ),
        now=NOW,
    )
    assert roster.version == 4
    assert [h.id for h in roster.hubs()] == ["huvh", "irst", "sant"]
    assert roster.threshold == 2


def test_a_stored_state_loads_again_without_the_coordinator() -> None:
    federation = Federation().steps(2)
    _, state = load(trust(federation.past[1], 1), federation.past[1], now=NOW)
    again = TrustedState.from_bytes(state.to_bytes())
    roster, same = load(again, again.files(), now=NOW + DAY - 1)
    assert (roster.version, same) == (2, state)
    with pytest.raises(RosterExpired):
        load(again, again.files(), now=NOW + DAY)


def test_refreshing_renews_the_word_for_a_day_and_nothing_else() -> None:
    files = Federation().step()
    _, state = load(trust(files), files, now=NOW)
    fresh = refresh(files, signing("coordinator"), now=NOW + DAY)
    assert {name for name in files if files[name] != fresh[name]} == {TIMESTAMP_FILE}
    roster, _ = load(state, fresh, now=NOW + DAY)
    assert roster.fresh_until == NOW + DAY + FRESHNESS_LIFETIME_S


def test_the_last_word_does_not_outlive_the_roster() -> None:
    files = Federation().step(content(expires=NOW + DAY + 10))
    late = refresh(files, signing("coordinator"), now=NOW + DAY)
    assert load(trust(late), late, now=NOW + DAY)[0].fresh_until == NOW + DAY + 10
    with pytest.raises(RosterExpired, match="sign a new one"):
        refresh(files, signing("coordinator"), now=NOW + DAY + 10)


def test_only_the_named_coordinator_publishes_and_refreshes() -> None:
    files = Federation().step()
    with pytest.raises(MisuseError, match="not the key of the coordinator"):
        refresh(files, signing("chu"), now=NOW)
    with pytest.raises(MisuseError, match="not the key of the coordinator"):
        Federation().step(online="chu")


def test_a_new_coordinator_key_is_followed_and_the_old_ones_versions_count_no_more() -> None:
    federation = Federation()
    files = federation.step()
    for i in range(5):
        files = refresh(files, signing("coordinator"), now=NOW + i)
    _, state = load(trust(files), files, now=NOW + 5)
    moved = federation.step(content(2, coordinator=coordinator("boss")), online="boss")
    roster, _ = load(state, moved, now=NOW + 5)
    assert roster.content.coordinator.id == "boss"


def test_owners_alone_can_tell_a_hub_that_there_is_a_newer_roster() -> None:
    """A frozen coordinator keeps confirming version 1; the signed bundle, mailed by an owner, ends that."""
    federation = Federation()
    old = federation.step()
    _, state = load(trust(old), old, now=NOW)
    new = propose(content(2, hubs=[hub("chu"), hub("huvh"), hub("irst", revoked=True)]), previous=old, now=NOW)
    for name in ("chu", "huvh"):
        new = sign(new, owner(name), now=NOW, trusted=state)
    state = learn_roots(state, {root_file(1): old[root_file(1)], root_file(2): new.root})
    with pytest.raises(RosterRolledBack):
        load(state, refresh(old, signing("coordinator"), now=NOW + DAY), now=NOW + DAY)


def test_first_trust_takes_the_fingerprint_in_any_spacing_and_refuses_another() -> None:
    files = Federation().step()
    raw = files[root_file(1)]
    said = root_fingerprint(raw)
    assert len(said.split()) == 8
    assert first_trust(raw, said.lower().replace(" ", "  ")).root == raw
    with pytest.raises(RosterUnsigned, match="not the one that was given"):
        first_trust(raw, "AAAA " + said[5:])
    with pytest.raises(RosterUnsigned):
        first_trust(raw, "")


def test_a_hub_with_a_stricter_bound_refuses_a_root_that_few_can_change() -> None:
    files = Federation().step()
    with pytest.raises(RosterUnsigned, match="2 colluding"):
        load(trust(files), files, now=NOW, colluding=2)


class _Shelf(FetcherInterface):
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str):  # type: ignore[no-untyped-def]
        name = url.rsplit("/", 1)[1]
        if name not in self.files:
            raise DownloadHTTPError("none", 404)
        return iter([self.files[name]])


def test_a_stock_tuf_client_accepts_the_same_sets(tmp_path: Path) -> None:
    """python-tuf's own client, on its own clock, follows the chain and verifies the roster as its target."""
    now = int(dt.datetime.now(dt.UTC).timestamp())
    federation = Federation()
    for version in (1, 2, 3):
        federation.step(content(version, expires=now + 30 * DAY), now=now)
    files = federation.past[-1]
    client = Updater(
        str(tmp_path), "http://x/", str(tmp_path), "http://x/", _Shelf(files), bootstrap=files[root_file(1)]
    )
    client.refresh()
    target = client.get_targetinfo(ROSTER_FILE)
    assert target is not None
    assert Path(client.download_target(target)).read_bytes() == files[ROSTER_FILE]
