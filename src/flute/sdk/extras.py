"""What notebooks show needs packages that a hub does not: loaded when asked for; one sentence where they lack."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from flute.errors import MisuseError

_WHAT: Final = {
    "pandas": "tables", "torch": "networks", "matplotlib": "plots", "jupyterlab": "JupyterLab",
    "ipykernel": "notebooks", "onnx": "ONNX files",
}  # fmt: skip


def loaded(module: str, extra: str = "sdk") -> Any:
    """A package of an extra. Raises: MisuseError: it is not installed; the text names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MisuseError(
            f"{_WHAT.get(package, package).capitalize()} need {package}, which is not installed here: "
            f"pip install 'flute[{extra}]'."
        ) from error


def frame(rows: list[dict[str, Any]], index: str | list[str] | None = None) -> Any:
    """A pandas DataFrame. Raises: MisuseError: pandas is not installed."""
    made = loaded("pandas").DataFrame(rows)
    return made if index is None else made.set_index(index)
