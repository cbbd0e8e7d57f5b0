"""The aggregator program: its desk answers closed messages only; as a process it shows a real software TPM's
evidence, and what it is made of measures the same everywhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DataObject, data, integers, sampled_from
from msgspec.structs import replace
from tests.adversary.enclave_rounds import SNP
from typer.testing import CliRunner

import flute
from flute.aggregation.codec import Bounds, Layout
from flute.aggregator.desk import Desk
from flute.aggregator.duty import read_duty, terms_of
from flute.aggregator.image import LOCK, measure, write_image
from flute.aggregator.platforms import CommandEvidence
from flute.aggregator.process import MEDIA_TYPE, SAY
from flute.attestation.policy import read_policy, write_policy
from flute.cli.aggregator import APP
from flute.defaults.enclaves import MAX_OPEN_ROUNDS
from flute.enclaves import collector, hub
from flute.enclaves.context import policy_digest, policy_name
from flute.errors import BadSignature, MalformedEvidence, MisuseError, NotPossible, UntrustedEvidence
from flute.messages.enclave import (
    AggregatorAnswer,
    EnclaveBox,
    EnclaveDuty,
    EnclaveFinish,
    EnclaveGivenUp,
    EnclaveOffer,
    EnclaveRefused,
    EnclaveTaken,
    EnclaveTotal,
)
from flute.study.agreement import PlanChoice, agreement_digest, sign_agreement, write_agreement
from flute.trust.roster import write_content
from support.enclave_processes import left_behind
from support.evidence_issuer import NOW, TpmIssuer
from support.inprocess import make_roster
from support.parties import Party
from support.studies import study, under_plan
from support.swtpm import Swtpm, require_swtpm

ROOT = Path(flute.__file__).resolve().parents[2]
NAMES = ("first", "second")
AGREEMENT = under_plan(study(), PlanChoice(name="enclave", aggregators=NAMES))
RAW = write_agreement(AGREEMENT)
ROSTER = make_roster(AGREEMENT.hubs)
TERMS = terms_of(AGREEMENT, agreement_digest(RAW), ROSTER)
BOUNDS = Bounds(1_000, 3_000)
QUESTION = bytes(32)
COMMAND = "from flute.cli.aggregator import APP; APP()"


def duty(name: str = "first", round_number: int = 1) -> EnclaveDuty:
    signature = sign_agreement(RAW, Party("ada").signing)
    return EnclaveDuty(RAW, signature, write_content(ROSTER.content), name, round_number)


class Issued:
    """Evidence of a TPM that exists in tests only."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        self.asked.append(report_data)
        return TpmIssuer().evidence(report_data), b""


def desk(name: str = "first") -> Desk:
    return Desk(name, Issued(), os.urandom)


def say(to: Desk, message: object) -> AggregatorAnswer:
    return msgspec.msgpack.decode(to.answer(msgspec.msgpack.encode(message)), type=AggregatorAnswer)


def run_round(offers: dict[str, EnclaveOffer], policies: dict[str, bytes], talk: object) -> np.ndarray:
    """What coordinator and hubs do, over whatever carries the messages: `talk(name, message)`."""
    codes = {policy_name(name): policy_digest(raw) for name, raw in policies.items()}
    layout = Layout(32, 25)
    start = collector.begin(
        TERMS, round_number=1, question=QUESTION, layout=layout, offers=offers, policies=policies,
        check_key=os.urandom(32),
    )  # fmt: skip
    told = collector.for_aggregators(start)
    boxes, vectors, totals = {}, {}, {}
    for i, name in enumerate(TERMS.hubs):
        admitted = hub.admit(
            start, terms=TERMS, layout=layout, question=QUESTION, approved=codes.__getitem__, now=NOW, roots=SNP.roots
        )
        vectors[name] = np.arange(25) * (i + 1)
        boxes[name] = hub.split(
            admitted, vectors[name], me=name, bounds=BOUNDS, key=Party(name).signing,
            rand=os.urandom(hub.rand_size(TERMS)),
        )  # fmt: skip
    for name in TERMS.aggregators:
        taken = talk(name, told)  # type: ignore[operator]
        assert taken.hubs == ()
        for sent in boxes.values():
            taken = talk(name, collector.box_for(start, sent, name))  # type: ignore[operator]
        assert taken.hubs == TERMS.hubs
        totals[name] = talk(name, EnclaveFinish(taken.ctx))  # type: ignore[operator]
        assert isinstance(totals[name], EnclaveTotal)
        assert isinstance(talk(name, EnclaveGivenUp(taken.ctx)), EnclaveGivenUp)  # type: ignore[operator]
    total = collector.total(start, boxes, totals, bounds=BOUNDS)
    assert np.array_equal(total, sum(vectors.values()))
    return total


