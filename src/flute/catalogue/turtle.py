"""JSON-LD node objects as Turtle: the part of RDF 1.1 Turtle that our own descriptions use.

Source: W3C, RDF 1.1 Turtle, sections 2 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flute.errors import MisuseError

_NAME: Final = re.compile(r"([a-z]+):([A-Za-z][A-Za-z0-9_]*)\Z")
_NO_IRI: Final = re.compile(r"[\x00-\x20<>\"{}|\\^`]")
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def turtle(nodes: Sequence[Mapping[str, Any]], prefixes: Mapping[str, str]) -> bytes:
    """UTF-8. Nodes have `@id`, `@type` and properties under prefixed names; values are strings, references, typed or
    language-tagged values, or lists of them.

    Raises: MisuseError: anything else, or an address that cannot be one."""
    lines = [f"@prefix {name}: <{address}> ." for name, address in sorted(prefixes.items())]
    for node in nodes:
        said = [("a", ", ".join(_name(kind, prefixes) for kind in node["@type"]))]
        said += [(_name(k, prefixes), _objects(v, prefixes)) for k, v in node.items() if not k.startswith("@")]
        body = " ;\n    ".join(f"{name} {objects}" for name, objects in said)
        lines += ["", f"{_iri(node['@id'])}\n    {body} ."]
    return ("\n".join(lines) + "\n").encode()


def _objects(value: Any, prefixes: Mapping[str, str]) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(_object(one, prefixes) for one in values)


def _object(value: Any, prefixes: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict) and set(value) == {"@id"}:
        return _iri(value["@id"])
    if isinstance(value, dict) and set(value) == {"@value", "@language"}:
        return f"{_quoted(value['@value'])}@{value['@language']}"
    if isinstance(value, dict) and set(value) == {"@value", "@type"}:
        return f"{_quoted(value['@value'])}^^{_name(value['@type'], prefixes)}"
    raise MisuseError("A description holds a value that this writer of Turtle does not know.")


def _name(name: str, prefixes: Mapping[str, str]) -> str:
    found = _NAME.match(name)
    if found is None or found.group(1) not in prefixes:
        raise MisuseError(f"{name[:80]} is no name with a known prefix.")
    return name


def _iri(address: str) -> str:
    if _NO_IRI.search(address) or ":" not in address:
        raise MisuseError(f"{address[:80]} is no address that RDF could hold.")
    return f"<{address}>"


def _quoted(words: str) -> str:
    shown = "".join(_ESCAPES.get(c, c) if c >= " " or c in _ESCAPES else f"\\u{ord(c):04X}" for c in words)
    return f'"{shown}"'
