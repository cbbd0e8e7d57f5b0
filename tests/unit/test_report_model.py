"""The report as JSON: complete, stable, read back as it was."""

from __future__ import annotations

import math

import msgspec
import pytest

from flute.errors import Malformed, TooLarge
from flute.report import model
from flute.report.model import Budget, HubReport, NoisyCount, Report, StudyReport
from flute.report.render import from_json, render_json
from unit.report_sample import sample


def test_a_report_comes_back_from_json_as_it_was() -> None:
    raw = render_json(sample())
    assert from_json(raw) == sample()
    assert render_json(from_json(raw)) == raw


def test_json_keys_are_sorted_so_that_two_reports_can_be_compared() -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert list(value) == sorted(value)
            for below in value.values():
                check(below)
        if isinstance(value, list):
            for below in value:
                check(below)

    check(msgspec.json.decode(render_json(sample())))


def test_json_names_its_schema_and_keeps_every_digest_in_full() -> None:
    document = msgspec.json.decode(render_json(sample()))
    assert document["schema"] == "flute/report/v1"
    assert document["simulated"] is True
    receipt = document["studies"][0]["receipts"][0]
    assert len(receipt["total"]) == len(receipt["agreement"]) == 64


def test_nan_and_infinity_become_null_in_json_and_unknown_when_read_back() -> None:
    report = Report(
        title="t",
        simulated=False,
        made_at=0,
        studies=(StudyReport("s", "S", "private", results={"m": {"auc": math.nan, "x": [math.inf, 1.0]}}),),
        hubs=(HubReport("north", patients=NoisyCount(math.nan, math.inf), budget_after=Budget(epsilon=math.inf)),),
    )
    back = from_json(render_json(report))
    assert back.studies[0].results == {"m": {"auc": None, "x": [None, 1.0]}}
    assert back.hubs[0].patients == NoisyCount(None, None)
    assert back.hubs[0].budget_after == Budget()


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"schema":"flute/report/v2"}', b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_report_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        from_json(raw)


def test_a_report_of_another_schema_is_refused() -> None:
    raw = render_json(sample()).replace(b"flute/report/v1", b"flute/report/v9")
    with pytest.raises(Malformed, match="schema"):
        from_json(raw)


def test_an_oversized_report_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_REPORT_BYTES", 10)
    with pytest.raises(TooLarge):
        from_json(b"{" * 11)
