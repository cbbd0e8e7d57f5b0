"""Cells P: k - 1 hubs with the coordinator and the researcher see the total, and nothing else.

The steps of docs/proofs/threshold.md, run: all that honest hubs say is made anew by a simulator that knows the total
and none of their secrets, and fits what the coalition can check. A trained distinguisher beside it, with its control.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata
from tests.adversary.threshold_hubs import Chance, KeyGroup, Sum, key_terms, keyed

from flute.messages.threshold import KeyDealtShare
from flute.threshold.dealing import fits, public_key_of
from flute.threshold.group import (
    ORDER,
    Element,
    add,
    multiply,
    multiply_base,
    read_elements,
    read_scalar,
    scalars_from,
    slices,
    subtract,
    total,
    write_scalar,
)
from flute.threshold.keys import weights_at_zero
from flute.threshold.proofs import Cells, Parts, check_parts, check_possession

GROUPS = [(3, 2, 1), (3, 3, 1), (5, 3, 2)]


def weights_at(places: list[int], x: int) -> list[int]:
    """Lagrange's basis at x: at 0, with everything moved by x."""
    return weights_at_zero([place - x for place in places])


# --- opening shares ------------------------------------------------------------------------------------------


def simulated_parts(run: Sum, corrupt: list[str], honest: str, known: tuple[int, ...]) -> tuple[Element, ...]:
    """An honest hub's parts from the totals and the corrupt hubs' key shares: through x·A = B - total·G at place 0
    and the corrupt hubs' parts at theirs, read at the honest hub's place."""
    hubs = run.group.terms.hubs
    summed = run.add_up()
    places = [0, *(hubs.index(hub) + 1 for hub in corrupt)]
    weights = weights_at(places, hubs.index(honest) + 1)
    secrets = [read_scalar(run.group.held[hub].secret) for hub in corrupt]
    made = []
    for pad, box, number in zip(summed.pads, summed.boxes, known, strict=True):
        values = [subtract(box, multiply_base(number)), *(multiply(secret, pad) for secret in secrets)]
        made.append(total(multiply(w, v) for w, v in zip(weights, values, strict=True)))
    return tuple(made)


@pytest.mark.parametrize(("n", "k", "colluding"), GROUPS)
def test_what_honest_hubs_show_in_an_opening_follows_from_the_total(n: int, k: int, colluding: int) -> None:
    """Byte for byte: so k - 1 hubs learn nothing from it but the total."""
    group = keyed(n, k, colluding)
    numbers = {hub: [3 * i, 7 - i, 0] for i, hub in enumerate(group.terms.hubs)}
    run = Sum(group, numbers).contribute().share()
    known = tuple(map(sum, zip(*numbers.values(), strict=True)))
    corrupt = list(group.terms.hubs[-(k - 1) :])
    for honest in group.terms.hubs[: n - k + 1]:
        real = read_elements(run.shares[honest].parts, 3)
        assert simulated_parts(run, corrupt, honest, known) == real
        wrong = (known[0] + 1, *known[1:])
        assert simulated_parts(run, corrupt, honest, wrong) != real  # control: the total is what it depends on


def test_the_proof_beside_them_is_made_without_the_secret_by_whoever_sets_the_challenge() -> None:
    """Zero knowledge: challenge and response are drawn first, what was to be hashed follows from them."""
    run = Sum(keyed(), {hub: [1, 2] for hub in keyed().terms.hubs}).contribute().share()
    summed, message = run.add_up(), run.shares["hub-a"]
    challenge, response = scalars_from(Chance("simulator")(128), 2)
    real = Parts(message.ctx, "hub-a", run.group.public.share_of("hub-a"), summed.digest, summed.pads, message.parts)

    class Programmed(Parts):
        """The random oracle, where the simulator set it."""

        def challenge(self, pad: Element, part: Element, first: tuple[Element, Element]) -> int:
            return challenge

    programmed = Programmed(real.ctx, real.hub, real.public, real.summed, real.pads, real.column)
    proof = write_scalar(challenge), write_scalar(response)
    check_parts(programmed, read_elements(message.parts, 2), proof)
    with pytest.raises(Exception, match="hub-a gave a wrong share"):  # control: with the real hash it is no proof
        check_parts(real, read_elements(message.parts, 2), proof)


