from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.aggregation import codec
from flute.aggregation.codec import (
    ROOM,
    WIDTHS,
    Bounds,
    FixedPoint,
    Layout,
    TotalReader,
    Width,
    decode_exact,
    encode_exact,
    exact_bounds,
    read_total,
    width_for,
)
from flute.defaults import BLOCK_COORDINATES, FIXED_POINT_BITS, MAX_ENVELOPE_BYTES, MAX_HUBS, SENTINELS
from flute.errors import BadTotal, MisuseError
from flute.primitives.ring import add_into

HUBS = 3
LIMIT = 2**62 / HUBS / 2**FIXED_POINT_BITS
FINITE = st.floats(min_value=-LIMIT, max_value=LIMIT, exclude_min=True, exclude_max=True)
TEN = Bounds(10, 30)
EVERY_WIDTH = pytest.mark.parametrize("width", WIDTHS)


def shared(width: Width, hubs: int) -> Bounds:
    """All the room of a width, shared by `hubs`."""
    return Bounds(ROOM[width] // hubs, hubs * (ROOM[width] // hubs))


def blocks(layout: Layout, values: np.ndarray, bounds: Bounds) -> list[np.ndarray]:
    return [layout.pack(k, values[layout.values_of(k)], bounds) for k in range(layout.blocks)]


def random_words(rng: np.random.Generator, layout: Layout, vectors: int) -> np.ndarray:
    dtype = np.dtype(f"u{layout.word_bytes}")
    return rng.integers(0, np.iinfo(dtype).max, (vectors, layout.block_words(0)), dtype=dtype, endpoint=True)


# --- widths and layouts --------------------------------------------------------------------------------


def test_every_width_leaves_a_part_of_its_range_empty_and_sums_of_all_hubs_sentinels_fit() -> None:
    for width, room in ROOM.items():
        assert room <= 3 * 2 ** (width - 3)
        assert room > MAX_HUBS


@EVERY_WIDTH
def test_the_narrowest_width_with_room_is_chosen(width: Width) -> None:
    assert width_for(ROOM[width]) == width
    assert width_for(ROOM[width] - 1) == width
    if width != WIDTHS[-1]:
        assert width_for(ROOM[width] + 1) == WIDTHS[WIDTHS.index(width) + 1]


def test_a_total_that_no_width_holds_is_refused() -> None:
    with pytest.raises(MisuseError, match="64 bits"):
        width_for(ROOM[64] + 1)


@pytest.mark.parametrize(
    ("width", "size", "length"),
    [(16, 1, 10), (32, 1, 20), (64, 1, 40), (21, 1, 16), (21, 2, 16), (21, 3, 24), (16, 1_000_000, 2_000_008)],
)
def test_a_vector_takes_the_stated_bytes(width: Width, size: int, length: int) -> None:
    assert Layout(width, size).length == length


@EVERY_WIDTH
def test_a_block_fits_an_envelope_and_a_million_numbers_fit_one(width: Width) -> None:
    layout = Layout(width, 3 * BLOCK_COORDINATES)
    assert layout.block_words(0) * layout.word_bytes < MAX_ENVELOPE_BYTES
    assert Layout(width, 1_000_000).blocks == 1


@settings(deadline=None)
@given(st.sampled_from(WIDTHS), st.integers(1, 60), st.integers(1, 20))
def test_blocks_hold_every_coordinate_once_and_all_sentinels(width: Width, size: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "BLOCK_COORDINATES", block)
        layout = Layout(width, size)
        indices = [k for b in range(layout.blocks) for k in range(size)[layout.values_of(b)]]
        assert indices == list(range(size))
        assert sum(layout.block_size(b) for b in range(layout.blocks)) == size + SENTINELS
        assert all(0 < layout.block_size(b) <= block for b in range(layout.blocks))
        for beyond in (-1, layout.blocks):
            with pytest.raises(MisuseError, match="no block"):
                layout.block_size(beyond)


@pytest.mark.parametrize(("width", "size"), [(8, 3), (20, 3), (0, 3), (128, 3), (64, 0), (64, -1)])
def test_other_widths_and_empty_vectors_are_refused(width: int, size: int) -> None:
    with pytest.raises(MisuseError):
        Layout(width, size)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(0, 1), (-1, 1), (2, 1), (1, 1, 0.0), (1, 1, -1.0), (1, 1, float("nan"))])
def test_bounds_that_do_not_fit_together_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(MisuseError):
        Bounds(*numbers)


