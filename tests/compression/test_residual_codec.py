"""Blocks coded by a residual model: exact, the same sample by sample, refused where damaged; the network is torch's."""

import contextlib
import hashlib

import numpy as np
import pytest
import torch

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.compression import residual_network
from codes.compression.predictor import RangeDecoder, RangeEncoder, ResidualPredictor
from codes.compression.residual_codec import ResidualCodec
from codes.compression.residual_model import (
    METADATA_KEY,
    SHIPPED,
    ResidualModel,
    load_residual_model,
    residual_model_bytes,
)
from codes.models.residual_lm import ResidualLm, mixture_nats
from tests.compression.residual_models import HIDDEN, MIXTURES, OPTIONS, music, random_tensors, small_model

RATE_HZ = 44100
CODEC = ResidualCodec(small_model())


def round_trip(pcm: np.ndarray, bits: int, codec: ResidualCodec = CODEC) -> bytes:
    data = codec.encode(pcm, bits, RATE_HZ)
    channels, frames = pcm.shape
    back = codec.decode(data, channels, frames, bits, RATE_HZ)
    assert back.dtype == np.int32
    assert (back == pcm).all()
    return data


@pytest.mark.parametrize("bits", [1, 2, 8, 12, 16, 20, 24, 32])
@pytest.mark.parametrize("channels", [1, 2])
def test_gives_back_what_it_was_given(channels: int, bits: int) -> None:
    pcm = music(channels, 700, bits)
    data = round_trip(pcm, bits)
    assert 8 * len(data) == pytest.approx(sum(CODEC.channel_bits), rel=0.02, abs=300)
    noise = np.random.default_rng(1).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (channels, 300)).astype(np.int32)
    noise[:, 0], noise[:, 1] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    data = round_trip(noise, bits)
    assert len(data) < noise.size * bits / 8 * 1.5 + 60


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros((2, 500), np.int32),
        np.full((1, 500), -32768, np.int32),
        np.array([[5]], np.int32),
        np.array([[5], [-7]], np.int32),
        np.tile(np.array([[32767, -32768]], np.int32), (2, 300)),
        np.repeat(np.eye(2, dtype=np.int32) * 30000, 100, axis=1),
        (np.arange(5000, dtype=np.int32) % 2000)[None] * 16,
    ],
    ids=["silence", "lowest", "one sample", "one frame", "full scale", "impulses", "shifted ramp"],
)
def test_odd_blocks(pcm: np.ndarray) -> None:
    data = round_trip(pcm, 16)
    if len(np.unique(pcm)) == 1:
        assert len(data) < 40


def test_bits_that_are_always_zero_are_shifted_out() -> None:
    pcm = music(2, 2000, 12)
    assert len(round_trip(pcm << 4, 16)) == len(round_trip(pcm, 12))


def test_values_that_never_occur_are_left_out() -> None:
    pcm = music(1, 40000, 9, seed=3) * 7  # of what a gain made
    shifted = np.where(pcm % 2 == 0, pcm, pcm + 1) + (pcm // 7 % 3)  # unevenly
    data = round_trip(shifted, 16)
    dense = round_trip(pcm // 7, 9)
    assert len(data) < len(dense) * 1.12  # nearly the size of what was there before the gain


def test_the_same_words_sample_by_sample() -> None:
    pcm = music(2, 300, 16)
    pcm[0, 0], pcm[:, 1] = 32767, -32768  # the block's range is that of 16 bits
    pcm[1, 0] = 32767
    data = round_trip(pcm, 16)
    predictor, encoder = ResidualPredictor(small_model()), RangeEncoder()
    predictor.reset(2, 16, RATE_HZ)
    bits = 0.0
    for sample in pcm.T.flatten().tolist():
        bits += predictor.distribution().put(encoder, sample)
        predictor.update(sample)
    words = encoder.finish()
    assert data.endswith(words.astype("<u4").tobytes())
    assert bits == pytest.approx(sum(CODEC.channel_bits))
    predictor.reset(2, 16, RATE_HZ)
    decoder, found = RangeDecoder(words), []
    for _ in range(pcm.size):
        found.append(predictor.distribution().take(decoder))
        predictor.update(found[-1])
    assert found == pcm.T.flatten().tolist()
    with pytest.raises(ValueError, match="the value 40000 is not between -32768 and 32767"):
        predictor.distribution().put(encoder, 40000)


def test_a_block_that_was_damaged_is_refused_or_differs() -> None:
    pcm = music(2, 200, 16)
    data = CODEC.encode(pcm, 16, RATE_HZ)
    for size in range(len(data)):
        with pytest.raises(ValueError, match="residual block"):
            CODEC.decode(data[:size], 2, 200, 16, RATE_HZ)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 4))):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):
            back = CODEC.decode(bytes(damaged), 2, 200, 16, RATE_HZ)
            assert back.shape == pcm.shape
            assert back.min() >= -32768
            assert back.max() <= 32767


def test_errors_say_what_was_wrong() -> None:
    with pytest.raises(ValueError, match="takes 1 or 2 channels at a time, got 3"):
        CODEC.encode(np.zeros((3, 5), np.int32), 16, RATE_HZ)
    with pytest.raises(ValueError, match="takes 1 to 32 bits, got 33"):
        CODEC.encode(np.zeros((1, 5), np.int32), 33, RATE_HZ)
    data = bytearray(CODEC.encode(music(1, 50, 16), 16, RATE_HZ))
    data[0] = 40
    with pytest.raises(ValueError, match="shifted by 40 bits"):
        CODEC.decode(bytes(data), 1, 50, 16, RATE_HZ)
    data[0], data[1] = 0, 7
    with pytest.raises(ValueError, match="unknown kind 7"):
        CODEC.decode(bytes(data), 1, 50, 16, RATE_HZ)
    wide = CODEC.encode(music(1, 50, 16), 16, RATE_HZ)
    with pytest.raises(ValueError, match="values that 8 bits cannot hold"):
        CODEC.decode(wide, 1, 50, 8, RATE_HZ)


