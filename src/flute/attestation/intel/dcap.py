"""Intel TDX and SGX quotes, through `dcap-qvl`, which checks chains, revocation, TCB levels and signatures.

The library is asked with `QuotePolicy.claims_only`: it checks every signature and hands over what Intel says of the
platform; what is acceptable is `appraise`'s question, as for every other maker. Its bare `verify` is never called:
that returns a verdict which nobody has compared with a policy. What the library reads over is refused by
`quote_layout`.

Sources: Intel, TDX DCAP Quoting Library API 0.9, appendix 3 (quote formats); SGX ECDSA QuoteGenReference API,
appendix A.4; Intel, Provisioning Certification Service API version 4 (TCB status).
"""

from __future__ import annotations

import re
import struct
from calendar import timegm
from dataclasses import dataclass
from typing import Any, Final

import dcap_qvl
import msgspec

from flute.attestation.collateral import DcapCollateral
from flute.attestation.intel.intel_chain import require_current
from flute.attestation.intel.quote_layout import (
    HEADER,
    above_the_platform,
    body_at,
    certificates_of,
    chain,
    without_padding,
)
from flute.attestation.roots import Roots
from flute.errors import MalformedEvidence, RejectedEvidence, UntrustedEvidence

_TDX_TYPE: Final = 0x81
_ECDSA_P256: Final = 2
_VERSIONS: Final = range(3, 6)
_SGX_CONFIG: Final = slice(192, 256)
_SGX_PRODUCT: Final = 256
"""Where CONFIGID, ISVPRODID and ISVSVN lie in an enclave's report; the library does not hand them over."""
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z")


@dataclass(frozen=True, slots=True)
class TdxQuote:
    """A quote of a TDX guest (trust domain); nothing in it is believed yet."""

    raw: bytes
    version: int
    td_attributes: int
    xfam: int
    mr_seam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes


@dataclass(frozen=True, slots=True)
class SgxQuote:
    """A quote of an SGX enclave; nothing in it is believed yet."""

    raw: bytes
    version: int
    attributes: int
    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    config_id: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True)
class Platform:
    """What Intel says of the platform. Times are Unix seconds.

    `status`: of platform, module and quoting enclave together. `stated_at`: date of the older of Intel's two
    statements. `dynamic`, `cached_keys`, `smt`: "True", "False" or "Undefined".
    """

    status: str
    advisories: tuple[str, ...]
    evaluation: int
    stated_at: int
    dynamic: str
    cached_keys: str
    smt: str


@dataclass(frozen=True, slots=True)
class VerifiedTdx:
    """A quote that Intel's root vouches for; `verify` alone makes it."""

    evidence: TdxQuote
    platform: Platform
    verified_at: int
    development: bool


@dataclass(frozen=True, slots=True)
class VerifiedSgx:
    """A quote that Intel's root vouches for; `verify` alone makes it."""

    evidence: SgxQuote
    platform: Platform
    verified_at: int
    development: bool


def looks_like_quote(raw: bytes) -> bool:
    """Version 3 to 5, attestation key type ECDSA P-256, a technology of Intel's."""
    if len(raw) < HEADER:
        return False
    version, key_type, technology = struct.unpack_from("<HHI", raw)
    return version in _VERSIONS and key_type == _ECDSA_P256 and technology in (0, _TDX_TYPE)


