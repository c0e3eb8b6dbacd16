"""codes_gpt: first loss, causality by column, cached sampling equal to none, blanks, and bad input."""

import math
from typing import Any

import pytest
import torch

from codes.models.codes_gpt import CodesGpt

SMALL: dict[str, Any] = {"num_codebooks": 3, "codebook_size": 16, "layers": 2, "model_dim": 32, "heads": 2}


def grid(batch: int = 2, steps: int = 10) -> torch.Tensor:
    return torch.randint(17, (batch, 3, steps))


@pytest.mark.parametrize("tied", [True, False])
def test_first_loss_is_that_of_a_uniform_guess(tied: bool) -> None:
    network = CodesGpt(**{**SMALL, "codebook_size": 256, "model_dim": 384, "heads": 6, "tied": tied})
    nats = network(torch.randint(256, (2, 3, 40)))
    assert abs(float(nats.detach().mean()) - math.log(256)) < 0.1
    assert all(parameter.grad is not None for parameter in _with_gradients(network, nats))


def _with_gradients(network: CodesGpt, nats: torch.Tensor) -> list[torch.nn.Parameter]:
    nats.sum().backward()
    return [network.tables, network.start]


def test_a_column_depends_on_those_before_it_alone() -> None:
    network = CodesGpt(**{**SMALL, "tied": True}).eval()
    first = torch.randint(16, (1, 3, 10))
    other = first.clone()
    other[:, :, 6] = (first[:, :, 6] + 1) % 16
    with torch.no_grad():
        a, b = network.logits(network.transformer(network.embed(first))), network.logits(
            network.transformer(network.embed(other))
        )  # fmt: skip
    assert torch.equal(a[:, :, :7], b[:, :, :7])
    assert not torch.equal(a[:, :, 7:], b[:, :, 7:])


def test_blanks_cost_nothing() -> None:
    network = CodesGpt(**SMALL)
    codes = grid()
    assert torch.equal(network(codes) == 0, codes == 16)


@pytest.mark.parametrize("tied", [True, False])
def test_cached_sampling_equals_the_parallel_pass(tied: bool) -> None:
    network = CodesGpt(**{**SMALL, "tied": tied, "max_length": 16}).eval()
    if network.outputs is not None:
        torch.nn.init.normal_(network.outputs)
    codes = torch.randint(16, (2, 3, 14))
    codes[:, :, 5:] = -1
    made = network.generate(codes, temperature=0)
    assert torch.equal(made[:, :, :5], codes[:, :, :5])
    with torch.no_grad():
        parallel = network.logits(network.transformer(network.embed(made))).argmax(-1)
    assert torch.equal(made[:, :, 5:], parallel[:, :, 5:])


def test_long_grids_go_on_with_the_last_half() -> None:
    network = CodesGpt(**{**SMALL, "max_length": 8})
    codes = torch.full((1, 3, 40), -1)
    codes[:, :, :20] = torch.randint(16, (1, 3, 20))
    seen: list[int] = []
    generator = torch.Generator().manual_seed(1)
    made = network.generate(codes, top_k=4, top_p=0.9, generator=generator, emit=lambda _, done: seen.append(done))
    assert ((made >= 0) & (made < 16)).all()
    assert seen == [40]
    again = network.generate(codes, top_k=4, top_p=0.9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made, again)
    assert network.training


def test_bad_input() -> None:
    network = CodesGpt(**SMALL)
    with pytest.raises(ValueError, match=r"it needs \(B, 3, S\)"):
        network(torch.zeros(1, 2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"codes from 0 to 17: they must be -1 \(free\) to 16"):
        network.generate(torch.tensor([[[0], [17], [0]]]))
    with pytest.raises(ValueError, match=r"it needs \(B, 3, S\)"):
        network.generate(torch.zeros(1, 3, 0, dtype=torch.long))
    for options, message in (
        ({"model_dim": 30}, "model_dim is 30"), ({"layers": 0}, "layers is 0"), ({"max_length": 3}, "max_length is 3"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            CodesGpt(**{**SMALL, "heads": 4, **options})
