"""Development evidence from a real software TPM: from key activation to a decision."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flute.attestation.appraise import appraise
from flute.attestation.binding import report_data
from flute.attestation.evidence import Kind, parse
from flute.attestation.verify import verify
from flute.errors import EvidenceError, RejectedEvidence
from support.swtpm import Swtpm, require_swtpm

NOW = 1_780_000_000


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    require_swtpm()
    folder = Path(tempfile.mkdtemp(prefix="tpm"))  # short: a socket's path has at most 107 characters
    running = Swtpm.start(folder)
    yield running
    running.stop()
    shutil.rmtree(folder)


def test_a_quote_over_a_key_is_accepted_as_development(tpm: Swtpm) -> None:
    bound = report_data(b"k" * 32, b"study/aggregator 1")
    raw = tpm.quote(bound)
    found = appraise(verify(parse(raw), collateral=None, now=NOW), policy=tpm.policy(), report_data=bound)
    assert (found.kind, found.maker, found.development) == (Kind.TPM, "TPM", True)
    assert found.report_data == bound
    assert dict(found.registers)["register0"] == tpm.registers()[0]


def test_the_attestation_key_lives_in_the_tpm_of_the_endorsement_key(tpm: Swtpm) -> None:
    assert tpm.activate(b"0123456789abcdef") == b"0123456789abcdef"


def test_other_software_is_seen(tpm: Swtpm) -> None:
    bound = bytes(64)
    before = tpm.policy()
    tpm.measure(11, b"\x42" * 32)
    found = verify(parse(tpm.quote(bound)), collateral=None, now=NOW)
    with pytest.raises(RejectedEvidence, match="register 11") as caught:
        appraise(found, policy=before, report_data=bound)
    assert caught.value.reason == "measurement"
    assert appraise(found, policy=tpm.policy(), report_data=bound).development


def test_a_quote_does_not_pass_for_another_key_or_another_time(tpm: Swtpm) -> None:
    found = verify(parse(tpm.quote(report_data(b"one key", b"round 1"))), collateral=None, now=NOW)
    for key, context in ((b"another", b"round 1"), (b"one key", b"round 2")):
        with pytest.raises(RejectedEvidence) as caught:
            appraise(found, policy=tpm.policy(), report_data=report_data(key, context))
        assert caught.value.reason == "report-data"


def test_a_policy_without_development_takes_no_tpm(tpm: Swtpm) -> None:
    found = verify(parse(tpm.quote(bytes(64))), collateral=None, now=NOW)
    policy = msgspec.structs.replace(tpm.policy(), development=False)
    with pytest.raises(RejectedEvidence, match="DEVELOPMENT") as caught:
        appraise(found, policy=policy, report_data=bytes(64))
    assert caught.value.reason == "development"


def test_no_changed_bit_of_what_a_tpm_signed_passes(tpm: Swtpm) -> None:
    parts, policy = msgspec.json.decode(tpm.quote(bytes(64))), tpm.policy()

    def decide(changed: dict[str, object]) -> None:
        found = verify(parse(msgspec.json.encode(changed)), collateral=None, now=NOW)
        appraise(found, policy=policy, report_data=bytes(64))

    decide(parts)
    for part in ("attested", "signature", "key"):
        raw = base64.b64decode(parts[part])
        for at in range(0, 8 * len(raw), 3):
            changed = bytearray(raw)
            changed[at // 8] ^= 1 << at % 8
            with pytest.raises(EvidenceError):
                decide({**parts, part: bytes(changed)})
