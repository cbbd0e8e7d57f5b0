"""A software TPM for tests and development: a real `swtpm` process, asked through `tpm2-tools`.

It makes an endorsement key, an attestation key in the same TPM (shown by activating a credential) and quotes over
what a caller wants bound. Its evidence is DEVELOPMENT: whoever runs the process reads everything in it.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from flute.attestation.policy import AppraisalPolicy, TpmPolicy

REGISTERS = (0, 11)
"""Quoted: what firmware measures, and what a system measures into 11 (its image)."""
_START_S = 10.0
_TOOLS = ("swtpm", "tpm2_quote", "tpm2_createek", "tpm2_createak", "tpm2_pcrextend", "tpm2_activatecredential")


def require_swtpm() -> None:
    """Skips the calling test where a program is missing, and says which."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no software TPM here: {', '.join(missing)} not installed (Debian: swtpm, tpm2-tools)")


@dataclass
class Swtpm:
    """A running TPM in a folder of its own. `stop` ends it."""

    folder: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path) -> Swtpm:
        """Args: folder: empty and absolute; its path must be short enough for a socket (about 90 characters)."""
        (folder / "state").mkdir()
        socket = folder / "tpm"
        process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}",
                "--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl",
                "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + _START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError("swtpm did not start")
            time.sleep(0.01)
        tpm = cls(folder, process)
        tpm._make_keys()
        return tpm

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def _tool(self, *words: str) -> None:
        environment = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={self.folder / 'tpm'}"}
        subprocess.run(words, cwd=self.folder, env=environment, check=True, capture_output=True, timeout=30)

    def _forget(self) -> None:
        """A TPM has three slots for keys in use; there is no resource manager in front of this one."""
        self._tool("tpm2_flushcontext", "-t")

    def _make_keys(self) -> None:
        self._tool("tpm2_createek", "-Q", "-G", "rsa", "-c", "ek.ctx", "-u", "ek.pub")
        self._forget()
        self._tool(
            "tpm2_createak", "-Q", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa",
            "-u", "ak.pub", "-f", "tpmt", "-n", "ak.name",
        )  # fmt: skip
        self._forget()

    @property
    def key_name(self) -> str:
        """The attestation key's name, as a policy knows it."""
        return (self.folder / "ak.name").read_bytes().hex()

    def activate(self, secret: bytes) -> bytes:
        """What comes back when `secret` is locked to (endorsement key, attestation key's name): the secret, if both
        keys live in one TPM."""
        (self.folder / "secret").write_bytes(secret)
        self._tool(
            "tpm2_makecredential", "-Q", "-u", "ek.pub", "-s", "secret", "-n", self.key_name, "-o", "credential"
        )
        self._forget()
        self._tool("tpm2_startauthsession", "--policy-session", "-S", "session")
        self._tool("tpm2_policysecret", "-Q", "-S", "session", "-c", "e")
        self._tool(
            "tpm2_activatecredential", "-Q", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "opened",
            "-P", "session:session",
        )  # fmt: skip
        self._tool("tpm2_flushcontext", "session")
        self._forget()
        return (self.folder / "opened").read_bytes()

    def measure(self, register: int, digest: bytes) -> None:
        """Extend a register of the SHA-256 bank."""
        self._tool("tpm2_pcrextend", f"{register}:sha256={digest.hex()}")

    def registers(self) -> dict[int, bytes]:
        listed = ",".join(str(number) for number in REGISTERS)
        self._tool("tpm2_pcrread", f"sha256:{listed}", "-o", "values")
        raw = (self.folder / "values").read_bytes()
        return {number: raw[32 * i : 32 * i + 32] for i, number in enumerate(REGISTERS)}

    def quote(self, report_data: bytes) -> bytes:
        """Evidence over `report_data` (64 bytes), as `flute.attestation` reads it."""
        listed = ",".join(str(number) for number in REGISTERS)
        self._tool(
            "tpm2_quote", "-Q", "-c", "ak.ctx", "-l", f"sha256:{listed}", "-q", report_data.hex(), "-g", "sha256",
            "-m", "attested", "-s", "signature",
        )  # fmt: skip
        self._forget()

        def part(name: str) -> str:
            return base64.b64encode((self.folder / name).read_bytes()).decode()

        registers = {str(number): value.hex() for number, value in self.registers().items()}
        parts = {"attested": part("attested"), "signature": part("signature"), "key": part("ak.pub")}
        return msgspec.json.encode({"kind": "tpm", **parts, "registers": registers})

    def policy(self) -> AppraisalPolicy:
        """Takes this TPM with what it has measured up to now."""
        values = {str(number): (value.hex(),) for number, value in self.registers().items()}
        return AppraisalPolicy(tpm=TpmPolicy(keys=(self.key_name,), registers=values), development=True)
