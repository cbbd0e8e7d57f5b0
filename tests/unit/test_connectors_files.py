"""Reading exports: what is taken, what is refused one by one, and the bundles that stand or fall as a whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from flute.connectors import files
from flute.connectors.files import Folder
from flute.errors import Unmappable, Unreachable

UUID = "urn:uuid:8a80b7e2-1879-418e-92eb-36418846b599"
OTHER = "urn:uuid:08e6398c-85fa-4d32-97ef-3d7aa9969bb8"


def read(folder: Path, *given_up: int) -> tuple[list[tuple[str, str, int]], dict[str, int], int]:
    source = Folder(folder, frozenset(given_up))
    found = [(f.resource["resourceType"], f.resource["id"], f.bundle) for f in source]
    return found, dict(source.refused), source.resources


def patient(key: str = "p1") -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key}


BAD_LINES = {
    b"{": "malformed-json",
    b'{"resourceType":"Patient","id":"p\xff"}': "malformed-json",
    b'{"resourceType":"Patient","id":NaN}': "malformed-json",
    b"[" * 5_000 + b"]" * 5_000: "malformed-json",
    b'{"id":"p9"}': "required-element-missing",
    b'{"resourceType":"Patient"}': "required-element-missing",
    b"[]": "wrong-type",
    b'"Patient"': "wrong-type",
    b'{"resourceType":"patient","id":"p9"}': "wrong-type",
    b'{"resourceType":["Patient"],"id":"p9"}': "wrong-type",
    b'{"resourceType":"Patient","id":9}': "wrong-type",
    b'{"resourceType":"Patient","id":"a b"}': "id-invalid",
    b'{"resourceType":"Patient","id":""}': "id-invalid",
    b'{"resourceType":"Patient","id":"a\\n"}': "id-invalid",
    b'{"resourceType":"Patient","id":"' + b"x" * 65 + b'"}': "id-invalid",
    b'{"resourceType":"Patient","id":"p1"}': "duplicate-id",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_counted_and_the_next_one_read(tmp_path: Path, line: bytes) -> None:
    good = [json.dumps(patient(key)).encode() for key in ("p1", "p2")]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join([good[0], line, b"", good[1]]))
    assert read(tmp_path) == ([("Patient", "p1", 0), ("Patient", "p2", 0)], {BAD_LINES[line]: 1}, 3)


def test_a_line_that_is_too_long_is_skipped_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RESOURCE_BYTES", 100)
    long = json.dumps(patient("p1") | {"text": "x" * 1_000})
    (tmp_path / "a.ndjson").write_text("\n".join([long, json.dumps(patient("p2"))]), encoding="utf-8")
    assert read(tmp_path) == ([("Patient", "p2", 0)], {"too-long": 1}, 2)


def test_compressed_files_are_read_and_a_bomb_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(json.dumps(patient(f"p{i}")) for i in range(100))
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    assert len(read(tmp_path)[0]) == 100
    monkeypatch.setattr(files, "MAX_IMPORT_FILE_BYTES", 1_000)
    with pytest.raises(Unmappable, match="1000 bytes"):
        read(tmp_path)


DAMAGED = [b"no gzip", gzip.compress(b'{"id":1}\n' * 99)[:-9], b"\x1f\x8b\x08\x00" + b"\xff" * 40]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_compressed_file_stops_the_import(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(content)
    with pytest.raises(Unreachable, match=r"a\.ndjson\.gz"):
        read(tmp_path)


def test_a_folder_that_is_not_there_or_holds_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nowhere"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(Unmappable, match="holds no"):
        read(tmp_path)


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.ndjson").write_text(json.dumps(patient(name)), encoding="utf-8")
    assert [key for _, key, _ in read(tmp_path)[0]] == ["a", "b"]


# --- bundles -------------------------------------------------------------------------------------


def bundle(kind: str, *entries: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(resource: Any, full: str | None = None, method: str | None = None, url: str = "Patient") -> dict[str, Any]:
    made: dict[str, Any] = {"resource": resource}
    if full:
        made["fullUrl"] = full
    if method:
        made["request"] = {"method": method, "url": url}
    return made


def write(folder: Path, value: Any, name: str = "b.json") -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def test_a_transaction_s_references_by_uuid_are_resolved(tmp_path: Path) -> None:
    observation = {"resourceType": "Observation", "id": "old", "subject": {"reference": UUID}}
    write(tmp_path, bundle("transaction", entry(patient(), UUID, "POST"), entry(observation, OTHER, "POST")))
    found = list(Folder(tmp_path))
    assert [f.resource["id"] for f in found] == [UUID[9:], OTHER[9:]]
    assert found[1].resource["subject"]["reference"] == f"Patient/{UUID[9:]}"
    assert {f.bundle for f in found} == {1}


def test_a_put_keeps_the_id_of_its_address(tmp_path: Path) -> None:
    write(tmp_path, bundle("transaction", entry(patient("x"), UUID, "PUT", "Patient/p7")))
    assert read(tmp_path)[0] == [("Patient", "p7", 1)]


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        ({"resourceType": "Observation", "id": "o", "subject": {"reference": OTHER}}, {"reference-not-resolved": 1}),
        ({"resourceType": "Observation", "id": "a b"}, {"id-invalid": 1}),
        ({"resourceType": "Observation"}, {"required-element-missing": 1}),
        (None, {"wrong-type": 1}),
    ],
)
def test_a_transaction_with_one_bad_entry_stores_nothing(tmp_path: Path, bad: Any, reasons: dict[str, int]) -> None:
    write(tmp_path, bundle("transaction", entry(patient(), UUID, "POST"), entry(bad)))
    write(tmp_path, bundle("transaction", entry(patient("other"))), "c.json")
    assert read(tmp_path) == ([("Patient", "other", 2)], reasons | {"transaction-refused": 1}, 3)


def test_a_transaction_that_was_given_up_stays_out(tmp_path: Path) -> None:
    write(tmp_path, bundle("transaction", entry(patient()), entry(patient("p2"))))
    assert read(tmp_path, 1) == ([], {"transaction-refused": 2}, 2)


@pytest.mark.parametrize("kind", ["collection", "searchset"])
def test_other_bundles_lose_only_what_is_bad(tmp_path: Path, kind: str) -> None:
    write(
        tmp_path, bundle(kind, entry(patient()), entry({"resourceType": "Patient"}), "nonsense", entry(patient("p2")))
    )
    found, refused, total = read(tmp_path)
    assert found == [("Patient", "p1", 0), ("Patient", "p2", 0)]
    assert refused == {"required-element-missing": 1, "wrong-type": 1}
    assert total == 4


def test_a_single_resource_in_a_json_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, patient())
    assert read(tmp_path)[0] == [("Patient", "p1", 0)]


@pytest.mark.parametrize("value", [bundle("document"), bundle("history"), bundle("transaction") | {"entry": 7}])
def test_a_bundle_that_is_no_export_is_refused(tmp_path: Path, value: Any) -> None:
    write(tmp_path, value)
    assert read(tmp_path) == ([], {"wrong-type": 1}, 1)


def test_a_bundle_nested_deeper_than_any_record_is_refused(tmp_path: Path) -> None:
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    text = f'{{"resourceType":"Bundle","type":"transaction","entry":[{{"fullUrl":"{UUID}","resource":{deep}}}]}}'
    (tmp_path / "b.json").write_text(text, encoding="utf-8")
    assert read(tmp_path)[0] == []


def test_a_bundle_over_the_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bundle("collection", entry(patient())))
    monkeypatch.setattr(files, "MAX_BUNDLE_BYTES", 10)
    assert read(tmp_path) == ([], {"too-long": 1}, 1)
