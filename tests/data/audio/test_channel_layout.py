"""From the channels of a file to those of a dataset: chosen, mixed, doubled, and refused where they do not fit."""

from typing import Any

import numpy as np
import pytest

from codes.data.audio.channel_layout import ChannelLayout, ChannelMix, mix, stereo_downmix
from codes.data.audio.reader import AudioInfo


def info(num_channels: int) -> AudioInfo:
    return AudioInfo(num_frames=9, sample_rate_hz=8000, bits=16, num_channels=num_channels, format="WAV PCM_16")


def pcm(num_channels: int, dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-30_000, 30_000, (num_channels, 50)).astype(dtype)


def test_exact_takes_what_has_the_channels_and_says_why_others_do_not_fit():
    layout = ChannelLayout("exact", 2)
    assert layout.misfit(info(2)) is None
    assert layout.misfit(info(1)) == "has 1 channel, and 2 are needed"
    assert layout.misfit(info(6)) == "has 6 channels, and 2 are needed"
    assert ChannelLayout("exact", 1).misfit(info(2)) == "has 2 channels, and 1 is needed"
    assert ChannelLayout("exact", None).misfit(info(7)) is None
    np.testing.assert_array_equal(layout.apply(pcm(2), 16), pcm(2))


def test_duplicate_doubles_mono_alone():
    layout = ChannelLayout("duplicate", 2)
    assert (layout.misfit(info(1)), layout.misfit(info(2))) == (None, None)
    assert layout.misfit(info(3)) == "has 3 channels, and 2 are needed"
    np.testing.assert_array_equal(layout.apply(pcm(1), 16), np.concatenate([pcm(1), pcm(1)]))
    np.testing.assert_array_equal(layout.apply(pcm(2), 16), pcm(2))


def test_mono_is_the_rounded_mean():
    layout = ChannelLayout("mono", 1)
    assert layout.misfit(info(5)) is None
    made = layout.apply(np.array([[1, 32767, -32768, 3], [2, 32767, -32768, 4]], np.int16), 16)
    assert made.dtype == np.int16
    assert made.tolist() == [[2, 32767, -32768, 4]]  # halves up
    np.testing.assert_array_equal(layout.apply(pcm(1), 16), pcm(1))


def test_each_is_every_channel_by_itself():
    layout = ChannelLayout("each", 1)
    assert layout.channels_of(info(3)) == [0, 1, 2]
    assert ChannelLayout("exact", 2).channels_of(info(2)) == [None]
    np.testing.assert_array_equal(layout.apply(pcm(3), 16, 1), pcm(3)[1:2])


def test_select_takes_channels_by_number():
    layout = ChannelLayout(ChannelMix(select=[2, 0]), 2)
    assert layout.misfit(info(3)) is None
    assert layout.misfit(info(2)) == "has 2 channels, and channels.select names number 2 (counted from 0)"
    np.testing.assert_array_equal(layout.apply(pcm(3), 16), pcm(3)[[2, 0]])


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_aggregate_mixes_exactly_and_cannot_clip(dtype: Any):
    layout = ChannelLayout(ChannelMix(aggregate=[[0.5, 0.0, 0.5], [0.0, -1.0, 0.0]]), 2)
    assert layout.misfit(info(2)) == "has 2 channels, and channels.aggregate weighs 3"
    top = np.iinfo(dtype).max
    made = layout.apply(np.array([[top, 3], [5, -7], [top, 2]], dtype), np.iinfo(dtype).bits)
    assert made.dtype == dtype
    assert made.tolist() == [[top, 2], [-5, 7]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "select or aggregate must be given, one of them"),
        ({"select": [0], "aggregate": [[1.0]]}, "select or aggregate must be given, one of them"),
        ({"select": [-1]}, r"select must name channels by numbers from 0, got \[-1\]"),
        ({"select": []}, "select must name channels"),
        ({"aggregate": [[0.8, 0.3]]}, r"weights of channel 0 add up to 1\.1, allowed is 1: it would clip"),
        ({"aggregate": [[0.5], [0.2, 0.2]]}, "aggregate must hold lists of one length"),
        ({"aggregate": [[float("nan")]]}, "add up to nan"),
    ],
)
def test_mixes_that_make_no_sense(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ChannelMix(**given)


def test_a_choice_that_gives_other_channels_than_are_needed_is_refused():
    with pytest.raises(ValueError, match="channels gives 3 channels, and the dataset needs 2"):
        ChannelLayout(ChannelMix(select=[0, 1, 2]), 2)
    with pytest.raises(ValueError, match="channels gives 1 channel, and the dataset needs 2"):
        ChannelLayout("mono", 2)


def test_downmix_is_that_of_the_standard_scaled_to_one():
    for num_channels in range(1, 7):
        weights = np.array(stereo_downmix(num_channels))
        assert weights.shape == (2, num_channels)
        np.testing.assert_allclose(np.abs(weights).sum(1), 1.0)
    left, right = np.array(stereo_downmix(6))
    np.testing.assert_allclose(left / left[0], [1, 0, 0.5**0.5, 0, 0.5**0.5, 0])  # L R C LFE Ls Rs
    np.testing.assert_allclose(right / right[1], [0, 1, 0.5**0.5, 0, 0, 0.5**0.5])
    with pytest.raises(ValueError, match=r"no standard downmix of 8 channels to stereo \(there is one for 1 to 6\)"):
        stereo_downmix(8)


def test_mix_keeps_32_bits_exact():
    wide = np.array([[2**31 - 1, -(2**31), 2**30 + 1]], np.int32)
    np.testing.assert_array_equal(mix(wide, np.ones((1, 1)), 32), wide)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32])
def test_full_scale_turned_over_is_held_at_the_end_of_its_depth(bits: int):
    lowest = -(2 ** (bits - 1))
    wide = np.array([[lowest, -lowest - 1, 5]], np.int16 if bits <= 16 else np.int32)
    assert mix(wide, np.array([[-1.0]]), bits).tolist() == [[-lowest - 1, lowest + 1, -5]]


@pytest.mark.parametrize("choice", ["mono", ChannelMix(aggregate=[[0.1, 0.2, 0.3, 0.1, 0.2, 0.1]])])
def test_a_chunk_is_the_slice_of_the_whole(choice: Any):
    layout = ChannelLayout(choice, 1)
    wide = np.random.default_rng(0).integers(-(2**23), 2**23, (6, 5000)).astype(np.int32)
    whole = layout.apply(wide, 24)
    for start in range(0, 4900, 97):
        np.testing.assert_array_equal(layout.apply(wide[:, start : start + 61], 24), whole[:, start : start + 61])
