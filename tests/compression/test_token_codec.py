"""Blocks coded by token language models: lossless, near the ideal code length, safe with any bytes."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codes.compression.pcm_tokens import PcmTokens
from codes.compression.token_codec import TokenCodec
from codes.models.generation import stepwise_nats
from codes.models.gpt import Gpt
from codes.models.linear_prediction import LinearPrediction
from codes.models.llama import Llama
from codes.models.token_walk import TokenLanguageModel, fingerprint, stages_of

ROOT = Path(__file__).resolve().parents[2]
PREDICTION = LinearPrediction(
    own_taps=8, other_taps=4, block_frames=16, long_taps=0, memory_frames=[100.0, 400.0], warm_up_frames=32, history=4
)
SMALL: dict[str, Any] = {"layers": 1, "model_dim": 32, "heads": 2, "max_length": 64}
NETWORKS: dict[str, tuple[type, dict[str, Any], PcmTokens]] = {
    "8 bits": (Gpt, {"bits": 8, "num_channels": 2}, PcmTokens(bits=8, num_channels=2)),
    "bytes of 16 bits": (
        Gpt, {"vocabulary": 512, "num_channels": 4}, PcmTokens(bits=16, num_channels=2, num_bytes=2, distinct=True)
    ),
    "bytes of 12 bits, mono": (
        Gpt, {"vocabulary": 256, "num_channels": 2}, PcmTokens(bits=12, num_channels=1, num_bytes=2)
    ),
    "byte head": (Gpt, {"bits": 16, "head": "bytes"}, PcmTokens(bits=16, num_channels=2)),
    "logistics behind prediction": (
        Gpt, {"bits": 16, "head": "logistics", "linear_prediction": PREDICTION, "context": 104},
        PcmTokens(bits=16, num_channels=2),
    ),
    "24 bits": (Gpt, {"bits": 24, "head": "logistics", "input": "values"}, PcmTokens(bits=24, num_channels=2)),
    "llama": (
        Llama, {"vocabulary": 256}, PcmTokens(bits=16, num_channels=2, num_bytes=2, bytes_apart=True)
    ),
}  # fmt: skip


def codec(kind: str, **options: Any) -> TokenCodec:
    """A codec with a small network whose parameters are off their start."""
    cls, kwargs, layout = NETWORKS[kind]
    torch.manual_seed(0)
    network = cls(**SMALL, **kwargs)
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    model = TokenLanguageModel(network)
    return TokenCodec(model, layout, fingerprint=lambda batches: fingerprint(model, batches), **options)


def sound(bits: int, num_channels: int = 2, num_frames: int = 90) -> np.ndarray:
    """A tone with noise, and the two ends of the range."""
    time = np.arange(num_frames)
    rng = np.random.default_rng(0)
    wave = np.stack([0.3 * np.sin(0.1 * time + c) + 0.01 * rng.normal(size=num_frames) for c in range(num_channels)])
    pcm = np.rint(wave * 2 ** (bits - 1)).astype(np.int32)
    pcm[:, 40], pcm[:, 50] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return pcm


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_what_is_decoded_is_what_was_coded(kind: str, num_channels: int):
    tokens = codec(kind, lanes=4, lane_frames=21)
    bits = tokens.layout.bits
    pcm = sound(bits, num_channels)
    data = tokens.encode(pcm, bits, 44_100)
    assert data[0] == 4
    np.testing.assert_array_equal(tokens.decode(data, num_channels, 90, bits, 44_100), pcm)
    assert tokens.decode(data, num_channels, 90, bits, 44_100).dtype == np.int32


@pytest.mark.parametrize("kind", NETWORKS)
def test_size_is_the_ideal_code_length(kind: str):
    """To 0.1 %, besides a byte and two words of the coder."""
    tokens = codec(kind, lanes=1)
    pcm = sound(tokens.layout.bits, num_frames=150)
    ideal = tokens.ideal_bits(pcm, tokens.layout.bits)
    size = 8 * len(tokens.encode(pcm, tokens.layout.bits, 44_100))
    assert ideal < size < ideal * 1.001 + 72


@pytest.mark.parametrize("kind", ["8 bits", "byte head", "logistics behind prediction", "24 bits"])
def test_ideal_code_length_is_the_networks_own(kind: str):
    """The walk's probabilities, in stages and cut to what can occur, are those that training minimised."""
    tokens = codec(kind, lanes=1)
    network = tokens.model.network  # type: ignore[attr-defined]
    pcm = sound(tokens.layout.bits, num_frames=100)
    ids = torch.from_numpy(tokens.layout.tokens(pcm).reshape(1, -1))
    silence = torch.full((1, network.context), network.silence)
    with torch.inference_mode():
        nats = stepwise_nats(network, torch.cat([silence, ids], 1)).sum().item()
    assert tokens.ideal_bits(pcm, tokens.layout.bits) == pytest.approx(nats / math.log(2), rel=2e-4)


