"""for_each, direct, concatenate, pad, squeeze, unsqueeze."""

import re
from typing import Any

import pytest
import torch

from codes.trainer.injectors.channels import ChannelSplitInjector
from codes.trainer.injectors.control import (
    ConcatenateInjector,
    DirectInjector,
    ForEachInjector,
    NarrowInjector,
    PadInjector,
    SqueezeInjector,
    StackInjector,
    UnsqueezeInjector,
)
from codes.trainer.injectors.pcm import ByteSplitInjector
from codes.trainer.injectors.signal import AddNoiseInjector


def refuses(message: str) -> Any:
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize("dim", [1, 0, -1, -2])
def test_for_each_walks_over_a_dimension(dim: int) -> None:
    codes = torch.randint(1 << 16, (3, 4, 5))
    each = ForEachInjector(subtype=ByteSplitInjector(), dim=dim)
    inner = ByteSplitInjector()
    expected = torch.stack([inner(part) for part in codes.unbind(dim)], dim)
    assert torch.equal(each(codes), expected)
    assert torch.equal(each.inverse(each(codes)), codes)


def test_for_each_takes_and_returns_several_values() -> None:
    clips = torch.randn(2, 3, 2, 8)  # (B, N, C, T)
    each = ForEachInjector(subtype=ChannelSplitInjector())
    source, target = each(clips)
    assert source.shape == target.shape == (2, 3, 8)
    assert torch.equal(each.inverse(source, target), clips)


def test_for_each_reseeds_what_it_wraps() -> None:
    each = ForEachInjector(subtype=AddNoiseInjector(scale=1.0))
    silence = torch.zeros(2, 3, 8)
    each.reseed(1)
    first = each(silence)
    each.reseed(1)
    assert torch.equal(each(silence), first)
    assert not torch.equal(first[:, 0], first[:, 1])
    each.reseed(2)
    assert not torch.equal(each(silence), first)


def test_for_each_names_the_shapes() -> None:
    each = ForEachInjector(subtype=DirectInjector())
    with refuses("one size above 0 along dimension 1, got (2, 3), (2, 4)"):
        each(torch.zeros(2, 3), torch.zeros(2, 4))
    with refuses("one size above 0 along dimension 1, got (2, 0)"):
        each(torch.zeros(2, 0))
    with refuses("expected values that have dimension 1, got (2,)"):
        each(torch.zeros(2))


def test_direct_returns_the_very_values() -> None:
    first, second = torch.zeros(1), ["a name"]
    assert DirectInjector()(first) is first
    assert DirectInjector()(first, second) == (first, second)
    assert DirectInjector().inverse(first) is first


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_concatenate_is_undone_where_the_sizes_are_known(dim: int) -> None:
    shapes = [[2, 3, 4], [2, 3, 4]]
    shapes[1][dim] = 6
    values = tuple(torch.randn(shape) for shape in shapes)
    join = ConcatenateInjector(dim=dim, sizes=[shapes[0][dim], 6])
    assert torch.equal(join(*values), torch.cat(values, dim))
    assert all(torch.equal(*pair) for pair in zip(join.inverse(join(*values)), values, strict=True))


def test_concatenate_names_the_shapes() -> None:
    with refuses("expected values alike in all but dimension 1, got (2, 3), (3, 3)"):
        ConcatenateInjector(dim=1)(torch.zeros(2, 3), torch.zeros(3, 3))
    with refuses("expected values alike in all but dimension 1, got (2, 3), (2,)"):
        ConcatenateInjector(dim=1)(torch.zeros(2, 3), torch.zeros(2))
    with refuses("expected sizes [3, 5] along dimension 1, got (2, 3), (2, 4)"):
        ConcatenateInjector(dim=1, sizes=[3, 5])(torch.zeros(2, 3), torch.zeros(2, 4))
    with refuses("expected size 8 in dimension 1, got (2, 7)"):
        ConcatenateInjector(dim=1, sizes=[3, 5]).inverse(torch.zeros(2, 7))
    with refuses("only where its option sizes is set"):
        ConcatenateInjector().inverse(torch.zeros(2, 7))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("size", [0, 1, 8, 9])
