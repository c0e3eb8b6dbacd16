"""The compiled range coder against constriction, both ways, and the coding of numbers by a mixture."""

import numpy as np
import pytest

from codes.adaptive import arithmetic
from codes.compression import entropy_mixture, entropy_range

TOTAL = 1 << 24


def random_parts(rng: np.random.Generator, count: int, extreme: bool) -> tuple[np.ndarray, np.ndarray]:
    """Parts [left, left + probability) of 2^24, most of them tiny or nearly everything where extreme."""
    probabilities = rng.integers(1, TOTAL - 1, count)
    if extreme:
        kind = rng.integers(0, 3, count)
        probabilities = np.where(kind == 0, 1, np.where(kind == 1, TOTAL - 2, probabilities))
    lefts = (rng.random(count) * (TOTAL - probabilities + 1)).astype(np.int64)
    return np.minimum(lefts, TOTAL - probabilities), probabilities


def encode(lefts: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    entropy_range.build()
    words = np.zeros(len(lefts) + 4, np.uint32)
    size = entropy_range.put_all(words, lefts, probabilities, entropy_range.new_coder())
    return words[:size]


def test_writes_the_words_that_constriction_writes() -> None:
    constriction = pytest.importorskip("constriction")
    rng = np.random.default_rng(0)
    for round_number in range(20):
        table = rng.random(int(rng.integers(2, 40))) ** (1 + round_number % 8) + 1e-7
        model = constriction.stream.model.Categorical(table.astype(np.float32), perfect=False)
        symbols = rng.integers(0, len(table), int(rng.integers(0, 400))).astype(np.int32)
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbols, model)
        words = encoder.get_compressed()
        edges = parts_of(constriction, table)
        ours = encode(edges[symbols], edges[symbols + 1] - edges[symbols])
        assert ours.tolist() == words.tolist()
        decoder = constriction.stream.queue.RangeDecoder(ours)
        assert decoder.decode(model, len(symbols)).tolist() == symbols.tolist()
        assert decode(words, edges, len(symbols)) == symbols.tolist()


def parts_of(constriction: object, table: np.ndarray) -> np.ndarray:
    """The edges of the parts that constriction gives to a table's symbols, found by asking its decoder."""
    model = constriction.stream.model.Categorical(table.astype(np.float32), perfect=False)  # type: ignore[attr-defined]
    decoder_of = constriction.stream.queue.RangeDecoder  # type: ignore[attr-defined]

    def symbol_at(quantile: int) -> int:
        point = quantile * ((1 << 64) - 1 >> 24)
        words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
        return int(decoder_of(words).decode(model))

    edges = [0]
    for symbol in range(len(table) - 1):
        low, high = edges[-1], TOTAL - 1
        while low < high:  # the first quantile that belongs to a later symbol
            middle = (low + high) // 2
            low, high = (low, middle) if symbol_at(middle) > symbol else (middle + 1, high)
        edges.append(low)
    return np.array([*edges, TOTAL])


def decode(words: np.ndarray, edges: np.ndarray, count: int) -> list[int]:
    entropy_range.build()
    words = np.ascontiguousarray(words, np.uint32)
    coder = entropy_range.new_coder()
    entropy_range.start(coder, words)
    found = []
    for _ in range(count):
        symbol = int(np.searchsorted(edges, entropy_range.peek(coder), "right")) - 1
        entropy_range.take(coder, words, int(edges[symbol]), int(edges[symbol + 1] - edges[symbol]))
        found.append(symbol)
    return found


@pytest.mark.parametrize("extreme", [False, True])
def test_what_was_put_is_taken(extreme: bool) -> None:
    rng = np.random.default_rng(2)
    for count in (0, 1, 2, 3000):
        lefts, probabilities = random_parts(rng, count, extreme)
        words = encode(lefts, probabilities)
        coder = entropy_range.new_coder()
        entropy_range.start(coder, words)
        for left, probability in zip(lefts.tolist(), probabilities.tolist(), strict=True):
            assert left <= entropy_range.peek(coder) < left + probability
            entropy_range.take(coder, words, left, probability)
        ideal = float(-np.log2(probabilities / TOTAL).sum())
        assert 32 * len(words) <= ideal + 64 + count * 2e-6


def test_carries_run_through_words_of_ones() -> None:
    words = np.array([5, 0xFFFFFFFF, 0xFFFFFFFF, 7], np.uint32)
    entropy_range.build()
    entropy_range.carry(words, np.uint64(3))
    assert words.tolist() == [6, 0, 0, 7]


