"""Results as matplotlib Axes: one picture per kind of answer, with the noise shown where there is any."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from flute.errors import MisuseError
from flute.sdk.extras import loaded

_BLUE: Final = "#1f6f8b"
_GREY: Final = "#8a97a3"


def plot(algorithm: str, value: dict[str, Any], ax: Any = None, *, simulated: bool, **options: Any) -> Any:
    """Draws a result's value on `ax`, or on Axes of its own. Raises: MisuseError: no picture for this algorithm."""
    for fits, draw in _PICTURES:
        if fits(value):
            axes = ax if ax is not None else loaded("matplotlib.pyplot").subplots()[1]
            draw(axes, value, **options)
            if simulated:
                axes.set_title(f"{axes.get_title()} (SIMULATED)")
            return axes
    raise MisuseError(f"There is no picture for {algorithm}; to_frame() has its figures.")


def _histogram(ax: Any, value: dict[str, Any], variable: str = "") -> None:
    """variable: which one of several; by default the first."""
    described = value["variables"]
    name = variable or next(iter(described))
    if name not in described:
        raise MisuseError(f"{name!r} was not described; there are {', '.join(described)}.")
    one = described[name]
    if "histogram" in one:
        edges, counts = one["histogram"]["edges"], one["histogram"]["counts"]
        widths = [b - a for a, b in pairwise(edges)]
        ax.bar(edges[:-1], counts, widths, align="edge", color=_BLUE, yerr=_noise(one["histogram"]["noise_se"]))
        ax.set_xlabel(f"{name} ({one['unit']})" if one.get("unit") else name)
    elif "levels" in one:
        levels = one["levels"]
        noise = _noise([level["noise_se"] for level in levels.values()])
        ax.bar(list(levels), [level["count"] for level in levels.values()], color=_BLUE, yerr=noise)
        ax.set_xlabel(name)
    else:
        shown = {n: v for n, v in described.items() if isinstance(v.get("mean"), dict)}
        ax.bar(list(shown), [v["mean"]["value"] for v in shown.values()], color=_BLUE)
    ax.set_ylabel("patients" if "mean" not in one or "histogram" in one else "mean")
    ax.set_title(one.get("label") or name)


def _noise(deviations: list[float]) -> list[float] | None:
    return deviations if any(deviations) else None


def _forest(ax: Any, value: dict[str, Any]) -> None:
    """Coefficients per standardised unit without the intercept; bars are 95 % of what is known of their errors."""
    names, numbers = value["columns"][1:], value["coefficients"][1:]
    errors = value.get("standard_errors") or value.get("noise_standard_errors")
    places = list(range(len(names)))[::-1]
    bars = None if errors is None else [1.96 * (e or 0.0) for e in errors[1:]]
    ax.errorbar(numbers, places, xerr=bars, fmt="o", color=_BLUE)
    ax.axvline(0, color=_GREY, linewidth=1)
    ax.set_yticks(places, names)
    ax.set_xlabel("log odds per standardised unit")
    ax.set_title(value.get("outcome", ""))


def _roc(ax: Any, value: dict[str, Any]) -> None:
    for reference, one in value["models"].items():
        if one.get("roc"):
            false_alarms = [1 - p["specificity"] for p in one["roc"]]
            ax.plot(false_alarms, [p["sensitivity"] for p in one["roc"]], label=_legend(reference, one))
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    ax.set_xlabel("1 - specificity")
    ax.set_ylabel("sensitivity")
    ax.set_title("ROC")
    ax.legend(loc="lower right")


def _legend(reference: str, one: dict[str, Any]) -> str:
    auc = one["auc"]
    return f"{reference}: AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"


def _curves(ax: Any, value: dict[str, Any]) -> None:
    """Part of the patients without the event, by group, with the interval that includes the noise."""
    for group, one in value["groups"].items():
        curve = one["curve"]
        times, alive = [0.0, *curve["times"]], [1.0, *curve["survival"]]
        drawn = ax.step(times, alive, where="post", label=group or "all")[0]
        bounds = ([1.0, *curve["low"]], [1.0, *curve["high"]])
        ax.fill_between(times, *bounds, step="post", alpha=0.2, color=drawn.get_color())
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(f"{value['time']} ({value['unit']})" if value.get("unit") else value["time"])
    ax.set_ylabel(f"without {value['event']}")
    ax.legend()


def _groups(ax: Any, value: dict[str, Any]) -> None:
    """One histogram of each group, as parts of it."""
    for group, one in value["groups"].items():
        edges, counts = one["histogram"]["edges"], one["histogram"]["counts"]
        whole = sum(counts) or 1.0
        ax.stairs([c / whole for c in counts], edges, label=f"{value['by']} = {group}")
    ax.set_xlabel(f"{value['outcome']} ({value['unit']})" if value.get("unit") else value["outcome"])
    ax.set_ylabel("part of the group")
    ax.legend()


def _importances(ax: Any, value: dict[str, Any]) -> None:
    ranked = sorted(value["importances"].items(), key=lambda item: item[1] or 0.0)
    ax.barh([name for name, _ in ranked], [share or 0.0 for _, share in ranked], color=_BLUE)
    ax.set_xlabel("importance")
    ax.set_title(value.get("outcome", ""))


def _ratios(ax: Any, value: dict[str, Any]) -> None:
    names, ratios = value["columns"], value["hazard_ratios"]
    places = list(range(len(names)))[::-1]
    ax.plot([r["value"] for r in ratios], places, "o", color=_BLUE)
    for place, ratio in zip(places, ratios, strict=True):
        if ratio["low"] is not None:
            ax.plot([ratio["low"], ratio["high"]], [place, place], color=_BLUE)
    ax.axvline(1, color=_GREY, linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(places, names)
    ax.set_xlabel("hazard ratio")


def _losses(ax: Any, value: dict[str, Any]) -> None:
    """Mean loss of the patients trained on, by round."""
    rounds = list(range(1, len(value["losses"]) + 1))
    ax.plot(rounds, [math.nan if loss is None else loss for loss in value["losses"]], "o-", color=_BLUE)
    ax.axhline(math.log(2), color=_GREY, linewidth=1, linestyle="--")  # of a model that says one half to everyone
    ax.set_xlabel("round")
    ax.set_ylabel("mean loss (nats)")
    ax.set_title(value["outcome"])


def _fits_forest(value: dict[str, Any]) -> bool:
    columns, numbers = value.get("columns"), value.get("coefficients")
    return isinstance(columns, list) and isinstance(numbers, list) and len(columns) == len(numbers) > 1


_PICTURES: Final[tuple[tuple[Callable[[dict[str, Any]], bool], Callable[..., None]], ...]] = (
    (lambda v: isinstance(v.get("models"), dict) and "risk_edges" in v, _roc),
    (lambda v: "hazard_ratios" in v and "columns" in v, _ratios),
    (lambda v: "log_rank" in v and "groups" in v, _curves),
    (lambda v: isinstance(v.get("groups"), dict) and "tests" in v, _groups),
    (lambda v: bool(v.get("losses")) and "layers" in v, _losses),
    (lambda v: isinstance(v.get("importances"), dict), _importances),
    (lambda v: isinstance(v.get("variables"), dict) and any(isinstance(o, dict) for o in v["variables"].values()),
     _histogram),
    (_fits_forest, _forest),
)  # fmt: skip
