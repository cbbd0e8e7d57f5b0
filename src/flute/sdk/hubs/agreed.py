"""What was agreed, as everybody who decides about it reads it; and who has agreed so far, by each hub's own word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flute.dp.odds import exact_sentence, odds_sentence
from flute.sdk.extras import frame
from flute.sdk.pages import heading, page, simulated, table, words
from flute.sdk.place import Account, Document
from flute.study.agreement import Agreement, agreement_digest, read_agreement
from flute.study.cautions import cautions
from flute.study.files.check import Checked, checked_agreement
from flute.study.protection import sights, study_budget
from flute.study.threats import promised

_UNSIGNED = "by the coordinator's word"


@dataclass(frozen=True, eq=False)
class Agreed:
    """One run's agreement: the very bytes that hubs' stewards decide about."""

    document: Document

    @property
    def agreement(self) -> Agreement:
        return read_agreement(self.document.raw)

    @property
    def digest(self) -> str:
        """Names the document: a steward sees the same letters ('flute hub consent')."""
        return agreement_digest(self.document.raw).hex()

    @property
    def statement(self) -> str:
        """What the whole run lets anyone learn about one patient."""
        agreement = self.agreement
        if agreement.mode == "exact":
            return exact_sentence(0.0, agreement.delta)
        return odds_sentence(study_budget(agreement)[0], agreement.delta)

    def to_dict(self) -> dict[str, Any]:
        """Every element in words, in the order in which people read it."""
        checked = checked_agreement(self.document.raw)
        agreement = checked.agreement
        return {
            "run": agreement.study,
            "title": agreement.title,
            "purpose": agreement.purpose,
            "researcher": agreement.researcher,
            "hubs": ", ".join(agreement.hubs) + _enough(agreement),
            "from": _day(agreement.starts),
            "until": _day(agreement.ends),
            "dataset": agreement.dataset,
            "reads": ", ".join(agreement.fields()),
            "asks": "; ".join(_asked(agreement, checked)),
            "protection": _protection(checked),
            "statement": self.statement,
            "plan": f"{checked.plan.name}: {checked.plan.summary}",
            "digest": self.digest,
            "signed": "by its researcher, checked" if self.document.signed else "by nobody: it stays in this process",
        }  # fmt: skip

    def _conditions(self) -> list[tuple[str, str, str, str]]:
        each = self.agreement.conditions
        return [(hub, c.legal_basis, c.ethics_approval, _day(c.retain_until)) for hub, c in sorted(each.items())]

    def __repr__(self) -> str:
        lines = [f"{name}: {said}" for name, said in self.to_dict().items()]
        return "\n".join(lines + [f"mind: {caution}" for caution in cautions(self.agreement)])

    def _repr_html_(self) -> str:
        agreement = self.agreement
        cells = [(c.parties, c.enclaves, "holds" if c.holds else "does not hold", c.because)
                 for c in promised(agreement)]  # fmt: skip
        seen = [(s.who, s.epsilon, s.says) for s in sights(agreement, checked_agreement(self.document.raw).prices)]
        return page(
            heading(agreement.title),
            simulated() if agreement.simulated else "",
            table(("element", "agreed"), self.to_dict().items()),
            table(("hub", "legal basis", "ethics approval", "results kept until"), self._conditions()),
            table(("parties", "enclaves", "guarantee", "because"), cells),
            table(("who sees it", "epsilon", "in words"), seen) if seen else "",
            *(words(caution) for caution in cautions(agreement)),
        )


def _enough(agreement: Agreement) -> str:
    return "" if agreement.least == len(agreement.hubs) else f" ({agreement.least} of them are enough)"


def _asked(agreement: Agreement, checked: Checked) -> Sequence[str]:
    return [
        f"{q.id} ({q.what.__struct_config__.tag}{', of each hub alone' if q.scope == 'each' else ''}, "
        f"{steps} step{'s' if steps > 1 else ''})"
        for q in agreement.questions
        for steps in [len(checked.prices[q.id])]
    ]


def _protection(checked: Checked) -> str:
    agreement = checked.agreement
    if agreement.mode == "exact":
        return f"exact: at most {checked.numbers:,} numbers are opened; no epsilon bounds what they tell"
    return f"private: epsilon {agreement.epsilon:g} at delta {agreement.delta:g}, per patient and hub"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


# --- who agreed ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Approval:
    """decision: granted, denied, withdrawn, asked; or why a hub was left out (absent, away, refused). since: the
    day of a decision that the hub told of. vouched: by whose word."""

    run: str
    hub: str
    decision: str
    since: str
    vouched: str


class Approvals(list[Approval]):
    """Of all runs of a study, in order."""

    def of(self, run: str) -> dict[str, str]:
        """Hub to its decision about one run."""
        return {one.hub: one.decision for one in self if one.run == run}

    def to_frame(self) -> Any:
        return frame([{"run": a.run, "hub": a.hub, "decision": a.decision, "since": a.since, "by": a.vouched}
                      for a in self], ["run", "hub"])  # fmt: skip

    def __repr__(self) -> str:
        runs = dict.fromkeys(one.run for one in self)
        said = [f"{run}: " + ", ".join(f"{h} {d}" for h, d in self.of(run).items()) for run in runs]
        return f"<{'; '.join(said) or 'nothing was proposed yet'}>"

    def _repr_html_(self) -> str:
        rows = [(a.run, a.hub, a.decision, a.since, a.vouched) for a in self]
        return page(heading("Approvals"), table(("run", "hub", "decision", "since", "by"), rows))


def approvals(consents: Mapping[str, Mapping[str, str]], accounts: Sequence[Account]) -> Approvals:
    """consents: run to what the coordinator says of each hub. A hub's own signed word goes before it."""
    told = {account.hub: account.runs for account in accounts if account.told}
    found = Approvals()
    for run, said in consents.items():
        for hub, decision in sorted(said.items()):
            own = told.get(hub, {}).get(run)
            found.append(_approval(run, hub, decision, own))
    return found


def _approval(run: str, hub: str, said: str, own: Mapping[str, Any] | None) -> Approval:
    if own is None:
        return Approval(run, hub, said, "", _UNSIGNED)
    decision = str(own["decision"])
    since = _day(own["decided_at"]) if own["decided_at"] else ""
    left_out = decision == "granted" and said in ("away", "refused", "absent")
    return Approval(run, hub, f"granted, then left out ({said})" if left_out else decision, since, str(own["by"]))
