"""generator and discriminator."""

import pytest
import torch
from torch import Tensor, nn

from codes.trainer.injectors.network import DiscriminatorInjector, GeneratorInjector


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(first), second


def test_networks_are_called_with_the_values_in_order() -> None:
    network = Pair()
    first, second = torch.randn(2, 3), torch.randn(2, 5)
    for injector in (GeneratorInjector(generator=network), DiscriminatorInjector(discriminator=network)):
        out, passed = injector(first, second)
        assert torch.equal(out, network.linear(first))
        assert passed is second
        with pytest.raises(NotImplementedError, match="Injector has no inverse"):
            injector.inverse(out)


def test_hooks_of_the_network_run() -> None:
    network = nn.Linear(3, 1)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    GeneratorInjector(generator=network)(torch.zeros(2, 3))
    assert calls == [1]


def test_a_frozen_discriminator_passes_gradients_to_its_input() -> None:
    network = nn.Linear(3, 1).requires_grad_(False)
    fake = torch.randn(2, 3, requires_grad=True)
    DiscriminatorInjector(discriminator=network)(fake).sum().backward()
    assert fake.grad is not None
    assert network.weight.grad is None


def test_the_network_does_not_hide_the_random_numbers() -> None:
    injector = GeneratorInjector(generator=nn.Identity())
    assert isinstance(injector.generator("cpu"), torch.Generator)