def test_bytes_that_cannot_occur_cost_nothing():
    """Of 512 tokens half are possible at each place: an untrained network needs 8 bits a byte, not 9."""
    layout = PcmTokens(bits=16, num_channels=2, num_bytes=2, distinct=True)
    torch.manual_seed(0)
    tokens = TokenCodec(TokenLanguageModel(Gpt(vocabulary=512, num_channels=4, **SMALL)), layout)
    assert tokens.ideal_bits(sound(16), 16) / 180 == pytest.approx(16, abs=0.01)
    half = TokenCodec(TokenLanguageModel(Gpt(vocabulary=256, **SMALL)), PcmTokens(bits=12, num_channels=1, num_bytes=2))
    assert half.ideal_bits(sound(12, 1), 12) / 90 == pytest.approx(12, abs=0.01)


def test_channels_that_are_not_there_cost_nothing():
    tokens = codec("8 bits")
    mono, twice = sound(8, 1), np.repeat(sound(8, 1), 2, 0)
    assert tokens.ideal_bits(mono, 8) < tokens.ideal_bits(twice, 8)
    three = sound(8, 3)
    parts = tokens.ideal_bits(three[:2], 8) + tokens.ideal_bits(three[2:], 8)
    assert tokens.ideal_bits(three, 8) == pytest.approx(parts, rel=1e-5)


