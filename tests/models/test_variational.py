"""The latent: KL against torch's own, lengths, styles that differ, and a switch that leaves what came before."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from codes.models.heads import Choice
from codes.models.variational import Variational, kl_of_normals, style_path

PREV, NEXT, LATENT = 30, 20, 4


def network(**options: Any) -> Variational:
    net = Variational(**{"next_steps": NEXT, "output": "codes", "bits": 5, "dim": 16, "latent_dim": LATENT, **options})
    with torch.no_grad():
        for p in [*net.output.parameters(), *net.prior.parameters(), *net.posterior.parameters()]:
            p.add_(torch.randn_like(p) * 0.3)
        net.decoder.layers[0].weight_input[:, -LATENT:] *= 6  # type: ignore[index, operator]
    return net


def codes(batch: int = 3) -> Tensor:
    return torch.randint(0, 32, (batch, PREV + NEXT))


def test_kl_is_torchs_and_zero_for_equal_normals() -> None:
    mean, log_scale, prior_mean, prior_log_scale = torch.randn(4, 5, 6)
    expected = kl_divergence(Normal(mean, log_scale.exp()), Normal(prior_mean, prior_log_scale.exp()))
    assert torch.allclose(kl_of_normals(mean, log_scale, prior_mean, prior_log_scale), expected, atol=1e-4, rtol=1e-4)
    assert (kl_of_normals(mean, log_scale, mean, log_scale).abs() < 1e-6).all()


def test_kl_is_above_zero_and_the_noise_matters() -> None:
    net, sequence = network(), codes()
    nats, kl = net(sequence, torch.zeros(3, LATENT))
    other, same_kl = net(sequence, torch.ones(3, LATENT))
    assert nats.shape == (3, NEXT)
    assert kl.shape == (3, LATENT)
    assert (kl > 0).all()
    assert torch.equal(kl, same_kl)
    assert not torch.allclose(nats, other, atol=1e-3)


def test_the_posterior_sees_next_and_the_prior_does_not() -> None:
    net, sequence = network(), codes()
    other = sequence.clone()
    other[:, -1] = 31 - other[:, -1]
    assert not torch.allclose(net(sequence, torch.zeros(3, LATENT))[1], net(other, torch.zeros(3, LATENT))[1])
    drawn = [net.draw_style(s[:, :PREV], 1.0, torch.Generator().manual_seed(0)) for s in (sequence, other)]
    assert torch.equal(*drawn)


def test_with_z_given_the_decoder_sees_nothing_of_what_follows() -> None:
    net, sequence, noise = network(), codes(), torch.randn(3, LATENT)
    with torch.no_grad():
        net.posterior.weight.zero_()  # z no longer depends on next
        before = net(sequence, noise)[0]
        for place in (0, 7, NEXT - 2):
            other = sequence.clone()
            other[:, PREV + place] = 31 - other[:, PREV + place]
            after = net(other, noise)[0]
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place], after[:, place])
            assert not torch.equal(before[:, place + 1], after[:, place + 1])


def test_lengths_are_respected() -> None:
    net, sequence, noise = network(), codes(), torch.randn(3, LATENT)
    prev_length, next_length = torch.tensor([1, 12, PREV]), torch.tensor([1, 7, NEXT])
    nats, kl = net(sequence, noise, prev_length, next_length)
    spoilt = sequence.clone()
    for item in range(3):
        spoilt[item, : PREV - int(prev_length[item])] = 3
        spoilt[item, PREV + int(next_length[item]) :] = 3
    spoilt_nats, spoilt_kl = net(spoilt, noise, prev_length, next_length)
    assert torch.allclose(kl, spoilt_kl, atol=1e-6)
    for item, length in enumerate(next_length.tolist()):
        assert torch.allclose(nats[item, :length], spoilt_nats[item, :length], atol=1e-5)


def test_gradients_reach_everything() -> None:
    net = network()
    nats, kl = net(codes(), torch.randn(3, LATENT))
    (nats.mean() + kl.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in net.named_parameters())


def carried(net: Variational, **options: Any) -> Tensor:
    prev = torch.randint(0, 32, (2, PREV), generator=torch.Generator().manual_seed(3))
    return net.carry_on(prev, 60, **{"temperature": 1.0, "seed": 1, "style_at": [], "fade": 0, **options})


def test_another_style_leaves_what_came_before_and_changes_what_follows() -> None:
    net = network().eval()
    plain, switched, faded = carried(net), carried(net, style_at=[25]), carried(net, style_at=[25], fade=20)
    assert torch.equal(plain[:, :25], switched[:, :25])
    assert torch.equal(plain[:, :25], faded[:, :25])
    assert not torch.equal(plain[:, 25:], switched[:, 25:])
    assert not torch.equal(faded[:, 25:], switched[:, 25:])
    twice = carried(net, style_at=[25, 40])
    assert torch.equal(twice[:, :40], switched[:, :40])
    assert not torch.equal(twice[:, 40:], switched[:, 40:])


def test_two_draws_of_z_make_different_sequences_even_greedily() -> None:
    net = network().eval()
    prev = codes(1)[:, :PREV].expand(6, -1)
    style = net.draw_style(prev, 1.0, torch.Generator().manual_seed(0))
    path = style_path(style, style, 30, 0, 0)
    made = net.extend(prev, 30, Choice(0.0), style=path)
    assert len({tuple(row.tolist()) for row in made}) > 1
    mean = net.draw_style(prev, 0.0, None)
    assert torch.equal(mean, mean[:1].expand(6, -1))


def test_style_path_by_hand() -> None:
    first, second = torch.zeros(1, 1), torch.full((1, 1), 8.0)
    assert style_path(first, second, 6, 2, 4).flatten().tolist() == [0, 0, 2, 4, 6, 8]
    assert style_path(first, second, 4, 2, 0).flatten().tolist() == [0, 0, 8, 8]
    assert style_path(first, second, 3, 3, 2).flatten().tolist() == [0, 0, 0]


def test_generate_continues_a_prompt() -> None:
    net, ids = network(), codes(2)
    ids[:, 35:] = -1
    made = net.generate(ids, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made[:, :35], ids[:, :35])
    assert int(made.min()) >= 0


def test_errors() -> None:
    with pytest.raises(ValueError, match="latent_dim is 0"):
        network(latent_dim=0)
    for wrong in ([60], [9, 3], [5, 5]):
        with pytest.raises(ValueError, match="--style-at must rise within what is made"):
            carried(network(), style_at=wrong)
