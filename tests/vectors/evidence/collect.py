"""Put published evidence into one folder, in the form that the tests read, and check every file's digest.

    python tests/vectors/evidence/collect.py CHECKOUTS OUT

CHECKOUTS holds checkouts of the repositories of README.md, each under its own name (dcap-qvl, go-sev-guest, trustee,
sev) at the commit that README.md names. OUT gets NAME.evidence and NAME.collateral.json for each sample.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flute.attestation.collateral import (
    CcaCollateral,
    Collateral,
    SnpCollateral,
    read_collateral,
    write_collateral,
)

SAMPLES = Path(__file__).with_name("samples.json")
_AZURE_REPORT = slice(32, 32 + 1184)
"""Where the SNP report lies in what a guest of Azure reads from its vTPM."""
_Sample = tuple[str, bytes, Collateral]


class Checkouts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()

    def certificates(self, path: str) -> list[bytes]:
        return _der(self.read(path))


def _der(raw: bytes) -> list[bytes]:
    pem = b"-----BEGIN" in raw
    found = x509.load_pem_x509_certificates(raw) if pem else [x509.load_der_x509_certificate(raw)]
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


def samples(checkouts: Checkouts) -> Iterator[_Sample]:
    yield from _amd(checkouts)
    yield from _intel(checkouts)
    yield _arm(checkouts)


def _amd(found: Checkouts) -> Iterator[_Sample]:
    trust, data = "go-sev-guest/verify/trust", "trustee/deps/verifier/test_data"
    milan = found.certificates(f"{trust}/ask_ark_milan.pem")
    genoa = found.certificates(f"{trust}/ask_ark_genoa.pem")
    lent = found.certificates(f"{trust}/ask_ark_milan_vlek.pem")

    def chip(path: str) -> bytes:
        return found.certificates(path)[0]

    yield (
        "snp-milan-trustee",
        *_snp(found.read(f"{data}/snp/test-report.bin"), chip(f"{data}/snp/test-vcek.der"), milan),
    )
    yield (
        "snp-milan-vlek",
        *_snp(found.read(f"{data}/snp/test-vlek-report.bin"), chip(f"{data}/snp/test-vlek.der"), lent),
    )
    yield (
        "snp-milan-virtee",
        *_snp(
            bytes.fromhex(found.read("sev/tests/certs_data/report_milan.hex").decode()),
            chip("sev/tests/certs_data/vcek_milan.der"),
            milan,
        ),
    )
    azure = f"{data}/az-snp-vtpm"
    yield (
        "snp-milan-azure",
        *_snp(found.read(f"{azure}/hcl-report.bin")[_AZURE_REPORT], chip(f"{azure}/vcek.pem"), milan),
    )
    for name, file, chain in (
        ("snp-milan-azure-v3", "evidence-v0.json", milan),
        ("snp-genoa-azure", "evidence-genoa.json", genoa),
    ):
        parts = json.loads(found.read(f"{azure}/{file}"))
        yield name, *_snp(bytes(parts["report"])[_AZURE_REPORT], _der(parts["vcek"].encode())[0], chain)


def _snp(report: bytes, leaf: bytes, chain: list[bytes]) -> tuple[bytes, SnpCollateral]:
    intermediate, root = chain
    return report, SnpCollateral(leaf, intermediate, root)


def _intel(found: Checkouts) -> Iterator[_Sample]:
    folder = "dcap-qvl/sample"
    for name, stem in (
        ("tdx-phala", "tdx_quote"),
        ("tdx-outdated", "tdx_quote_outdated"),
        ("sgx-phala", "sgx_quote"),
    ):
        collateral = read_collateral(found.read(f"{folder}/{stem}_collateral.json"))
        yield name, found.read(f"{folder}/{stem}"), collateral
    near = "dcap-qvl/tests/near/contracts/gas-test/tests/quote"
    quote = bytes.fromhex(found.read(f"{near}/quote_hex.txt").decode().strip())
    yield "tdx-near", quote, read_collateral(found.read(f"{near}/quote_collateral.json"))


def _arm(found: Checkouts) -> _Sample:
    folder = "trustee/deps/verifier/test_data/cca/misc"
    key = json.loads(found.read(f"{folder}/cpak-pub.json"))
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "=="), "big") for name in ("x", "y"))
    public = EllipticCurvePublicNumbers(x, y, SECP384R1()).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "cca-example", found.read(f"{folder}/cca-example-token.cbor"), CcaCollateral(spki)


def main(checkouts: Path, out: Path) -> None:
    known = {entry["name"]: entry for entry in json.loads(SAMPLES.read_bytes())}
    out.mkdir(parents=True, exist_ok=True)
    for name, evidence, collateral in samples(Checkouts(checkouts)):
        written = write_collateral(collateral)
        digests = hashlib.sha256(evidence).hexdigest(), hashlib.sha256(written).hexdigest()
        if digests != (known[name]["evidence_sha256"], known[name]["collateral_sha256"]):
            raise SystemExit(f"{name} is another file than the one that the tests know ({digests}).")
        (out / f"{name}.evidence").write_bytes(evidence)
        (out / f"{name}.collateral.json").write_bytes(written)
        print(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
