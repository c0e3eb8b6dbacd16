"""encodec_codes and cached_codes: live codes equal the codec's, the way back, and everything that they refuse."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from codes.models.pretrained_codec import PretrainedCodec
from codes.trainer.injectors.codes import CachedCodesInjector, EncodecCodesInjector
from tests.codecs import library_codec, own_codec

RATE_HZ = 8000
HASH = "0" * 64


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> PretrainedCodec:
    return PretrainedCodec(path=own_codec(tmp_path_factory.mktemp("codec")))


def dataset(rate_hz: int = RATE_HZ, channels: int = 1) -> Any:
    """What an injector asks a dataset of audio."""
    return SimpleNamespace(recordings=[SimpleNamespace(sample_rate_hz=rate_hz)], num_channels=channels)


def test_integers_and_floats_give_the_codes_of_the_codec(codec: PretrainedCodec) -> None:
    injector = EncodecCodesInjector(codec=codec, audio_rate_hz=RATE_HZ)
    pcm = torch.randint(-20000, 20000, (2, 1, 150), dtype=torch.int16)
    codes = injector(pcm)
    assert codes.shape == (2, 4, 10)
    assert torch.equal(codes, codec.encode(pcm.float() / 32768))
    assert torch.equal(codes, injector(pcm.float() / 32768))
    assert torch.equal(codes, injector(pcm.int() << 16))
    wide = EncodecCodesInjector(codec=codec, audio_rate_hz=RATE_HZ, input_bits=24)
    assert torch.equal(codes, wide(pcm.int() << 8))
    assert torch.equal(injector.inverse(codes), codec.decode(codes))
    assert injector.frames_of(150) == 10
    silence = injector(torch.zeros(1, 1, 32, dtype=torch.int16))
    assert torch.isfinite(injector.inverse(silence)).all()


def test_each_channel_by_itself(codec: PretrainedCodec) -> None:
    injector = EncodecCodesInjector(codec=codec, audio_rate_hz=RATE_HZ, each_channel=True)
    wav = torch.randn(3, 2, 160) * 0.1
    codes = injector(wav)
    assert codes.shape == (3, 8, 10)
    for number in range(2):  # another batch may round a near tie the other way
        own = codec.encode(wav[:, number : number + 1])
        assert (codes[:, 4 * number : 4 * number + 4] == own).float().mean() > 0.9
    assert torch.allclose(injector.inverse(codes)[:, 1:], codec.decode(codes[:, 4:]), atol=1e-5)
    with pytest.raises(ValueError, match=r"expected codes \(B, C \* 4, F\)"):
        injector.inverse(codes[:, :3])


def test_another_rate_is_resampled_only_when_asked(codec: PretrainedCodec) -> None:
    with pytest.raises(ValueError, match="the audio has 16000 Hz, the codec takes 8000 Hz: set sample_rate: 8000"):
        EncodecCodesInjector(codec=codec, audio_rate_hz=16000)
    with pytest.raises(ValueError, match="the audio has 16000 Hz"):
        EncodecCodesInjector(codec=codec).meet(dataset(16000))
    injector = EncodecCodesInjector(codec=codec, resample=True)
    injector.meet(dataset(16000))
    codes = injector(torch.randn(1, 1, 320) * 0.1)
    assert codes.shape == (1, 4, 10)
    assert injector.inverse(codes).shape == (1, 1, 320)
    assert injector.frames_of(320) == 10
    with pytest.raises(ValueError, match="audio_rate_hz is needed"):
        EncodecCodesInjector(codec=codec)(torch.zeros(1, 1, 16))


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 2 * RATE_HZ])
def test_codes_under_autocast_are_those_of_a_cache(codec: PretrainedCodec, rate_hz: int) -> None:
    injector = EncodecCodesInjector(codec=codec, audio_rate_hz=rate_hz, resample=True)
    wav = torch.randn(2, 1, 8000) * 0.1
    codes = injector(wav)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(injector(wav), codes)
        heard = injector.inverse(codes)
    assert torch.equal(heard, injector.inverse(codes))


def test_other_channels_and_shapes_are_refused(codec: PretrainedCodec, tmp_path: Path) -> None:
    injector = EncodecCodesInjector(codec=codec, audio_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match=r"the audio has 2 channel\(s\), the codec takes 1: .* or each_channel: true"):
        injector(torch.zeros(1, 2, 16))
    with pytest.raises(ValueError, match=r"the audio has 2 channel\(s\)"):
        injector.meet(dataset(channels=2))
    with pytest.raises(ValueError, match=r"expected wav \(B, C, T\)"):
        injector(torch.zeros(1, 16))
    with pytest.raises(ValueError, match="there is nothing to encode"):
        injector(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match="codec must name a network that is a codec, Linear is none"):
        EncodecCodesInjector(codec=nn.Linear(1, 1))
    stereo = PretrainedCodec(path=own_codec(tmp_path, num_channels=2))
    with pytest.raises(ValueError, match="each_channel is for codecs of one channel, this one has 2"):
        EncodecCodesInjector(codec=stereo, each_channel=True)
    injector.meet(SimpleNamespace())  # a dataset that says nothing of its audio


def test_cached_codes_pass_and_come_back_as_audio(codec: PretrainedCodec) -> None:
    injector = CachedCodesInjector(codec=codec)
    cached = SimpleNamespace(codec_hash=codec.weights_hash, num_codebooks=4)
    injector.meet(cached)
    codes = torch.randint(16, (2, 4, 5), dtype=torch.int32)
    assert torch.equal(injector(codes), codes.long())
    assert torch.equal(injector.inverse(codes), codec.decode(codes))
    assert injector.frames_of(17) == 2


def test_cached_codes_of_another_codec_are_refused(codec: PretrainedCodec) -> None:
    injector = CachedCodesInjector(codec=codec)
    with pytest.raises(ValueError, match=r"made by other weights \(000000000000\.\.\.\) .*scripts/encode_audio"):
        injector.meet(SimpleNamespace(codec_hash=HASH, num_codebooks=4))
    with pytest.raises(ValueError, match="it makes 4 codebooks, the dataset gives 2"):
        injector.meet(SimpleNamespace(codec_hash=codec.weights_hash, num_codebooks=2))
    with pytest.raises(ValueError, match=r"cached_codes wants a dataset of codes"):
        injector.meet(dataset())
    with pytest.raises(ValueError, match="expected integer codes"):
        injector(torch.full((1, 4, 5), float("nan")))
    with pytest.raises(ValueError, match=r"codes must lie in 0 \.\. 15, got -1 \.\. -1"):
        injector.inverse(torch.full((1, 4, 5), -1))


def test_a_library_codec_through_the_injector(tmp_path: Path) -> None:
    from tests.codecs import ENCODEC

    codec = PretrainedCodec(path=library_codec(tmp_path, "encodec", **ENCODEC), num_codebooks=4)
    injector = EncodecCodesInjector(codec=codec, audio_rate_hz=24000)
    codes = injector(torch.randint(-9000, 9000, (1, 1, 960), dtype=torch.int16))
    assert codes.shape == (1, 4, 3)
    assert injector.inverse(codes).shape == (1, 1, 960)
