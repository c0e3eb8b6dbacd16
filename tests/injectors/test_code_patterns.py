"""Codebook patterns: order, exact inverses for random sizes, causality of each place, and what is refused."""

from typing import Any, get_args

import pytest
import torch

from codes.trainer.injectors.code_patterns import ArrangeCodesInjector, Pattern, RestoreCodesInjector

PATTERNS = get_args(Pattern)
CODES = torch.tensor([[[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]]])  # code = 10 codebook + frame


def arrange(pattern: Any, num_codebooks: int = 4, size: int = 64, **options: Any) -> ArrangeCodesInjector:
    options = {"distinct": pattern == "coarse_first", **options}
    return ArrangeCodesInjector(pattern=pattern, num_codebooks=num_codebooks, codebook_size=size, **options)


def test_orders() -> None:
    assert arrange("flatten")(CODES).tolist() == [[0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32]]
    assert arrange("stereo")(CODES).tolist() == [[0, 20, 10, 30, 1, 21, 11, 31, 2, 22, 12, 32]]
    assert (arrange("coarse_first")(CODES) % 64).tolist() == [[0, 1, 2, 10, 20, 30, 11, 21, 31, 12, 22, 32]]
    two = arrange("coarse_first", coarse=2)(CODES)
    assert (two % 64).tolist() == [[0, 10, 1, 11, 2, 12, 20, 30, 21, 31, 22, 32]]
    assert (two // 64).tolist() == [[0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]]
    assert torch.equal(arrange("parallel")(CODES), CODES)
    assert arrange("delay")(CODES)[0].tolist() == [
        [0, 1, 2, 64, 64, 64], [64, 10, 11, 12, 64, 64], [64, 64, 20, 21, 22, 64], [64, 64, 64, 30, 31, 32],
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_inverse_is_exact_for_random_sizes(pattern: Any) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(60):
        num_codebooks = 2 * draw(1, 5) if pattern == "stereo" else draw(2, 9)
        size, coarse = draw(2, 2000), draw(1, num_codebooks)
        options = {"coarse": coarse} if pattern == "coarse_first" else {}
        if pattern in ("flatten", "stereo"):
            options["distinct"] = bool(draw(0, 2))
        injector = arrange(pattern, num_codebooks, size, **options)
        codes = torch.randint(size, (draw(1, 4), num_codebooks, draw(1, 40)), generator=generator)
        tokens = injector(codes)
        assert torch.equal(injector.inverse(tokens), codes)
        assert torch.equal(injector(injector.inverse(tokens)), tokens)
        restore = RestoreCodesInjector(pattern=pattern, num_codebooks=num_codebooks, coarse=coarse)
        nats = torch.rand(codes.shape, generator=generator)
        assert torch.equal(restore(restore.inverse(nats)), nats)
        assert restore(tokens).shape == codes.shape


@pytest.mark.parametrize("pattern", PATTERNS)
def test_frames_are_complete_when_all_their_codes_are_there(pattern: Any) -> None:
    injector = arrange(pattern)
    codes = torch.randint(64, (1, 4, 6))
    tokens = injector(codes)
    total = tokens.shape[-1]
    for done in range(total + 1):
        known = tokens.clone()
        known[..., done:] = -1
        whole = (injector.arrangement.restore(known) >= 0).all(1)[0]  # frames without a hole
        count = injector.complete_frames(done, total)
        assert whole[:count].all()
        assert count == 6 or not whole[count]


def test_what_is_refused() -> None:
    for pattern, options, message in (
        ("coarse_first", {"distinct": False}, "distinct must be true for pattern: coarse_first"),
        ("coarse_first", {"coarse": 4}, "coarse is 4: of 4 codebooks it must be 1 to 3"),
        ("stereo", {"num_codebooks": 3}, "pattern: stereo needs both channels"),
        ("delay", {"distinct": True}, "distinct is for sequences"),
        ("flatten", {"num_codebooks": 0}, "num_codebooks is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            arrange(pattern, **options)
    with pytest.raises(ValueError, match=r"expected codes \(B, 4, F\), got \(1, 3, 2\)"):
        arrange("flatten")(torch.zeros(1, 3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="expected integer codes"):
        arrange("flatten")(torch.full((1, 4, 2), float("nan")))
    with pytest.raises(ValueError, match=r"expected tokens \(B, 4 \* F\) of pattern flatten, got \(1, 5\)"):
        arrange("flatten").inverse(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"expected tokens \(B, 4, S\) of pattern delay, got \(1, 4, 3\)"):
        arrange("delay").inverse(torch.zeros(1, 4, 3))
