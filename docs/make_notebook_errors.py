"""Write docs/how-to/notebook-errors.md: twelve likely mistakes, made, and what is said to each. A test compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flute.sdk as flute

PAGE = Path(__file__).resolve().parent / "how-to" / "notebook-errors.md"
HEAD = """\
# What a notebook says to twelve likely mistakes

Each mistake below was made to write this page (`docs/make_notebook_errors.py`), and `tests/unit/test_sdk_errors.py`
makes them all again: these are the very sentences. Every error of FLUTE is a `flute.FluteError`. Where one of these
is raised, nothing was asked of any hub.
"""
Mistake = tuple[str, str, str]
"""Title, the line that is wrong, and what to write instead."""
SET_UP = """\
heart = flute.example("heart")
fed = flute.simulator(heart)
study = fed.study("heart", purpose="Look at errors.", variables=heart.variables, budget=flute.Budget(epsilon=1))
exact = fed.study("exact", purpose="Look at errors.", variables=heart.variables, exact=flute.Exact())
model = flute.FederatedLogisticRegression("heart_disease", ["age", "sex"])
"""
MISTAKES: tuple[Mistake, ...] = (
    ("Nothing says how results are protected",
     'fed.study("heart", purpose="Look.", variables=heart.variables)',
     'fed.study("heart", purpose="Look.", variables=heart.variables, budget=flute.Budget(epsilon=1))'),
    ("Nothing says what a run may spend",
     'study.run(flute.Describe(["age"]))',
     'study.run(flute.Describe(["age"]), epsilon=0.5)'),
    ("A variable's name is misspelt",
     'study.run(flute.Describe(["agee"]), epsilon=0.5)',
     'study.run(flute.Describe(["age"]), epsilon=0.5)'),
    ("One name where a list belongs",
     'flute.Describe("age", epsilon=0.5).fit(study)',
     'flute.Describe(["age"], epsilon=0.5).fit(study)'),
    ("More than is left of the budget",
     'study.run(flute.Describe(["age"]), epsilon=2)',
     'study.run(flute.Describe(["age"]), epsilon=0.5)'),
    ("A model is evaluated apart from the run that fits it",
     "study.run(flute.Evaluate(model), epsilon=0.5)",
     "study.run([model, flute.Evaluate(model)], epsilon=0.5)"),
    ("A result is read before the question was asked",
     "model.predict(frame)",
     "model.fit(study, epsilon=0.5).predict(frame)"),
    ("A hub's records lack a column that the study reads",
     'fed.study("heart", purpose="Look.", variables=flute.Variables(weight=flute.number(30, 250)), budget=1).run(\n'
     '    flute.Describe(["weight"]), epsilon=0.5\n)',
     "Declare variables as the columns are named, or give records that have them."),
    ("A path leads nowhere",
     'flute.local({"north": "nort.csv", "south": "south.csv", "west": "west.csv"})',
     'flute.local({"north": "north.csv", "south": "south.csv", "west": "west.csv"})'),
    ("Nobody answers at that address",
     'flute.connect("http://127.0.0.1:9", person="keys/ada")',
     'flute.connect("http://127.0.0.1:8700", person="keys/ada")'),
    ("Something that is no layer of a network",
     'flute.NeuralNetwork("heart_disease", ["age"], network=["relu"], epsilon=0.5).fit(study)',
     'flute.NeuralNetwork("heart_disease", ["age"], network=[flute.Activation("relu")], epsilon=0.5).fit(study)'),
    ("A network opens more numbers than the study allows",
     'exact.run(flute.NeuralNetwork("heart_disease", ["age"], network=[flute.Dense(256)]))',
     'fed.study("net", purpose="Look.", variables=heart.variables, exact=flute.Exact(max_numbers=20_000))'),
)  # fmt: skip


def said(line: str, names: dict[str, Any]) -> tuple[str, str]:
    """Class and text of the error that a line raises."""
    try:
        exec(line, names)
    except flute.FluteError as error:
        return type(error).__name__, error.text
    raise AssertionError(f"no error: {line}")


def page() -> str:
    import pandas

    names: dict[str, Any] = {"flute": flute, "frame": pandas.DataFrame({"age": [50], "sex": ["f"]})}
    exec(SET_UP, names)
    try:
        return HEAD + "\n" + "```python\nimport flute.sdk as flute\n\n" + SET_UP + "```\n" + _sections(names)
    finally:
        names["fed"].close()


def _sections(names: dict[str, Any]) -> str:
    written = []
    for number, (title, line, instead) in enumerate(MISTAKES, start=1):
        kind, text = said(line, names)
        right = f"`{instead}`" if instead.endswith(")") else instead
        written.append(
            f"\n## {number}. {title}\n\n```python\n{line}\n```\n\n`{kind}`:\n\n> {text}\n\nInstead: {right}\n"
        )
    return "".join(written)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}.")
