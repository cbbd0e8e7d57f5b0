"""Datasets that can be asked about: searched, described, and turned into the variables of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flute.catalogue.entry import Entry
from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.sdk.extras import frame
from flute.sdk.pages import heading, page, simulated, table, words
from flute.sdk.variables import Variables

Offer = Mapping[str, Any]
"""hub, dataset, variables, about; `entry` where its hub has published one."""


class Catalogue(list[dict[str, Any]]):
    """Entries, one for each dataset of a hub."""

    def search(self, text: str) -> Catalogue:
        """Datasets in whose entry every one of these words stands: in its name, title, keywords, description,
        variables, units, levels or codes."""
        wanted = text.casefold().split()
        return Catalogue([e for e in self if all(word in _text(e) for word in wanted)])

    def describe(self, dataset: str = "records", hub: str | None = None) -> Description:
        """One dataset at every hub that has it, or at one. Raises: MisuseError: no such dataset."""
        return Description(dataset, tuple(self._of(dataset, hub)))

    def variables(self, dataset: str = "records", hub: str | None = None) -> Variables:
        """As a study declares them: what all hubs of a dataset say alike, or what one hub says.

        Raises: MisuseError: no such dataset, or hubs that declare a variable differently."""
        offers = self._of(dataset, hub)
        said: dict[str, dict[str, Variable]] = {}
        for offer in offers:
            for variable in offer["variables"]:
                said.setdefault(variable.name, {})[offer["hub"]] = variable
        for name, each in said.items():
            if len(set(each.values())) > 1:
                raise MisuseError(
                    f"Hubs declare {name} differently: {'; '.join(f'{h}: {_range(v)}' for h, v in each.items())}. "
                    f"Take one hub's word, variables({dataset!r}, hub={next(iter(each))!r}), or declare it yourself."
                )
        return Variables.of(tuple(next(iter(e.values())) for e in said.values() if len(e) == len(offers)))

    def _of(self, dataset: str, hub: str | None) -> list[dict[str, Any]]:
        found = [e for e in self if e["dataset"] == dataset and hub in (None, e["hub"])]
        if not found:
            there = sorted({e["dataset"] for e in self})
            where = "" if hub is None else f" at {hub}"
            has = f"it has {', '.join(there)}" if there else "it is empty until hubs' stewards publish theirs"
            raise MisuseError(f"There is no dataset {dataset!r}{where} in this catalogue; {has}.")
        return found

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"hub": e["hub"], "dataset": e["dataset"], "variable": v.name, "kind": v.kind, "unit": v.unit,
             "label": v.label, "low": v.low if v.kind == "number" else None,
             "high": v.high if v.kind == "number" else None, "levels": ", ".join(v.levels)}
            for e in self for v in e["variables"]
        ]  # fmt: skip

    def to_frame(self) -> Any:
        return frame(self._rows())

    def __repr__(self) -> str:
        sets = [
            f"{e['dataset']} at {e['hub']} ({', '.join(v.name for v in e['variables']) or e['about']})" for e in self
        ]
        return f"<catalogue: {'; '.join(sets) or 'no dataset'}>"

    def _repr_html_(self) -> str:
        rows = self._rows()
        head = ("hub", "dataset", "variable", "kind", "unit", "label", "levels")
        return page(
            heading("Catalogue"),
            *(words(f"{e['dataset']} at {e['hub']}: {e['about']}") for e in self if not e["variables"]),
            table(head, [[row[name] for name in head] for row in rows]) if rows else "",
            "" if self else words("No dataset."),
        )


@dataclass(frozen=True, eq=False)
class Description:
    """One dataset, as its hubs describe it. Figures are those that a hub released under noise, each with its 95 %
    interval; where a hub released none, there are none."""

    dataset: str
    offers: Sequence[Offer] = field(repr=False)

    def to_frame(self) -> Any:
        return frame(self._rows(), ["hub", "variable"])

    def _rows(self) -> list[dict[str, Any]]:
        return [_row(offer, v) for offer in self.offers for v in offer["variables"]]

    def __repr__(self) -> str:
        said = [f"{offer['hub']}: {offer['about']}" for offer in self.offers]
        return "\n".join([f"<dataset {self.dataset}>", *said])

    def _repr_html_(self) -> str:
        entries = [offer.get("entry") for offer in self.offers]
        rows = self._rows()
        head = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)] if rows else []
        return page(
            heading(f"Dataset {self.dataset}"),
            simulated() if any(entry is not None and entry.simulated for entry in entries) else "",
            *(words(f"{offer['hub']}: {offer['about']}") for offer in self.offers),
            *(words(_access(entry), quiet=True) for entry in entries if entry is not None),
            table(head, [[row[name] for name in head] for row in rows]),
            *(
                words(e.statistics.sentence, quiet=True)
                for e in entries
                if e is not None and e.statistics is not None
            ),
        )


def _row(offer: Offer, v: Variable) -> dict[str, Any]:
    entry: Entry | None = offer.get("entry")
    figures = entry.statistics.figures(v.name) if entry is not None and entry.statistics is not None else None
    mean = figures.mean if figures is not None else None
    return {
        "hub": offer["hub"],
        "variable": v.name,
        "label": v.label,
        "kind": v.kind,
        "unit": v.unit,
        "declared": _range(v),
        "persons": None if figures is None else figures.n.value,
        "± persons": None if figures is None else figures.n.error,
        "missing": None if figures is None else figures.missing_share,
        "mean": None if mean is None else mean.value,
        "± mean": None if mean is None else mean.error,
    }


def _range(v: Variable) -> str:
    if v.kind == "category":
        return ", ".join(v.levels)
    return "0 or 1" if v.kind == "binary" else f"{v.low:g} to {v.high:g}"


def _access(entry: Entry) -> str:
    declared = entry.declared
    contact = declared.contact.email or declared.contact.page or ""
    return (
        f"{declared.publisher.name}: {declared.population} {declared.access.conditions} Asked for at "
        f"{declared.access.page}; {contact}. Records of {entry.imported}."
    )


def _text(offer: Offer) -> str:
    entry: Entry | None = offer.get("entry")
    columns = [
        " ".join([v.name, v.label, v.kind, v.unit, *v.levels]) for v in offer["variables"]
    ]  # fmt: skip
    declared = "" if entry is None else msgspec.json.encode(entry.declared).decode()
    coded = [] if entry is None else [f"{v.description} {' '.join(c.code for c in v.codes)}" for v in entry.variables]
    return " ".join([offer["hub"], offer["dataset"], offer["about"], declared, *columns, *coded]).casefold()
