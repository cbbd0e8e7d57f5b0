"""Does a resource conform: FHIR R4 first, then the rules of the element of the common model that it is.

A resource is recognised by its code, never by the profile it claims: exports claim wrong addresses, or none. One that
is no element of the model has to be R4 and nothing else. Rules that need other resources (does the patient exist)
are not judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flute.conformance.base import BaseCheck
from flute.conformance.judges import codings
from flute.conformance.model import Model
from flute.conformance.rules import Rules, compile_rules
from flute.data.findings import Finding
from flute.defaults.records import MAX_FINDINGS

Resource = Mapping[str, Any]


class Checker:
    """A model's rules, compiled once.

    Raises: MisuseError: a declaration that contradicts itself, or `flute[data]` is not installed.
    """

    def __init__(self, model: Model) -> None:
        self._base = BaseCheck()
        self._by_code: dict[str, dict[tuple[str | None, str | None], list[Rules]]] = {}
        self._by_type: dict[str, list[Rules]] = {}
        for element in (model.person, *model.elements):
            rules = compile_rules(element)
            if not element.code:
                self._by_type.setdefault(element.resource, []).append(rules)
            for coding in element.code:
                of_type = self._by_code.setdefault(element.resource, {})
                of_type.setdefault((coding.system, coding.code), []).append(rules)

    def check(self, resource: Resource, raw: bytes | None = None) -> list[Finding]:
        """What keeps the resource from being taken, in the order of the rules; warnings among it are marked and
        keep nothing. Empty where there is nothing to say. `raw`: its JSON, where it is at hand.

        The model's rules are judged only on what is R4: nothing sure can be said about the rest.
        """
        findings = self._base.findings(resource, raw)
        if findings:
            return findings
        for rules in self._rules(resource):
            if rules.applies(resource):
                rules.judge(resource, findings)
        return findings[:MAX_FINDINGS]

    def elements(self, resource: Resource) -> list[str]:
        """The names of the model's elements that an R4 resource is; mostly one, or none."""
        return [rules.element.name for rules in self._rules(resource) if rules.applies(resource)]

    def _rules(self, resource: Resource) -> Iterable[Rules]:
        kind = resource["resourceType"]
        rules = self._by_type.get(kind, [])
        by_code = self._by_code.get(kind)
        if by_code is None or "code" not in resource:
            return rules
        found = [r for pair in codings(resource["code"]) if pair in by_code for r in by_code[pair]]
        return [*rules, *dict.fromkeys(found)] if len(found) > 1 else [*rules, *found]


def refuses(findings: Iterable[Finding]) -> bool:
    """Whether any of them keeps the resource out."""
    return any(not finding.warning for finding in findings)
