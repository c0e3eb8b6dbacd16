"""Compiled networks, counted operations, MFU; nothing of it changes what is trained."""

from typing import Any

import pytest
import torch

from codes.trainer.speed import GPUS, Speed, gpu_named, step_flops


def test_counted_operations_are_those_of_the_matrix_products(toy: Any) -> None:
    """Two layers of 6 x 8: forward 2 products, backward 2 of each for weights and one for the hidden values."""
    trainer = toy.trainer({"train.mega_batch_factor": 2})
    batch = trainer.parts.train_loader.batch(0)
    one_product = 2 * 8 * 6 * 8  # batch of 8
    assert step_flops(trainer.parts, batch, 1, trainer.options.train) == one_product * (2 + 2 + 1)


def test_counting_changes_nothing(toys: Any, weights: Any, same: Any) -> None:
    """Weights, buffers that are bound anew, modes and random numbers are as if nobody had counted."""
    changes = {
        "networks.net": {"which_model": "toy_buffers"},
        "networks.drop": {"which_model": "toy_mlp", "kwargs": {"dropout": 0.5}},
        "steps.fit.training": ["net", "drop"],
        "steps.fit.injectors": {
            "first": {"type": "generator", "generator": "drop", "in": "x", "out": "z"},
            "predict": {"type": "generator", "generator": "net", "in": "z", "out": "fake"},
        },
    }
    found = []
    for count in (False, True):
        trainer = toys().trainer(changes)
        if count:
            step_flops(trainer.parts, trainer.parts.train_loader.batch(0), 1, trainer.options.train)
        trainer._random = None
        trainer.train()
        found.append(weights(trainer) | weights(trainer, "drop"))
    assert same(*found)


def test_mfu_is_a_share_of_the_peak(toy: Any) -> None:
    trainer = toy.trainer()
    speed = Speed(trainer.parts, trainer.options)
    assert speed.peak_flops is None  # a CPU
    assert speed.figures(10.0) == {}
    speed.peak_flops = 1e6
    speed.count(0)
    assert speed.step_flops == 2 * 8 * 6 * 8 * 5
    assert speed.figures(10.0) == {"mfu": pytest.approx(speed.step_flops * 10 / 1e6)}


def test_gpus_by_the_names_that_torch_gives() -> None:
    assert gpu_named("NVIDIA H200") is GPUS["h200"]
    assert gpu_named("NVIDIA GeForce RTX 4090") is GPUS["4090"]
    assert gpu_named("NVIDIA L40S") is GPUS["l40s"]
    assert gpu_named("Voodoo") is None
    assert GPUS["h200"].peak_flops(torch.bfloat16, False) == 989e12
    assert GPUS["a100"].peak_flops(torch.float32, True) == 156e12
    assert GPUS["a100"].peak_flops(torch.float32, False) == 19.5e12


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_of_products_and_of_convolutions(toy: Any, tf32: bool) -> None:
    toy.trainer({"tf32": tf32})
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch itself
def test_compiled_networks_train_as_others_do(toys: Any, weights: Any) -> None:
    plain = toys().train({"train.niter": 3})
    compiled = toys().train({"train.niter": 3, "compile": True, "compile_mode": "eager"})
    assert compiled.parts.networks["net"]._compiled_call_impl is not None
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-6)
    assert weights(compiled).keys() == weights(plain).keys()  # a checkpoint of one fits the other


def test_what_is_differentiated_twice_is_not_compiled(toy: Any) -> None:
    trainer = toy.trainer({
        "compile": True,
        "steps.fit.injectors.penalty": {
            "type": "gradient_penalty", "discriminator": "net", "in": "x", "out": "penalty",
        },
        "steps.fit.losses.penalty": {"type": "direct", "key": "penalty"},
    })  # fmt: skip
    assert trainer.parts.networks["net"]._compiled_call_impl is None
    assert "network net is not compiled: a gradient penalty differentiates it twice" in trainer.parts.notes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu(toy: Any) -> None:
    trainer = toy.trainer({"gpu_ids": [0], "compile": True, "bf16": True, "train.niter": 100})
    batches = [trainer.parts.train_loader.next() for _ in range(6)]
    for number, batch in enumerate(batches[:3]):
        trainer.run_batch({k: v.cuda() if hasattr(v, "cuda") else v for k, v in batch.items()}, number + 1)
    later = [{k: v.cuda() if hasattr(v, "cuda") else v for k, v in batch.items()} for batch in batches[3:]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, batch in enumerate(later):
            trainer.run_batch(batch, number + 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
