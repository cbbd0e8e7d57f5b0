"""What whoever consents to a study should know besides the nine cells (`study.threats`), in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from flute.defaults import MAX_PATIENTS, MIN_HUBS
from flute.study.agreement import Agreement
from flute.study.threats import outvotes


def cautions(agreement: Agreement) -> Sequence[str]:
    """What whoever consents should know besides the cells, in plain words."""
    n, plan = len(agreement.hubs), agreement.plan
    said = [
        "Any hub can stop a round, even after the coordinator has seen the total, and the budget of that round is "
        "spent.",
        "A condition that only one hub's patients meet shows that hub's sum.",
    ]
    if n == MIN_HUBS:
        said.insert(
            0,
            "With three hubs, one that cheats sees the sum of the other two; if two work together, only the noise "
            "protects the third." if agreement.mode == "private" else
            "With three hubs, one that subtracts its own answer sees the exact sum of the other two.",
        )  # fmt: skip
    if agreement.max_patients >= MAX_PATIENTS:
        said.append(
            f"Nothing says how many patients a hub has, so one that cheats may weigh as much as {MAX_PATIENTS:,}: "
            "'max_patients' in the study file bounds that."
        )
    if plan.dropouts:
        said.append(
            f"Sums may be opened without up to {plan.dropouts} of the {n} hubs; the noise is scaled for the fewest."
        )
    if plan.name == "secagg" and not plan.echo:
        said.append("Hubs do not sign the set of answers: the coordinator is trusted to tell all of them the same.")
    resisting = [q.id for q in agreement.questions if outvotes([q])]
    if plan.name == "mpc" and resisting and not outvotes(agreement.questions):
        said.append(
            f"Hubs in a minority whose data are poisoned cannot drag {', '.join(resisting)}; they can drag the other "
            "questions."
        )
    if plan.name == "mpc":
        said.append(
            f"Computing on shares protects while no more than {plan.colluding} of the {n} hubs work together; one "
            "more, and they see every hub's answer, under that hub's own noise alone."
        )
    if plan.name == "threshold-he":
        said.append(f"Any {plan.openers or plan.colluding + 1} of the {n} hubs can open totals, and no fewer.")
    if plan.name == "enclave":
        said.append(
            f"The answers are in the hands of {len(plan.aggregators)} enclaves: {', '.join(plan.aggregators)}. If "
            f"all of them are malicious and work together, they see each hub's answer."
        )
    if plan.name == "secagg-enclave":
        said.append(
            f"Masks keep each hub's answer closed while no more than {plan.colluding} of the {n} hubs work with the "
            f"coordinator; if more do, one honest enclave of {', '.join(plan.aggregators)} still does."
        )
    return tuple(said)