def mixture(scale: float, mean: float = 0.0) -> tuple[np.ndarray, ...]:
    arrays = (np.array([0.7, 0.3]), np.array([mean, mean + scale]), np.array([1.0, 0.2]) / scale)
    return (*arrays, arithmetic.logistic_table())


@pytest.mark.parametrize(
    ("bits", "scale"), [(1, 0.3), (8, 0.05), (8, 20.0), (16, 0.1), (16, 300.0), (24, 5.0), (24, 1e5), (32, 1e8)]
)
def test_numbers_come_back_at_close_to_their_code_length(bits: int, scale: float) -> None:
    entropy_mixture.build()
    rng = np.random.default_rng(bits)
    lowest, count = -(1 << (bits - 1)), 1 << bits
    parts = mixture(scale)
    weights, means, inverses, _ = parts
    shift = np.where(rng.random(500) < weights[0], means[0], means[1])
    spread = np.where(shift == means[0], 1 / inverses[0], 1 / inverses[1])
    drawn = np.rint(shift + spread * rng.logistic(size=500))
    values = np.clip(drawn, lowest, lowest + count - 1).astype(np.int64)
    values[:2] = lowest, lowest + count - 1  # and the ends of the range
    coder, words, none = entropy_range.new_coder(), np.zeros(4096, np.uint32), np.zeros(0, np.int64)
    took = [entropy_mixture.put_number(coder, words, int(v) - lowest, count, 0.0, lowest, none, parts) for v in values]
    words = words[: entropy_range.finish(coder, words)]
    assert 32 * len(words) == pytest.approx(sum(took), abs=64)
    ends = [entropy_mixture.cumulative(float(x), *parts) for x in (lowest - 0.5, lowest + count - 0.5)]
    for value, bits_taken in list(zip(values.tolist(), took, strict=True))[2:]:
        edges = [entropy_mixture.cumulative(value + x, *parts) for x in (-0.5, 0.5)]
        mass = (edges[1] - edges[0]) / (ends[1] - ends[0])
        if mass > 1e-3 or (bits > 16 and mass > 1e-6):
            assert bits_taken == pytest.approx(-np.log2(mass), abs=0.02)
    reader = entropy_range.new_coder()
    entropy_range.start(reader, words)
    back = [entropy_mixture.take_number(reader, words, count, 0.0, lowest, none, parts) + lowest for _ in values]
    assert back == values.tolist()


def test_values_that_never_occur_cost_nothing() -> None:
    entropy_mixture.build()
    used = np.arange(-3000, 3000, 3, dtype=np.int64)
    parts = mixture(100.0)
    rng = np.random.default_rng(4)
    numbers = np.clip(np.rint(rng.logistic(scale=33, size=400)) + 1000, 0, len(used) - 1).astype(int).tolist()
    totals = []
    for table in (used, np.zeros(0, np.int64)):
        coder, words = entropy_range.new_coder(), np.zeros(4096, np.uint32)
        count = len(used) if len(table) else 6000
        chosen = numbers if len(table) else [int(used[n]) + 3000 for n in numbers]
        totals.append(sum(entropy_mixture.put_number(coder, words, n, count, 0.0, -3000, table, parts) for n in chosen))
        words = words[: entropy_range.finish(coder, words)]
        reader = entropy_range.new_coder()
        entropy_range.start(reader, words)
        assert [entropy_mixture.take_number(reader, words, count, 0.0, -3000, table, parts) for _ in chosen] == chosen
    assert totals[1] - totals[0] == pytest.approx(400 * np.log2(3), rel=0.02)


def test_a_mixture_that_is_no_number_still_codes() -> None:
    entropy_mixture.build()
    weights = np.array([1.0])
    for mean, inverse in ((1e300, 1.0), (0.0, 1e-300), (-1e300, 1e3)):
        parts = (weights, np.array([mean]), np.array([inverse]), arithmetic.logistic_table())
        coder, words, none = entropy_range.new_coder(), np.zeros(64, np.uint32), np.zeros(0, np.int64)
        for number in (0, 65535, 777):
            entropy_mixture.put_number(coder, words, number, 65536, 0.0, -32768, none, parts)
        words = words[: entropy_range.finish(coder, words)]
        reader = entropy_range.new_coder()
        entropy_range.start(reader, words)
        back = [entropy_mixture.take_number(reader, words, 65536, 0.0, -32768, none, parts) for _ in range(3)]
        assert back == [0, 65535, 777]
