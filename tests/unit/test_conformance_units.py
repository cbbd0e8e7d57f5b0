"""Factors between units: exact, after UCUM's own definitions, and equal to what another reader of UCUM says."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from ucumvert import PintUcumRegistry

from flute.conformance.model import Quantity
from flute.conformance.units import factor, factors, measure
from flute.errors import MisuseError
from flute.pilot.profiles import PSA, VOLUME

KNOWN = {
    ("mg/L", "ng/mL"): Fraction(1000),
    ("ug/L", "ng/mL"): Fraction(1),
    ("ng/mL", "mg/L"): Fraction(1, 1000),
    ("mL", "cm3"): Fraction(1),
    ("dL", "mL"): Fraction(100),
    ("L", "dm3"): Fraction(1),
    ("10*9/L", "/uL"): Fraction(1000),
    ("[in_i]", "cm"): Fraction(254, 100),
    ("[lb_av]", "kg"): Fraction(45359237, 100000000),
    ("a", "d"): Fraction(36525, 100),
    ("wk", "d"): Fraction(7),
    ("kcal_th", "J"): Fraction(4184),
    ("mm[Hg]", "Pa"): Fraction(133322, 1000),
    ("mmol/L", "mol/m3"): Fraction(1),
    ("%", "1"): Fraction(1, 100),
    ("[iU]/L", "[iU]/mL"): Fraction(1, 1000),
    ("mL/(min.m2)", "mL/min/m2"): Fraction(1),
    ("g/(8.h){shift}", "g/h"): Fraction(1, 8),
    ("m2.kg/s2", "J"): Fraction(1),
}
"""UCUM 2.2, tables of the specification."""


@pytest.mark.requirement("F-IMSD-9")
@pytest.mark.requirement("NF-PIL-1")
@pytest.mark.parametrize(
    ("units", "expected"), KNOWN.items(), ids=lambda u: "-".join(u) if isinstance(u, tuple) else ""
)
def test_factors_are_exact(units: tuple[str, str], expected: Fraction) -> None:
    assert factor(*units) == expected
    assert factor(*reversed(units)) == 1 / expected


def test_factors_agree_with_pint() -> None:
    registry = PintUcumRegistry()
    for unit, into in KNOWN.keys() - {("mm[Hg]", "Pa")}:  # pint takes six more digits than UCUM's table
        theirs = registry.from_ucum(unit).to(registry.from_ucum(into).u).m
        assert math.isclose(float(factor(unit, into)), theirs, rel_tol=1e-12), (unit, into)
    # ... which is no exact reader: this is why it is not the one that is used.
    assert registry.from_ucum("mg/L").to(registry.from_ucum("ng/mL").u).m != 1000


@pytest.mark.parametrize(
    ("unit", "into"),
    [("ng/mL", "mmol/L"), ("mL", "g"), ("[iU]/L", "ng/L"), ("cm3", "cm2"), ("Hz", "Bq.s"), ("[arb'U]", "[iU]")],
)
def test_what_measures_different_things_has_no_factor(unit: str, into: str) -> None:
    with pytest.raises(MisuseError, match="measure different things"):
        factor(unit, into)


@pytest.mark.parametrize("code", ["cc", "µg/L", "NG/ML", "ng / mL", "", "ng/mL ", "IU/mL", "m-", "(", "10*999999x"])
def test_what_is_no_ucum_is_said(code: str) -> None:
    with pytest.raises(MisuseError, match="no UCUM unit"):
        measure(code)


@pytest.mark.parametrize("code", ["Cel", "[degF]", "[pH]", "B", "mCel"])
def test_a_scale_that_is_no_multiple_has_no_factor(code: str) -> None:
    with pytest.raises(MisuseError, match="of its own"):
        measure(code)


def test_the_pilot_s_units_and_spellings_have_these_factors() -> None:
    psa, volume = PSA.part("value").kind, VOLUME.part("value").kind
    assert isinstance(psa, Quantity)
    assert isinstance(volume, Quantity)
    assert factors(psa) == dict.fromkeys(
        ("ng/mL", "ng/ml", "ug/L", "ug/l", "µg/L", "μg/L", "µg/l", "μg/l"), Decimal(1)
    ) | dict.fromkeys(("mg/L", "mg/l"), Decimal(1000))
    assert factors(volume) == dict.fromkeys(("cm3", "mL", "ml", "cc", "cm³"), Decimal(1))


def quantity(unit: str, accepted: tuple[str, ...], **spellings: str) -> Quantity:
    return Quantity(unit, accepted, spellings, Decimal(0), Decimal(1), 1)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (quantity("ng/mL", ("ng/mL", "mmol/L")), "different things"),
        (quantity("ng/mL", ("ng/mL", "cc")), "no UCUM unit"),
        (quantity("ng/mL", ("ug/L",)), "own unit"),
        (quantity("mL", ("mL",), cc="cm3"), "not among the accepted"),
        (quantity("min", ("min", "s")), "no decimal number"),
        (quantity("g", ("g", "u")), None),
    ],
)
def test_a_declaration_is_held_to_what_its_units_are(bad: Quantity, says: str | None) -> None:
    if says is None:
        assert factors(bad)["u"] == Decimal("1.66053906660E-24")
    else:
        with pytest.raises(MisuseError, match=says):
            factors(bad)
