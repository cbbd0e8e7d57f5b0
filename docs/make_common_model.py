"""Write docs/reference/common-model.md from the declaration: `python docs/make_common_model.py`.

A test fails where the page is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from flute.conformance.model import (
    Age,
    Code,
    Coded,
    Coding,
    Element,
    Flag,
    Links,
    Moment,
    Part,
    Quantity,
    Whole,
)
from flute.conformance.structure import address
from flute.pilot.profiles import PILOT_MODEL

PAGE: Final = Path(__file__).parent / "reference" / "common-model.md"
HEAD: Final = """\
# The common model

Written by `python docs/make_common_model.py` from the declaration in `src/flute/pilot/profiles.py`; do not edit.

What a hub takes in is one model of a patient's record, each element one FHIR R4 resource. From one declaration
come the check that every resource meets before it is taken, the resources that are built from tables, the names
that a mapping file uses, this page, and the documents that `flute model export` writes: a profile per element,
value sets, code systems of our own and a logical model, under `urn:x-flute:`, an address that resolves nowhere
since nothing of it is served on the internet.

```sh
flute model export --out model/
flute data check export/
```

## How a resource is judged

1. **FHIR R4.** Unknown elements, types, cardinalities, dates, text (rule `r4`). Judged by `fhirkit-rs`; days that
   no calendar has, control characters and contained resources by us. What is no R4 is judged no further.
2. **What it is.** By its code, never by the profile it claims: the pilot's guide, its examples and hospitals claim
   different addresses. Another body site or modality is another thing: it is set aside, not refused. A modality is
   compared by its code alone, since DICOM's terms stand under several addresses of a system.
3. **The element's rules**, in this order: subject and status stand; the status is accepted; the site stands; every
   required part stands; each part's type, unit or code, range. All that is wrong is said; the first finding is the
   reason that is counted.
4. **Other resources.** Whether the patient exists is judged last, when everything is there
   (`reference-not-resolved`).

A finding says the reason, the path, the rule, what stood there and how to mend it. A **warning** keeps nothing out
and is counted: a unit that stands only as text, a year or month in place of a day, a date of a type that is not
read, and `profile-not-met`: the resource claims a profile of the pilot's guide and does not meet it (another unit,
more decimals, a dated biopsy where the guide's R4 profile demands the age, "no cancer", for which it has no code).
It is read all the same if our own rules have nothing against it: what counts is what a resource says, not what it
claims.

Checking base and model takes 25 to 40 microseconds a resource (26,000 to 40,000 resources a second on one core; a
test holds 8,000).

## Units

Factors are fractions from UCUM's own table (read with `ucumvert`), never floats: 1 mg/L is exactly 1000 ng/mL. A
declaration that names a unit of another dimension is refused when it is loaded. UCUM knows neither `cc` nor `µ`:
what people type stands as a spelling, whether in the code or in the text of a unit; both characters that look like
µ (U+00B5, U+03BC) are read. Nothing else is guessed: `NG/ML`, `mmol/L` and `%` are refused.

## Numbers, dates and words of tables

Numbers have a decimal point (`3,4` is refused: it may be 3.4 or 34), no bound (`<0.1`) and their unit beside them.
Dates are written year-month-day, years with four digits; a time needs its zone, since FHIR cannot hold it
otherwise, and without one the day is kept. Words are the model's (below); a mapping file maps the hospital's to
them.

## Elements

`Required` parts at one FHIR element are alternatives: any of them is enough.
"""
TAIL: Final = """
## Where another validator says otherwise

The profiles are published as differentials: a snapshot is made from R4's own definitions, which every validator
has. What cardinality and bindings cannot say stands as FHIRPath in constraints, whose keys are the rules above. A
test validates hundreds of changed resources with `pyfhircheck` and with our check; where the two differ, it is for
one of these:

| what | why |
| --- | --- |
| references | `pyfhircheck` refuses a reference that is none; here the recipe does (`reference-not-resolved`) |
| code systems | it wants an absolute address; here such a coding is just none that is asked for |
| bindings | it wants every coding in the value set; FHIR R4 asks for one, and so do we |
| status `corrected` | its list for Observation lacks it; FHIR R4 has it |
| `_status` | an id or extension beside a status makes its FHIRPath see two values |
| 30 February | it knows no calendar |
| claims, warnings | a claim of somebody else's profile is judged against that profile, which it has to be given |
| site, modality | a resource of another site is not ours (set aside); it fails a profile that it is told to meet |
"""


def page() -> str:
    elements = (PILOT_MODEL.person, *PILOT_MODEL.elements)
    return HEAD + "".join("\n" + "\n".join(_element(element)) + "\n" for element in elements) + TAIL


def _element(element: Element) -> Iterator[str]:
    yield f"### {element.name}"
    yield ""
    facts = [f"{element.title}: `{element.resource}`"]
    if element.status:
        facts.append(f"status {_words(element.status)}")
    if element.code:
        facts.append(f"code {_codings(element.code)}" + (" (any; all are written)" if element.written else ""))
    if element.sites:
        said = f", unless the code is {_codings(element.site_in_code)}" if element.site_in_code else ""
        facts.append(f"bodySite {_codings(element.sites)}{said}")
    if element.modality is not None:
        facts.append(f"modality `{element.modality.code}`")
    if element.subject:
        facts.append(f"about the patient by `{element.subject}`")
    yield "; ".join(facts) + f". Profile `{address(PILOT_MODEL, 'StructureDefinition', element.slug)}`."
    yield ""
    yield "| part | FHIR | required | what | requirement |"
    yield "| --- | --- | --- | --- | --- |"
    for part in element.parts:
        at = f"{part.at}[x]" if part.choice else part.at
        what = f"{_what(part)}. {part.note}".strip() if part.note else f"{_what(part)}."
        yield f"| {part.name} | `{at}` | {'yes' if part.required else ''} | {what} | {part.requirement} |"


def _what(part: Part) -> str:
    kind = part.kind
    match kind:
        case Quantity():
            spelt = ", ".join(f"{text} = {unit}" for text, unit in kind.spellings.items())
            return f"Number in {kind.unit}, {kind.low} to {kind.high}; read in {', '.join(kind.accepted)} ({spelt})"
        case Whole():
            return f"Whole number, {kind.low} to {kind.high}"
        case Coded():
            return "; ".join(f"{word} = {', '.join(c.code for c in meant)}" for word, meant in kind.values.items())
        case Flag():
            return f"1 where one of {len(kind.codings)} codes stands in it, 0 where none does"
        case Code():
            return "One of " + ", ".join(kind.values)
        case Moment():
            return " or ".join(kind.types)
        case Age():
            return f"Age in years (UCUM a), {kind.low} to {kind.high}"
        case Links():
            return f"References to {', '.join(kind.elements)} in an extension"


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _codings(codings: Iterable[Coding]) -> str:
    return ", ".join(f"`{coding.code}`" for coding in codings)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
