"""Factors between units, exact, from UCUM's own table of definitions.

A factor is a fraction, not a float: 1 mg/L is 1000 ng/mL and not 999.9999999999999. Two units are commensurable
when their dimensions are equal; arbitrary units (`[iU]`) are so only with themselves, and a scale that is no multiple
of others (`Cel`, `[pH]`) has no factor at all. UCUM is case sensitive and knows neither "cc" nor "µ": what people
type is mapped to UCUM by a declaration's `spellings`, never by guessing.
Source: UCUM 2.2 (ucum-essence.xml, as `ucumvert` ships it), sections 2 (grammar) and 3 (semantics of terms).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from flute.conformance.model import Quantity
from flute.errors import MisuseError

_NAMESPACE: Final = "{*}"
_MAX_DIGITS: Final = 18
"""Of a factor, as the import's databases hold it without rounding."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A unit as a multiple of UCUM's base units. `dimensions`: base unit or arbitrary unit to its exponent."""

    factor: Fraction
    dimensions: Mapping[str, int]

    def times(self, other: Measure, sign: int = 1) -> Measure:
        """The product; the quotient where `sign` is -1."""
        added = Counter(self.dimensions)
        for name, exponent in other.dimensions.items():
            added[name] += sign * exponent
        return Measure(self.factor * other.factor**sign, {k: v for k, v in added.items() if v})

    def power(self, exponent: int) -> Measure:
        return Measure(self.factor**exponent, {k: v * exponent for k, v in self.dimensions.items()})


ONE: Final = Measure(Fraction(1), {})


@lru_cache(maxsize=1_000)
def measure(code: str) -> Measure:
    """What a UCUM code (case sensitive) measures.

    Raises: MisuseError: no UCUM code, or a unit without a factor.
    """
    from lark.exceptions import LarkError

    try:
        return _walk(_table().parser.parse(code))
    except LarkError as error:
        raise MisuseError(f"{code!r} is no UCUM unit; a declaration names units by their UCUM codes.") from error


def factor(unit: str, into: str) -> Fraction:
    """By what a number in `unit` is multiplied to be in `into`, exactly.

    Raises: MisuseError: one is no UCUM unit, or they measure different things.
    """
    if unit == into:
        return Fraction(1)
    one, other = measure(unit), measure(into)
    if one.dimensions != other.dimensions:
        raise MisuseError(f"{unit} cannot be converted into {into}: they measure different things.")
    return one.factor / other.factor


def factors(quantity: Quantity) -> dict[str, Decimal]:
    """Every unit code and spelling that is read, to the factor into the quantity's own unit.

    Guarantees: exact; every accepted unit is commensurable with the model's own.
    Raises: MisuseError: a declaration that names no UCUM unit, mixes dimensions, maps a spelling to a unit that is
    not accepted, or needs a factor that is no decimal number of at most 18 digits.
    """
    found: dict[str, Decimal] = {}
    for unit in quantity.accepted:
        found[unit] = _decimal(factor(unit, quantity.unit), unit, quantity.unit)
    for spelling, unit in quantity.spellings.items():
        if unit not in quantity.accepted:
            raise MisuseError(f"The spelling {spelling!r} stands for {unit}, which is not among the accepted units.")
        found[spelling] = found[unit]
    if quantity.unit not in found:
        raise MisuseError(f"The model's own unit {quantity.unit} is not among the accepted ones.")
    return found


def _decimal(exact: Fraction, unit: str, into: str) -> Decimal:
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1:
        number = Decimal(exact.numerator) / Decimal(exact.denominator)
        if len(number.normalize().as_tuple().digits) <= _MAX_DIGITS:
            return number.quantize(Decimal(1)) if number == number.to_integral_value() else number
    raise MisuseError(f"The factor from {unit} to {into} is no decimal number; declare {unit} as the model's unit.")


# --- UCUM's table -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """`units`: code to its XML element. `prefixes`: code to what it multiplies by. `base`: units of their own."""

    parser: Any
    prefixes: Mapping[str, Fraction]
    base: frozenset[str]
    units: Mapping[str, Any]


@lru_cache(maxsize=1)
def _table() -> _Table:
    """Raises: MisuseError: `ucumvert` is not installed."""
    try:
        from ucumvert import get_ucum_parser
        from ucumvert.xml_util import root
    except ImportError as error:
        raise MisuseError("Units are read with the package ucumvert: pip install 'flute[data]'.") from error
    prefixes = {
        node.attrib["Code"]: Fraction(node.find(f"{_NAMESPACE}value").attrib["value"])
        for node in root.iterfind(f"{_NAMESPACE}prefix")
    }
    return _Table(
        parser=get_ucum_parser(),
        prefixes=prefixes,
        base=frozenset(node.attrib["Code"] for node in root.iterfind(f"{_NAMESPACE}base-unit")),
        units={node.attrib["Code"]: node for node in root.iterfind(f"{_NAMESPACE}unit")},
    )


@lru_cache(maxsize=1_000)
def _atom(code: str) -> Measure:
    """A unit without prefix. Raises: MisuseError: it is a scale, no multiple of others."""
    table = _table()
    if code in table.base:
        return Measure(Fraction(1), {code: 1})
    node = table.units[code]
    if node.get("isSpecial") == "yes":
        raise MisuseError(
            f"{code} is a scale with a zero or a logarithm of its own; it has no factor into another unit."
        )
    if node.get("isArbitrary") == "yes":
        return Measure(Fraction(1), {code: 1})
    value = node.find(f"{_NAMESPACE}value")
    defined = ONE if value.attrib["Unit"] == "1" else measure(value.attrib["Unit"])
    return Measure(Fraction(value.attrib["value"]), {}).times(defined)


def _walk(node: Any) -> Measure:
    """A parsed term. Annotations ({score}) say something to people and nothing to arithmetic."""
    if not hasattr(node, "children"):
        return ONE
    if node.data == "simple_unit":
        return _simple([str(token) for token in node.children], node.children[-1].type)
    if node.data == "annotatable":
        return _walk(node.children[0]).power(int(node.children[1]))
    if node.data == "term":
        left, operator, right = node.children
        return _walk(left).times(_walk(right), -1 if operator == "/" else 1)
    if node.data == "main_term" and len(node.children) == 2:
        return ONE.times(_walk(node.children[1]), -1)
    return _walk(node.children[0])


def _simple(tokens: list[str], kind: str) -> Measure:
    if kind == "FACTOR":
        return Measure(Fraction(tokens[0]), {})
    atom = _atom(tokens[-1])
    return atom if len(tokens) == 1 else Measure(_table().prefixes[tokens[0]], {}).times(atom)
