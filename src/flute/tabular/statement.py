"""Whether a text is one SELECT statement and nothing else. Said before any database sees it.

This is the outer of three walls: the statement is also put in brackets inside a SELECT of ours, and it runs in a
read-only transaction where the database has one (`database`). What is doubtful is refused.
"""

from __future__ import annotations

import re
from typing import Final

from flute.errors import Unmappable

_TOKEN: Final = re.compile(
    r"""
      (?P<line_comment>--[^\n]*)
    | (?P<comment>/\*(?!!).*?\*/)
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*" | `(?:[^`]|``)*`)
    | (?P<dollar>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<word>[^\W\d]\w*)
    | (?P<space>\s+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "INTO"})
"""Words that make a statement beginning with SELECT or WITH write: a table expression that writes, SELECT … INTO,
FOR UPDATE. What else could write is a function, which the read-only transaction stops."""
_PLAIN: Final = frozenset({"line_comment", "comment", "space"})


def check_one_select(statement: str) -> None:
    """Raises: Unmappable: it is not one SELECT statement, or cannot be told to be one."""
    depth, first, ended = 0, "", False
    for token in _TOKEN.finditer(statement):
        kind, text = token.lastgroup, token.group()
        if kind in _PLAIN:
            continue
        if ended:
            raise Unmappable("The query goes on after a semicolon; write one SELECT statement and nothing behind it.")
        if kind == "word":
            first = first or text.upper()
            if text.upper() in _WRITES:
                raise Unmappable(
                    f"The query holds the word {text.upper()}, by which statements write; a source is only read. If "
                    "it is the name of a column, put it in double quotes."
                )
        elif kind == "text" and "\\'" in text:
            raise Unmappable("A text in the query has a backslash before a quote, which databases read differently.")
        elif kind == "other":
            depth += {"(": 1, ")": -1}.get(text, 0)
            ended = text == ";"
            if depth < 0 or text in "'\"`" or statement.startswith(("/*", "$$"), token.start()):
                raise Unmappable("The query has a bracket, a quote or a comment that is not opened or not closed.")
        if not first:
            break
    if first not in ("SELECT", "WITH"):
        raise Unmappable("The query does not begin with SELECT (or WITH); only such statements are run.")
    if depth:
        raise Unmappable("The query has a bracket that is not closed.")


def bare(statement: str) -> str:
    """The statement without comments and without a semicolon at its end, so that it can stand in brackets."""
    tokens = (" " if t.lastgroup in _PLAIN else t.group() for t in _TOKEN.finditer(statement))
    return "".join(tokens).rstrip().removesuffix(";").rstrip()