@pytest.mark.parametrize(("n", "k", "colluding"), GROUPS)
def test_k_minus_1_shares_fit_any_total_equally(n: int, k: int, colluding: int) -> None:
    """For each total there is one part of the missing hub that makes it: what is there favours none."""
    group = keyed(n, k, colluding)
    run = Sum(group, {hub: [1] for hub in group.terms.hubs}).contribute()
    pad, box = run.add_up().pads[0], run.add_up().boxes[0]
    corrupt = list(group.terms.hubs[-(k - 1) :])
    places = [group.terms.hubs.index(hub) + 1 for hub in corrupt]
    mine, *theirs = weights_at_zero([1, *places])
    seen = [multiply(read_scalar(group.held[hub].secret), pad) for hub in corrupt]
    for number in (0, 1, n, -5, 1000):
        missing = simulated_parts(run, corrupt, group.terms.hubs[0], (number,))[0]
        whole = total([multiply(mine, missing), *(multiply(w, e) for w, e in zip(theirs, seen, strict=True))])
        assert subtract(box, whole) == multiply_base(number)


# --- the key ceremony ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(3, 2), (3, 3), (5, 3)])
def test_what_an_honest_dealer_shows_can_be_made_for_a_key_that_nobody_knows(n: int, k: int) -> None:
    """Given k - 1 random shares and any wanted key: a dealing under which all of them fit, and that key comes out."""
    group = KeyGroup(key_terms(n, k)).run()
    wanted = group_element("a key from elsewhere")
    corrupt = list(range(n - k + 2, n + 1))
    others = [[Element(e) for e in group.dealings[hub].elements] for hub in group.terms.hubs[1:]]
    constant = subtract(wanted, total(polynomial[0] for polynomial in others))
    shares = scalars_from(Chance(("shares", n, k))(64 * (k - 1)), k - 1)
    dealing = interpolated([0, *corrupt], [constant, *map(multiply_base, shares)])
    assert public_key_of(group.terms, [dealing, *others]).whole == wanted
    for place, share in zip(corrupt, shares, strict=True):
        sent = KeyDealtShare(bytes(32), "hub-a", "hub-b", bytes(32), write_scalar(share), bytes(64))
        assert fits(sent, dealing, place)
        assert not fits(sent, dealing, 1)  # control: an honest holder's share stays unknown


def group_element(word: str) -> Element:
    return multiply_base(scalars_from(Chance(word)(64), 1)[0])


def interpolated(places: list[int], values: list[Element]) -> list[Element]:
    """Coefficients, in the exponent, of the polynomial with these values: by its Lagrange basis, multiplied out."""
    coefficients = [Element(bytes(32))] * len(places)
    for i, place in enumerate(places):
        basis, bottom = [1], 1
        for other in (p for j, p in enumerate(places) if j != i):
            basis = [
                ((basis[t - 1] if t else 0) - other * (basis[t] if t < len(basis) else 0)) % ORDER
                for t in range(len(basis) + 1)
            ]
            bottom = bottom * (place - other) % ORDER
        scale = pow(bottom, -1, ORDER)
        for t, b in enumerate(basis):
            coefficients[t] = add(coefficients[t], multiply(b * scale % ORDER, values[i]))
    return coefficients