@pytest.mark.parametrize("hubs", [0, -1])
def test_exact_bounds_need_a_hub(hubs: int) -> None:
    with pytest.raises(MisuseError):
        exact_bounds(hubs)


# --- packing -------------------------------------------------------------------------------------------


def extremes(bound: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([-bound, 1 - bound, -1, 0, 1, bound - 1, bound]), st.integers(-bound, bound))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WIDTHS), st.integers(1, 11), st.sampled_from([1, 4, 5, 7, 100]), st.data())
def test_whatever_is_packed_is_unpacked(width: Width, size: int, block: int, data: st.DataObject) -> None:
    """One hub's numbers up to all the room there is, both signs, at sizes that fill no whole word of lanes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "BLOCK_COORDINATES", block)
        layout, bounds = Layout(width, size), shared(width, 1)
        values = np.array(data.draw(st.lists(extremes(ROOM[width]), min_size=size, max_size=size)), dtype=np.int64)
        read = [layout.unpack(k, words) for k, words in enumerate(blocks(layout, values, bounds))]
        assert np.concatenate(read).tolist() == [*values.tolist(), *[1] * SENTINELS]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WIDTHS), st.integers(2, 30), st.integers(1, 11), st.data())
def test_masked_sums_of_extreme_numbers_are_exact(width: Width, hubs: int, size: int, data: st.DataObject) -> None:
    """Random masks that cancel in the sum: lanes carry into each other and the carries come off again."""
    layout, bounds = Layout(width, size), shared(width, hubs)
    drawn = data.draw(st.lists(extremes(bounds.part), min_size=hubs * size, max_size=hubs * size))
    values = np.array(drawn, dtype=np.int64).reshape(hubs, size)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks = random_words(rng, layout, hubs)
    masks[-1] = np.zeros_like(masks[0]) - masks[:-1].sum(axis=0, dtype=masks.dtype)
    total = np.zeros_like(masks[0])
    for own, mask in zip(values, masks, strict=True):
        add_into(total, layout.pack(0, own, bounds) + mask)
    assert read_total(total, layout, survivors=hubs, bounds=bounds).tolist() == values.sum(axis=0).tolist()


@EVERY_WIDTH
@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_long_vectors_are_packed_stretch_by_stretch_alike(width: Width, more: int) -> None:
    """Sizes about the end of a stretch of lanes; every number at an end of the room or next to it."""
    size = 3 * 2 * codec._STRETCH - SENTINELS + more
    layout, bounds = Layout(width, size), shared(width, 1)
    values = np.random.default_rng(size).choice([-ROOM[width], 1 - ROOM[width], -1, 0, 1, ROOM[width]], size)
    read = layout.unpack(0, layout.pack(0, values, bounds))
    assert np.array_equal(read[:size], values)
    assert read[size:].tolist() == [1] * SENTINELS


def test_lane_k_of_word_i_is_coordinate_k_w_plus_i() -> None:
    packed = Layout(21, 3).pack(0, np.array([-5, 7, 9], dtype=np.int32), Bounds(10, 10))
    lanes = [[-5, 7, 9], [1, 1, 1], [1, 0, 0]]  # seven numbers in three words, two places empty
    assert packed.tolist() == [sum(lane[i] * 2 ** (21 * k) for k, lane in enumerate(lanes)) % 2**64 for i in range(3)]


@EVERY_WIDTH
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_integers_of_every_size_are_packed_alike(width: Width, kind: type) -> None:
    layout, values = Layout(width, 5), [-10, 10, 0, -1, 3]
    assert np.array_equal(
        layout.pack(0, np.array(values, dtype=kind), TEN), layout.pack(0, np.array(values, dtype=np.int64), TEN)
    )


@EVERY_WIDTH
@pytest.mark.parametrize("value", [11, -11, -(2**63), 2**63 - 1, 2**16, -(2**21), 2**32])
def test_a_part_beyond_its_bound_is_refused_at_the_hub(width: Width, value: int) -> None:
    with pytest.raises(MisuseError, match="range"):
        Layout(width, 2).pack(0, np.array([0, value], dtype=np.int64), TEN)


@EVERY_WIDTH
def test_bounds_without_room_are_refused_at_the_hub_and_at_the_coordinator(width: Width) -> None:
    layout, bounds = Layout(width, 1), Bounds(1, ROOM[width] + 1)
    for refuses in (
        lambda: layout.pack(0, np.zeros(1, dtype=np.int64), bounds),
        lambda: TotalReader(layout, survivors=3, bounds=bounds),
    ):
        with pytest.raises(MisuseError, match="were agreed"):
            refuses()


@pytest.mark.parametrize(
    "values",
    [np.zeros(2), np.zeros(2, dtype=np.uint64), np.zeros(3, dtype=np.int64), np.zeros((1, 2), dtype=np.int64)],
)
def test_only_the_layouts_integers_are_packed(values: np.ndarray) -> None:
    with pytest.raises(MisuseError, match="another number of coordinates"):
        Layout(64, 2).pack(0, values, TEN)


@EVERY_WIDTH
def test_a_block_of_another_length_or_width_is_not_read(width: Width) -> None:
    layout = Layout(width, 2)
    right = layout.pack(0, np.zeros(2, dtype=np.int64), TEN)
    for wrong in (right[:-1], np.append(right, right[:1]), right.astype(np.uint8)):
        with pytest.raises(MisuseError, match="another length"):
            layout.unpack(0, wrong)


# --- reading a total -----------------------------------------------------------------------------------


def as_words(width: Width, numbers: list[int]) -> np.ndarray:
    """A total's one block, from integers that no hub's bounds held back."""
    values = np.array(numbers, dtype=np.int64)
    if width == 21:
        return codec._pack_lanes(values, 0)
    return values.astype(f"i{width // 8}").view(f"u{width // 8}")


def total_of(width: Width, values: list[int], sentinels: int = HUBS) -> np.ndarray:
    return as_words(width, [*values, *[sentinels] * SENTINELS])


@EVERY_WIDTH
def test_largest_sums_pass_and_one_more_is_refused(width: Width) -> None:
    layout = Layout(width, 2)
    assert read_total(total_of(width, [30, -30]), layout, survivors=HUBS, bounds=TEN).tolist() == [30, -30]
    for value in (31, -31, ROOM[width], -ROOM[width]):
        with pytest.raises(BadTotal, match="outside"):
            read_total(total_of(width, [0, value]), layout, survivors=HUBS, bounds=TEN)


@EVERY_WIDTH
def test_sums_beyond_the_room_are_noticed_up_to_the_end_of_the_word(width: Width) -> None:
    """Hubs that lie about their parts: whatever lands in the empty part of the range is seen for what it is."""
    layout, bounds = Layout(width, 1), shared(width, HUBS)
    end = 2 ** (width - 1)
    for value in (bounds.total + 1, end - 1, -end, -bounds.total - 1):
        with pytest.raises(BadTotal, match="outside"):
            read_total(total_of(width, [value]), layout, survivors=HUBS, bounds=bounds)


@EVERY_WIDTH
@pytest.mark.parametrize("sentinels", [0, HUBS - 1, HUBS + 1, -1])
def test_wrong_sentinels_are_noticed(width: Width, sentinels: int) -> None:
    with pytest.raises(BadTotal, match="check numbers"):
        read_total(total_of(width, [0], sentinels), Layout(width, 1), survivors=HUBS, bounds=TEN)


@EVERY_WIDTH
def test_one_wrong_sentinel_of_four_is_noticed(width: Width) -> None:
    for k in range(SENTINELS):
        sentinels = [HUBS + (i == k) for i in range(SENTINELS)]
        with pytest.raises(BadTotal, match="check numbers"):
            read_total(as_words(width, [0, *sentinels]), Layout(width, 1), survivors=HUBS, bounds=TEN)


@EVERY_WIDTH
def test_random_words_are_no_total(width: Width) -> None:
    """1,000 totals that still hold a mask; false alarm of four 16-bit sentinels: 1,000 * 2^-64."""
    rng, layout = np.random.default_rng(3), Layout(width, 4)
    for _ in range(1_000):
        words = random_words(rng, layout, 1)[0]
        with pytest.raises(BadTotal):
            read_total(words, layout, survivors=HUBS, bounds=shared(width, HUBS))


@EVERY_WIDTH
def test_a_total_longer_than_its_norm_bound_is_refused(width: Width) -> None:
    layout, bounds = Layout(width, 2), Bounds(10, 30, 5.0)
    assert read_total(total_of(width, [3, -4]), layout, survivors=HUBS, bounds=bounds).tolist() == [3, -4]
    with pytest.raises(BadTotal, match="clip norm"):
        read_total(total_of(width, [3, -5]), layout, survivors=HUBS, bounds=bounds)


def test_the_norm_is_that_of_all_blocks_and_no_square_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block alone is within the norm; squares of 16-bit numbers do not fit 16 bits."""
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 4)
    layout, values = Layout(16, 8), np.array([20_000] * 8, dtype=np.int64)
    norm = float(np.sqrt(8.0)) * 20_000
    for bound, fits in ((norm * 1.001, True), (norm * 0.999, False)):
        reader = TotalReader(layout, survivors=1, bounds=Bounds(20_000, 20_000, bound))
        for words in blocks(layout, values, Bounds(20_000, 20_000)):
            reader.read(words)
        if fits:
            reader.finish()
        else:
            with pytest.raises(BadTotal, match="clip norm"):
                reader.finish()