def test_pad_adds_and_crops(dtype: torch.dtype, dim: int, size: int) -> None:
    value = torch.arange(size * 6).view(size, 2, 3).transpose(0, dim).to(dtype)
    pad = PadInjector(left=2, right=1, value=7.0, dim=dim)
    padded = pad(value)
    assert padded.dtype == dtype
    assert padded.shape[dim] == size + 3
    assert (padded.narrow(dim, 0, 2) == 7).all()
    assert (padded.narrow(dim, size + 2, 1) == 7).all()
    assert torch.equal(pad.inverse(padded), value)


@pytest.mark.parametrize(("size", "padded_size"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8)])
def test_pad_to_a_multiple_adds_no_more_than_needed(size: int, padded_size: int) -> None:
    pad = PadInjector(multiple=4)
    value = torch.randn(2, size)
    assert pad(value).shape == (2, padded_size)
    assert torch.equal(pad.inverse(pad(value), length=size), value)


def test_pad_names_what_is_wrong() -> None:
    with refuses("undone only with the length before it"):
        PadInjector(multiple=4).inverse(torch.zeros(8))
    with refuses("expected at least 3 + 0 + 2 elements in dimension -1, got (2, 4)"):
        PadInjector(left=3, right=2).inverse(torch.zeros(2, 4))
    with refuses("expected a whole number to pad torch.int16 with, got value 0.5"):
        PadInjector(right=1, value=0.5)(torch.zeros(2, dtype=torch.int16))
    with refuses("expected a value that has dimension 2, got (2, 4)"):
        PadInjector(right=1, dim=2)(torch.zeros(2, 4))
    with refuses("multiple must be 1 or more, got 0"):
        PadInjector(multiple=0)
    with refuses("left and right must be 0 or more, got -1 and 0"):
        PadInjector(left=-1)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_squeeze_and_unsqueeze_undo_each_other(dim: int) -> None:
    value = torch.randn(2, 3)
    unsqueeze, squeeze = UnsqueezeInjector(dim=dim), SqueezeInjector(dim=dim)
    wide = unsqueeze(value)
    assert torch.equal(wide, value.unsqueeze(dim))
    assert torch.equal(squeeze(wide), value)
    assert torch.equal(unsqueeze.inverse(wide), value)
    assert torch.equal(squeeze.inverse(value), wide)


def test_squeeze_wants_size_one() -> None:
    for function in (SqueezeInjector(dim=1), UnsqueezeInjector(dim=1).inverse):
        with refuses("expected size 1 in dimension 1, got (2, 3)"):
            function(torch.zeros(2, 3))
    with refuses("expected size 1 in dimension 2, got (2, 1)"):
        SqueezeInjector(dim=2)(torch.zeros(2, 1))
    with refuses("expected a value that can have dimension 3 added, got (2, 3)"):
        UnsqueezeInjector(dim=3)(torch.zeros(2, 3))


def test_stack_puts_values_beside_each_other() -> None:
    left, right = torch.arange(6).reshape(2, 3), torch.arange(6, 12).reshape(2, 3)
    both = StackInjector(dim=1)(left, right)
    assert both.shape == (2, 2, 3)
    assert torch.equal(both[:, 1], right)
    assert all(torch.equal(a, b) for a, b in zip(StackInjector(dim=1).inverse(both), (left, right), strict=True))
    with pytest.raises(ValueError, match=r"one shape that can be stacked in 1, got \(2, 3\), \(2, 2\)"):
        StackInjector(dim=1)(left, right[:, :2])
    with pytest.raises(ValueError, match="stacked in 3"):
        StackInjector(dim=3)(left, right)


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(0, 2, [0, 1]), (3, None, [3, 4]), (-2, None, [3, 4]), (-3, 1, [2])]
)
def test_narrow_takes_a_stretch(start: int, length: int | None, expected: list[int]) -> None:
    assert NarrowInjector(start=start, length=length)(torch.arange(5)[None]).tolist() == [expected]
    assert NarrowInjector(start=start, length=length, dim=0)(torch.arange(5)).tolist() == expected


@pytest.mark.parametrize(("start", "length"), [(5, None), (-6, None), (3, 3), (9, 1)])
def test_narrow_refuses_what_is_not_there(start: int, length: int | None) -> None:
    with pytest.raises(ValueError, match=rf"expected dimension -1 to hold a stretch from {start}.*got \(1, 5\)"):
        NarrowInjector(start=start, length=length)(torch.arange(5)[None])
    with pytest.raises(ValueError, match="length must be 1 or more, got 0"):
        NarrowInjector(length=0)
