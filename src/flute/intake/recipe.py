"""The recipe that turns resources into rows: views, rules, one SQL statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flute.cohort.rules import Cohort
from flute.conformance.model import Model
from flute.data.variables import Variable


@dataclass(frozen=True, slots=True)
class ImagesView:
    """Where a recipe's views say who has which examination: `patients` (a column `id`), `identifiers` (`id`,
    `value`), `studies` (`patient`, `started`, `uid`). Empty: the recipe reads no such thing."""

    patients: str = ""
    identifiers: str = ""
    studies: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How FHIR resources become one row per patient: views (SQL-on-FHIR ViewDefinitions) make tables,
    one SQL statement over those tables makes the rows.

    `views`: table name to ViewDefinition. `sql`: DuckDB SQL; its result has a column `patient` and one column
    per variable, and optionally `excluded` (a reason, null where the patient is in) and `flags` (a list of words
    about him). `variables`: what the rows offer. `refusals`: SQL per reason that lists the resources refused for
    it, which can be told from several resources only; the first column is "Type/id". `model`: the common model
    that every resource is checked against before a view reads it; None checks nothing. `cohort`: the declared rules
    that the SQL's `excluded`, `reasons` and `flags` were made from; None where the SQL has rules of its own.
    `suspects`: SQL that lists pairs `patient`, `other`, `why` who may be one person. `concealed`: columns of views
    that are staged as the hub's keyed hash only, since nothing but their equality is asked. A column `index_day` of
    the result, the date of what a row is about, is profiled (`intake.profile.days_of`) and goes no further.
    `classes`: what each variable tells about who somebody is (quasi-identifier, sensitive, other), so that every
    import says how alike its rows are; empty where nobody declared it.
    `images`: the views by which images are linked.
    Recipes are declarations that ship with the software or lie in the hub's own folder; none ever arrives
    over the wire.
    """

    name: str
    views: Mapping[str, Mapping[str, Any]]
    sql: str
    variables: tuple[Variable, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    model: Model | None = None
    cohort: Cohort | None = None
    suspects: str = ""
    concealed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    images: ImagesView = field(default_factory=ImagesView)