def test_the_norm_counts_the_last_coordinate_of_a_long_vector() -> None:
    size = 2 * codec._PART + 1
    values = np.zeros(size, dtype=np.int64)
    values[-1] = 6
    layout = Layout(16, size)
    words = layout.pack(0, values, TEN)
    assert read_total(words, layout, survivors=1, bounds=Bounds(10, 30, 6.0))[-1] == 6
    with pytest.raises(BadTotal, match="clip norm"):
        read_total(words, layout, survivors=1, bounds=Bounds(10, 30, 5.9))


def test_a_total_is_not_finished_before_its_last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 4)
    layout = Layout(16, 8)
    reader = TotalReader(layout, survivors=1, bounds=TEN)
    packed = blocks(layout, np.zeros(8, dtype=np.int64), TEN)
    for words in packed[:-1]:
        reader.read(words)
        with pytest.raises(MisuseError, match="all of its blocks"):
            reader.finish()
    reader.read(packed[-1])
    reader.finish()
    with pytest.raises(MisuseError, match="no block"):
        reader.read(packed[-1])


def test_a_sum_over_nobody_is_refused() -> None:
    with pytest.raises(MisuseError):
        TotalReader(Layout(64, 1), survivors=0, bounds=TEN)


# --- exact numbers: 64-bit fixed point ------------------------------------------------------------------