# --- the desk -----------------------------------------------------------------------------------


def test_two_desks_give_one_total() -> None:
    desks = {name: desk(name) for name in NAMES}
    offers = {name: say(each, duty(name)) for name, each in desks.items()}
    policy = write_policy(TpmIssuer().policy())
    run_round(offers, dict.fromkeys(NAMES, policy), lambda name, message: say(desks[name], message))


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\xff" * 40, msgspec.msgpack.encode({"type": "enclave-duty"})])
def test_bytes_that_are_no_call_are_refused(raw: bytes) -> None:
    answer = msgspec.msgpack.decode(desk().answer(raw), type=AggregatorAnswer)
    assert isinstance(answer, EnclaveRefused)
    assert answer.code == "malformed"


def test_a_desk_serves_its_own_name_the_researchers_agreement_and_its_plan_alone() -> None:
    codes = {
        "other": duty("second"),
        "signature": replace(duty(), signature=bytes(64)),
        "roster": replace(duty(), roster=b"{}"),
        "agreement": replace(duty(), agreement=RAW + b"x"),
    }
    said = {what: say(desk(), message) for what, message in codes.items()}
    assert {what: answer.code for what, answer in said.items()} == {
        "other": "not-possible", "signature": "bad-signature", "roster": "malformed", "agreement": "malformed",
    }  # fmt: skip
    with pytest.raises(BadSignature):
        read_duty(codes["signature"])
    with pytest.raises(NotPossible, match="secagg"):
        terms_of(study(), bytes(32), ROSTER)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data())
def test_calls_that_were_changed_on_the_way_are_answered_by_a_closed_message(chance: DataObject) -> None:
    """Bits flipped, cut off, doubled: the desk answers every time, and with nothing but what it may say."""
    calls = [duty(), EnclaveFinish(bytes(32)), EnclaveBox(QUESTION, "north", (QUESTION,) * 2, bytes(48), bytes(64))]
    raw = bytearray(msgspec.msgpack.encode(chance.draw(sampled_from(calls))))
    for _ in range(chance.draw(integers(1, 3))):
        at = chance.draw(integers(0, len(raw) - 1))
        raw[at] ^= 1 << chance.draw(integers(0, 7))
    cut = chance.draw(integers(1, len(raw)))
    msgspec.msgpack.decode(desk().answer(bytes(raw[:cut])), type=AggregatorAnswer)


def test_the_terms_of_an_aggregator_are_those_that_a_hub_makes_from_its_own_copies() -> None:
    terms, keys = read_duty(duty())
    assert terms == TERMS
    assert keys == {name: Party(name).signing.public for name in TERMS.hubs}
    other = make_roster(AGREEMENT.hubs, version=2)
    assert terms_of(AGREEMENT, agreement_digest(RAW), other) != TERMS


def test_unknown_rounds_and_keys_are_refused_and_old_rounds_make_room() -> None:
    here = desk()
    offers = [say(here, duty(round_number=n)) for n in range(MAX_OPEN_ROUNDS + 1)]
    assert len({offer.sealing_key for offer in offers}) == len(offers)
    second = say(desk("second"), duty("second", 0))
    policies = dict.fromkeys(NAMES, b"{}")

    def begun(number: int) -> AggregatorAnswer:
        start = collector.begin(
            TERMS, round_number=number, question=QUESTION, layout=Layout(16, 1),
            offers={"first": offers[number], "second": second}, policies=policies, check_key=bytes(32),
        )  # fmt: skip
        return say(here, collector.for_aggregators(start))

    assert begun(0).code == "out-of-order"  # its key made room for the last one's
    assert isinstance(begun(1), EnclaveTaken)
    assert begun(1) == begun(1)
    for message in (EnclaveFinish(bytes(32)), EnclaveBox(bytes(32), "north", (QUESTION,) * 2, bytes(48), bytes(64))):
        assert say(here, message).code == "out-of-order"


def test_a_platform_that_gives_no_evidence_is_said_so() -> None:
    failing = Desk("first", CommandEvidence(["false"]), os.urandom)
    assert say(failing, duty()).code == "evidence-untrusted"
    for command, raised in ((["/nonexistent/tool"], UntrustedEvidence), (["echo", "none"], MalformedEvidence)):
        with pytest.raises(raised):
            CommandEvidence(command).evidence(bytes(64))


