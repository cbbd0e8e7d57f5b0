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
    hub that has fallen silent, where the study allows it.
    """

    name: str
    offers: frozenset[str]
    min_hubs: int
    recovers_dropouts: bool
    summary: str


SECAGG = Plan(
    name="secagg",
    offers=frozenset({"sums"}),
    min_hubs=3,
    recovers_dropouts=True,
    summary="Masked sums: nobody sees any hub's answer, the coordinator only the total of all hubs.",
)

PLANS: dict[str, Plan] = {SECAGG.name: SECAGG}
