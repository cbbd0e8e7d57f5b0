"""One table for each kind of answer: what of it people look at first. Built from a released value, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Row = dict[str, Any]


def _described(value: Row) -> list[Row]:
    rows: list[Row] = []
    for name, one in value["variables"].items():
        row: Row = {"variable": name, "unit": one.get("unit") or None}
        row |= _figures(one, ("n", "missing", "mean", "sd"))
        for percent, quantile in (one.get("quantiles") or {}).items():
            row[f"p{percent}"] = _value(quantile)
        rows.append(row)
        for level, counted in (one.get("levels") or {}).items():
            rows.append({"variable": f"{name} = {level}", "n": counted.get("count"), "n noise": counted["noise_se"]}
                        | {"share": counted.get("share")})  # fmt: skip
    return rows


def _figures(one: Mapping[str, Any], names: tuple[str, ...]) -> Row:
    """Estimates and, where there is any, the deviation of the noise on them."""
    row: Row = {}
    for name in names:
        if name in one:
            row[name] = _value(one[name])
            if isinstance(one[name], dict) and one[name].get("noise_se"):
                row[f"{name} noise"] = one[name]["noise_se"]
    return row


def _value(figure: Any) -> Any:
    return figure.get("value") if isinstance(figure, dict) else figure


def _coefficients(value: Row) -> list[Row]:
    if "coefficients" not in value or "columns" not in value:
        return []
    columns = value["columns"]
    lists = {
        "coefficient": value["coefficients"],
        "per raw unit": value.get("raw_coefficients"),
        "se": value.get("standard_errors"),
        "noise se": value.get("noise_standard_errors"),
        "p": value.get("p"),
    }
    rows = [{"column": name} for name in columns]
    for title, figures in lists.items():
        if isinstance(figures, list) and len(figures) == len(columns):
            for row, figure in zip(rows, figures, strict=True):
                row[title] = figure
    for row, odds in zip(rows, value.get("odds_ratios") or [], strict=False):
        row |= {"odds ratio": odds["value"], "low": odds["low"], "high": odds["high"]}
    return rows


def _scores(value: Row) -> list[Row]:
    rows = []
    for reference, one in value["models"].items():
        row = {"model": reference} | _figures(one, ("n", "events"))
        auc = one.get("auc") or {}
        row |= {"auc": auc.get("value"), "auc low": auc.get("low"), "auc high": auc.get("high")}
        slope = (one.get("calibration") or {}).get("slope")
        row |= {"brier": _value(one.get("brier")), "calibration slope": _value(slope)}
        rows.append(row)
    return rows


def _hazards(value: Row) -> list[Row]:
    rows: list[Row] = [{"column": name} for name in value["columns"]]
    for row, coefficient, se, p, ratio in zip(
        rows, value["coefficients"], value.get("standard_errors") or [None] * len(rows),
        value.get("p") or [None] * len(rows), value["hazard_ratios"], strict=True,
    ):  # fmt: skip
        row |= {"hazard ratio": ratio["value"], "low": ratio["low"], "high": ratio["high"]}
        row |= {"coefficient": coefficient, "se": se, "p": p}
    return rows


def _lives(value: Row) -> list[Row]:
    rows = []
    for group, one in value["groups"].items():
        row: Row = {"group": group} | _figures(one, ("n", "events"))
        for name, title in (("median", "median"), ("restricted_mean", "restricted mean")):
            found = one.get(name) or {}
            row |= {title: found.get("value"), f"{title} low": found.get("low"), f"{title} high": found.get("high")}
        row["hazard ratio"] = _value((value.get("hazard_ratios") or {}).get(group))
        rows.append(row)
    return rows


def _compared(value: Row) -> list[Row]:
    """Groups, then tests, each with its p."""
    rows = []
    for group, one in value["groups"].items():
        row: Row = {"group or test": group} | _figures(one, ("n", "mean", "sd"))
        row["median"] = _value((one.get("quantiles") or {}).get("50"))
        rows.append(row)
    tests = [one for one in value["tests"].values() if isinstance(one, dict) and "test" in one]
    return rows + [
        {"group or test": t["test"], "statistic": t.get("statistic", t.get("u")), "p": t.get("p")} for t in tests
    ]


def _crossed(value: Row) -> list[Row]:
    """The table itself: one row for each row, one column for each column."""
    head = [f"{value['outcome']} = {column}" for column in value["columns"]]
    return [
        {"group": f"{value['by']} = {name}", **dict(zip(head, counts, strict=True))}
        for name, counts in zip(value["rows"], value["counts"], strict=True)
    ]


def _table_one(value: Row) -> list[Row]:
    """As printed in papers: a row for each number or level, a column for each group."""
    rows: list[Row] = []
    for name, one in value["table"].items():
        unit = f" ({one['unit']})" if one.get("unit") else ""
        shown: Row = {"variable": f"{name}{unit}"}
        shown |= {group: _in_short(of_group) for group, of_group in one["groups"].items()}
        rows.append(shown | {"p": one.get("p"), "standardised difference": one.get("standardised_difference")})
        first: Row = next(iter(one["groups"].values()), {})
        for level in first.get("levels") or {}:
            row: Row = {"variable": f"{name} = {level}"}
            for group, of_group in one["groups"].items():
                counted = of_group["levels"][level]
                share = "" if counted["share"] is None else f" ({counted['share']:.0%})"
                row[group] = f"{counted['count']:,.0f}{share}"
            rows.append(row)
    return rows


def _in_short(group: Row) -> str:
    n = f"n {_value(group['n']):,.0f}"
    mean, sd = _value(group.get("mean")), _value(group.get("sd"))
    return n if mean is None or sd is None else f"{mean:.4g} ± {sd:.3g}, {n}"


def _importances(value: Row) -> list[Row]:
    found = value.get("importances")
    if not isinstance(found, dict):
        return []
    ranked = sorted(found.items(), key=lambda item: -(item[1] or 0.0))
    return [{"predictor": name, "importance": share} for name, share in ranked]


def _trained(value: Row) -> list[Row]:
    """The loss of every round where it is opened, else what there is to say of the whole."""
    if value.get("losses"):
        return [{"round": k, "loss": loss} for k, loss in enumerate(value["losses"], start=1)]
    told = ("n", "size", "rounds", "ending")
    return [{"figure": name, "value": _value(value[name])} for name in told if name in value]


SHAPES: Final[dict[str, Callable[[Row], list[Row]]]] = {
    "describe": _described,
    "evaluate": _scores,
    "logistic-regression": _coefficients,
    "robust-model": _coefficients,
    "glm": _coefficients,
    "penalised-regression": _coefficients,
    "svm": _coefficients,
    "cox": _hazards,
    "survival": _lives,
    "compare": _compared,
    "cross-table": _crossed,
    "table-one": _table_one,
    "decision-tree": _importances,
    "random-forest": _importances,
    "gradient-boosting": _importances,
    "neural-network": _trained,
}
"""Algorithms that are not here show every figure with its path."""