def parse_quote(raw: bytes) -> TdxQuote | SgxQuote:
    """Raises: MalformedEvidence: no quote of a version that is known here."""
    raw = without_padding(raw)
    try:
        quote = dcap_qvl.Quote.parse(raw)
        report = quote.report
        version = int(quote.header.version)
        tdx = bool(quote.is_tdx())
    except (ValueError, OverflowError) as error:
        raise MalformedEvidence(f"This is no TDX or SGX quote ({error}).", reason="quote-malformed") from None
    if tdx:
        return TdxQuote(
            raw=raw,
            version=version,
            td_attributes=int.from_bytes(report.td_attributes, "little"),
            xfam=int.from_bytes(report.xfam, "little"),
            mr_seam=bytes(report.mr_seam),
            mr_td=bytes(report.mr_td),
            mr_config_id=bytes(report.mr_config_id),
            mr_owner=bytes(report.mr_owner),
            mr_owner_config=bytes(report.mr_owner_config),
            rtmrs=(bytes(report.rt_mr0), bytes(report.rt_mr1), bytes(report.rt_mr2), bytes(report.rt_mr3)),
            report_data=bytes(report.report_data),
        )
    product, svn = struct.unpack_from("<HH", raw, body_at(raw) + _SGX_PRODUCT)
    return SgxQuote(
        raw=raw,
        version=version,
        attributes=int.from_bytes(report.attributes[:8], "little"),
        mr_enclave=bytes(report.mr_enclave),
        mr_signer=bytes(report.mr_signer),
        isv_prod_id=product,
        isv_svn=svn,
        config_id=raw[body_at(raw) + _SGX_CONFIG.start : body_at(raw) + _SGX_CONFIG.stop],
        report_data=bytes(report.report_data),
    )


def verify_quote(
    quote: TdxQuote | SgxQuote, collateral: DcapCollateral, *, now: int, roots: Roots
) -> VerifiedTdx | VerifiedSgx:
    """Raises: UntrustedEvidence: a signature, a list or a statement of Intel's does not hold at `now`.
    RejectedEvidence: it holds, and the enclave is debuggable (the library stops there)."""
    platform, _, *signers = (
        certificates_of(pem, roots.intel, what)
        for pem, what in (
            (chain(quote.raw), "the quote"),
            (collateral.pck_crl_issuer_chain, "the revocation list"),
            (collateral.tcb_info_issuer_chain, "the statement on TCB levels"),
            (collateral.qe_identity_issuer_chain, "the statement on the quoting enclave"),
        )
    )
    if above_the_platform(quote.raw).rstrip("\n") != collateral.pck_crl_issuer_chain.rstrip("\n"):
        raise UntrustedEvidence(
            "The revocation list is not of whoever certified this platform. Fetch the collateral of this quote.",
            reason="crl-issuer",
        )
    lists = bytes.fromhex(collateral.root_ca_crl), bytes.fromhex(collateral.pck_crl)
    require_current(platform, signers, root_crl=lists[0], platform_crl=lists[1], now=now)
    says = _platform(_claims(quote.raw, collateral, now, roots), collateral)
    if isinstance(quote, TdxQuote):
        return VerifiedTdx(quote, says, now, roots.development)
    return VerifiedSgx(quote, says, now, roots.development)


_FETCH: Final = "Fetch present collateral"
_FAULTS: Final = (
    ("debug mode", "debug", "the enclave can be read by whoever runs it. Start it without debug"),
    ("issue date is in the future", "collateral-not-yet-valid", "the statement is of the future. Check the clock"),
    ("tcbinfo expired", "collateral-expired", f"Intel's statement on TCB levels has expired. {_FETCH}"),
    ("qe identity expired", "collateral-expired", f"Intel's statement on its quoting enclave has expired. {_FETCH}"),
    ("tcb status is invalid", "revoked", "Intel has revoked this platform's TCB. Update its firmware"),
    ("tcb_info in quote_collateral", "collateral-signature", f"Intel did not sign this statement. {_FETCH}"),
    ("qe_identity in quote_collateral", "collateral-signature", f"Intel did not sign this statement. {_FETCH}"),
    ("fmspc mismatch", "wrong-platform", "the collateral is another platform's. Fetch it for this quote's FMSPC"),
    ("tcb info in the collateral", "wrong-platform", "the collateral is the other technology's. Fetch this one's"),
    ("no matching tcb level", "tcb-unknown", "Intel lists no TCB level that low. Update the platform's firmware"),
    ("tdx module", "module", "the TDX module is not one that Intel lists. Update it"),
    ("isv enclave report signature", "signature", "the report is not signed by the quote's key: it was changed"),
    ("qe_report", "quoting-enclave", "the platform's key did not sign the quoting enclave's report: it was changed"),
    ("qe report", "quoting-enclave", "the quoting enclave does not vouch for the quote's key: it was changed"),
    ("qe attributes", "quoting-enclave", "the quoting enclave was started with other attributes than Intel's"),
    ("qe isvsvn", "tcb-unknown", "Intel lists no quoting enclave that old. Update the platform's software"),
    ("mrsigner", "quoting-enclave", "the quote was signed by an enclave that is not Intel's"),
    ("isvprodid", "quoting-enclave", "the quote was signed by an enclave that is not Intel's quoting enclave"),
    ("attributes", "attributes", "the enclave was started with attributes that must not be set"),
    ("sept_ve_disable", "attributes", "the guest was started without SEPT_VE_DISABLE. Start it with it"),
    ("certificate chain", "chain-signature", f"a certificate was not issued by the one above it. {_FETCH}"),
    (" date", "collateral-malformed", f"a statement of Intel's has no readable date. {_FETCH}"),
    (" next update", "collateral-malformed", f"a statement of Intel's has no readable date. {_FETCH}"),
    ("failed to decode", "collateral-malformed", f"a statement of Intel's cannot be read. {_FETCH}"),
    ("servtd_ext", "attributes", "another trust domain may serve this guest. Start it without"),
    ("td migration", "migration", "the guest may be moved to another machine. Start it without"),
    ("td profiling", "attributes", "the guest may be profiled, which leaks what it computes. Start it without"),
    ("service td", "attributes", "another trust domain may serve this guest. Start it without"),
)  # fmt: skip
"""Words of the library's error (lower case), in the order in which they are looked for; our reason; what to do."""


