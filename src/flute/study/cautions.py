"""What whoever consents to a study should know besides the nine cells (`study.threats`), in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from flute.algorithms.contract import HubTotals
from flute.defaults import MAX_PATIENTS, MIN_HUBS
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question
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
    said += [_trained(q) for q in agreement.questions if agreement.mode == "exact" and _trains(q)]
    if agreement.max_patients >= MAX_PATIENTS:
        said.append(
            f"Nothing says how many patients a hub has, so one that cheats may weigh as much as {MAX_PATIENTS:,}: "
            "'max_patients' in the study file bounds that."
        )
    if agreement.least < n:
        said.insert(0, _fewer(agreement))
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


def _trains(question: Question) -> bool:
    return isinstance(algorithm_for(question.what), HubTotals)


def _trained(question: Question) -> str:
    return (
        f"{question.id} opens more exact numbers than there are patients. Whoever sees what came out of every round "
        "can try to work back to single patients' values and images; that each total is of all hubs' patients "
        "together is all that stands in the way."
    )


def _fewer(agreement: Agreement) -> str:
    n, least = len(agreement.hubs), agreement.least
    honest = n - agreement.plan.dropouts - agreement.plan.colluding
    said = f"The study is carried out without up to {n - least} of the {n} hubs: those that deny it"
    if agreement.mode == "exact":
        return (
            f"{said} or do not decide in time. Who takes part is settled when the first question is asked, and a hub "
            "that stops after that stops the study."
        )
    alone = "each honest hub alone adds" if honest == 1 else f"any {honest} honest hubs add"
    return (
        f"{said}, do not decide in time, withdraw or do not answer. The coordinator says which; it cannot go below "
        f"{least} hubs, and {alone} all the noise that is charged."
    )