def exact_total(parts: list[np.ndarray]) -> np.ndarray:
    layout, bounds = Layout(64, parts[0].size), exact_bounds(len(parts))
    total = np.zeros(layout.block_words(0), dtype=np.uint64)
    for part in parts:
        add_into(total, layout.pack(0, encode_exact(part, hubs=len(parts)), bounds))
    return read_total(total, layout, survivors=len(parts), bounds=bounds)


@settings(deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=10))
def test_exact_sum_stays_within_its_stated_error(rows: list[tuple[float, float, float]]) -> None:
    decoded = decode_exact(exact_total([np.array(column) for column in zip(*rows, strict=True)]))
    for k, row in enumerate(rows):
        true = sum(map(Fraction, row))
        stated = Fraction(HUBS, 2 ** (FIXED_POINT_BITS + 1)) + (abs(true) + 1) * Fraction(1, 2**53)
        assert abs(Fraction(decoded[k]) - true) <= stated


@pytest.mark.parametrize("hubs", [3, 30, MAX_HUBS])
def test_sums_are_exact_to_two_to_the_minus_32(hubs: int) -> None:
    """The opened integers at any magnitude; as float64 up to sums of 2^20, beyond which float64 is coarser."""
    rng = np.random.default_rng(hubs)
    scale = 2.0 ** rng.uniform(-40, 20, size=200) / hubs
    parts = [rng.uniform(-1, 1, size=200) * scale for _ in range(hubs)]
    total = exact_total(parts)
    decoded = decode_exact(total)
    for k in range(200):
        true = sum(Fraction(part[k]) for part in parts)
        assert abs(Fraction(int(total[k]), 2**FIXED_POINT_BITS) - true) <= Fraction(1, 2**32)
        assert abs(Fraction(decoded[k]) - true) <= Fraction(1, 2**32)


def test_control_32_fraction_bits_are_not_exact_to_two_to_the_minus_32() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.uniform(-1, 1, size=200) for _ in range(30)]
    total = sum(encode_exact(part, hubs=30, bits=32) for part in parts)
    errors = [abs(Fraction(int(total[k]), 2**32) - sum(Fraction(p[k]) for p in parts)) for k in range(200)]
    assert max(errors) > Fraction(1, 2**32)


