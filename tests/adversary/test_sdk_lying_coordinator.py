"""A coordinator lies to a researcher's notebook: about charges, decisions, agreements, the catalogue, who is in.

Each lie is told beside the truth that it starts from, which is believed; and one lie wins: at first sight, where no
hub owner read out a fingerprint, an invented federation cannot be told from a real one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.catalogue.listing import Listing, SignedListing, sign_listing
from flute.errors import BadSignature, Equivocation, FluteError, NotInRoster, RosterError, RosterUnsigned
from flute.messages.accounts import AccountsCall, AccountsTold, PersonsTold, Spent, StudyTold, sign_told
from flute.sdk.places import connected
from flute.sdk.places.connected import ConnectedPlace
from flute.study.agreement import Agreement, agreement_digest, sign_agreement, write_agreement
from flute.trust.keyfiles import make_person_key
from flute.trust.verification import root_fingerprint
from support.catalogue_entries import entry
from support.parties import Party
from support.studies import study
from unit.test_trust_roster import HUBS, NOW, Federation, content, signing

NOTHING = Spent(0, 0, 0, False)
TEN = Spent(0, 10**12, 0, False)
ADA = b"ada".ljust(32, b"s")


def agreed() -> Agreement:
    conditions = dict.fromkeys(HUBS, next(iter(study().conditions.values())))
    return msgspec.structs.replace(study(), hubs=HUBS, conditions=conditions, study="trial-1")


def honest(call: AccountsCall, hub: str, agreement: Agreement) -> AccountsTold:
    """What a hub that charged rho 1 says."""
    digest = agreement_digest(write_agreement(agreement))
    one = StudyTold("trial-1", digest, "granted", NOW, False, "records", TEN)
    persons = PersonsTold("records", TEN, 5 * 10**12, 0)
    return sign_told(AccountsTold(hub, call.nonce, NOW, 7, (one,), (persons,), TEN, bytes(64)), signing(hub))


@dataclass
class Liar:
    """A coordinator that may change whatever it hands out."""

    files: dict[str, bytes]
    agreement: Agreement = field(default_factory=agreed)
    lie: Callable[[list[AccountsTold]], list[AccountsTold]] = list
    shown: list[SignedListing] = field(default_factory=list)
    signed: Callable[[bytes], tuple[bytes, bytes]] | None = None

    def get(self, path: str) -> Any:
        raw = write_agreement(self.agreement)
        signature = sign_agreement(raw, signing("ada"))
        match path:
            case "/roster":
                return {name: base64.b64encode(file).decode() for name, file in self.files.items()}
            case "/studies":
                return [{"study": "trial-1"}]
            case "/catalogue":
                return msgspec.to_builtins(self.shown)
            case _:
                raw, signature = self.signed(raw) if self.signed else (raw, signature)
                return {
                    "agreement": base64.b64encode(raw).decode(),
                    "signature": base64.b64encode(signature).decode(),
                }

    def post(self, path: str, call: Any) -> Any:
        assert path == "/accounts"
        return msgspec.to_builtins({"told": self.lie([honest(call, hub, self.agreement) for hub in HUBS])})

    def propose(self, agreement: Agreement) -> None:
        self.agreement = agreement

    def close(self) -> None:
        pass


Opens = Callable[..., ConnectedPlace]


@pytest.fixture
def opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opens:
    """A notebook's end of the line to a given coordinator."""
    make_person_key(tmp_path / "ada", "ada", rand=ADA)
    monkeypatch.setattr(connected, "_now", lambda: NOW)
    monkeypatch.setattr(connected, "_health", lambda _: {"federation": "cancer-net", "connected": list(HUBS)})

    def open_(liar: Liar, root: str | None = None) -> ConnectedPlace:
        monkeypatch.setattr(connected, "CoordinatorClient", lambda *_: liar)
        place = ConnectedPlace("http://nowhere", tmp_path / "ada", root=root)
        place.propose(agreed())
        return place

    return open_


@pytest.fixture
def files() -> dict[str, bytes]:
    return Federation().step()


def accounts(place: ConnectedPlace) -> dict[str, Any]:
    return {account.hub: account for account in place.accounts(("trial-1",), "records")}


# --- charges and decisions ---------------------------------------------------------------------------


@pytest.mark.requirement("F-PIL-17")
def test_what_hubs_signed_is_believed(opens: Opens, files: dict[str, bytes]) -> None:
    found = accounts(opens(Liar(files)))
    assert set(found) == set(HUBS)
    for account in found.values():
        assert account.told
        assert account.runs["trial-1"]["rho"] == account.own["rho"] == 1.0
        assert account.dataset["rho_left"] == 5.0


def _cheaper(said: list[AccountsTold]) -> list[AccountsTold]:
    first = msgspec.structs.replace(said[0], own=NOTHING, persons=(PersonsTold("records", NOTHING, 10**13, 0),))
    return [first, *said[1:]]


def _consented(said: list[AccountsTold]) -> list[AccountsTold]:
    one = msgspec.structs.replace(said[0].studies[0], decision="denied")
    return [msgspec.structs.replace(said[0], studies=(one,)), *said[1:]]


LIES: dict[str, tuple[Callable[[list[AccountsTold]], list[AccountsTold]], type[FluteError]]] = {
    "a_smaller_charge": (_cheaper, BadSignature),
    "another_decision": (_consented, BadSignature),
    "its_own_signature": (lambda said: [sign_told(said[0], signing("coordinator"))], BadSignature),
    "one_hub_s_answer_as_another_s": (lambda s: [msgspec.structs.replace(s[0], hub="irst")], BadSignature),
    "a_hub_that_nobody_knows": (
        lambda s: [sign_told(msgspec.structs.replace(s[0], hub="fata"), signing("fata"))], NotInRoster,
    ),
    "an_answer_to_an_earlier_question": (
        lambda s: [sign_told(msgspec.structs.replace(s[0], nonce=bytes(16)), signing(s[0].hub))], Equivocation,
    ),
    "one_answer_twice": (lambda said: [said[0], said[0]], Equivocation),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=LIES.keys())
