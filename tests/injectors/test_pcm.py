"""pcm_quantize, mu_law and byte_split: every code at 8 and 16 bits, edges and random codes above."""

import re

import numpy as np
import pytest
import torch

from codes.trainer.injectors.pcm import ByteSplitInjector, MuLawInjector, PcmQuantizeInjector


def samples_of(bits: int) -> torch.Tensor:
    """Integer samples at a depth, int64: all of them up to 16 bits, else the edges and random ones."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if bits <= 16:
        return torch.arange(low, high + 1)
    edges = torch.tensor([low, low + 1, -257, -256, -255, -1, 0, 1, 255, 256, high - 1, high])
    return torch.cat([edges, torch.randint(low, high + 1, (10000,), generator=torch.Generator().manual_seed(bits))])


def audio_of(bits: int) -> torch.Tensor:
    return samples_of(bits).to(torch.int16 if bits <= 16 else torch.int32)


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 12, 16, 20, 24, 31, 32])
def test_pcm_codes_count_up_from_silence_at_half(bits: int) -> None:
    quantize = PcmQuantizeInjector(bits=bits, input_bits=bits)
    wav = audio_of(bits)
    codes = quantize(wav)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, samples_of(bits) + (1 << (bits - 1)))
    assert codes.min() == 0
    assert codes.max() == (1 << bits) - 1
    back = quantize.inverse(codes)
    assert back.dtype == wav.dtype
    assert torch.equal(back, wav)


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pcm_of_floats_that_came_from_integers_is_exact(bits: int, dtype: torch.dtype) -> None:
    wav = samples_of(bits).to(dtype) / 2 ** (bits - 1)
    assert torch.equal(PcmQuantizeInjector(bits=bits)(wav), samples_of(bits) + 2 ** (bits - 1))


def test_pcm_of_32_bit_doubles_is_exact() -> None:
    wav = samples_of(32).double() / 2**31
    assert torch.equal(PcmQuantizeInjector(bits=32)(wav), samples_of(32) + 2**31)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pcm_of_floats_beyond_the_range_takes_the_outermost_code(bits: int, dtype: torch.dtype) -> None:
    wav = torch.tensor([-1.0, -1.5, -torch.inf, 1.0, 7.0, torch.inf, 0.0], dtype=dtype)
    top = 2**bits - 1
    assert PcmQuantizeInjector(bits=bits)(wav).tolist() == [0, 0, 0, top, top, top, 2 ** (bits - 1)]


@pytest.mark.parametrize(("input_bits", "bits"), [(16, 8), (24, 16), (32, 24), (24, 8), (16, 1)])
def test_pcm_at_fewer_bits_rounds_down(input_bits: int, bits: int) -> None:
    wav = audio_of(input_bits)
    expected = np.floor(wav.numpy().astype(np.float64) / 2 ** (input_bits - bits)).astype(np.int64) + 2 ** (bits - 1)
    assert np.array_equal(PcmQuantizeInjector(bits=bits, input_bits=input_bits)(wav).numpy(), expected)


@pytest.mark.parametrize(("input_bits", "bits"), [(8, 16), (16, 24), (24, 32)])
def test_pcm_at_more_bits_keeps_the_value(input_bits: int, bits: int) -> None:
    wider = PcmQuantizeInjector(bits=bits, input_bits=input_bits)
    narrower = PcmQuantizeInjector(bits=input_bits, input_bits=bits)
    wav = audio_of(input_bits)
    assert torch.equal(wider.inverse(wider(wav)).long(), wav.long() << (bits - input_bits))
    assert torch.equal(narrower.inverse(narrower(wider.inverse(wider(wav)))), wav)


def test_pcm_reads_the_depth_from_the_dtype() -> None:
    quantize = PcmQuantizeInjector(bits=8)
    assert quantize(torch.arange(256, dtype=torch.uint8)).tolist() == list(range(256))  # WAV's unsigned 8 bits
    assert quantize(torch.tensor([-128, 127], dtype=torch.int8)).tolist() == [0, 255]
    assert quantize(torch.tensor([-32768, 32767], dtype=torch.int16)).tolist() == [0, 255]
    assert quantize(torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)).tolist() == [0, 255]
    assert PcmQuantizeInjector(bits=8, input_bits=24)(torch.tensor([-(2**23), 2**23 - 1])).tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(), (5,), (2, 7), (3, 2, 11), (0,), (2, 2, 0)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    wav = torch.randint(-32768, 32768, shape, dtype=torch.int16)
    for injector in (PcmQuantizeInjector(), MuLawInjector()):
        assert injector(wav).shape == shape
        assert injector.inverse(injector(wav)).shape == shape


@pytest.mark.parametrize(
    ("wav", "input_bits", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), None, "got int64 of shape (2, 3) without input_bits"),
        (
            torch.zeros(2, dtype=torch.bool),
            None,
            "expected float, uint8, int8, int16 or int32 audio, got bool of shape",
        ),
        (torch.zeros(2, 3, dtype=torch.int16), 24, "input_bits 24 do not fit the audio, int16 of shape (2, 3)"),
    ],
)
def test_audio_without_a_depth_is_refused(wav: torch.Tensor, input_bits: int | None, message: str) -> None:
    for injector in (PcmQuantizeInjector(input_bits=input_bits), MuLawInjector(input_bits=input_bits)):
        with pytest.raises(ValueError, match=re.escape(message)):
            injector(wav)


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("mu", [None, 0.1, 50.0, 255.0, 65535.0])
def test_mu_law_encodes_its_own_codes_exactly(bits: int, mu: float | None) -> None:
    mu_law = MuLawInjector(bits=bits, mu=mu)
    codes = torch.arange(1 << bits)
    wav = mu_law.inverse(codes)
    assert wav.dtype == torch.float32
    torch.testing.assert_close(wav[[0, -1]], torch.tensor([-1.0, 1.0]))
    assert wav.abs().max() <= 1
    assert torch.equal(mu_law(wav), codes)


def test_mu_law_keeps_its_codes_through_stereo_float64() -> None:
    codes = torch.randint(256, (3, 2, 50))
    mu_law = MuLawInjector()
    assert torch.equal(mu_law(mu_law.inverse(codes).double()), codes)


@pytest.mark.parametrize(("bits", "mu"), [(8, 255.0), (8, 100.0), (5, 31.0), (16, 65535.0)])
def test_mu_law_agrees_with_the_formula_in_double_precision(bits: int, mu: float) -> None:
    wav = audio_of(16)
    x = wav.numpy() / 32768
    companded = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    expected = np.floor((companded + 1) / 2 * (2**bits - 1) + 0.5)
    difference = np.abs(MuLawInjector(bits=bits, mu=mu)(wav).numpy() - expected)
    assert difference.max() <= 1  # float32 may fall on the other side of a boundary
    assert difference.mean() < 0.02


def test_mu_law_of_all_depths_agrees() -> None:
    wav = audio_of(16)
    mu_law = MuLawInjector()
    assert torch.equal(mu_law(wav), mu_law(wav.float() / 32768))
    assert torch.equal(mu_law(wav), mu_law(wav.int() << 16))
    assert torch.equal(mu_law(wav), MuLawInjector(input_bits=24)(wav.int() << 8))
    assert mu_law(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("bits", [1, 8, 9, 12, 16, 24, 32])
@pytest.mark.parametrize("distinct", [False, True])
def test_bytes_are_the_codes_big_endian(bits: int, distinct: bool) -> None:
    split = ByteSplitInjector(bits=bits, distinct=distinct)
    codes = (samples_of(bits) + (1 << (bits - 1))).unflatten(0, (2, -1))
    num_bytes = -(-bits // 8)
    ids = split(codes)
    expected = codes.numpy().astype(">u4").reshape(-1, 1).view(np.uint8)[:, 4 - num_bytes :].astype(np.int64)
    expected += 256 * np.arange(num_bytes) * distinct
    assert ids.dtype == torch.int64
    assert np.array_equal(ids.numpy(), expected.reshape(2, -1))
    assert torch.equal(split.inverse(ids), codes)


def test_bytes_of_any_leading_shape() -> None:
    split = ByteSplitInjector(bits=24)
    codes = torch.randint(1 << 24, (2, 3, 5))
    assert split(codes).shape == (2, 3, 15)
    assert torch.equal(split.inverse(split(codes)), codes)
    assert split(codes[:, 0, :0]).shape == (2, 0)
    assert split.inverse(torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_codes_must_be_whole() -> None:
    for function in (ByteSplitInjector(), ByteSplitInjector().inverse, MuLawInjector().inverse):
        with pytest.raises(ValueError, match=re.escape("expected integer codes, got float32 of shape (2, 4)")):
            function(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=re.escape("expected (..., T * 2), whole codes of bytes, got (2, 5)")):
        ByteSplitInjector().inverse(torch.zeros(2, 5, dtype=torch.int64))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="bits must be 1 to 32, got 33"):
        PcmQuantizeInjector(bits=33)
    with pytest.raises(ValueError, match="input_bits must be 1 to 32, got 0"):
        PcmQuantizeInjector(input_bits=0)
    with pytest.raises(ValueError, match="bits must be 2 to 16, got 24"):
        MuLawInjector(bits=24)
    with pytest.raises(ValueError, match=re.escape("mu must be a finite number above 0, got 0.0")):
        MuLawInjector(mu=0.0)