def test_the_network_is_torchs() -> None:
    """One step after the other, the kernel's mixture gives what `residual_lm` gives in one parallel pass."""
    tensors = random_tensors(5)
    network = ResidualLm(
        features=OPTIONS.num_features, offsets=OPTIONS.num_offsets, hidden=HIDDEN, mixtures=MIXTURES, context=0
    )
    network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    rng = np.random.default_rng(6)
    features = rng.normal(size=(30, OPTIONS.num_features)).astype(np.float32)
    offsets = rng.normal(size=(30, OPTIONS.num_offsets)).astype(np.float32)
    unit = rng.uniform(0.5, 40, 30).astype(np.float32)
    residual = np.rint(rng.normal(size=30) * unit).astype(np.float32)
    batch = [torch.from_numpy(array)[None] for array in (features, offsets, residual, unit)]
    with torch.no_grad():
        expected = network(*batch)[0].numpy()
    residual_network.build()
    kernel = residual_network.new_network(tensors, MIXTURES)
    table, n = small_model().table, MIXTURES
    for t in range(30):
        residual_network.step(kernel, 0, features[t])
        residual_network.mix(kernel, 0, features[t], offsets[t], float(unit[t]))
        mass = sum(
            float(weight * (_logistic(table, (residual[t] + 0.5 - mean) * inverse)
                            - _logistic(table, (residual[t] - 0.5 - mean) * inverse)))
            for weight, mean, inverse in zip(kernel.weights[:n], kernel.means[:n], kernel.inverses[:n], strict=True)
        ) / kernel.weights[:n].sum()  # fmt: skip
        assert -np.log(mass) == pytest.approx(expected[t], abs=2e-3)


def _logistic(table: np.ndarray, z: float) -> float:
    from codes.adaptive import arithmetic

    return arithmetic.logistic(table, float(z))


def test_nats_are_a_distribution() -> None:
    parameters = torch.randn(MIXTURES, 5)
    values = torch.arange(-4000.0, 4001.0)
    nats = mixture_nats(
        parameters.expand(len(values), -1, -1), torch.randn(1, 2).expand(len(values), -1), values + 0.3,
        torch.full_like(values, 3.0),
    )  # fmt: skip
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-3)


def test_model_files_hold_what_is_needed() -> None:
    tensors = random_tensors()
    data = residual_model_bytes(tensors, OPTIONS, MIXTURES, {"command": "by hand"})
    assert data == residual_model_bytes(tensors, OPTIONS, MIXTURES, {"command": "by hand"})
    model = load_residual_model(data)
    assert model.digest == hashlib.sha256(data).digest()
    assert model.adaptive.as_dict() == OPTIONS.as_dict()
    pcm = music(2, 100, 16)
    assert ResidualCodec(model).encode(pcm, 16, RATE_HZ) == CODEC.encode(pcm, 16, RATE_HZ)
    assert ResidualCodec(model).model_hash() == model.digest != CODEC.model_hash()
    assert CODEC.model_hash() != ResidualCodec(small_model(1)).model_hash()
    assert CODEC.fingerprint() != ResidualCodec(small_model(1)).fingerprint()


def test_a_model_file_that_is_none_is_refused() -> None:
    from safetensors.numpy import save

    for data in (b"", b"RIFF" * 10, random_tensors()["output.bias"].tobytes()):
        with pytest.raises(ValueError, match="not a safetensors file"):
            load_residual_model(data)
    with pytest.raises(ValueError, match=f"metadata has no '{METADATA_KEY}'"):
        load_residual_model(save(random_tensors()))
    tensors = random_tensors()
    del tensors["gru.bias_hh_l0"]
    with pytest.raises(ValueError, match=r"no tensor gru\.bias_hh_l0"):
        residual_model_bytes(tensors, OPTIONS, MIXTURES, {})
    with pytest.raises(ValueError, match="not a multiple of its 4 mixtures"):
        ResidualModel(random_tensors(), OPTIONS, 4)
    with pytest.raises(ValueError, match="takes 22 features and 2 predictions, its adaptive prediction gives 52 and 5"):
        ResidualModel(random_tensors(), AdaptiveOptions(), MIXTURES)
    tensors = random_tensors()
    tensors["output.bias"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        ResidualModel(tensors, OPTIONS, MIXTURES)


GOLDEN = "9cbd9cfb95b44709f05d80e145de2aef37f821a98bcfcde05b15a6e584971c68"


def test_the_bytes_are_those_of_every_machine() -> None:
    """They never change; that they are what IEEE arithmetic gives without vectors, test_residual_spec.py shows."""
    data = CODEC.encode(music(2, 3000, 16), 16, 44100) + CODEC.encode(music(1, 999, 24), 24, 96000)
    assert hashlib.sha256(data).hexdigest() == GOLDEN


def test_the_shipped_model_is_small_and_codes_better_than_a_random_one() -> None:
    model = load_residual_model(SHIPPED)
    assert SHIPPED.stat().st_size < 1_000_000
    codec = ResidualCodec(model)
    pcm = music(2, 4000, 16)
    assert len(round_trip(pcm, 16, codec)) < len(CODEC.encode(pcm, 16, RATE_HZ))
