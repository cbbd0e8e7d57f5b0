"""Reading exports: what is taken, what is refused one by one, and the bundles that stand or fall as a whole."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flute.connectors import file_survey, files
from flute.connectors.files import FilesReader
from flute.data.reader import Page, Record, Refused
from flute.errors import Unmappable, Unreachable

UUID = "urn:uuid:8a80b7e2-1879-418e-92eb-36418846b599"
OTHER = "urn:uuid:08e6398c-85fa-4d32-97ef-3d7aa9969bb8"


def pages(folder: Path, mark: bytes | None = None) -> list[Page]:
    return list(FilesReader(folder).pages(mark))


def read(folder: Path) -> tuple[list[str], dict[str, int]]:
    """What a first import would be offered: keys of records, and reasons of refusals."""
    found = pages(folder)
    refused = Counter(r.finding.reason for page in found for r in page.refused)
    return [record.key for page in found for record in page.records], dict(refused)


def records(folder: Path) -> list[Record]:
    return [record for page in pages(folder) for record in page.records]


def refusals(folder: Path) -> list[Refused]:
    return [refused for page in pages(folder) for refused in page.refused]


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
    b'{"resourceType":"Patient","id":"p9","id":"p8"}': "malformed-json",
    b'{"resourceType":"Patient","id":"p9","x":{"y":1,"y" :2}}': "malformed-json",
    b'{"resourceType":"Patient","id":"p9","x":"\\ud800"}': "malformed-json",
    b'{"resourceType":"Patient","id":"p9","x":1e999}': "malformed-json",
    b'{"resourceType":"Patient","id":"p9"} {}': "malformed-json",
    b'{"resourceType":"Patient","id":"p9","x":' + b"[" * 300 + b"]" * 300 + b"}": "malformed-json",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_counted_and_the_next_one_read(tmp_path: Path, line: bytes) -> None:
    good = [json.dumps(patient(key)).encode() for key in ("p1", "p2")]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join([good[0], line, b"", good[1]]))
    assert read(tmp_path) == (["Patient/p1", "Patient/p2"], {BAD_LINES[line]: 1})
    assert [r.origin for r in refusals(tmp_path)] == ["a.ndjson, line 2"]


def test_a_line_that_is_too_long_is_skipped_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RESOURCE_BYTES", 100)
    long = json.dumps(patient("p1") | {"text": "x" * 1_000})
    (tmp_path / "a.ndjson").write_text("\n".join([long, json.dumps(patient("p2"))]), encoding="utf-8")
    assert read(tmp_path) == (["Patient/p2"], {"too-long": 1})


def test_compressed_files_are_read_and_a_bomb_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(json.dumps(patient(f"p{i}")) for i in range(100))
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    assert len(read(tmp_path)[0]) == 100
    monkeypatch.setattr(file_survey, "MAX_IMPORT_FILE_BYTES", 1_000)
    assert read(tmp_path) == ([], {"too-long": 1})


DAMAGED = [b"no gzip", gzip.compress(b'{"id":1}\n' * 99, mtime=0)[:-9], b"\x1f\x8b\x08\x00" + b"\xff" * 40]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_file_that_breaks_off_brings_nothing_and_the_others_come_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(content)
    (tmp_path / "b.ndjson").write_text(json.dumps(patient()), encoding="utf-8")
    assert read(tmp_path) == (["Patient/p1"], {"file-broken": 1})


def test_a_folder_that_is_not_there_or_holds_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nowhere"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(Unmappable, match="holds no"):
        read(tmp_path)


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.ndjson").write_text(json.dumps(patient(name)), encoding="utf-8")
    assert read(tmp_path)[0] == ["Patient/a", "Patient/b"]


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
    found = records(tmp_path)
    assert [f.resource["id"] for f in found] == [UUID[9:], OTHER[9:]]
    assert found[1].resource["subject"]["reference"] == f"Patient/{UUID[9:]}"
    assert {f.bundle for f in found} == {"b.json"}


def test_a_put_keeps_the_id_of_its_address(tmp_path: Path) -> None:
    write(tmp_path, bundle("transaction", entry(patient("x"), UUID, "PUT", "Patient/p7")))
    assert [(r.key, r.bundle) for r in records(tmp_path)] == [("Patient/p7", "b.json")]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"resourceType": "Observation", "id": "o", "subject": {"reference": OTHER}}, "reference-not-resolved"),
        ({"resourceType": "Observation", "id": "a b"}, "id-invalid"),
        ({"resourceType": "Observation"}, "required-element-missing"),
        (None, "wrong-type"),
    ],
)
def test_what_is_bad_in_a_transaction_carries_its_name_in_the_same_page(
    tmp_path: Path, bad: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGE_RESOURCES", 1)
    write(tmp_path, bundle("transaction", entry(patient(), UUID, "POST"), entry(bad)))
    (page,) = pages(tmp_path)
    assert [(r.origin, r.bundle, r.finding.reason) for r in page.refused] == [("b.json, entry 2", "b.json", reason)]
    assert [(r.origin, r.bundle) for r in page.records] == [("b.json, entry 1", "b.json")]


@pytest.mark.parametrize("kind", ["collection", "searchset"])
def test_other_bundles_lose_only_what_is_bad(tmp_path: Path, kind: str) -> None:
    write(
        tmp_path, bundle(kind, entry(patient()), entry({"resourceType": "Patient"}), "nonsense", entry(patient("p2")))
    )
    assert read(tmp_path) == (["Patient/p1", "Patient/p2"], {"required-element-missing": 1, "wrong-type": 1})


def test_a_single_resource_in_a_json_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, patient())
    assert read(tmp_path)[0] == ["Patient/p1"]


@pytest.mark.parametrize("value", [bundle("document"), bundle("history"), bundle("transaction") | {"entry": 7}])
def test_a_bundle_that_is_no_export_is_refused(tmp_path: Path, value: Any) -> None:
    write(tmp_path, value)
    assert read(tmp_path) == ([], {"wrong-type": 1})


def test_a_bundle_nested_deeper_than_any_record_is_refused(tmp_path: Path) -> None:
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    text = f'{{"resourceType":"Bundle","type":"transaction","entry":[{{"fullUrl":"{UUID}","resource":{deep}}}]}}'
    (tmp_path / "b.json").write_text(text, encoding="utf-8")
    assert read(tmp_path)[0] == []


def test_a_bundle_over_the_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bundle("collection", entry(patient())))
    monkeypatch.setattr(file_survey, "MAX_BUNDLE_BYTES", 10)
    assert read(tmp_path) == ([], {"too-long": 1})


# --- pages and marks -------------------------------------------------------------------------------


def lines(path: Path, *keys: str) -> None:
    path.write_text("".join(json.dumps(patient(key)) + "\n" for key in keys), encoding="utf-8")


def taken(found: list[Page]) -> list[str]:
    return [record.key.partition("/")[2] for page in found for record in page.records]


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.json"])
def test_an_import_goes_on_inside_a_file_from_any_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "PAGE_RESOURCES", 3)
    keys = [f"p{i}" for i in range(10)]
    text = "".join(json.dumps(patient(key)) + "\r\n\n" for key in keys).encode()
    if name == "a.json":
        text = json.dumps(bundle("collection", *(entry(patient(key)) for key in keys))).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    whole = pages(tmp_path)
    assert [len(page.records) for page in whole] == [3, 3, 3, 1]
    assert [(page.begins, page.ends) for page in whole] == [
        (True, ""), (False, ""), (False, ""), (False, "complete"),
    ]  # fmt: skip
    for number in range(len(whole)):
        rest = pages(tmp_path, whole[number].mark)
        assert rest == whole[number + 1 :]
    assert pages(tmp_path, whole[-1].mark) == []


def test_a_file_that_changed_while_an_import_was_interrupted_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGE_RESOURCES", 1)
    lines(tmp_path / "a.ndjson", "p1", "p2")
    first = pages(tmp_path)[0]
    lines(tmp_path / "a.ndjson", "p3", "p4")
    rest = pages(tmp_path, first.mark)
    assert taken(rest) == ["p3", "p4"]
    assert rest[0].begins


def test_unchanged_files_are_passed_over_and_changed_ones_read_whole(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1", "p2")
    lines(tmp_path / "b.ndjson", "p3")
    mark = pages(tmp_path)[-1].mark
    assert pages(tmp_path, mark) == []
    lines(tmp_path / "b.ndjson", "p3", "p4")
    again = pages(tmp_path, mark)
    assert taken(again) == ["p3", "p4"]
    assert [(p.scope, p.skipped, p.begins, p.ends) for p in again] == [
        ("b.ndjson", 0, True, "complete"), ("a.ndjson", 2, True, "changes"),
    ]  # fmt: skip


def test_a_file_that_was_only_touched_is_unchanged(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1")
    mark = pages(tmp_path)[-1].mark
    os.utime(tmp_path / "a.ndjson", ns=(1, 1))
    assert pages(tmp_path, mark) == []


def test_what_came_from_a_file_that_is_gone_is_gone(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1")
    lines(tmp_path / "b.ndjson", "p2")
    mark = pages(tmp_path)[-1].mark
    (tmp_path / "a.ndjson").unlink()
    again = pages(tmp_path, mark)
    assert again[0] == Page("a.ndjson", again[0].mark, begins=True, ends="complete")
    assert pages(tmp_path, again[-1].mark) == []


def test_a_folder_that_is_suddenly_empty_takes_nothing_away(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1")
    mark = pages(tmp_path)[-1].mark
    (tmp_path / "a.ndjson").unlink()
    with pytest.raises(Unmappable, match="holds no FHIR file"):
        pages(tmp_path, mark)


def test_a_file_that_breaks_later_keeps_what_was_taken_from_it(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(json.dumps(patient()).encode()))
    mark = pages(tmp_path)[-1].mark
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(json.dumps(patient()).encode())[:-9])
    (page,) = pages(tmp_path, mark)
    assert (page.records, page.ends, page.refused[0].finding.rule) == ((), "changes", "file-whole")
    assert pages(tmp_path, page.mark) == []


def test_a_file_that_changes_while_it_is_read_is_no_complete_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGE_RESOURCES", 1)
    lines(tmp_path / "a.ndjson", "p1", "p2", "p3")
    found = FilesReader(tmp_path).pages(None)
    next(found)
    with (tmp_path / "a.ndjson").open("a", encoding="utf-8") as file:
        file.write(json.dumps(patient("p4")) + "\n")
    with pytest.raises(Unreachable, match="changes while it is read"):
        list(found)


def test_large_resources_make_pages_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE_BYTES", 100)
    lines(tmp_path / "a.ndjson", *(f"p{i}" for i in range(9)))
    assert {len(page.records) for page in pages(tmp_path)} == {2, 1}


def test_hidden_files_are_nobodys(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1")
    (tmp_path / "._a.ndjson").write_bytes(b"\x00\x05\x16\x07")
    assert read(tmp_path) == (["Patient/p1"], {})


def test_a_single_file_is_a_source_too(tmp_path: Path) -> None:
    lines(tmp_path / "a.ndjson", "p1")
    lines(tmp_path / "b.ndjson", "p2")
    assert taken(pages(tmp_path / "b.ndjson")) == ["p2"]
    (tmp_path / "c.txt").write_text("x", encoding="utf-8")
    with pytest.raises(Unmappable, match=r"c\.txt is no FHIR file"):
        pages(tmp_path / "c.txt")
