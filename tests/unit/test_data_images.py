"""Images as variables: a shape that older agreements do not have, arrays that stay with their patients' rows."""

from __future__ import annotations

import pickle

import msgspec
import numpy as np
import pytest

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import check_design, check_image, check_variable, present, usable
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import MisuseError, StudyFileError

MRI = Variable("mri", "image", -1, 1, shape=(2, 3, 4))
AGE = Variable("age", "number", 0, 120)


def dataset() -> Dataset:
    images = np.arange(3 * 24, dtype=np.float32).reshape(3, 2, 3, 4)
    columns = {"mri": np.array([1.0, np.nan, 1.0]), "age": np.array([50.0, 60.0, 70.0])}
    return Dataset(np.array(["a", "b", "c"]), columns, (MRI, AGE), {"mri": images})


def test_what_was_declared_before_there_were_images_is_encoded_as_before() -> None:
    said = b'{"name":"age","kind":"number","low":0.0,"high":120.0,"levels":[],"unit":"","label":""}'
    assert msgspec.json.encode(msgspec.json.decode(said, type=Variable)) == said
    assert msgspec.json.decode(msgspec.json.encode(MRI), type=Variable) == MRI


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"kind": "image"}, "a shape is what an image needs"),
        ({"kind": "number", "shape": (1, 2, 3)}, "a shape is what an image needs"),
        ({"kind": "image", "shape": (2, 3)}, "channels, height, width"),
        ({"kind": "image", "shape": ()}, "channels, height, width"),
        ({"kind": "image", "shape": (1, 0, 3)}, "channels, height, width"),
        ({"kind": "image", "shape": (1, 513, 3)}, "channels, height, width"),
        ({"kind": "image", "shape": (3, 200, 100, 100)}, "4000000"),
        ({"kind": "image", "shape": (1, 2, 2), "low": 1.0, "high": 1.0}, "needs a range"),
        ({"kind": "image", "shape": (1, 2, 2), "high": float("inf")}, "needs a range"),
    ],
)
def test_a_shape_that_is_none_is_refused(elements: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Variable("mri", **elements)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "mri", **elements}, Variable)


def test_images_stay_with_the_rows_of_their_patients() -> None:
    data = dataset()
    kept = data.where(np.array([False, True, True]))
    np.testing.assert_array_equal(kept.images("mri"), data.images("mri")[1:])
    np.testing.assert_array_equal(kept.column("mri"), [np.nan, 1.0])
    assert data.where(np.ones(3, dtype=bool)).images("mri") is data.images("mri"), "all rows stay: nothing is copied"


def test_images_have_no_way_out_of_the_process() -> None:
    data = dataset()
    assert "0." not in repr(data)
    with pytest.raises(MisuseError):
        pickle.dumps(data)


def test_an_image_is_not_among_what_was_not_selected() -> None:
    for name in ("age", "ct"):
        with pytest.raises(MisuseError, match="no image"):
            dataset().images(name)


@pytest.mark.parametrize("wrong", [None, np.zeros((3, 2, 3, 4)), np.zeros((2, 2, 3, 4), np.float32)])
def test_a_dataset_without_the_images_that_it_declares_is_refused(wrong: np.ndarray | None) -> None:  # type: ignore[type-arg]
    images = {} if wrong is None else {"mri": wrong}
    with pytest.raises(MisuseError, match="float32"):
        Dataset(np.array(["a", "b", "c"]), {"mri": np.ones(3)}, (MRI,), images)


def test_designs_take_no_image_and_networks_nothing_else() -> None:
    setting = Setting({"mri": StudyVariable(MRI), "age": StudyVariable(AGE)}, "drop", "exact", ("n", "s", "w"), {})
    with pytest.raises(StudyFileError, match="mri is an image"):
        check_design(["mri"], setting)
    with pytest.raises(StudyFileError, match="mri is an image"):
        check_variable(StudyVariable(MRI))
    with pytest.raises(StudyFileError, match="age is no image"):
        check_image(StudyVariable(AGE))
    with pytest.raises(StudyFileError, match="'log' and 'scale'"):
        check_image(StudyVariable(MRI, log=True))
    with pytest.raises(StudyFileError, match="too narrow"):
        check_image(StudyVariable(Variable("mri", "image", 1e6, 1e6 + 0.1, shape=(1, 2, 2))))
    check_image(StudyVariable(MRI))
    np.testing.assert_array_equal(usable(MRI, dataset().column("mri")), [True, False, True])
    np.testing.assert_array_equal(present(["mri", "age"], setting, dataset()), [True, False, True])