def test_right_is_predicted_with_left_in_sight():
    """A network that has learned to repeat the other channel codes R = L in almost nothing."""
    torch.manual_seed(0)
    gpt = Gpt(bits=4, num_channels=2, **SMALL)
    optimizer = torch.optim.Adam(gpt.parameters(), 1e-2)
    for _ in range(80):
        left = torch.randint(0, 16, (8, 32))
        loss = gpt(torch.stack([left, left], 2).flatten(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = TokenCodec(TokenLanguageModel(gpt), PcmTokens(bits=4, num_channels=2))
    left = np.random.default_rng(0).integers(-8, 8, (1, 60))
    both = np.concatenate([left, left])
    assert len(tokens.encode(both, 4, 8000)) * 8 < 60 * 5.5
    np.testing.assert_array_equal(tokens.decode(tokens.encode(both, 4, 8000), 2, 60, 4, 8000), both)


@pytest.mark.parametrize(("num_frames", "lanes"), [(1, 4), (2, 4), (9, 4), (10, 3), (63, 16)])
def test_blocks_of_any_length(num_frames: int, lanes: int):
    """Lanes of uneven length, and lanes of nothing."""
    tokens = codec("8 bits", lanes=lanes, lane_frames=1)
    pcm = np.random.default_rng(0).integers(-128, 128, (2, num_frames)).astype(np.int32)
    data = tokens.encode(pcm, 8, 44_100)
    assert data[0] == min(lanes, num_frames)
    np.testing.assert_array_equal(tokens.decode(data, 2, num_frames, 8, 44_100), pcm)


def test_chunks_side_by_side_have_the_sizes_of_chunks_by_themselves():
    tokens = codec("bytes of 16 bits")
    chunks = [sound(16)[:, start : start + 30] for start in (0, 10, 35)]
    for alone, beside in zip([tokens.encode(c, 16, 1) for c in chunks], tokens.encode_each(chunks, 16), strict=True):
        assert abs(len(alone) - len(beside)) <= 4


def test_the_same_in_another_process_with_another_number_of_threads(tmp_path: Path):
    tokens = codec("logistics behind prediction", lanes=3, lane_frames=10)
    (tmp_path / "block").write_bytes(tokens.encode(sound(16), 16, 44_100))
    script = (
        "import sys, torch; from tests.compression.test_token_codec import *\n"
        "torch.set_num_threads(int(sys.argv[2]))\n"
        "tokens = codec('logistics behind prediction', lanes=3, lane_frames=10)\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "assert (tokens.decode(data, 2, 90, 16, 44100) == sound(16)).all()\n"
        "print(tokens.fingerprint().hex())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "block"), "3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == tokens.fingerprint().hex()


def test_fingerprint_tells_arithmetic_apart():
    first, again = codec("llama").fingerprint(), codec("llama").fingerprint()
    assert first == again
    assert len(first) == 16
    other = codec("llama")
    network = other.model.network  # type: ignore[attr-defined]
    network.llama.lm_head.weight.data[7, 3] += 1e-6
    assert other.fingerprint() != first


def test_any_bytes_are_safe_to_decode():
    tokens = codec("8 bits", lanes=2, lane_frames=5)
    pcm = sound(8, num_frames=60)
    data = tokens.encode(pcm, 8, 44_100)
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(60):
        mutated = bytearray(data)
        mutated[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        try:
            changed += not np.array_equal(tokens.decode(bytes(mutated), 2, 60, 8, 44_100), pcm)
        except ValueError:
            changed += 1
    assert changed > 50  # the container's CRC finds the rest
    for bad in (b"", b"\0", b"\xff" + data[1:], data + b"\0", data + bytes(8)):
        with pytest.raises(ValueError, match=r"no block of|longer than its samples"):
            tokens.decode(bad, 2, 60, 8, 44_100)


def test_what_a_model_does_not_code_is_said():
    tokens = codec("8 bits")
    with pytest.raises(ValueError, match="the model codes samples of 8 bits, not of 16"):
        tokens.encode(sound(16), 16, 44_100)
    with pytest.raises(ValueError, match=r"1 channel and 1 frame or more, got \(2, 0\)"):
        tokens.encode(np.zeros((2, 0), np.int32), 8, 44_100)
    with pytest.raises(ValueError, match="the model knows 256 tokens, the samples need 512"):
        TokenCodec(tokens.model, PcmTokens(bits=16, num_channels=2, num_bytes=2, distinct=True))
    with pytest.raises(ValueError, match="300 lanes of 8192 frames or more: 1 to 255 lanes"):
        TokenCodec(tokens.model, tokens.layout, lanes=300)
    with pytest.raises(ValueError, match="a Linear cannot be walked token by token"):
        TokenLanguageModel(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("bits", [1, 8, 12, 16, 20, 24, 32])
@pytest.mark.parametrize("options", [{}, {"distinct": True}, {"bytes_apart": True}])
def test_tokens_go_back_to_samples(bits: int, options: dict[str, bool]):
    layout = PcmTokens(bits=bits, num_channels=3, num_bytes=-(-bits // 8), **options)
    half = 1 << (bits - 1)
    pcm = np.random.default_rng(0).integers(-half, half, (3, 50))
    pcm[:, 0], pcm[:, 1] = -half, half - 1
    tokens = layout.tokens(pcm)
    assert tokens.shape == (50, 3 * layout.num_bytes)
    assert tokens.min() >= 0
    assert tokens.max() < layout.vocabulary
    for place, (_, part) in enumerate(layout.places):
        first, size = layout.range_of(part)
        assert first <= tokens[:, place].min()
        assert tokens[:, place].max() < first + size
    np.testing.assert_array_equal(layout.pcm(tokens), pcm)


def test_known_tokens():
    pcm = np.array([[0x1234 - 32768], [0x5678 - 32768]])
    order = {False: [0x12, 0x34, 0x56, 0x78], True: [0x12, 0x56, 0x34, 0x78]}
    for apart, expected in order.items():
        layout = PcmTokens(bits=16, num_channels=2, num_bytes=2, bytes_apart=apart)
        assert layout.tokens(pcm)[0].tolist() == expected
    with pytest.raises(ValueError, match="16 bits are 1 token or 2 bytes, not 3 tokens"):
        PcmTokens(bits=16, num_channels=2, num_bytes=3)
    with pytest.raises(ValueError, match="tokens of 33 bits"):
        PcmTokens(bits=33, num_channels=2)


def test_stages_are_small_and_cover_the_vocabulary():
    assert stages_of(256, by_bytes=False) == (256,)
    assert stages_of(4096, by_bytes=False) == (4096,)
    assert stages_of(65536, by_bytes=False) == (256, 256)
    assert stages_of(5000, by_bytes=False) == (20, 256)
    assert stages_of(2**12, by_bytes=True) == (16, 256)
    assert stages_of(2**24, by_bytes=True) == (256, 256, 256)


def test_a_large_softmax_is_coded_in_two_stages():
    torch.manual_seed(0)
    gpt = Gpt(bits=13, input="values", **SMALL)
    for parameter in gpt.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    tokens = TokenCodec(TokenLanguageModel(gpt), PcmTokens(bits=13, num_channels=2))
    assert tokens.model.stages == (32, 256)
    pcm = sound(13, num_frames=60)
    data = tokens.encode(pcm, 13, 44_100)
    np.testing.assert_array_equal(tokens.decode(data, 2, 60, 13, 44_100), pcm)
    ids = torch.from_numpy(tokens.layout.tokens(pcm).reshape(1, -1))
    with torch.inference_mode():
        nats = stepwise_nats(gpt, ids).sum().item()
    assert tokens.ideal_bits(pcm, 13) == pytest.approx(nats / math.log(2), rel=1e-4)
