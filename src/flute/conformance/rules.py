"""The rules of one element of a model, compiled once into closures over R4-valid resources.

Order is part of the contract, since a refused resource is counted under its first finding: 1 subject and status
stand   2 the status is accepted   3 the site stands   4 every required part stands   5 each part in its order: its
type, its unit or code, its range. Nothing here looks at another resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flute.conformance.build import Read, meets_claims
from flute.conformance.judges import MISSING, NOTHING, codings, judge_of, one_of, pairs, type_of, typed
from flute.conformance.model import Element, Flag, Part
from flute.data.findings import Finding, shown

Resource = Mapping[str, Any]
Findings = list[Finding]


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """`applies`: whether a resource with one of the element's codes is about the element's site and modality."""

    element: Element
    applies: Callable[[Resource], bool]
    judge: Callable[[Resource, Findings], None]


def compile_rules(element: Element) -> Rules:
    """Raises: MisuseError: the declaration contradicts itself (a unit that cannot be converted, …)."""
    frame = _frame(element)
    groups = [_group(element, at) for at in dict.fromkeys(part.at for part in element.parts)]
    needed = [_needed(element, part) for part in element.parts if part.required and not isinstance(part.kind, Flag)]
    claims = frozenset(element.claims)

    def judge(resource: Resource, findings: Findings) -> None:
        frame(resource, findings)
        for need in needed:
            need(resource, findings)
        read: dict[str, Read] = {}
        for group in groups:
            group(resource, findings, read)
        claimed = resource.get("meta", NOTHING).get("profile", ())
        if claims and not claims.isdisjoint(claimed) and not findings and not meets_claims(element, read):
            findings.append(_claim(element, claimed))

    return Rules(element, _applies(element), judge)


def _claim(element: Element, claimed: Iterable[str]) -> Finding:
    address = next(a for a in claimed if a in element.claims)
    mend = "Nothing need be done: the resource is read by its code. It does not meet the profile that it claims."
    return Finding(
        "profile-not-met",
        f"{element.resource}.meta.profile",
        element.rule("claim"),
        shown(address),
        mend,
        warning=True,
    )


# --- what a resource has to be, before its values ----------------------------------------------------


def _applies(element: Element) -> Callable[[Resource], bool]:
    modality = element.modality
    if modality is not None:
        # The system is not compared: DICOM's own defined terms stand under several addresses.
        code = modality.code
        return lambda resource: (
            "modality" not in resource or any(coding.get("code") == code for coding in resource["modality"])
        )
    if not element.sites:
        return lambda resource: True
    sites, says = pairs(element.sites), pairs(element.site_in_code)

    def about_the_site(resource: Resource) -> bool:
        site = resource.get("bodySite")
        return (
            site is None
            or not sites.isdisjoint(codings(site))
            or (bool(says) and not says.isdisjoint(codings(resource["code"])))
        )

    return about_the_site


def _frame(element: Element) -> Callable[[Resource, Findings], None]:
    kind, subject = element.resource, element.subject
    statuses, accepted = frozenset(element.status), " or ".join(element.status)
    site_needed, says = bool(element.sites), pairs(element.site_in_code)

    def frame(resource: Resource, findings: Findings) -> None:
        if subject and "reference" not in resource.get(subject, NOTHING):
            mend = "Give a reference to the patient (Patient/…); a name or a number there is not followed."
            where, found = f"{kind}.{subject}.reference", shown(resource.get(subject, ""))
            findings.append(Finding(MISSING, where, element.rule("subject"), found, mend))
        if statuses and resource.get("status") not in statuses:
            reason = "status-not-final" if "status" in resource else MISSING
            mend = f"Only {accepted} is taken: wait until the record is, or correct its status."
            findings.append(
                Finding(reason, f"{kind}.status", element.rule("status"), shown(resource.get("status", "")), mend)
            )
        if site_needed and "bodySite" not in resource and says.isdisjoint(codings(resource["code"])):
            mend = f"Say which part of the body it is about: {one_of(element.sites)}."
            findings.append(Finding(MISSING, f"{kind}.bodySite", element.rule("site"), "", mend))

    return frame


def _needed(element: Element, part: Part) -> Callable[[Resource, Findings], None]:
    """One finding for all alternatives of a required part: the first of them speaks."""
    speaks = next(p for p in element.parts if p.at == part.at) is part
    shape = f"{part.at}[x]" if part.choice else part.at

    def need(resource: Resource, findings: Findings) -> None:
        if not speaks or (part.at in resource if not part.choice else typed(resource, part.at) is not None):
            return
        mend = f"Give {element.resource}.{shape}: without it the record says nothing that could be used."
        findings.append(Finding(MISSING, f"{element.resource}.{shape}", element.rule(part), "", mend))

    return need


def _group(element: Element, at: str) -> Callable[[Resource, Findings, dict[str, Read]], None]:
    """All parts at one FHIR element. A required one that has none of their types is of a wrong type."""
    parts = [part for part in element.parts if part.at == at]
    judges = [(part.name, judge_of(element, part)) for part in parts]
    first, required, choice = parts[0], any(p.required for p in parts), parts[0].choice
    expected = " or ".join(dict.fromkeys(type_of(part) for part in parts))

    def group(resource: Resource, findings: Findings, read: dict[str, Read]) -> None:
        before, said = len(findings), False
        for name, judge in judges:
            value = judge(resource, findings)
            if value is not None:
                read[name], said = value, True
        if said or not choice or len(findings) > before:
            return
        found = typed(resource, at)
        if found is not None:
            mend = f"Write it as {expected}; no other type is read here."
            where, rule = f"{element.resource}.{found}", element.rule(first)
            findings.append(Finding("wrong-type", where, rule, shown(resource[found]), mend, warning=not required))

    return group
