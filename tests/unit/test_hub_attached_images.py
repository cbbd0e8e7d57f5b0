"""A column of images at a hub: journaled, made anew by later imports, gone with a withdrawn patient."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flute.data.variables import Variable
from flute.errors import MisuseError, NotPossible, Unreachable
from flute.hub.decisions.consents import _require_same_images
from flute.hub.records.images import ImageColumn
from flute.hub.records.imports import done
from flute.hub.records.plans import AttachPlan, FlatTable, ImportPlan
from flute.hub.store import HubPolicy
from flute.intake.pixels import FOLDER
from flute.intake.snapshot import SnapshotSource, snapshots
from flute.ledger.audit import history
from support.holding_hubs import HoldingFederation
from support.networks_of_images import DIGITS, agreement_over
from support.phantoms import as_file, study

VARIABLES = (Variable("age", "number", 20, 100, unit="a"), Variable("ill", "binary"))
HUBS = ("north",)
MEN = 120
MRI = Variable("mri", "image", -1, 1, shape=(1, 2, 2))


def table(hub: str, seed: int) -> str:
    chance = np.random.default_rng(seed)
    rows = [f"{hub}{i},{chance.integers(30, 90)},{int(chance.random() < 0.4)}" for i in range(MEN)]
    return "\n".join(["id,age,ill", *rows, ""])


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[HoldingFederation]:
    policy = HubPolicy(exact_allowed=True, floor=1, max_numbers=100_000)
    made = HoldingFederation(tmp_path, {h: table(h, i) for i, h in enumerate(HUBS)}, VARIABLES, policy)
    yield made
    made.close()


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Images of nine patients of hub north, and of a stranger."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for n in range(9):
        np.save(folder / f"north{n}.npy", np.full((1, 2, 2), n / 10))
    np.save(folder / "stranger.npy", np.zeros((1, 2, 2)))
    return folder


def attached(federation: HoldingFederation, variable: Variable) -> int:
    """How many patients of hub north have an image."""
    hub = federation.hubs["north"]
    snapshot = hub.parts.store.dataset("records").snapshot
    return int(np.nansum(SnapshotSource(hub.folder, snapshot).open((variable,)).column(variable.name)))


def pixels(federation: HoldingFederation) -> int:
    return len(list((federation.hubs["north"].folder / FOLDER).iterdir()))


def test_images_of_a_folder_become_a_variable_and_stay_one(federation: HoldingFederation, arrays: Path) -> None:
    hub, data = federation.hubs["north"], federation.data["north"]
    before = hub.parts.store.dataset("records")
    taken = data.curator.carry_out(AttachPlan("records", "eva", ImageColumn(MRI, str(arrays))))
    (counts,) = taken.attached
    assert (counts.images, counts.missing, counts.unusable, counts.unmatched) == (9, MEN - 9, {}, 1)
    entry = hub.parts.store.dataset("records")
    assert entry.snapshot == taken.snapshot != before.snapshot
    assert entry.variables == (*before.variables, MRI)
    assert entry.report["missing"]["mri"] == MEN - 9
    assert msgspec.json.decode(msgspec.json.encode(done("records", taken)))["attached"][0]["images"] == 9
    line = list(history(hub.parts.journal))[-1]
    assert "by recipe images: 120 patients" in line.entry.says()
    federation.import_text("north", table("north", 0))
    assert hub.parts.store.dataset("records").variables == before.variables, "another plan, without images"


def test_every_later_import_makes_the_images_anew(federation: HoldingFederation, arrays: Path) -> None:
    data = federation.data["north"]
    data.curator.attach(AttachPlan("records", "eva", ImageColumn(MRI, str(arrays))))
    np.save(arrays / "north50.npy", np.full((1, 2, 2), -0.5))
    again = data.curator.import_(data.holdings.plan("records"))
    assert [one.images for one in again.attached] == [10]
    assert attached(federation, MRI) == 10
    shutil.rmtree(arrays)
    with pytest.raises(Unreachable):
        data.curator.import_(data.holdings.plan("records"))
    assert attached(federation, MRI) == 10, "the dataset stays as it was"


def test_a_withdrawn_patient_s_image_is_gone_from_the_disk(federation: HoldingFederation, arrays: Path) -> None:
    hub, data = federation.hubs["north"], federation.data["north"]
    data.curator.attach(AttachPlan("records", "eva", ImageColumn(MRI, str(arrays))))
    data.curator.import_(data.holdings.plan("records"))
    assert pixels(federation) == 9
    data.withdrawal.withdraw("north3", person="eva", reason="The patient asked for it.")
    assert attached(federation, MRI) == pixels(federation) == 8
    assert snapshots(hub.folder) == [hub.parts.store.dataset("records").snapshot], "no earlier import holds him"
    data.curator.import_(data.holdings.plan("records"))
    assert attached(federation, MRI) == pixels(federation) == 8, "his file is there still, and is passed over"


def test_a_column_of_the_same_name_is_replaced_and_its_images_go(federation: HoldingFederation, arrays: Path) -> None:
    data = federation.data["north"]
    data.curator.attach(AttachPlan("records", "eva", ImageColumn(MRI, str(arrays))))
    for path in arrays.iterdir():
        np.save(path, np.zeros((2, 2, 2)))
    other = Variable("mri", "image", -1, 1, shape=(2, 2, 2))
    data.curator.attach(AttachPlan("records", "eva", ImageColumn(other, str(arrays))))
    assert attached(federation, other) == 9
    assert pixels(federation) == 1
    age = Variable("age", "image", -1, 1, shape=(1, 2, 2))
    with pytest.raises(MisuseError, match="age that is no image"):
        data.curator.attach(AttachPlan("records", "eva", ImageColumn(age, str(arrays))))
    with pytest.raises(NotPossible, match="no dataset"):
        data.curator.attach(AttachPlan("other", "eva", ImageColumn(MRI, str(arrays))))


def test_images_are_made_of_what_lies_on_the_shelf(federation: HoldingFederation) -> None:
    hub, data = federation.hubs["north"], federation.data["north"]
    made = Variable("mri", "image", -1, 1, shape=(3, 4, 8, 8))
    column = ImageColumn(made, spacing=(6.0, 4.0, 4.0))
    with pytest.raises(Unreachable, match="keeps no images yet"):
        data.curator.attach(AttachPlan("records", "eva", column))
    for patient, defects in (("north1", ()), ("north2", ("no-adc",)), ("stranger", ())):
        folder = hub.folder / "images" / data.curator.known_as(patient) / "2.25.1"
        folder.mkdir(parents=True)
        for number, ds in enumerate(study("siemens", *defects)):
            (folder / f"{number}.dcm").write_bytes(as_file(ds))
    (counts,) = data.curator.attach(AttachPlan("records", "eva", column)).attached
    assert (counts.images, counts.missing, counts.left_out) == (1, MEN - 1, {"no-adc": 1})
    assert counts.unmatched == 1
    assert attached(federation, made) == 1


def test_a_table_s_own_column_may_name_files(federation: HoldingFederation, arrays: Path) -> None:
    (arrays / "t.csv").write_text("id,mri\nnorth1,north1.npy\nnorth2,\nnorth3,lost.npy\n")
    plan = ImportPlan("scans", "eva", table=FlatTable(str(arrays / "t.csv"), (MRI,)), simulated=True)
    taken = federation.data["north"].curator.carry_out(plan)
    assert (taken.report.missing, taken.report.unusable) == ({"mri": 1}, {"mri": 1})
    assert federation.hubs["north"].parts.store.dataset("scans").variables == (MRI,)


def test_a_study_of_another_shape_is_not_granted(federation: HoldingFederation, arrays: Path) -> None:
    hub, data = federation.hubs["north"], federation.data["north"]
    data.curator.attach(AttachPlan("records", "eva", ImageColumn(MRI, str(arrays))))
    held = hub.parts.store.dataset("records")
    with pytest.raises(NotPossible, match=r"another shape than dataset records has it \(1 x 2 x 2\)"):
        _require_same_images(agreement_over("ill", "mri"), held)
    with pytest.raises(NotPossible, match="no image"):
        _require_same_images(agreement_over("ill", "age"), held)
    fitting = msgspec.structs.replace(held, variables=(*VARIABLES, DIGITS))
    _require_same_images(agreement_over("ill", "mri"), fitting)


@pytest.mark.parametrize(
    "elements",
    [
        {"variable": {"name": "age", "kind": "number", "low": 0, "high": 1}},
        {"variable": {"name": "mri", "kind": "image", "low": -1, "high": 1, "shape": [2, 4, 8, 8]}},
        {"variable": {"name": "mri", "kind": "image", "low": 0, "high": 1, "shape": [3, 4, 8, 8]}},
        {
            "variable": {"name": "mri", "kind": "image", "low": -1, "high": 1, "shape": [3, 4, 8, 8]},
            "spacing": [0, 1, 1],
        },
    ],
)
def test_a_column_that_cannot_be_made_is_refused_at_the_door(elements: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(elements, ImageColumn)
