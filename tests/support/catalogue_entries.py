"""A catalogue entry of an invented clinic, with and without released statistics."""

from __future__ import annotations

from datetime import date
from typing import Final

import msgspec

from flute.catalogue.entry import Entry
from flute.catalogue.file import entry_variables, read_declaration
from flute.catalogue.statistics import Estimate, Figures, Statistics
from flute.data.variables import Variable

HEART: Final = """\
flute: 1
dataset: heart
address: https://hospital.example.org/data/heart
title: Heart failure clinic
description: Echo, blood and outcome of everyone seen at the clinic.
keywords: [heart failure, echocardiography]
publisher:
  name: Example Hospital
  type: inpatient-institute
  email: data@hospital.example.org
  page: https://hospital.example.org/data
access_body:
  name: Example Health Data Access Body
  type: national-authority
  page: https://access.example.org
contact: {email: data@hospital.example.org}
access:
  rights: non-public
  page: https://hospital.example.org/data/ask
  conditions: Studies under a permit of the access body; results only, under differential privacy.
legal_basis: Regulation (EU) 2016/679, article 9(2)(j), and the national law on secondary use.
purpose: Collected for care; offered for research into heart failure.
population: Adults seen for heart failure from 2018 to 2024.
provenance: Exported from the clinic's record system, pseudonymised by the hospital, frozen as one table.
period: {from: 2018-01-01, until: 2024-12-31}
category: [EHRS]
theme: [NONCOMMUNICABLE_DISEASES]
ages: [18, 100]
country: [ESP]
personal_data: [Age, HealthRecord]
standards: [FHIR]
retain_until: 2035-12-31
variables:
  pressure:
    description: Systolic blood pressure, seated
    codes: ["http://loinc.org|8480-6|Systolic blood pressure"]
  smoker: {codes: ["http://snomed.info/sct|77176002|Smoker"]}
"""
VARIABLES: Final = (
    Variable("age", "number", 18, 110, unit="a", label="Age"),
    Variable("pressure", "number", 60, 260, unit="mm[Hg]"),
    Variable("smoker", "binary", label="Smokes"),
    Variable("grade", "category", levels=("low", "middle", "high"), label="Class of severity"),
)
SNAPSHOT: Final = "0f" * 32


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


STATISTICS: Final = Statistics(
    dataset="heart", snapshot=SNAPSHOT, at=1_790_000_000, epsilon=0.5, delta=1e-6, rho=0.0045, line=12, bins=4,
    persons=estimate(2013.4, 61.0),
    variables=(
        Figures("age", "number", estimate(1900, 60), estimate(100, 50), estimate(66, 1), estimate(9, 1),
                {"50": estimate(67, 6)}, (18.0, 41.0, 64.0, 87.0, 110.0), (50.0, 700.0, 1100.0, 50.0), 40.0),
        Figures("pressure", "number", estimate(2010, 60), estimate(0, 50), estimate(131, 2), estimate(21, 2),
                {"50": estimate(130, 12)}, (60.0, 110.0, 160.0, 210.0, 260.0), (300.0, 1500.0, 200.0, 10.0), 40.0),
        Figures("smoker", "binary", estimate(2000, 60), estimate(13, 40),
                levels={"0": estimate(1500, 40), "1": estimate(500, 40)}),
        Figures("grade", "category", estimate(2005, 70), estimate(8, 40),
                levels={"low": estimate(1200, 40), "middle": estimate(805, 40), "high": estimate(0, 40)}),
    ),
    simulated=True,
)  # fmt: skip


def entry(text: str = HEART, *, simulated: bool = True, statistics: Statistics | None = STATISTICS) -> Entry:
    declared, lines = read_declaration(text, path="heart.yaml")
    shown = entry_variables(declared, VARIABLES, lines, path="heart.yaml", codes={})
    made = Entry(declared, shown, SNAPSHOT, date(2026, 9, 1), simulated, statistics)
    return msgspec.json.decode(msgspec.json.encode(made), type=Entry)  # closed: it is what its bytes say