def test_what_hubs_did_not_sign_now_is_not_shown(opens: Opens, files: dict[str, bytes], lie: str) -> None:
    told, error = LIES[lie]
    with pytest.raises(error):
        accounts(opens(Liar(files, lie=told)))


def test_an_answer_that_is_swallowed_is_said_to_be_missing(opens: Opens, files: dict[str, bytes]) -> None:
    found = accounts(opens(Liar(files, lie=lambda said: said[1:])))
    told = {hub: account.told for hub, account in found.items()}
    assert told == {"chu": False, "huvh": True, "irst": True}
    assert "did not answer" in found["chu"].why


def test_a_hub_that_was_shown_another_agreement_is_noticed(opens: Opens, files: dict[str, bytes]) -> None:
    """The coordinator cannot sign for the researcher, so hubs would refuse it; if one knows another, it is said."""
    place = opens(Liar(files))
    place._client.agreement = msgspec.structs.replace(agreed(), purpose="Another.")  # type: ignore[attr-defined]
    with pytest.raises(Equivocation, match="chu knows another agreement of trial-1"):
        accounts(place)


# --- the agreement -----------------------------------------------------------------------------------


@pytest.mark.requirement("F-HUF-1")
def test_the_agreement_that_was_proposed_is_shown_and_no_other(opens: Opens, files: dict[str, bytes]) -> None:
    assert opens(Liar(files)).document("trial-1").raw == write_agreement(agreed())
    other = write_agreement(msgspec.structs.replace(agreed(), purpose="To see everything."))
    forged = Liar(files, signed=lambda raw: (other, sign_agreement(raw, signing("ada"))))
    with pytest.raises(BadSignature):
        opens(forged).document("trial-1")
    own = Liar(files, signed=lambda _: (other, sign_agreement(other, signing("ada"))))  # she signed that one once
    with pytest.raises(Equivocation, match="another agreement of trial-1"):
        opens(own).document("trial-1")


# --- the catalogue -------------------------------------------------------------------------------------


def listed(hub: str = "chu", **changes: Any) -> Listing:
    return msgspec.structs.replace(Listing("cancer-net", hub, "heart", NOW, entry()), **changes)


@pytest.mark.requirement("F-PIL-16")
def test_entries_count_where_their_hub_signed_them(opens: Opens, files: dict[str, bytes]) -> None:
    shown = sign_listing(listed(), signing("chu"))
    gone = sign_listing(listed("huvh", entry=None), signing("huvh"))
    found = opens(Liar(files, shown=[shown, gone])).catalogue()
    assert [(one["hub"], one["dataset"]) for one in found] == [("chu", "heart")]
    richer = shown.raw.replace(b'"hub":"chu"', b'"hub":"irst"')
    wrong: list[tuple[SignedListing, type[FluteError]]] = [
        (SignedListing(richer, shown.signature), BadSignature),
        (sign_listing(listed(), signing("coordinator")), BadSignature),
        (sign_listing(listed("fata"), signing("fata")), NotInRoster),
        (sign_listing(listed(federation="other-net"), signing("chu")), Equivocation),
    ]
    for lie, error in wrong:
        with pytest.raises(error):
            opens(Liar(files, shown=[lie])).catalogue()


# --- who is in ------------------------------------------------------------------------------------------


def invented() -> dict[str, bytes]:
    """A federation of the coordinator's own, with hubs of the same names and keys that it made."""

    def made(hub: Any) -> Any:
        keys = {name: Party(f"{hub.id}-{name}").signing.public for name in ("signing_key", "owner_key")}
        return msgspec.structs.replace(hub, **keys)

    from flute.trust.publishing import publish
    from flute.trust.signing import propose, sign

    new = content(hubs=tuple(made(hub) for hub in content().hubs))
    bundle = propose(new, previous=None, now=NOW)
    for hub in HUBS[:2]:
        bundle = sign(bundle, Party(f"{hub}-owner_key").signing, now=NOW, trusted=None)
    return publish(bundle, signing("coordinator"), previous=None, now=NOW)


def test_an_invented_federation_is_believed_at_first_sight_and_at_no_other(
    opens: Opens, files: dict[str, bytes]
) -> None:
    root = root_fingerprint(files["1.root.json"])
    with pytest.raises(RosterUnsigned, match="not the one that was given"):
        opens(Liar(invented()), root=root)
    assert accounts(opens(Liar(files), root=root))["chu"].told
    with pytest.raises(RosterError):  # seen before: the real one is on disk
        accounts(opens(Liar(invented())))


def test_without_a_fingerprint_the_first_federation_is_believed(opens: Opens) -> None:
    """The control: so the place shows its fingerprint, to be compared with a hub owner."""
    place = opens(Liar(invented()))
    assert place.fingerprint == root_fingerprint(invented()["1.root.json"])
    with pytest.raises(BadSignature):  # even so, the real hubs' answers do not fit into it
        accounts(place)


def test_an_older_roster_is_not_taken_back(opens: Opens) -> None:
    federation = Federation().steps(2)
    old, new = federation.past
    assert accounts(opens(Liar(new)))["chu"].told
    with pytest.raises(RosterError):
        accounts(opens(Liar(old)))
