"""Making a coordinator, and the rosters that it proposes to the hub owners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flute.coordinator.home import CoordinatorConfig, CoordinatorHome
from flute.defaults import ROSTER_LIFETIME_DAYS
from flute.enclaves.context import policy_digest, policy_name
from flute.homes import private_folder
from flute.primitives.keys import KEY_SIZE, fingerprint
from flute.questions.code import code_digest
from flute.transport.identity import make_authority
from flute.trust.keyfiles import PartyKeys, load_party_keys, make_coordinator_keys
from flute.trust.roster import ApprovedCode, Coordinator, Hub, Person, Roster, RosterContent
from flute.trust.signing import Bundle, propose

NAME = "coordinator"


def init_coordinator(folder: Path, config: CoordinatorConfig, entropy: Callable[[int], bytes]) -> str:
    """Make keys, certificate authority and configuration. Returns the fingerprint of the signing key.

    Raises: KeyFileError, MisuseError: there is a coordinator in this folder already."""
    home = CoordinatorHome(folder)
    private_folder(home.folder)
    make_coordinator_keys(home.keys, NAME, rand=entropy(2 * KEY_SIZE))  # refuses where there are keys already
    make_authority(home.authority, config.federation, config.engine_host, config.engine_port)
    home.write_config(config)
    return fingerprint(load_party_keys(home.keys).signing.public)


def next_roster(
    federation: str, keys: PartyKeys, previous: Roster | None, files: dict[str, bytes] | None,
    *, hubs: Sequence[Hub], people: Sequence[Person], now: int, policies: Mapping[str, bytes] | None = None,
) -> Bundle:  # fmt: skip
    """The roster that follows the present one, with newcomers, for owners to sign.

    The code that is installed here becomes the approved one, and so do the policies by which aggregators are
    appraised (by aggregator). Raises: Malformed, RosterUnsigned, MisuseError."""
    old_hubs = {h.id: h for h in previous.content.hubs} if previous else {}
    old_people = {p.id: p for p in previous.content.people} if previous else {}
    content = RosterContent(
        federation=federation,
        version=previous.version + 1 if previous else 1,
        expires=now + ROSTER_LIFETIME_DAYS * 86_400,
        coordinator=Coordinator(NAME, keys.signing.public, keys.sealing.public),
        hubs=tuple(({h.id: h for h in hubs} | old_hubs).values()),
        people=tuple((old_people | {p.id: p for p in people}).values()),
        codes=(
            ApprovedCode("algorithms", code_digest()),
            *(ApprovedCode(policy_name(name), policy_digest(raw)) for name, raw in sorted((policies or {}).items())),
        ),
    )
    return propose(content, previous=files or None, now=now)
