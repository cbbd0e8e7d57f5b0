"""Every registered algorithm keeps the contract, by the suite that third parties call."""

from __future__ import annotations

import pytest

from flute.questions.registry import REGISTRY, Registration
from flute.testing import check_algorithm
from support.algorithm_examples import EXAMPLES, examples_of

SLOW = frozenset({"hidden-model"})
"""Twice ten seconds of computing on shares: in the soak."""
REGISTERED = [
    pytest.param(one, id=one.algorithm.name, marks=[pytest.mark.soak] * (one.algorithm.name in SLOW))
    for one in REGISTRY.values()
]


@pytest.mark.requirement("NF-HUF-2")
@pytest.mark.parametrize("registration", REGISTERED)
def test_a_registered_algorithm_keeps_the_contract(registration: Registration) -> None:
    for example in examples_of(registration.algorithm.name):
        check_algorithm(registration, example)


def test_no_example_is_left_of_an_algorithm_that_is_gone() -> None:
    assert set(EXAMPLES) <= {one.algorithm.name for one in REGISTRY.values()}


def test_an_algorithm_without_an_example_is_told_where_to_add_one() -> None:
    with pytest.raises(AssertionError, match=r"Add an entry to EXAMPLES in tests/support/algorithm_examples\.py"):
        examples_of("no-such-algorithm")
