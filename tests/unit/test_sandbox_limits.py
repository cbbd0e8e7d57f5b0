"""What a study asks of a machine and what it is granted; what a machine lacks is said, and then nothing is run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flute.defaults.sandbox import INTERPRETER_BYTES
from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox import machine
from flute.sandbox.limits import Grant, Limits, Offer, Span, admit, offer_of_machine
from flute.sandbox.machine import available, control_group

GIB = 2**30
ASKED = Limits(Span(GIB, 4 * GIB), Span(10, 60), Span(20, 120), 100, threads=Span(2, 4))


def test_the_maximum_is_granted_where_the_hub_has_it_and_what_it_has_where_not() -> None:
    assert admit(ASKED, Offer(8 * GIB, 600, 600, 16)) == Grant(4 * GIB, 60, 120, 4)
    assert admit(ASKED, Offer(2 * GIB, 30, 40, 3)) == Grant(2 * GIB, 30, 40, 3)


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (Offer(GIB - 1, 600, 600, 16), "memory"),
        (Offer(8 * GIB, 9, 600, 16), "cpu"),
        (Offer(8 * GIB, 600, 19, 16), "wall"),
        (Offer(8 * GIB, 600, 600, 1), "processes"),
    ],
)
@pytest.mark.requirement("F-PIL-23")
def test_below_the_stated_minimum_a_step_is_refused_by_what_is_lacking(offer: Offer, reason: str) -> None:
    with pytest.raises(SandboxRefusal) as refused:
        admit(ASKED, offer)
    assert refused.value.reason == reason


def test_a_graphics_card_is_never_given() -> None:
    asked = Limits(Span(0, GIB), Span(0, 1), Span(0, 1), 1, gpus=Span(1, 1))
    with pytest.raises(SandboxRefusal) as refused:
        admit(asked, offer_of_machine())
    assert refused.value.reason == "gpu"


def test_a_machine_offers_what_it_has() -> None:
    offer = offer_of_machine()
    assert offer.memory_bytes > 0
    assert offer.threads >= 1
    assert offer.gpus == 0


def test_limits_that_make_no_sense_are_misuse() -> None:
    for low, high in ((2, 1), (-1, 1), (0, float("inf")), (0, float("nan"))):
        with pytest.raises(MisuseError):
            Span(low, high)
    for threads in (Span(0, 0), Span(1, 10_000)):
        with pytest.raises(MisuseError):
            Limits(Span(0, GIB), Span(0, 1), Span(0, 1), 1, threads)
    with pytest.raises(MisuseError):
        Limits(Span(0, GIB), Span(0, 0), Span(0, 1), 1)
    for units in (0, 2**40):
        with pytest.raises(MisuseError):
            Limits(Span(0, GIB), Span(0, 1), Span(0, 1), units)


def test_without_bubblewrap_nothing_is_run_and_the_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    found = available.__wrapped__()
    assert any("apt-get install bubblewrap" in sentence for sentence in found.missing)
    with pytest.raises(SandboxRefusal) as refused:
        found.require()
    assert refused.value.reason == "unavailable"


@pytest.mark.parametrize(
    ("release", "processor", "said"),
    [("5.10.0-21", "x86_64", "5.14"), ("6.1.0", "riscv64", "riscv64")],
)
def test_an_old_kernel_or_an_unknown_processor_is_named(
    release: str, processor: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.platform, "release", lambda: release)
    monkeypatch.setattr(machine.platform, "machine", lambda: processor)
    assert any(said in sentence for sentence in available.__wrapped__().missing)


@pytest.mark.parametrize("version", ["bubblewrap 0.4.1", ""])
def test_an_old_bubblewrap_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 0, stdout=version)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run", lambda *args, **options: said)
    assert any("0.8 or later" in sentence for sentence in available.__wrapped__().missing)


def test_a_control_group_limits_memory_and_processes_and_is_gone_afterwards(tmp_path: Path) -> None:
    """Of plain files: the names and values that the kernel's interface takes. Not tried on a real group here."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    written: dict[str, str] = {}
    with control_group(tmp_path, Grant(GIB, 1, 1, 4)) as enter:
        assert enter.name == "cgroup.procs"
        for file in enter.parent.iterdir():
            written[file.name] = file.read_text()
            file.unlink()
    assert written == {"memory.max": str(GIB + INTERPRETER_BYTES), "memory.swap.max": "0", "pids.max": "12"}
    assert [p.name for p in tmp_path.iterdir()] == ["cgroup.subtree_control"]


def test_a_group_that_controls_no_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids\n")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SandboxRefusal), control_group(folder, Grant(GIB, 1, 1, 4)):
            pass
