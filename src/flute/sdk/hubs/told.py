"""What hubs told of their ledgers, checked and put into accounts: nothing counts that its hub did not sign."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flute.defaults import DELTA
from flute.defaults.accounts import PICO
from flute.dp.odds import exact_sentence, odds_sentence
from flute.errors import Equivocation, Malformed
from flute.messages.accounts import AccountsTold, PersonsTold, Spent, StudyTold, check_told
from flute.sdk.place import Account
from flute.study.protection import epsilon_at

SIGNED: Final = "signed by the hub"


def read_told(
    answer: Any, *, nonce: bytes, key_of: Callable[[str], bytes], agreements: Mapping[str, bytes]
) -> dict[str, AccountsTold]:
    """Hub to what it said, from a coordinator's answer.

    key_of: a hub's roster key. agreements: run to the digest of the agreement as it was proposed.
    Raises: Malformed, NotInRoster. BadSignature: not that hub's words. Equivocation: an older answer, or a hub that
      knows another agreement under a run's name.
    """
    found: dict[str, AccountsTold] = {}
    for said in _listed(answer):
        check_told(said, key_of(said.hub))
        if said.nonce != nonce or said.hub in found:
            raise Equivocation(f"The coordinator shows an answer of {said.hub} to another question; ask again.")
        for one in said.studies:
            if agreements.get(one.study) != one.agreement:
                raise Equivocation(
                    f"{said.hub} knows another agreement of {one.study} than the one that was proposed from here. Do "
                    "not use its results, and tell the hub's steward."
                )
        found[said.hub] = said
    return found


def _listed(answer: Any) -> Sequence[AccountsTold]:
    try:
        return msgspec.convert(answer["told"], type=tuple[AccountsTold, ...])
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise Malformed("What the coordinator gave as the hubs' accounts cannot be read.") from error


def account_of(hub: str, told: AccountsTold | None, dataset: str, *, asked: bool) -> Account:
    """asked: whether there was anything to ask a hub about."""
    if told is None:
        why = "It did not answer in time; ask again." if asked else "Nothing was proposed to it yet."
        return Account(hub, told=False, why=why)
    whole = next((_whole(one) for one in told.persons if one.persons == dataset), None)
    return Account(hub, {one.study: _run(one) for one in told.studies}, whole, _words(told.own))


def _run(one: StudyTold) -> dict[str, Any]:
    said = {"decision": one.decision, "decided_at": one.decided_at, "ended": one.ended, "by": SIGNED}
    return {**said, **_words(one.spent)}


def _whole(one: PersonsTold) -> dict[str, Any]:
    return {**_words(one.spent), "rho_left": one.left / PICO, "numbers_left": one.numbers_left}


def _words(spent: Spent) -> dict[str, Any]:
    """At the delta that studies have unless they say another."""
    rho = spent.rho
    return {
        "rho": rho,
        "rho_reserved": spent.reserved / PICO,
        "epsilon_noised": epsilon_at(rho, DELTA),
        "exact_numbers": spent.numbers,
        "unbounded": spent.unbounded,
        "sentence": sentence(rho, unbounded=spent.unbounded),
    }


def sentence(rho: float, *, unbounded: bool) -> str:
    """What charges of `rho` in all let anyone learn about one patient."""
    if unbounded:
        return exact_sentence(rho, DELTA)
    return odds_sentence(rho, DELTA) if rho else "Nothing was asked yet: nothing can be learnt."
