"""The strided auto-encoder and the networks of the lo-fi GAN: shapes, what they depend on, and that they learn."""

from typing import Any

import pytest
import torch
from torch.linalg import matrix_norm

from codes.models.lofi_gan import LofiDiscriminator, LofiGenerator
from codes.models.strided_autoencoder import StridedAutoencoder


def generator(**options: Any) -> LofiGenerator:
    return LofiGenerator(**{"prev_frames": 60, "next_frames": 30, "strides": [2, 5], "channels": 4, **options})


@pytest.mark.parametrize(("strides", "stride"), [([7, 7, 9], 441), ([5, 5, 6, 7], 1050), ([2], 2)])
def test_autoencoder_has_one_vector_for_each_stride(strides: list[int], stride: int) -> None:
    net = StridedAutoencoder(strides=strides, channels=2, most_channels=8, latent_dim=3)
    assert net.stride == stride
    wav = torch.randn(2, 3 * stride - 1) * 0.1
    latents = net.encode(wav)
    assert latents.shape == (2, 3, 3)
    assert net.decode(latents).shape == (2, 3 * stride)
    assert net(wav).shape == wav.shape
    assert net(wav[:, None]).shape == (2, 1, 3 * stride - 1)


@pytest.mark.parametrize("causal", [True, False])
def test_vectors_are_of_their_own_time(causal: bool) -> None:
    net = StridedAutoencoder(strides=[4, 5], channels=4, latent_dim=3, causal=causal)
    wav = torch.randn(1, 2000)
    other = wav.clone()
    other[:, 1000:1020] += 1  # vector 50
    changed = (net.encode(wav) - net.encode(other)).abs().sum(2)[0] > 0
    places = changed.nonzero().flatten()
    assert changed[50]
    assert (50 if causal else 45) <= int(places.min()) <= int(places.max()) <= 55
    spoilt = (net.decode(net.encode(wav)) - net.decode(net.encode(other))).abs()[0] > 0
    places = spoilt.nonzero().flatten()
    assert spoilt[1000:1020].any()
    assert 700 < int(places.min()) < int(places.max()) < 1300


def test_the_vectors_of_prev_know_nothing_of_next() -> None:
    net = StridedAutoencoder(strides=[3, 5], channels=4, latent_dim=3).eval()
    wav = torch.randn(2, 15 * 12)
    torch.testing.assert_close(net.encode(wav)[:, :8], net.encode(wav[:, : 15 * 8]))
    assert not torch.equal(net.encode(wav)[:, 8:], net.encode(wav.flip(1))[:, 8:])


def test_autoencoder_learns_a_tone_and_adds_noise_only_in_training() -> None:
    net = StridedAutoencoder(strides=[3, 4], channels=8, latent_dim=8, noise=0.01)
    phases = torch.rand(16, 1) * 6.28
    wav = 0.5 * torch.sin(torch.arange(96) * 0.3 + phases)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        loss = (net(wav) - wav).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02 * float(wav.square().mean())
    assert not torch.equal(net(wav), net(wav))
    net.eval()
    assert torch.equal(net(wav), net(wav))


def test_generator_uses_prev_and_noise_everywhere() -> None:
    net = generator(noise_dim=6)
    prev, noise = torch.randn(2, 60), torch.randn(2, 6)
    made = net(prev, noise)
    assert made.shape == (2, 30)
    assert float(made.detach().abs().max()) <= 1
    assert torch.equal(made, net(prev[:, None], noise))
    assert (made != net(prev, torch.randn(2, 6))).float().mean() > 0.9
    first = prev.clone()
    first[:, 0] += 10  # the oldest frame reaches the last of next
    assert net(first, noise)[0, -5:].ne(made[0, -5:]).any()


def test_generator_goes_on_for_any_length_and_repeats() -> None:
    net = generator()
    prev = torch.randn(3, 45)  # shorter than prev_frames
    options = {"temperature": 1.0, "seed": 4, "fade": 0}
    made = net.carry_on(prev, 70, style_at=[], **options)
    assert made.shape == (3, 70)
    assert torch.equal(made, net.carry_on(prev, 70, style_at=[], **options))
    changed = net.carry_on(prev, 70, style_at=[30], **options)
    assert torch.equal(made[:, :30], changed[:, :30])
    assert not torch.equal(made[:, 30:], changed[:, 30:])
    with pytest.raises(ValueError, match="makes 30 frames at once"):
        net.carry_on(prev, 70, style_at=[7], **options)


def test_discriminator_judges_the_pair() -> None:
    net = LofiDiscriminator(strides=[2, 5], channels=4)
    prev, after = torch.randn(2, 60), torch.randn(2, 30)
    verdict = net(prev, after[:, None])
    assert verdict.shape == (2, 9)
    assert not torch.equal(verdict, net(torch.randn(2, 60), after))
    assert not torch.equal(verdict, net(prev, torch.randn(2, 30)))
    assert not torch.equal(net(after, after), net(after[:, :20], torch.cat([after[:, 20:], after], 1)))  # the border


def test_spectral_norm_holds_the_largest_singular_value_at_one() -> None:
    net = LofiDiscriminator(strides=[2, 5], channels=4, spectral=True)
    for _ in range(60):  # each pass is a step of power iteration
        net(torch.randn(1, 60), torch.randn(1, 30))
    net.eval()
    weights = [layer.convolution.weight for layer in net.layers] + [net.verdict.weight]  # type: ignore[union-attr]
    for weight in weights:
        assert abs(float(matrix_norm(weight.detach().flatten(1), 2)) - 1) < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generator(prev_frames=55), "prev_frames is 55: it must be a multiple of 10"),
        (lambda: generator(next_frames=0), "next_frames is 0: it must be a multiple of 10"),
        (lambda: generator(strides=[1]), "strides must be whole numbers of 2 or more"),
        (lambda: generator(noise_dim=0), "noise_dim, channels and most_channels must be 1 or more"),
        (lambda: generator()(torch.randn(2, 50), torch.randn(2, 64)), r"expected prev \(B, 60\) and noise \(B, 64\)"),
        (lambda: LofiDiscriminator(strides=[]), "strides must be whole numbers"),
        (lambda: LofiDiscriminator(strides=[2], channels=0), "channels and most_channels must be 1 or more"),
        (lambda: LofiDiscriminator(strides=[2])(torch.zeros(1, 4).int(), torch.zeros(1, 4)), "expected float prev"),
        (lambda: StridedAutoencoder(strides=[1]), "strides must be whole numbers of 2 or more"),
        (lambda: StridedAutoencoder(strides=[2], latent_dim=0), "latent_dim is 0"),
        (lambda: StridedAutoencoder(strides=[2], noise=-1), "noise is -1"),
        (lambda: StridedAutoencoder(strides=[2]).encode(torch.zeros(1, 8).int()), "expected float audio"),
        (lambda: StridedAutoencoder(strides=[2]).encode(torch.zeros(1, 2, 8)), "expected float audio"),
        (lambda: StridedAutoencoder(strides=[2]).decode(torch.zeros(1, 2, 3)), r"expected latents \(B, N, 64\)"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
