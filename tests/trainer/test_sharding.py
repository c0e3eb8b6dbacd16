"""FSDP2 takes the networks that there are: lists of blocks inside lists, tied tables; fp16; samples from copies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from codes.experiment import load_experiment
from codes.models.codes_gpt import CodesGpt
from codes.models.front_end import FrontEnd
from codes.models.gpt import Gpt
from codes.trainer.build import build
from codes.trainer.distributed import Ranks
from codes.trainer.distributed_checkpoint import is_sharded
from codes.trainer.distributed_step import shard
from codes.trainer.optim import Updater
from codes.trainer.sharded_samples import WholeCopies

TINY = Path(__file__).resolve().parents[2] / "experiments" / "tiny_cpu.yml"
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
    assert numbers / 2 <= sum(p.to_local().numel() for p in parameters) < 0.6 * numbers


@pytest.fixture
def alone() -> Any:
    """A group of this process alone, whose messages are real."""
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    yield
    distributed.destroy_process_group()


def test_a_part_that_is_not_finite_skips_the_update_of_all_under_fp16(alone: Any, toy: Any) -> None:
    """torch brings the finding together over the processes for gradients in parts, as its ShardedGradScaler did."""
    torch.manual_seed(0)
    network = Gpt(bits=8, **SMALL)
    shard(network, keep_gathered=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    updater = Updater(network, torch.optim.AdamW([{"params": network.parameters(), "base_lr": 0.1}], fused=True), 1.0,
                      scaler)  # fmt: skip
    options, ids = toy.trainer().options.train, torch.randint(0, 256, (2, 16))
    scales = []
    for number in (1, 2, 3):
        updater.zero_grad()
        scaler.scale(network(ids).mean()).backward()
        before = [p.full_tensor().clone() for p in network.parameters()]  # type: ignore[operator]
        if number == 2:
            gradient: Any = updater.parameters[0].grad
            gradient.to_local().view(-1)[0] = torch.inf
        updater.update(number, options)
        scaler.update()
        scales.append(scaler.get_scale())
        pairs = zip(before, network.parameters(), strict=True)
        assert all(torch.equal(one, other.full_tensor()) for one, other in pairs) == (number == 2)  # type: ignore
    assert scales == [1024.0, 512.0, 512.0]
    updater.read_norms()
    assert updater.skipped == 1


def test_copies_have_the_weights_that_are_held_in_parts(
    alone: Any, tmp_path: Path, make_stereo_folder: Callable[..., Path]
) -> None:
    folder = make_stereo_folder(num_files=4, num_samples=4096)
    overrides = [f"datasets.train.path={folder}", f"path.root={tmp_path}", "samples.new_frames=4"]
    experiment = load_experiment(TINY, overrides)
    copies, network = WholeCopies(experiment, Ranks()), build(experiment).networks["lm"]
    for parameter in network.parameters():
        parameter.data += 1
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    shard(network, keep_gathered=False)
    assert copies.parts is not None
    assert copies.sampler is not None
    own = copies.parts.networks["lm"].state_dict()
    assert not any(torch.equal(own[name], value) for name, value in expected.items() if value.numel() > 1)
    with copies.loaded({"lm": network}):
        own = copies.parts.networks["lm"].state_dict()
        assert all(torch.equal(own[name], value) for name, value in expected.items())
    others = WholeCopies(load_experiment(TINY, [*overrides, "samples="]), Ranks())
    assert others.sampler is None
    with others.loaded({"lm": network}):
        pass