def in_library(collateral: DcapCollateral) -> dcap_qvl.QuoteCollateralV3:
    """The collateral as `dcap-qvl` takes it."""
    return dcap_qvl.QuoteCollateralV3(
        collateral.pck_crl_issuer_chain,
        bytes.fromhex(collateral.root_ca_crl),
        bytes.fromhex(collateral.pck_crl),
        collateral.tcb_info_issuer_chain,
        collateral.tcb_info,
        bytes.fromhex(collateral.tcb_info_signature),
        collateral.qe_identity_issuer_chain,
        collateral.qe_identity,
        bytes.fromhex(collateral.qe_identity_signature),
    )


def _claims(raw: bytes, collateral: DcapCollateral, now: int, roots: Roots) -> dict[str, Any]:
    try:
        stated = in_library(collateral)
        verifier = dcap_qvl.QuoteVerifier() if roots.intel_der is None else dcap_qvl.QuoteVerifier(roots.intel_der)
        policy = dcap_qvl.QuotePolicy.claims_only(now)
        found: dict[str, Any] = msgspec.json.decode(verifier.verify_with_policy(raw, stated, now, policy).to_json())
    except (ValueError, OverflowError) as error:
        raise _refusal(str(error)) from None
    return found


def _refusal(said: str) -> UntrustedEvidence | RejectedEvidence:
    words = said.lower()
    for sign, reason, advice in _FAULTS:
        if sign in words:
            family = RejectedEvidence if reason == "debug" else UntrustedEvidence
            return family(f"This quote is not taken: {advice}.", reason=reason)
    return UntrustedEvidence(
        f"No chain leads from this quote to Intel's root ({said}). Ask for a new quote and fetch its collateral.",
        reason="chain",
    )


def _platform(claims: dict[str, Any], collateral: DcapCollateral) -> Platform:
    pck = claims["platform"]["pck"]
    return Platform(
        status=claims["tcb"]["status"],
        advisories=tuple(claims["tcb"]["advisory_ids"]),
        evaluation=claims["tcb"]["eval_data_number"],
        stated_at=_stated_at(collateral),
        dynamic=pck["dynamic_platform"],
        cached_keys=pck["cached_keys"],
        smt=pck["smt_enabled"],
    )


def _stated_at(collateral: DcapCollateral) -> int:
    """The older of the dates of Intel's two statements, whose signatures the library has checked."""
    dates = []
    for statement in (collateral.tcb_info, collateral.qe_identity):
        found = _DATE.fullmatch(str(msgspec.json.decode(statement)["issueDate"]))
        if found is None:
            raise UntrustedEvidence("A statement of Intel's has no readable date. Fetch it anew.", reason="chain")
        dates.append(timegm(tuple(int(part) for part in found.groups())))
    return min(dates)
