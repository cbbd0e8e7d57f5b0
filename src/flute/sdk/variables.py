"""Variables as a notebook declares them: what stands below `variables:` in a study file, with completion.

    flute.Variables(age=flute.number(40, 90, unit="a"), sex=flute.category("f", "m"), ill=flute.binary())
Ranges and levels are public facts: they bound what one patient can contribute, and must not be read off records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.sdk.pages import page, table
from flute.study.files.lines import MAX_FILE_BYTES, parse

Declared = dict[str, Any]
Scale = Literal["none", "reference", "pooled"]


def number(
    low: float, high: float, *, unit: str = "", label: str = "", log: bool = False, scale: Scale | None = None,
    centre: float | None = None, spread: float | None = None,
) -> Declared:  # fmt: skip
    """A number whose plausible values lie in [low, high] (in `unit`, UCUM); a value outside counts as missing.

    log: its logarithm enters models. scale, centre, spread: as in a study file."""
    said = {"unit": unit, "label": label, "scale": scale, "centre": centre, "spread": spread}
    return {"kind": "number", "range": [low, high], **_said(said), **({"log": True} if log else {})}


def binary(*, label: str = "") -> Declared:
    """0 or 1, no or yes."""
    return {"kind": "binary", **_said({"label": label})}


def category(*levels: str | int, label: str = "", reference: str | int | None = None) -> Declared:
    """One of `levels`; models compare the others with `reference`, by default the first."""
    return {"kind": "category", "levels": list(levels), **_said({"label": label, "reference": reference})}


def image(shape: Sequence[int], low: float, high: float, *, label: str = "") -> Declared:
    """An image of (channels, height, width) or (channels, depth, height, width) numbers in [low, high].

    An image of another shape, or with a number outside, counts as missing."""
    return {"kind": "image", "shape": list(shape), "range": [low, high], **_said({"label": label})}


def _said(elements: Mapping[str, Any]) -> Declared:
    return {name: value for name, value in elements.items() if value is not None and value != ""}


class Variables(Mapping[str, Declared]):
    """Names and declarations, in order. Nothing is checked here; `Federation.study` does."""

    def __init__(self, declared: Mapping[str, Declared] | None = None, /, **more: Declared) -> None:
        self._declared = {name: dict(one) for name, one in {**(declared or {}), **more}.items()}

    @classmethod
    def read(cls, path: str | Path) -> Variables:
        """From a public dictionary: a YAML file with a `variables:` block as in a study file (a study file will do).

        Raises: MisuseError: no such file, or no such block. StudyFileError: no YAML that can be read."""
        file = Path(path)
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise MisuseError(f"{file.name} is larger than a dictionary of variables may be.")
            document, _ = parse(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise MisuseError(f"There is no dictionary of variables that can be read at {file}.") from None
        declared = document.get("variables") if isinstance(document, dict) else None
        if not isinstance(declared, dict) or not all(isinstance(one, dict) for one in declared.values()):
            raise MisuseError(f"{file.name} has no block 'variables:' with one entry for each variable.")
        return cls({str(name): one for name, one in declared.items()})

    @classmethod
    def of(cls, variables: tuple[Variable, ...]) -> Variables:
        """From what a catalogue entry shows."""
        return cls({v.name: _declared(v) for v in variables})

    def __getitem__(self, name: str) -> Declared:
        return self._declared[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def __repr__(self) -> str:
        return f"Variables({', '.join(self._declared)})"

    def _repr_html_(self) -> str:
        rows = [(name, one.get("label", ""), one["kind"], _values(one)) for name, one in self._declared.items()]
        return page(table(("variable", "label", "kind", "values"), rows))


def _values(one: Declared) -> str:
    if one["kind"] == "number":
        low, high = one["range"]
        return f"{low:g} to {high:g} {one.get('unit', '')}".strip()
    if one["kind"] == "image":
        return f"{' x '.join(map(str, one['shape']))} numbers from {one['range'][0]:g} to {one['range'][1]:g}"
    return "0, 1" if one["kind"] == "binary" else ", ".join(str(level) for level in one["levels"])


def _declared(v: Variable) -> Declared:
    if v.kind == "number":
        return number(v.low, v.high, unit=v.unit, label=v.label)
    if v.kind == "image":
        return image(v.shape or (), v.low, v.high, label=v.label)
    return category(*v.levels, label=v.label) if v.kind == "category" else binary(label=v.label)