def test_a_dealers_proof_is_refused_for_another_hub_and_another_ceremony() -> None:
    """What makes a simulated proof one proof, and not a proof for all: its context."""
    group = KeyGroup(key_terms()).run()
    dealing = group.dealings["hub-a"]
    elements = tuple(map(Element, dealing.elements))
    check_possession(dealing.ctx, "hub-a", elements, dealing.possession)
    for ctx, hub in ((dealing.ctx, "hub-b"), (bytes(32), "hub-a")):
        with pytest.raises(Exception, match="does not prove"):
            check_possession(ctx, hub, elements, dealing.possession)


def test_a_contributions_proof_is_uniform_noise_without_its_nonce() -> None:
    """Every response fits every set of r: for some nonce. So it says nothing about them."""
    run = Sum(keyed(), {hub: [1, 2] for hub in keyed().terms.hubs}).contribute()
    message = run.contributions["hub-a"]
    cells = Cells(message.ctx, "hub-a", message.pads, message.boxes)
    challenge, response = read_scalar(message.challenge), read_scalar(message.response)
    guess = [5, 6]
    nonce = (response - sum(pow(challenge, i, ORDER) * r for i, r in enumerate(guess, 1))) % ORDER
    assert (nonce + challenge * guess[0] + challenge**2 * guess[1]) % ORDER == response
    assert cells.challenge(multiply_base(nonce)) != challenge  # but only the true one was hashed


# --- a trained distinguisher -------------------------------------------------------------------------------------

TRAINED, TRIED = 2_000, 8_000
Bits = NDArray[np.float64]


def bits(columns: list[list[bytes]]) -> Bits:
    raw = np.frombuffer(b"".join(b"".join(row) for row in zip(*columns, strict=True)), np.uint8)
    return np.unpackbits(raw.reshape(len(columns[0]), -1), axis=1).astype(np.float64) - 0.5


def area(features: Bits, secret: NDArray[np.int64]) -> float:
    """Area under the curve of a ridge regression, trained on the first cells and tried on the others."""
    x, y = features[:TRAINED], secret[:TRAINED] - 0.5
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ y)
    ranks = rankdata(features[TRAINED:] @ weights)
    ones = secret[TRAINED:] == 1
    n = int(ones.sum())
    return float((ranks[ones].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


@cache
def watched() -> tuple[Sum, NDArray[np.int64]]:
    """In each cell hub-a holds a secret bit and hub-b its opposite: the total, 1, says nothing of which."""
    secret = np.random.default_rng(11).integers(0, 2, TRAINED + TRIED)
    run = Sum(keyed(), {"hub-a": secret.tolist(), "hub-b": (1 - secret).tolist(), "hub-c": [0] * len(secret)})
    for hub in ("hub-a", "hub-b"):
        run.contribute_one(hub)
    return run, secret


def known_to(run: Sum, hubs: tuple[str, ...]) -> Bits:
    """Bits of hub-a's ciphertexts, and of what these hubs' key shares make of them."""
    message = run.contributions["hub-a"]
    pads, boxes = slices(message.pads, 32), slices(message.boxes, 32)
    places = [run.group.terms.hubs.index(hub) + 1 for hub in hubs]
    weights = weights_at_zero(places) if len(places) > 1 else [2]
    held = [read_scalar(run.group.held[hub].secret) for hub in hubs]
    combined = sum(w * x for w, x in zip(weights, held, strict=True)) % ORDER
    peeled = [bytes(subtract(Element(b), multiply(combined, Element(a)))) for a, b in zip(pads, boxes, strict=True)]
    return bits([pads, boxes, peeled])


def test_a_distinguisher_trained_on_k_minus_1_hubs_view_does_no_better_than_chance() -> None:
    """8,000 cells: by chance above .52 (or below .48) twice in a thousand; seeds are fixed."""
    run, secret = watched()
    assert 0.48 <= area(known_to(run, ("hub-c",)), secret) <= 0.52


def test_control_with_k_shares_the_same_distinguisher_is_always_right() -> None:
    run, secret = watched()
    assert area(known_to(run, ("hub-b", "hub-c")), secret) == 1.0