def test_rounding_is_to_nearest_at_the_stated_bits() -> None:
    half = 2.0 ** -(FIXED_POINT_BITS + 1)
    x = np.array([half * 0.99, half * 1.01, -half * 1.01, 3 * half, 1.0])
    assert encode_exact(x, hubs=HUBS).tolist() == [0, 1, -1, 2, 2**FIXED_POINT_BITS]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(MisuseError, match="not finite"):
        encode_exact(np.array([1.0, bad]), hubs=HUBS)
    for width in (16, 21, 32):
        with pytest.raises(MisuseError, match="not finite"):
            FixedPoint(width, HUBS, 1.0).encode(np.array([1.0, bad]), rand=bytes(32))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_that_the_sum_cannot_hold_is_refused(sign: int) -> None:
    with pytest.raises(MisuseError, match=r"Standardise|fewer bits"):
        encode_exact(np.array([sign * LIMIT]), hubs=HUBS)
    fits = encode_exact(np.array([sign * np.nextafter(LIMIT, 0)]), hubs=HUBS)
    assert abs(int(fits[0])) <= exact_bounds(HUBS).part


def test_fewer_bits_hold_larger_numbers() -> None:
    x = np.array([LIMIT * 1000])
    assert decode_exact(encode_exact(x, hubs=HUBS, bits=20), bits=20) == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("bad", [np.zeros(3, dtype=np.float32), np.zeros((2, 2)), np.zeros(3, dtype=np.int64)])
def test_other_types_and_shapes_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(MisuseError):
        encode_exact(bad, hubs=HUBS)


@pytest.mark.parametrize("bits", [-1, 63])
def test_bits_outside_the_word_are_refused(bits: int) -> None:
    with pytest.raises(MisuseError):
        encode_exact(np.zeros(1), hubs=HUBS, bits=bits)


# --- real numbers without noise: stochastic rounding ----------------------------------------------------

SIZE = 200_000
NARROW = pytest.mark.parametrize("width", [16, 21, 32])


def clipped_rounds(point: FixedPoint, values: list[np.ndarray]) -> np.ndarray:
    """The error of the mean over hubs, in parts of the clip [SIZE]; fixed seeds, so a failure repeats."""
    total = sum(point.encode(x, rand=bytes([7, k, *bytes(30)])).astype(np.int64) for k, x in enumerate(values))
    return (point.decode(total) - sum(values)) / len(values) / point.clip


def uniform(hubs: int, clip: float) -> list[np.ndarray]:
    rng = np.random.default_rng(hubs)
    return [rng.uniform(-clip, clip, SIZE) for _ in range(hubs)]


def unbiased(errors: np.ndarray, rms: float) -> bool:
    """|mean| of SIZE independent errors within five of its standard deviations: false alarm 6e-7."""
    return bool(abs(errors.mean()) <= 5 * rms / np.sqrt(errors.size))


@pytest.mark.parametrize("hubs", [3, 10, 30])
def test_error_at_21_bits_is_at_most_3e_6_of_the_clip_and_has_mean_zero(hubs: int) -> None:
    """The stated root mean square to within 2 %: its own deviation over 200,000 numbers is below 0.2 %."""
    point = FixedPoint(21, hubs, 2.5)
    errors = clipped_rounds(point, uniform(hubs, 2.5))
    stated = np.sqrt(hubs / 6) / (ROOM[21] - 2 * hubs)
    rms = np.sqrt(np.mean(errors**2))
    assert rms <= 3e-6
    assert rms == pytest.approx(stated, rel=0.02)
    assert np.abs(errors).max() <= hubs / (ROOM[21] - 2 * hubs) + 2.0**-23
    assert unbiased(errors, stated)


@NARROW
@pytest.mark.parametrize("hubs", [3, 30])
def test_every_width_keeps_its_stated_error(width: Width, hubs: int) -> None:
    errors = clipped_rounds(FixedPoint(width, hubs, 1.0), uniform(hubs, 1.0))
    stated = np.sqrt(hubs / 6) / (ROOM[width] - 2 * hubs)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(stated, rel=0.02)
    assert unbiased(errors, stated)


class Fixed:
    """A keystream that is none: every byte the same."""

    def __init__(self, byte: int) -> None:
        self._byte = byte

    def __call__(self, key: bytes) -> Fixed:
        return self

    def blocks(self, size: int) -> Iterator[bytes]:
        yield bytes([self._byte]) * size


@pytest.mark.parametrize("hubs", [3, 30])
def test_control_rounding_down_is_rejected(hubs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "Stream", Fixed(0))
    stated = np.sqrt(hubs / 6) / (ROOM[21] - 2 * hubs)
    errors = clipped_rounds(FixedPoint(21, hubs, 2.5), uniform(hubs, 2.5))
    assert not unbiased(errors, stated)


FRACTIONS = [0.0625, 0.25, 0.5, 0.8125]


