"""What a reviewer is shown: findings by line, a digest, changes. A help, not the wall."""

from __future__ import annotations

import pytest

from flute.defaults.sandbox import MAX_SOURCE_BYTES
from flute.errors import SandboxRefusal
from flute.sandbox.review import changes, digest_of, imported, review
from support.sandbox_escapes import ESCAPES

GOOD = b'''"""The gradient of a logistic loss."""

import numpy as np

LEARNED = 3


def step(rows, parameters):
    """One row: outcome, then predictors."""
    outcome, x = rows[0, 0], rows[0, 1:]
    return x * (1 / (1 + np.exp(-x @ parameters["w"])) - outcome)
'''
HEAD = "def step(rows, parameters):\n"
FOUND = {
    "import os": ("import os\n", 1, "import"),
    "import of a part that loads files": ("import numpy.ctypeslib\n", 1, "import"),
    "import of a name that loads files": ("from numpy import load\n", 1, "import"),
    "relative import": ("from . import other\n", 1, "import"),
    "late import": (HEAD + "    import socket\n    return rows\n", 2, "import"),
    "a look-alike": ("import nunpy\n", 1, "import"),
    "eval": (HEAD + "    return eval('1')\n", 2, "name"),
    "open": (HEAD + "    return open('x')\n", 2, "name"),
    "getattr": (HEAD + "    return getattr(rows, 'x')\n", 2, "name"),
    "a name of the interpreter's": (HEAD + "    return __builtins__\n", 2, "name"),
    "dunder attribute": (HEAD + "    return ().__class__.__base__\n", 2, "attribute"),
    "a frame": (HEAD + "    return (lambda: 0).f_back\n", 2, "attribute"),
    "writing a file": (HEAD + "    rows.tofile('x')\n    return rows\n", 2, "attribute"),
    "a hidden name": (HEAD + "    return '{0.__class__}'\n", 2, "hidden-name"),
    "look-alike letters": ("def step(rows, p\u0430rameters):\n    return rows\n", 1, "name"),
    "work at import": ("print(1)\n", 1, "runs-at-import"),
    "no step": ("import numpy\n", 0, "no-step"),
    "a step of other arguments": ("def step(data):\n    return data\n", 1, "no-step"),
    "state": (HEAD + "    global kept\n    kept = 1\n    return rows\n", 2, "state"),
}


def test_an_ordinary_step_has_no_finding() -> None:
    assert review(GOOD) == ()
    assert imported(GOOD.decode()) == ("numpy",)


@pytest.mark.parametrize("name", FOUND)
def test_what_leads_out_is_found_by_line(name: str) -> None:
    source, line, rule = FOUND[name]
    assert (line, rule) in {(f.line, f.rule) for f in review(source.encode())}


@pytest.mark.requirement("F-PIL-23")
def test_every_way_out_that_is_tried_has_a_finding_too() -> None:
    """The control is the ordinary step above, which has none."""
    from pathlib import Path

    assert not [escape.name for escape in ESCAPES if not review(escape.source(Path("/hub")).encode())]


def test_only_allowed_modules_are_loaded_for_a_step() -> None:
    text = "import os, numpy.linalg\nfrom torch import nn\nimport numpy.f2py\ndef f():\n    import socket, math\n"
    assert imported(text) == ("math", "numpy.linalg", "torch")
    assert imported("import numpy as np\nx = np.random.default_rng\n") == ("numpy", "numpy.random")
    assert imported("from scipy import special\n") == ("scipy", "scipy.special")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"x = 1\n" * MAX_SOURCE_BYTES, "too-large"),
        (b"\xff\xfe", "not-text"),
        ("x = 1  # \u202e turned round\n".encode(), "not-text"),
        (b"x = 1\r\n", "not-text"),
        (b"x = \x00\n", "not-text"),
        (b"(" * 30_000, "not-python"),
        (b"-" * 60_000 + b"1", "not-python"),
        (b"def step(:\n", "not-python"),
    ],
)
def test_what_cannot_be_reviewed_is_refused(code: bytes, reason: str) -> None:
    with pytest.raises(SandboxRefusal) as refused:
        review(code)
    assert refused.value.reason == reason


def test_the_digest_changes_with_every_character_and_the_diff_shows_it() -> None:
    other = GOOD.replace(b"LEARNED = 3", b"LEARNED = 4")
    assert digest_of(GOOD) == digest_of(GOOD)
    assert len({digest_of(GOOD), digest_of(other), digest_of(GOOD + b"\n")}) == 3
    shown = changes(GOOD, other)
    assert "-LEARNED = 3\n+LEARNED = 4\n" in shown
    assert changes(GOOD, GOOD) == ""
