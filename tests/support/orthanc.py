"""A real PACS for tests: Orthanc with its DICOMweb plug-in, in a folder of its own, on free ports of this machine.

Debian's package starts a service of its own at installation; this one has nothing to do with it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AE_TITLE = "TESTPACS"
OUR_TITLE = "FLUTE"


@dataclass(frozen=True)
class Pacs:
    """`receive_port`: where it believes AE title FLUTE to listen."""

    folder: Path
    http_port: int
    dicom_port: int
    receive_port: int
    process: subprocess.Popen[bytes]

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def store(self, images: Iterable[Dataset]) -> None:
        """C-STORE, as a scanner does."""
        ae = AE(ae_title="SCANNER")
        found = list(images)
        for sop_class in {str(ds.SOPClassUID) for ds in found}:
            ae.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", self.dicom_port, ae_title=AE_TITLE)
        assert association.is_established
        try:
            for ds in found:
                assert association.send_c_store(ds).Status == 0x0000
        finally:
            association.release()

    def count(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/statistics", timeout=5) as answer:
            return int(json.load(answer)["CountInstances"])

    def clear(self) -> None:
        base = f"http://127.0.0.1:{self.http_port}/patients"
        with urllib.request.urlopen(base, timeout=5) as answer:
            names = json.load(answer)
        for name in names:
            urllib.request.urlopen(urllib.request.Request(f"{base}/{name}", method="DELETE"), timeout=30).close()


def absent() -> str:
    """Why Orthanc cannot be started here, or empty."""
    if shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        return "needs Debian's orthanc: apt-get install orthanc orthanc-dicomweb"
    return "" if PLUGIN.exists() else "needs Debian's orthanc-dicomweb: apt-get install orthanc-dicomweb"


def require_orthanc() -> None:
    """Skips visibly; fails in CI, where it must be there."""
    why = absent()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Pacs]:
    require_orthanc()
    http_port, dicom_port, receive_port = free_port(), free_port(), free_port()
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    config = {
        "Name": "SIMULATED PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": AE_TITLE,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomModalities": {"flute": [OUR_TITLE, "127.0.0.1", receive_port]},
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": False,
        "DicomThreadsCount": 2,
        "SaveJobs": False,
        "HttpVerbose": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    log = (folder / "orthanc.log").open("wb")
    process = subprocess.Popen([shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(path)], stdout=log, stderr=log)
    try:
        _wait(process, http_port, folder / "orthanc.log")
        yield Pacs(folder, http_port, dicom_port, receive_port, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        log.close()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