def test_a_program_of_the_operator_gives_evidence(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text('#!/bin/sh\nprintf \'{"evidence":"%s","collateral":"YQ=="}\' "$(printf %s $1 | base64 -w0)"')
    script.chmod(0o755)
    assert CommandEvidence([str(script)]).evidence(b"\x01" * 64) == (("01" * 64).encode(), b"a")


# --- the process --------------------------------------------------------------------------------


@pytest.fixture
def room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flute-agg-") as folder:
        yield Path(folder)


def told(where: Path | int, message: object) -> AggregatorAnswer:
    """One call over a Unix socket or to a port of this machine."""
    transport = httpx.HTTPTransport(uds=str(where)) if isinstance(where, Path) else httpx.HTTPTransport()
    port = where if isinstance(where, int) else 80
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        raw = msgspec.msgpack.encode(message)
        answer = http.post(SAY, content=raw, headers={"content-type": MEDIA_TYPE})
        assert answer.status_code == 200
        return msgspec.msgpack.decode(answer.content, type=AggregatorAnswer)


TOOL = """\
import base64, json, sys
from pathlib import Path
sys.path.insert(0, TESTS)
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support import evidence_issuer
from flute.attestation.collateral import write_collateral
def kept(name, *_):
    return load_pem_private_key((Path(KEYS) / name).read_bytes(), None)
evidence_issuer.rsa_key = evidence_issuer.ec_key = kept
issuer = evidence_issuer.SnpIssuer()
made = issuer.evidence(bytes.fromhex(sys.argv[-1]))
given = {"evidence": made, "collateral": write_collateral(issuer.collateral())}
print(json.dumps({name: base64.b64encode(value).decode() for name, value in given.items()}))
"""


def snp_tool(folder: Path) -> Path:
    """An operator's program that shows AMD reports under this process's TEST root."""
    for name, key in (("ark", SNP.root_key), ("ask", SNP.middle_key), ("vcek", SNP.leaf_key)):
        full = {"ark": "ark-Milan-test", "ask": "ask-Milan-False-test", "vcek": "vcek-Milan-False-test"}[name]
        (folder / full).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tool = folder / "tool.py"
    tool.write_text(TOOL.replace("TESTS", repr(str(ROOT / "tests"))).replace("KEYS", repr(str(folder))))
    return tool


def serve(name: str, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", name, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


def test_a_process_with_a_real_tpm_and_one_with_an_amd_report_give_one_total_and_leave_nothing_behind(
    room: Path,
) -> None:
    """`flute aggregator serve`, twice: DEVELOPMENT evidence of a software TPM over a Unix socket, and an AMD report
    under the TEST root through an operator's program, on a port."""
    require_swtpm()
    (room / "tpm").mkdir()
    tpm, port = Swtpm.start(room / "tpm"), free_port()
    where: dict[str, Path | int] = {"first": room / "first.socket", "second": port}
    running = [
        serve("first", "--socket", str(where["first"]), "--tcti", f"swtpm:path={room / 'tpm' / 'tpm'}",
              "--write-policy", str(room / "first.policy")),
        serve("second", "--port", str(port), "--technology", "command", "--command",
              f"{sys.executable} {snp_tool(room)}"),
    ]  # fmt: skip
    try:
        for name, process in zip(NAMES, running, strict=True):
            wait_for(where[name], process)
        policies = {"first": (room / "first.policy").read_bytes(), "second": write_policy(SNP.policy())}
        assert read_policy(policies["first"]).tpm.registers["23"] == (measure(ROOT).register.hex(),)
        assert len(left_behind(room / "first.policy")) == 1, "in use now; found the same way below"
        offers = {name: told(where[name], duty(name)) for name in NAMES}
        run_round(offers, policies, lambda name, message: told(where[name], message))
        assert told(where["second"], EnclaveFinish(bytes(32))).code == "out-of-order"
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        ended = [process.wait(20) for process in running]
        tpm.stop()
    assert ended == [0, 0]
    assert not (room / "first.socket").exists()
    assert left_behind(room / "first.policy") == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(where: Path | int) -> bool:
    if isinstance(where, Path):
        return where.exists()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", where)) == 0


def wait_for(where: Path | int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not listens(where):
        assert process.poll() is None, "the aggregator ended before it listened"
        assert time.monotonic() < until
        time.sleep(0.05)


# --- what it is made of ---------------------------------------------------------------------------


def checkout(into: Path, *, files: dict[str, str] | None = None) -> Path:
    """A small source tree with the places that are measured."""
    tree = {
        LOCK: "a==1 \\\n    --hash=sha256:" + "aa" * 32 + "\nb==2 \\\n    --hash=sha256:" + "bb" * 32 + "\n",
        "src/flute/__init__.py": "__version__ = '1'\n",
        "src/flute/room/module.py": "x = 1\n",
        "deploy/aggregator/start": "#!/bin/sh\n",
        "README.md": "not measured\n",
    } | (files or {})
    for name, text in tree.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return into


IMPORTED = """\
import importlib.metadata, sys
import flute.cli.app, flute.cli.aggregator, flute.aggregator.desk, flute.aggregator.platforms
import flute.aggregator.process
owners = importlib.metadata.packages_distributions()
print(*sorted({owner for name in sys.modules for owner in owners.get(name.partition(".")[0], [])}))
"""


def test_the_image_has_what_an_aggregator_imports_in_the_versions_that_the_project_is_tested_with() -> None:
    ours = set(re.findall(r"^([A-Za-z0-9._-]+==\S+)", (ROOT / LOCK).read_text(), re.MULTILINE))
    tested = set(re.findall(r"^([A-Za-z0-9._-]+==\S+)", (ROOT / "constraints-dev.txt").read_text(), re.MULTILINE))
    assert ours
    assert ours <= tested
    printed = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, check=True, text=True).stdout
    imported = {re.sub(r"[-_.]+", "-", name).lower() for name in printed.split()}
    optional = {"flute", "setuptools", "charset-normalizer", "python-multipart", "watchfiles"}  # used where they are
    assert imported - {pin.partition("==")[0] for pin in ours} <= optional
    assert "cryptography" in imported


def test_two_checkouts_in_two_folders_measure_the_same(tmp_path: Path) -> None:
    """The real source, copied: other folder, other times, other rights, compiled files lying about."""
    copies = [tmp_path / "here", tmp_path / "there" / "deep"]
    for copy in copies:
        for part in ("src/flute", "deploy/aggregator"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copies[1].rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)
    (copies[1] / "src/flute/__pycache__").mkdir()
    (copies[1] / "src/flute/__pycache__/x.pyc").write_bytes(b"x")
    one, two = (measure(copy) for copy in copies)
    assert one == two
    assert one.files > 300
    (wheels := tmp_path / "wheels").mkdir()
    images = [tmp_path / "1.tar", tmp_path / "2.tar"]
    digests = [write_image(copy, wheels, image) for copy, image in zip(copies, images, strict=True)]
    assert digests[0] == digests[1]
    assert images[0].read_bytes() == images[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("src/flute/room/module.py", "x = 2\n", False),
        ("src/flute/room/another.py", "", False),
        ("deploy/aggregator/start", "#!/bin/sh\nid\n", False),
        (LOCK, "a==1 \\\n    --hash=sha256:" + "cc" * 32 + "\n", False),
        ("README.md", "anything\n", True),
        (
            LOCK,
            "# words\nb==2 \\\n    --hash=sha256:" + "bb" * 32 + "\na==1 \\\n    --hash=sha256:" + "aa" * 32 + "\n",
            True,
        ),
    ],
)
def test_what_counts_changes_the_measurement_and_nothing_else(
    tmp_path: Path, name: str, text: str, same: bool
) -> None:
    before = measure(checkout(tmp_path / "a")).value
    after = measure(checkout(tmp_path / "b", files={name: text})).value
    assert (before == after) == same


def test_links_strange_wheels_and_folders_that_are_no_checkout_are_refused(tmp_path: Path) -> None:
    tree = checkout(tmp_path / "tree")
    (wheels := tmp_path / "wheels").mkdir()
    (wheels / "evil-1-py3-none-any.whl").write_bytes(b"evil")
    with pytest.raises(MisuseError, match="evil"):
        write_image(tree, wheels, tmp_path / "image.tar")
    (tree / "src/flute/link.py").symlink_to(tree / "README.md")
    with pytest.raises(MisuseError, match="link"):
        measure(tree)
    with pytest.raises(MisuseError, match="no checkout"):
        measure(tmp_path)
    with pytest.raises(MisuseError, match="hash"):
        measure(checkout(tmp_path / "bare", files={LOCK: "a==1\n"}))


def test_the_commands_print_the_measurement_and_a_policys_digest(tmp_path: Path) -> None:
    tree = checkout(tmp_path / "tree")
    printed = CliRunner().invoke(APP, ["measure", "--source", str(tree), "--format", "json"])
    assert msgspec.json.decode(printed.output)["measurement"] == measure(tree).value.hex()
    policy = TpmIssuer().policy()
    given = tmp_path / "policy.json"
    given.write_bytes(msgspec.json.format(write_policy(policy)))
    printed = CliRunner().invoke(
        APP, ["policy", str(given), "--into", str(tmp_path / "canonical"), "--format", "json"]
    )
    assert msgspec.json.decode(printed.output)["digest"] == policy_digest(write_policy(policy)).hex()
    assert (tmp_path / "canonical").read_bytes() == write_policy(policy)
