"""channel_split, interleave_channels and its way back, select_channels."""

import re
from typing import Literal

import pytest
import torch

from codes.trainer.injectors.channels import (
    ChannelSplitInjector,
    DeinterleaveChannelsInjector,
    InterleaveChannelsInjector,
    SelectChannelsInjector,
)


def stereo(num_items: int = 4, num_samples: int = 6) -> torch.Tensor:
    return torch.randint(-32768, 32768, (num_items, 2, num_samples), dtype=torch.int16)


def test_left_predicts_right_unless_told_otherwise() -> None:
    wav = stereo()
    source, target = ChannelSplitInjector()(wav)
    assert torch.equal(source, wav[:, 0])
    assert torch.equal(target, wav[:, 1])
    source, target, direction = ChannelSplitInjector(direction="right_to_left", with_direction=True)(wav)
    assert torch.equal(source, wav[:, 1])
    assert torch.equal(target, wav[:, 0])
    assert direction.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("direction", ["left_to_right", "right_to_left", "random"])
@pytest.mark.parametrize("num_items", [0, 1, 5])
def test_split_is_undone(direction: Literal["left_to_right", "right_to_left", "random"], num_items: int) -> None:
    split = ChannelSplitInjector(direction=direction, with_direction=True)
    wav = stereo(num_items)
    assert torch.equal(split.inverse(*split(wav)), wav)
    if direction != "random":
        fixed = ChannelSplitInjector(direction=direction)
        assert torch.equal(fixed.inverse(*fixed(wav)), wav)


def test_random_directions_follow_from_the_seed() -> None:
    split = ChannelSplitInjector(direction="random", with_direction=True)
    wav = stereo(64)

    def directions(seed: int) -> list[list[int]]:
        split.reseed(seed)
        return [split(wav)[2].tolist() for _ in range(2)]

    first = directions(1)
    torch.manual_seed(99)  # the global generator has no say
    assert directions(1) == first
    assert directions(2) != first
    assert first[0] != first[1]
    assert 16 < sum(first[0]) < 48


def test_random_direction_says_which_channel_is_which() -> None:
    split = ChannelSplitInjector(direction="random", with_direction=True)
    wav = stereo(16)
    source, target, direction = split(wav)
    for item, swapped in enumerate(direction.tolist()):
        assert torch.equal(source[item], wav[item, swapped])
        assert torch.equal(target[item], wav[item, 1 - swapped])


def test_random_direction_needs_its_third_value_back() -> None:
    split = ChannelSplitInjector(direction="random")
    pair = split(stereo())
    assert len(pair) == 2
    with pytest.raises(ValueError, match="a random direction is undone only with its third value"):
        split.inverse(*pair)


@pytest.mark.parametrize("shape", [(4, 1, 6), (4, 3, 6), (2, 6), (1, 4, 2, 6)])
def test_split_wants_stereo(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected (B, 2, T), got {shape}")):
        ChannelSplitInjector()(torch.zeros(shape))


def test_split_inverse_wants_equal_shapes() -> None:
    with pytest.raises(ValueError, match=re.escape("source and target (B, T), got (2, 3) and (2, 4)")):
        ChannelSplitInjector().inverse(torch.zeros(2, 3), torch.zeros(2, 4))


def test_stereo_is_interleaved_frame_by_frame() -> None:
    wav = torch.tensor([[[1, 2, 3], [10, 20, 30]]])
    assert InterleaveChannelsInjector()(wav).tolist() == [[1, 10, 2, 20, 3, 30]]


@pytest.mark.parametrize("num_channels", [1, 2, 6])
@pytest.mark.parametrize("num_samples", [0, 1, 7])
def test_interleaving_is_undone(num_channels: int, num_samples: int) -> None:
    interleave = InterleaveChannelsInjector(num_channels=num_channels)
    wav = torch.randn(3, num_channels, num_samples)
    assert interleave(wav).shape == (3, num_channels * num_samples)
    assert torch.equal(interleave.inverse(interleave(wav)), wav)


def test_interleaving_checks_the_channels() -> None:
    interleave = InterleaveChannelsInjector()
    with pytest.raises(ValueError, match=re.escape("expected (B, 2, T), got (3, 1, 5)")):
        interleave(torch.zeros(3, 1, 5))
    with pytest.raises(ValueError, match=re.escape("expected (B, 2 * T), got (3, 5)")):
        interleave.inverse(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="num_channels must be 1 or more, got 0"):
        InterleaveChannelsInjector(num_channels=0)


def test_deinterleave_is_the_way_back() -> None:
    apart = DeinterleaveChannelsInjector(num_channels=3)
    sequence = torch.arange(12).reshape(2, 6)
    assert apart(sequence).tolist() == [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]]
    assert torch.equal(apart.inverse(apart(sequence)), sequence)
    with pytest.raises(ValueError, match=re.escape("expected (B, 3 * T), got (2, 5)")):
        apart(sequence[:, :5])


def test_select_takes_channels_by_number() -> None:
    wav = torch.arange(24).reshape(2, 4, 3)
    assert torch.equal(SelectChannelsInjector(channels=[3, 0])(wav), wav[:, [3, 0]])
    assert torch.equal(SelectChannelsInjector(channels=[-1])(wav), wav[:, 3:])
    for channels in ([4], [-5]):
        with pytest.raises(ValueError, match=re.escape("expected (B, C, ...) with 5 or more channels, got (2, 4, 3)")):
            SelectChannelsInjector(channels=channels)(wav)
    with pytest.raises(ValueError, match="channels must name one channel or more"):
        SelectChannelsInjector(channels=[])
