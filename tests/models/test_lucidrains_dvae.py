"""lucidrains_dvae: shapes, released names, a codebook that begins at the data and revives what died."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.models.ema_codebook import EmaCodebook
from codes.models.lucidrains_dvae import LucidrainsDvae
from codes.weights import CheckpointError, fit_weights
from tests.known_weights import drawn, seeded

SMALL: dict[str, Any] = {
    "num_tokens": 32, "codebook_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_resnet_blocks": 1, "kernel_size": 3,
    "use_transposed_convs": False,
}  # fmt: skip

# The public implementation (DL-Art-School) with weights of `released()`, float32 on a CPU.
CODES = [[26, 9, 31, 17, 8, 17], [19, 21, 27, 8, 19, 7]]
CODES_OF_23_FRAMES = [[26, 17, 8, 26, 31, 8], [1, 9, 26, 27, 8, 8]]
RECONSTRUCTED = [[0.1335400, -0.0326871, -0.1216370], [0.1388614, -0.0333760, -0.1126025]]
DECODED = [[0.1374264, -0.0374959, -0.1139139], [0.1356477, -0.0349456, -0.1175724]]
LOSSES = 1.0275463, 0.0156581


def released() -> dict[str, torch.Tensor]:
    """A file of DL-Art-School's, for the sizes above."""
    shapes = {name: tuple(value.shape) for name, value in LucidrainsDvae(**SMALL).state_dict().items()}
    return seeded({name: shape for name, shape in shapes.items() if name != "codebook.usage"})


@torch.no_grad()
def test_figures_of_the_public_implementation() -> None:
    network = LucidrainsDvae(**SMALL).eval()
    wrapped = {f"_orig_mod.module.{name}": value for name, value in released().items()}
    line = fit_weights(network, "dvae", wrapped, Path("dvae.pth"), strict=True)
    assert line == "network dvae: 30 of 30 tensors from dvae.pth"
    mel = drawn(2, 80, 24)
    assert network.get_codebook_indices(mel).tolist() == CODES
    assert network.get_codebook_indices(drawn(2, 80, 23)).tolist() == CODES_OF_23_FRAMES
    loss, commitment, made = network(mel)
    torch.testing.assert_close(made[:, ::27, 7], torch.tensor(RECONSTRUCTED), rtol=0, atol=1e-5)
    assert (float(loss.mean()), float(commitment)) == pytest.approx(LOSSES, abs=1e-5)
    decoded = network.decode(torch.arange(10).view(2, 5) * 3)
    torch.testing.assert_close(decoded[:, ::27, 7], torch.tensor(DECODED), rtol=0, atol=1e-5)


def test_released_weights_of_other_sizes() -> None:
    network, weights = LucidrainsDvae(**{**SMALL, "codebook_dim": 16}), released()
    message = r"of another shape codebook\.embed \(8, 32\) for \(16, 32\).*; 25 of 30 tensors match"
    with pytest.raises(CheckpointError, match=message):
        fit_weights(network, "dvae", weights, Path("dvae.pth"), strict=True)
    line = fit_weights(network, "dvae", weights, Path("dvae.pth"), strict=False)
    assert line.startswith("network dvae: 25 of 30 tensors from dvae.pth (of another shape")


def test_shapes_and_the_names_of_released_weights() -> None:
    network = LucidrainsDvae(**{**SMALL, "num_resnet_blocks": 3}).eval()
    loss, commitment, made = network(torch.randn(2, 80, 22))
    assert loss.shape == made.shape == (2, 80, 22)
    assert commitment.ndim == 0
    assert network.get_codebook_indices(torch.randn(2, 80, 22)).shape == (2, 6)
    assert network.decode(torch.zeros(2, 6, dtype=torch.int64)).shape == (2, 80, 24)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["encoder.0.0.weight"] == (8, 80, 3)
    assert shapes["encoder.1.0.weight"] == (16, 8, 3)
    assert shapes["encoder.4.net.4.weight"] == (16, 16, 1)
    assert shapes["encoder.5.weight"] == (8, 16, 1)
    assert shapes["decoder.0.weight"] == (16, 8, 1)
    assert shapes["decoder.4.0.conv.weight"] == (16, 16, 3)
    assert shapes["decoder.5.0.conv.weight"] == (8, 16, 3)
    assert shapes["decoder.6.weight"] == (80, 8, 1)
    assert shapes["codebook.embed"] == shapes["codebook.embed_avg"] == (8, 32)
    released = {name: value for name, value in network.state_dict().items() if name != "codebook.usage"}
    assert network.released_weights(released).keys() == shapes.keys()


