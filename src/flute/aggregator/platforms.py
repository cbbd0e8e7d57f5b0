"""Where an aggregator's evidence comes from: a TPM through `tpm2-tools`, or a program of the machine's operator.

tpm       DEVELOPMENT. A TPM says what was started; it does not keep the machine's owner from reading memory
command   anything else: a program that gets the report data in hexadecimal as its last word and prints
          {"evidence": base64, "collateral": base64} (`snpguest`, Intel's and Arm's tools need a few lines around)
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from flute.attestation.policy import AppraisalPolicy, TpmPolicy
from flute.attestation.tcg.tpm import TpmBundle
from flute.defaults.enclaves import MAX_TOOL_OUTPUT_BYTES, MEASURED_REGISTER, TOOL_TIMEOUT_S
from flute.defaults.evidence import MAX_COLLATERAL_BYTES, MAX_EVIDENCE_BYTES
from flute.errors import MalformedEvidence, UntrustedEvidence

_FIRMWARE_REGISTER: Final = 0
_REGISTERS: Final = (_FIRMWARE_REGISTER, MEASURED_REGISTER)
_REGISTER_BYTES: Final = 32
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a private folder is made in it


class Given(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator's program prints; bytes in base64."""

    evidence: Annotated[bytes, Meta(min_length=1, max_length=MAX_EVIDENCE_BYTES)]
    collateral: Annotated[bytes, Meta(max_length=MAX_COLLATERAL_BYTES)] = b""


class CommandEvidence:
    """command: the program and its first words."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    def evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        """Raises: UntrustedEvidence: the program failed. MalformedEvidence: it printed something else."""
        printed = _run((*self._command, report_data.hex()))
        try:
            given = msgspec.json.decode(printed, type=Given)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedEvidence(
                f"{self._command[0]} printed no evidence: {error}. It has to print JSON with `evidence` and "
                "`collateral` in base64.",
                reason="tool-output",
            ) from None
        return given.evidence, given.collateral


class TpmEvidence:
    """A TPM with an attestation key, whose register MEASURED_REGISTER holds `measurement` and nothing else.

    tcti: how the tools reach the TPM; "" for their own default. What lies in its private folder, in memory where the
    machine has such a place, are public parts and what the TPM itself encrypted. `close` removes it.
    """

    def __init__(self, measurement: bytes, tcti: str = "") -> None:
        shared = str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
        self._room = tempfile.TemporaryDirectory(prefix="flute-aggregator-", dir=shared)
        self._folder = Path(self._room.name)
        self._environment = {**os.environ, **({"TPM2TOOLS_TCTI": tcti} if tcti else {})}
        try:
            self._make_key()
            self._tool("tpm2_pcrreset", str(MEASURED_REGISTER))
            self._tool("tpm2_pcrextend", f"{MEASURED_REGISTER}:sha256={measurement.hex()}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._room.cleanup()

    def evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        """Raises: UntrustedEvidence: the TPM or its tools do not answer."""
        self._tool(
            "tpm2_quote", "-Q", "-c", "key", "-l", _listed(), "-q", report_data.hex(), "-g", "sha256",
            "-m", "attested", "-s", "signature",
        )  # fmt: skip
        self._forget()
        registers = {str(number): value.hex() for number, value in self.registers().items()}
        bundle = TpmBundle(self._made("attested"), self._made("signature"), self._made("public"), registers)
        return msgspec.json.encode(bundle), b""

    def registers(self) -> dict[int, bytes]:
        """The quoted registers of the SHA-256 bank, as they are now."""
        self._tool("tpm2_pcrread", _listed(), "-o", "values")
        raw = self._made("values")
        if len(raw) != _REGISTER_BYTES * len(_REGISTERS):
            raise UntrustedEvidence("This TPM has no SHA-256 bank of registers.", reason="tpm-registers")
        return {n: raw[_REGISTER_BYTES * i : _REGISTER_BYTES * (i + 1)] for i, n in enumerate(_REGISTERS)}

    def policy(self) -> AppraisalPolicy:
        """Takes this TPM with this measurement, for DEVELOPMENT; hub owners compare it before they approve it."""
        values: dict[str, tuple[str, ...]] = {str(n): (value.hex(),) for n, value in self.registers().items()}
        return AppraisalPolicy(tpm=TpmPolicy(keys=(self._made("name").hex(),), registers=values), development=True)

    def _make_key(self) -> None:
        """An attestation key below the endorsement key. A TPM has three slots for keys in use, hence `_forget`."""
        self._forget()
        self._tool("tpm2_createek", "-Q", "-G", "rsa", "-c", "endorsement", "-u", "endorsement.public")
        self._forget()
        self._tool(
            "tpm2_createak", "-Q", "-C", "endorsement", "-c", "key", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u",
            "public", "-f", "tpmt", "-n", "name",
        )  # fmt: skip
        self._forget()

    def _forget(self) -> None:
        self._tool("tpm2_flushcontext", "-t")

    def _made(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def _tool(self, *words: str) -> None:
        _run(words, self._folder, self._environment)


def _listed() -> str:
    return "sha256:" + ",".join(str(number) for number in _REGISTERS)


def _run(words: Sequence[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> bytes:
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, timeout=TOOL_TIMEOUT_S, check=True
        )
    except FileNotFoundError:
        raise UntrustedEvidence(
            f"The program {words[0]} is not on this machine (for a TPM: Debian's tpm2-tools).", reason="tool-missing"
        ) from None
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise UntrustedEvidence(
            f"{words[0]} gave no evidence: {said.decode(errors='replace').strip()[-300:] or type(error).__name__}.",
            reason="tool-failed",
        ) from None
    if len(done.stdout) > MAX_TOOL_OUTPUT_BYTES:
        raise MalformedEvidence(f"{words[0]} printed more than evidence can be.", reason="tool-output")
    return done.stdout
