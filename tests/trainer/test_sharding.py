"""FSDP2 takes the networks that there are: lists of blocks inside lists, tied tables."""

from typing import Any

import pytest
import torch
from torch import distributed

from codes.models.codes_gpt import CodesGpt
from codes.models.front_end import FrontEnd
from codes.models.gpt import Gpt
from codes.trainer.distributed_checkpoint import is_sharded
from codes.trainer.distributed_step import shard

SMALL: dict[str, Any] = {"layers": 2, "model_dim": 32, "heads": 2}
NETWORKS: dict[str, Any] = {
    "ids": lambda: Gpt(bits=8, **SMALL),
    "bytes and values": lambda: Gpt(bits=16, head="bytes", input="both", convolution=8, **SMALL),
    "tied": lambda: Gpt(bits=8, tied=True, **SMALL),
    "hierarchy": lambda: Gpt(bits=8, front_end=FrontEnd(strides=[2, 2], dims=[16, 24], kernel=4), **SMALL),
    "codes": lambda: CodesGpt(num_codebooks=2, codebook_size=16, **SMALL),
}


@pytest.fixture
def of_two() -> Any:
    """This process is the first of two; the other one is not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_is_held_in_parts(kind: str, of_two: Any) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    numbers = sum(p.numel() for p in network.parameters())
    shard(network, keep_gathered=False)
    parameters = list(network.parameters())
    assert all(is_sharded(p) for p in parameters)
    assert sum(p.numel() for p in parameters) == numbers
    assert numbers / 2 <= sum(p.to_local().numel() for p in parameters) < 0.6 * numbers  # type: ignore[operator]
