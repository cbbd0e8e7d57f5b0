"""The `Plan` contract: what a way of protecting answers offers, and on what it rests.

A plan is a declaration; `study.protection` matches it with what an algorithm needs and prices the two.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of turning hubs' vectors into an opened total.

    offers: operations that algorithms may need (`algorithms.contract.Operation` values).
    min_hubs: fewer cannot be protected by it. recovers_dropouts: whether a sum can be opened without a
    hub that has fallen silent, where the study allows it. masks: answers are under pairwise masks, so hubs have study
    keys and tickets. enclaves: answers are split among the aggregators that the study names.
    """

    name: str
    offers: frozenset[str]
    min_hubs: int
    recovers_dropouts: bool
    summary: str
    masks: bool = False
    enclaves: bool = False


SECAGG = Plan(
    name="secagg",
    offers=frozenset({"sums"}),
    min_hubs=3,
    recovers_dropouts=True,
    summary="Masked sums: nobody sees any hub's answer, the coordinator only the total of all hubs.",
    masks=True,
)

MPC = Plan(
    name="mpc",
    offers=frozenset({"sums", "products", "comparisons"}),
    min_hubs=3,
    recovers_dropouts=False,
    summary="Computed on shares: hubs compute together, a cheat is noticed before anything opens, the coordinator "
    "carries sealed boxes.",
)

THRESHOLD_HE = Plan(
    name="threshold-he",
    offers=frozenset({"sums"}),
    min_hubs=3,
    recovers_dropouts=False,
    summary="Encrypted answers: added while encrypted, and opened only by as many hubs as the agreement asks for.",
)

ENCLAVE = Plan(
    name="enclave",
    offers=frozenset({"sums"}),
    min_hubs=3,
    recovers_dropouts=False,
    summary="Split among enclaves of different makers: only if all of them are malicious do they see an answer.",
    enclaves=True,
)

SECAGG_ENCLAVE = Plan(
    name="secagg-enclave",
    offers=frozenset({"sums"}),
    min_hubs=3,
    recovers_dropouts=False,
    summary="Masked, then split among enclaves: an answer stays closed as long as either holds, the masks or one of "
    "the enclaves.",
    masks=True,
    enclaves=True,
)

PLANS: dict[str, Plan] = {plan.name: plan for plan in (SECAGG, MPC, THRESHOLD_HE, ENCLAVE, SECAGG_ENCLAVE)}