@pytest.mark.parametrize("options", [
    {}, {"use_transposed_convs": True, "kernel_size": 4}, {"encoder_norm": True, "activation": "silu"},
    {"num_resnet_blocks": 0}, {"smooth_l1_loss": True, "normalization": ([-5.0], [2.0])},
])  # fmt: skip
def test_decoding_codes_is_what_forward_does(options: dict[str, Any]) -> None:
    network = LucidrainsDvae(**{**SMALL, **options}).eval()
    mel = torch.randn(2, 80, 24)
    made = network.decode(network.get_codebook_indices(mel))
    shift, scale = (-5.0, 2.0) if "normalization" in options else (0.0, 1.0)
    torch.testing.assert_close((made - shift) / scale, network(mel)[2], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("restart_below", "least", "most"), [(0.1, 7, 16), (0.0, 1, 3)])
def test_it_learns_without_collapse(restart_below: float, least: float, most: float) -> None:
    """Eight kinds of frames; the encoder runs away from its codes at once. Without restarts a single code remains."""
    torch.manual_seed(1)
    kinds = torch.randn(8, 80) * 3 + 20
    network = LucidrainsDvae(**{**SMALL, "num_tokens": 16}, decay=0.95, restart_below=restart_below).train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(120):
        mel = kinds[torch.randint(8, (8, 6))].repeat_interleave(4, 1).transpose(1, 2)
        loss, commitment, _ = network(mel)
        optimizer.zero_grad()
        (loss.mean() + commitment).backward()
        optimizer.step()
    figures = {name: float(value) for name, value in network.figures().items()}
    assert least < figures["perplexity"] < most
    assert figures["perplexity_share"] == pytest.approx(figures["perplexity"] / 16)
    assert 0 < figures["codes_in_use"] <= 1


def test_codes_begin_at_the_data_and_dead_ones_begin_anew() -> None:
    codebook = EmaCodebook(2, 8).train()
    data = torch.randn(64, 2) * 0.1 + 50
    codebook(data)
    assert (codebook.embed - 50).abs().max() < 1
    for _ in range(300):  # the data moves away: codes that stay behind are revived
        data = torch.randn(64, 2) - 50
        codebook(data)
    assert codebook.nearest(data).unique().numel() >= 6
    assert float(codebook.figures()["codes_in_use"]) > 0.7
    frozen = codebook.eval().embed.clone()
    codebook(data)
    assert torch.equal(codebook.embed, frozen)


def test_without_restarts_codes_begin_at_the_data_and_stay_dead() -> None:
    codebook = EmaCodebook(2, 8, restart_below=0.0).train()
    codebook(torch.randn(64, 2) + 50)
    assert (codebook.embed - 50).abs().max() < 5
    for _ in range(100):
        codebook(torch.full((64, 2), 60.0))
    assert float(codebook.figures()["perplexity"]) < 3


def test_codes_are_those_of_float32_in_any_precision() -> None:
    torch.manual_seed(0)
    network, mel = LucidrainsDvae(**{**SMALL, "num_tokens": 512}), torch.randn(4, 80, 400)
    network.train()(mel)  # codes begin at the data
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        codes = network.get_codebook_indices(mel)
    assert torch.equal(codes, network.get_codebook_indices(mel))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("batches_before", [0, 3])
def test_a_batch_that_is_not_finite_changes_nothing(bad: float, batches_before: int) -> None:
    codebook = EmaCodebook(2, 8).train()
    for _ in range(batches_before):
        codebook(torch.randn(64, 2))
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    spoilt = torch.randn(64, 2)
    spoilt[3, 1] = bad
    codebook(spoilt)
    for name, value in codebook.state_dict().items():
        assert torch.equal(value, before[name]), name
    for _ in range(20):
        codebook(torch.randn(64, 2))
    assert float(codebook.figures()["perplexity"]) > 4


def test_gradients_pass_straight_through() -> None:
    codebook = EmaCodebook(2, 8).eval()
    x = torch.randn(3, 5, 2, requires_grad=True)
    vectors, codes, commitment = codebook(x)
    assert codes.shape == (3, 5)
    distances = torch.cdist(x.detach().view(-1, 2), codebook.embed.t())
    assert torch.equal(codes.view(-1), distances.argmin(1))
    vectors.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    torch.testing.assert_close(commitment, (codebook.vectors(codes) - x).square().mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "num_tokens is 0: it must be 1 or more"),
        ({"decay": 1.0}, "decay must lie between 0 and 1, got 1.0"),
        ({"restart_below": 1.0}, "restart_below must be at least 0 and below 1, got 1.0"),
        ({"normalization": ([0.0, 0.0], [1.0])}, "normalization needs one number or 80, one for each band, got 2"),
        ({"normalization": ([0.0], [0.0])}, "normalization: deviations must be above 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LucidrainsDvae(**{**SMALL, **options})


def test_inputs_are_checked() -> None:
    network = LucidrainsDvae(**SMALL)
    message = "expected a float mel spectrogram (B, 80, T), got torch.float32 (2, 100, 8)"
    with pytest.raises(ValueError, match=re.escape(message)):
        network(torch.randn(2, 100, 8))
    with pytest.raises(ValueError, match=re.escape("expected integer codes (B, N), got torch.float32 (2, 3)")):
        network.decode(torch.zeros(2, 3))
