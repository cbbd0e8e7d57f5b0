"""Whatever bytes come in, only errors of ours come out, and nothing is accepted."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.attestation.collateral import SnpCollateral, read_collateral, write_collateral
from flute.attestation.evidence import parse
from flute.attestation.intel.dcap import parse_quote
from flute.attestation.policy import policy_of, read_policy
from flute.attestation.verify import verify
from flute.defaults.evidence import MAX_COLLATERAL_BYTES, MAX_EVIDENCE_BYTES, MAX_POLICY_BYTES
from flute.errors import EvidenceError, MalformedEvidence, MisuseError, UntrustedEvidence
from support.evidence_issuer import NOW, CcaIssuer, SnpIssuer, TpmIssuer

BOUND = bytes(range(64))
FEW = settings(max_examples=150, deadline=None)
KINDS = ("sev-snp", "arm-cca", "tpm")


@cache
def issuer(kind: str) -> Any:
    return {"sev-snp": SnpIssuer, "arm-cca": CcaIssuer, "tpm": TpmIssuer}[kind]()


@cache
def whole(kind: str) -> bytes:
    made: bytes = issuer(kind).evidence(BOUND)
    return made


@cache
def chain() -> SnpCollateral:
    made: SnpCollateral = issuer("sev-snp").collateral()
    return made


def quote_head(version: int, technology: int) -> bytes:
    return version.to_bytes(2, "little") + b"\x02\x00" + technology.to_bytes(4, "little")


ANY_BYTES = st.one_of(
    st.binary(max_size=300),
    st.binary(min_size=1184, max_size=1184),
    st.binary(max_size=300).map(lambda raw: b"\xd9\x01\x8f" + raw),
    st.binary(max_size=300).map(lambda raw: b"{" + raw),
    st.tuples(st.sampled_from([3, 4, 5]), st.sampled_from([0, 0x81]), st.binary(min_size=0, max_size=1500)).map(
        lambda parts: quote_head(parts[0], parts[1]) + parts[2]
    ),
    st.tuples(st.sampled_from([3, 4, 5]), st.integers(0, 1500)).map(
        lambda parts: quote_head(parts[0], 0x81) + bytes(parts[1])
    ),
)


@given(ANY_BYTES)
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_evidence_or_malformed_evidence(raw: bytes) -> None:
    with suppress(MalformedEvidence):
        parse(raw)


def changed(raw: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    made = bytearray(raw)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made[: len(made) - cut])


CHANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@given(CHANGES, st.integers(0, 3))
@FEW
def test_changed_evidence_gives_only_errors_of_ours(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    raw = changed(whole(kind), changes, cut)
    collateral = chain() if kind == "sev-snp" else issuer(kind).collateral()
    with suppress(EvidenceError):
        found = verify(parse(raw), collateral=collateral, now=NOW, roots=issuer(kind).roots)
        unchanged = raw == whole(kind) or kind == "tpm"  # a TPM's parts may be written otherwise, blanks for example
        assert unchanged, found


@given(st.sampled_from(["leaf", "intermediate", "root", "crl"]), CHANGES, st.integers(0, 3))
@FEW
def test_changed_certificates_give_only_errors_of_ours(part: str, changes: list[tuple[int, int]], cut: int) -> None:
    raw = changed(getattr(chain(), part), changes, cut)
    collateral = msgspec.structs.replace(chain(), **{part: raw})
    with suppress(UntrustedEvidence):
        verify(parse(whole("sev-snp")), collateral=collateral, now=NOW, roots=issuer("sev-snp").roots)
        assert raw == getattr(chain(), part)


TEXTS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda raw: b"{" + raw),
    st.binary(max_size=200).map(lambda raw: b"-----BEGIN CERTIFICATE-----\n" + raw + b"\n-----END CERTIFICATE-----"),
    st.dictionaries(
        st.sampled_from(["kind", "leaf", "root", "crl", "tcb_info"]), st.one_of(st.text(max_size=20), st.none())
    ).map(msgspec.json.encode),
)


@given(TEXTS)
@FEW
def test_any_bytes_are_collateral_or_malformed(raw: bytes) -> None:
    with suppress(MalformedEvidence):
        read_collateral(raw)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda raw: b'{"tpm":' + raw)))
@FEW
def test_any_bytes_are_a_policy_or_our_callers_mistake(raw: bytes) -> None:
    with suppress(MisuseError):
        read_policy(raw)


ANY_VALUE = st.recursive(
    st.one_of(st.none(), st.text(max_size=5), st.integers()),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["tpm", "sev-snp", "keys"]), inner),
    max_leaves=8,
)


@given(ANY_VALUE)
@FEW
def test_anything_a_yaml_reader_makes_is_a_policy_or_our_callers_mistake(value: Any) -> None:
    with suppress(MisuseError):
        policy_of(value)


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse(bytes(MAX_EVIDENCE_BYTES + 1))
    assert caught.value.reason == "evidence-size"
    with pytest.raises(MalformedEvidence) as caught:
        read_collateral(bytes(MAX_COLLATERAL_BYTES + 1))
    assert caught.value.reason == "collateral-size"
    with pytest.raises(MisuseError):
        read_policy(bytes(MAX_POLICY_BYTES + 1))


def test_nesting_that_would_exhaust_the_stack_is_refused() -> None:
    for raw in (b"\xd9\x01\x8f" + b"\x81" * 20_000 + b"\x00", b'{"a":' * 9_000 + b"1" + b"}" * 9_000):
        with pytest.raises(MalformedEvidence):
            parse(raw)


def test_a_key_twice_in_a_token_is_refused() -> None:
    """A parser keeps the last of two: what is checked and what another program reads could differ."""
    token = whole("arm-cca")
    half = token.index(b"\x19\x09\x5b")  # the lifecycle's key, 2395
    twice = token[:half] + b"\x19\x09\x5b\x19\x30\x03" + token[half:]
    with pytest.raises(MalformedEvidence) as caught:
        parse(twice)
    assert caught.value.reason in ("cbor", "cca-token", "cose")


def test_a_quote_without_a_body_is_refused() -> None:
    for version, technology in ((3, 0), (4, 0x81), (5, 0x81)):
        with pytest.raises(MalformedEvidence) as caught:
            parse_quote(quote_head(version, technology) + bytes(40))
        assert caught.value.reason == "quote-malformed"


@pytest.mark.parametrize("kind", KINDS)
def test_collateral_comes_back_as_it_was_written(kind: str) -> None:
    made = chain() if kind == "sev-snp" else issuer(kind).collateral()
    assert read_collateral(write_collateral(made)) == made
