"""NDJSON line by line: what is read, what stops a run, and where."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from flute.errors import Unmappable, Unreachable
from flute.views import stream
from flute.views.stream import Lines

GOOD = b'{"resourceType":"Patient","id":"a"}\n\n{"resourceType":"Basic","n":1.50}'


def test_lines_are_resources_and_empty_ones_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "f.ndjson").write_bytes(GOOD)
    lines = Lines(tmp_path / "f.ndjson")
    assert [r["resourceType"] for r in lines] == ["Patient", "Basic"]
    assert lines.line == 3


def test_gzip_is_unpacked_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "f.ndjson.gz").write_bytes(gzip.compress(GOOD))
    assert len(list(Lines(tmp_path / "f.ndjson.gz"))) == 2


def test_decimals_keep_their_digits_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f.ndjson").write_bytes(GOOD)
    exact = [r.get("n") for r in Lines(tmp_path / "f.ndjson", exact=True)]
    assert exact == [None, Decimal("1.50")]
    assert str(exact[1]) == "1.50"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "no JSON"), (b"\xff\xfe{}", "no JSON"), (b"[" * 100_000, "no JSON"), (b"1e999999", "no "),
        (b"[1]", "no FHIR resource"), (b'{"id":"a"}', "no FHIR resource"),
        (b'{"resourceType":7}', "no FHIR resource"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_resource_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "f.ndjson").write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    met = []
    with pytest.raises(Unmappable, match=rf"f\.ndjson, line 4 .*{says}"):
        met.extend(Lines(tmp_path / "f.ndjson"))


def test_a_line_beyond_the_limit_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_RESOURCE_BYTES", 100)
    (tmp_path / "f.ndjson").write_bytes(GOOD + b"\n" + b'{"resourceType":"' + b"x" * 1000 + b'"}')
    with pytest.raises(Unmappable, match="line 4 goes beyond"):
        list(Lines(tmp_path / "f.ndjson"))


def test_a_bomb_of_lines_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_IMPORT_FILE_BYTES", 10_000)
    (tmp_path / "f.ndjson.gz").write_bytes(gzip.compress((GOOD + b"\n") * 1000))
    with pytest.raises(Unmappable, match="beyond"):
        list(Lines(tmp_path / "f.ndjson.gz"))


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.ndjson.gz").write_bytes(gzip.compress((GOOD + b"\n") * 1000)[:-20])
    with pytest.raises(Unreachable, match="to its end"):
        list(Lines(tmp_path / "f.ndjson.gz"))
    with pytest.raises(Unreachable, match="to its end"):
        list(Lines(tmp_path / "nothing.ndjson"))
