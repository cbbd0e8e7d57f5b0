"""JSON read strictly: what is one clear value is read as any parser reads it, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.data.strict_json import NotStrict, decode

KEYS = st.sampled_from(["a", "b", 'q"', "back\\", "c:d", ' ":', "ü", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(['"x":', '\\":', '" :']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def rule(raw: bytes) -> str:
    with pytest.raises(NotStrict) as caught:
        decode(raw)
    assert caught.value.finding.mend.endswith(".")
    return caught.value.finding.rule


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]), st.booleans())
def test_what_is_clear_is_read_as_any_parser_reads_it(value: Any, between: tuple[str, str], ascii_only: bool) -> None:
    raw = json.dumps(value, separators=between, ensure_ascii=ascii_only).encode()
    assert decode(raw) == json.loads(raw)


@given(
    st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
    VALUES,
    st.sampled_from([":", ": ", " :", "\t: "]),
    st.integers(0, 3),
)
def test_a_key_that_stands_twice_is_seen_wherever_it_stands(
    value: dict[str, Any], other: Any, colon: str, depth: int
) -> None:
    twin = next(iter(value))
    inside = json.dumps(value, separators=(",", colon))[1:-1]
    raw = "{" + inside + "," + json.dumps(twin) + colon + json.dumps(other) + "}"
    for _ in range(depth):
        raw = '{"x":[' + raw + '],"y" :1}'
    assert rule(raw.encode()) == "one-key-one-value"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "json"), (b"{", "json"), (b"{} {}", "json"), (b'{"a":NaN}', "json"), (b"{'a':1}", "json"),
        (b'{"a":1,}', "json"), (b'\xef\xbb\xbf{"a":1}', "no-byte-order-mark"),
        ('{"a":1}'.encode("utf-16"), "no-byte-order-mark"), (b'{"a":"\xe9"}', "utf-8"),
        (b'{"a":"\\ud83d"}', "unicode"), (b'{"a":"\\udc00x"}', "unicode"), (b'{"a":1e999}', "number"),
        (b'{"a":' + b"9" * 5_000 + b"}", "number"), (b"[" * 201 + b"]" * 201, "nesting"),
        (b"[" * 100_000 + b"]" * 100_000, "nesting"),
    ],
)  # fmt: skip
def test_what_is_not_is_told_apart(raw: bytes, expected: str) -> None:
    assert rule(raw) == expected


def test_two_hundred_levels_and_many_keys_are_read() -> None:
    assert decode(b"[" * 200 + b"]" * 200)
    wide = {f"k{i}": [{}] for i in range(1_000)}
    assert decode(json.dumps(wide).encode()) == wide


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert decode(b'{"a":"\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}
