"""Making a hub: keys, a request to join, what comes back, the first roster. Private keys never leave the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flute.errors import MisuseError
from flute.homes import private_folder, write_private
from flute.hub.home import HubConfig, HubHome
from flute.primitives.keys import KEY_SIZE, fingerprint
from flute.transport.identity import install, request
from flute.trust.enrolment import (
    Invitation,
    join_digest,
    open_admission,
    read_invitation,
    read_join,
    write_join,
)
from flute.trust.keyfiles import load_owner_key, load_party_keys, make_hub_keys
from flute.trust.roster import Roster
from flute.trust.signing import Bundle, sign
from flute.trust.verification import TrustedState, first_trust, load

_INVITATION: Final = "invitation.txt"
_REQUEST: Final = "join.request"


def init_hub(folder: Path, hub: str, entropy: Callable[[int], bytes]) -> str:
    """Make a hub's folder and keys. Returns the fingerprint of its signing key.

    Raises: KeyFileError: there are keys already. MisuseError: not a usable name."""
    home = HubHome(folder)
    private_folder(home.folder)
    make_hub_keys(home.keys, hub, rand=entropy(3 * KEY_SIZE))
    home.write_config(HubConfig(hub, "", entropy(KEY_SIZE)))
    return fingerprint(load_party_keys(home.keys).signing.public)


def ask_to_join(folder: Path, invitation_text: str, now: int) -> tuple[Invitation, bytes]:
    """The request that answers an invitation; asking again repeats the same request.

    Raises: Malformed, Stale: the invitation. KeyFileError: no keys here. ChannelError: certificate tool."""
    home = HubHome(folder)
    config = home.config()
    invitation = read_invitation(invitation_text, now=now)
    stored = home.folder / _REQUEST
    if not stored.exists():
        keys, owner = load_party_keys(home.keys), load_owner_key(home.keys)
        raw = write_join(
            invitation,
            hub=config.hub,
            signing=keys.signing,
            sealing_key=keys.sealing.public,
            owner=owner.key,
            tls_common_name=config.hub,
            csr_zip=request(home.kit, config.hub, invitation.federation),
        )
        write_private(home.folder / _INVITATION, invitation_text.encode())
        write_private(stored, raw)
        home.write_config(HubConfig(config.hub, invitation.federation, config.pseudonym_key))
    return invitation, stored.read_bytes()


def request_name(folder: Path) -> str:
    """How the coordinator knows this hub's request, in hexadecimal."""
    return join_digest(read_join((HubHome(folder).folder / _REQUEST).read_bytes())).hex()


def invitation_of(folder: Path, now: int) -> Invitation:
    """Raises: MisuseError: this hub was not invited yet."""
    path = HubHome(folder).folder / _INVITATION
    if not path.exists():
        raise MisuseError("This hub was not invited to a federation yet; 'flute hub join INVITATION' is the way in.")
    return read_invitation(path.read_text(encoding="utf-8"), now=min(now, _read_before(path)))


def _read_before(path: Path) -> int:
    """An invitation that was used in time still says where the federation is, after it has run out."""
    return int(path.stat().st_mtime)


def take_admission(folder: Path, admission: bytes, now: int) -> None:
    """Put the certificate in place. Raises: BadSignature, JoinRefused, Malformed: it is not for this request."""
    home = HubHome(folder)
    invitation = invitation_of(folder, now)
    asked = read_join((home.folder / _REQUEST).read_bytes())
    answer = open_admission(admission, invitation=invitation, request=asked)
    install(home.kit, answer.kit_zip, invitation.ca_fingerprint)


def accept_roster(folder: Path, files: Mapping[str, bytes], heard: str, now: int) -> Roster:
    """Trust the federation's first root because its fingerprint is the one that was heard by phone, and the
    newest roster that follows from it.

    Raises: RosterUnsigned: another fingerprint. RosterError, Malformed, TooLarge: the set does not hold."""
    home = HubHome(folder)
    if home.roster_state.exists():
        state = TrustedState.from_bytes(home.roster_state.read_bytes())
    else:
        state = first_trust(files.get("1.root.json", b""), heard)
    roster, state = load(state, dict(files), now=now)
    home.write_roster_state(state.to_bytes())
    return roster


def sign_roster(folder: Path, bundle: Bundle, now: int) -> Bundle:
    """One owner's signature more. Raises: RosterRolledBack: it does not follow what this hub trusts."""
    home = HubHome(folder)
    trusted = None
    if home.roster_state.exists():
        trusted = TrustedState.from_bytes(home.roster_state.read_bytes())
    return sign(bundle, load_owner_key(home.keys).key, now=now, trusted=trusted)