def share_rounded_up(width: Width, fraction: float, at: int = 100) -> float:
    """How many of SIZE numbers that lie `fraction` of a grid step above `at` steps go up."""
    point = FixedPoint(width, HUBS, 1.0)
    encoded = point.encode(np.full(SIZE, (at + fraction) / point.scale), rand=b"r" * 32)
    assert set(np.unique(encoded).tolist()) <= {at, at + 1}
    return float(np.mean(encoded == at + 1))


@NARROW
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("at", [100, -101])
def test_a_number_is_rounded_up_as_often_as_its_fraction_says(width: Width, fraction: float, at: int) -> None:
    """Five standard deviations beside the stated 2^-12: false alarm 6e-7 each."""
    near = 5 * np.sqrt(fraction * (1 - fraction) / SIZE) + 2.0**-12
    assert abs(share_rounded_up(width, fraction, at) - fraction) <= near


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_control_rounding_to_the_nearest_is_rejected(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mean error over different numbers is zero; over one number that comes again it is not."""
    monkeypatch.setattr(codec, "Stream", Fixed(0x7F))
    near = 5 * np.sqrt(fraction * (1 - fraction) / SIZE) + 2.0**-12
    assert abs(share_rounded_up(21, fraction) - fraction) > near


def test_different_chance_rounds_differently_and_the_same_alike() -> None:
    point, x = FixedPoint(21, HUBS, 1.0), np.linspace(-1, 1, 1_000)
    first = point.encode(x, rand=b"1" * 32)
    assert np.array_equal(first, point.encode(x, rand=b"1" * 32))
    assert not np.array_equal(first, point.encode(x, rand=b"2" * 32))


@NARROW
@pytest.mark.parametrize("hubs", [1, 3, 7, 30, 199, MAX_HUBS])
@pytest.mark.parametrize("clip", [1e-6, 0.1, 1.0, 3.0, 1e6])
def test_numbers_at_and_beyond_the_clip_stay_in_the_room(width: Width, hubs: int, clip: float) -> None:
    """Rounded up by the worst chance too; what is beyond the clip counts as the clip."""
    point = FixedPoint(width, hubs, clip)
    layout = Layout(width, 4)
    x = np.array([clip, -clip, 1e3 * clip, -1e3 * clip])
    total = np.zeros(layout.block_words(0), dtype=f"u{layout.word_bytes}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "Stream", Fixed(0xFF))
        encoded = point.encode(x, rand=bytes(32))
    for _ in range(hubs):
        add_into(total, layout.pack(0, encoded, point.bounds))
    decoded = point.decode(read_total(total, layout, survivors=hubs, bounds=point.bounds))
    step = hubs * clip / (ROOM[width] - 2 * hubs)
    assert np.abs(decoded / hubs - np.array([clip, -clip, clip, -clip])).max() <= step + clip * 2.0**-23


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_long_vectors_are_encoded_part_by_part_alike(kind: type) -> None:
    """A vector over several parts of the encoder, each with its own stretch of the one stream of chance."""
    size = 2 * codec._PART + 11
    point, x = FixedPoint(21, HUBS, 1.0), np.linspace(-1, 1, size).astype(kind)
    encoded = point.encode(x, rand=b"p" * 32)
    assert encoded.dtype == np.int32
    assert np.abs(point.decode(encoded) - x).max() <= 1 / point.scale + 2.0**-23
    errors = point.decode(encoded) - x
    assert abs(np.corrcoef(errors[: codec._PART], errors[codec._PART : 2 * codec._PART])[0, 1]) < 5 / np.sqrt(
        codec._PART
    )


@pytest.mark.parametrize("bad", [np.zeros(3, dtype=np.int64), np.zeros((2, 2)), np.array(["1"])])
def test_only_flat_vectors_of_real_numbers_are_rounded(bad: np.ndarray) -> None:
    with pytest.raises(MisuseError, match="real numbers"):
        FixedPoint(21, HUBS, 1.0).encode(bad, rand=bytes(32))


@pytest.mark.parametrize(
    ("width", "hubs", "clip"),
    [(21, 3, 0.0), (21, 3, -1.0), (21, 3, np.nan), (21, 3, np.inf), (21, 0, 1.0), (16, 6_144, 1.0), (64, 3, 1.0)],
)
def test_fixed_points_without_a_clip_or_without_room_are_refused(width: Width, hubs: int, clip: float) -> None:
    with pytest.raises(MisuseError):
        FixedPoint(width, hubs, clip)
