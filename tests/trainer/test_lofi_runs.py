"""The lo-fi experiments as runs: they continue bit for bit; the GAN's steps alternate with an optimizer each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.yaml_source import OptionError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def make_run(tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> Callable[..., ExtensibleTrainer]:
    music = make_stereo_folder(num_samples=60_000)

    def make(experiment: str, folder: str, steps: int, *more: str) -> ExtensibleTrainer:
        overrides = [
            f"datasets.train.path={music}", f"path.root={tmp_path / folder}", f"train.niter={steps}",
            "eval.max_batches=1",
            "datasets.train.batch_size=2", "datasets.val.batch_size=2", "datasets.train.n_workers=0",
            "use_tb_logger=false", "train.default_lr_scheme=constant", "samples=null", *more,
        ]  # fmt: skip
        return ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{experiment}.yml", overrides))

    return make


def everything(trainer: ExtensibleTrainer) -> dict[str, torch.Tensor]:
    found = {f"{n}.{k}": v for n, network in trainer.parts.networks.items() for k, v in network.state_dict().items()}
    for name, updaters in trainer.parts.updaters.items():
        for state in updaters[0].optimizer.state_dict()["state"].values():
            found |= {f"{name} optimizer {len(found)}": value for value in state.values()}
    return found


MORE = {
    "lofi_lstm": ["steps.lstm.injectors.teacher.ratio={from: 0.9, to: 0.1, start_step: 1, end_step: 4}"],
    "lofi_variational": [],
    "lofi_gan": ["networks.discriminator.kwargs.spectral=true"],
    "lofi_conv_lstm": ["steps.lstm.after=1", "steps.codec.before=3"],
}


@pytest.mark.parametrize("experiment", MORE)
def test_a_run_continues_bit_for_bit(experiment: str, make_run: Callable[..., ExtensibleTrainer]) -> None:
    whole = make_run(experiment, "whole", 4, *MORE[experiment])
    whole.train()
    make_run(experiment, "parts", 2, *MORE[experiment]).train()
    second = make_run(experiment, "parts", 4, *MORE[experiment])
    assert second.step == 2
    second.train()
    expected, found = everything(whole), everything(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_both_optimizers_of_the_gan_come_back(make_run: Callable[..., ExtensibleTrainer]) -> None:
    first = make_run("lofi_gan", "gan", 3)
    first.train()
    second = make_run("lofi_gan", "gan", 6)
    for name in ("generator", "discriminator"):
        states = [t.parts.updaters[name][0].optimizer.state_dict()["state"] for t in (first, second)]
        assert len(states[0]) == len(list(first.parts.networks[name].parameters()))
        assert sum(float(state["exp_avg"].abs().sum()) for state in states[0].values()) > 0
        for was, now in zip(states[0].values(), states[1].values(), strict=True):
            assert float(was["step"]) == float(now["step"]) == 3
            assert torch.equal(was["exp_avg"], now["exp_avg"])


def test_generator_and_discriminator_are_each_trained_by_their_step(make_run: Callable[..., ExtensibleTrainer]) -> None:
    trainer = make_run("lofi_gan", "gan", 1, "steps.discriminator.every=2")
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in trainer.parts.networks.items()}
    trainer.train()

    def moved(name: str) -> bool:
        now = trainer.parts.networks[name].parameters()
        return any(not torch.equal(a, b) for a, b in zip(before[name], now, strict=True))

    assert moved("generator")
    assert not moved("discriminator")
    rates = {n: u[0].optimizer.param_groups[0]["base_lr"] for n, u in trainer.parts.updaters.items()}
    assert rates["discriminator"] == 2 * rates["generator"]


@pytest.mark.parametrize("kind", ["gan", "hinge"])
def test_the_gan_trains_with_either_loss_and_reports_collapse(
    kind: str, make_run: Callable[..., ExtensibleTrainer], lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    more = [
        f"steps.generator.losses.generator.gan_type={kind}",
        f"steps.discriminator.losses.discriminator.gan_type={kind}",
    ]
    run = make_run("lofi_gan", kind, 2, *more)
    run.train()
    val = [line for line in lines(run.folder.path) if line["split"] == "val"][-1]
    assert val["noise_distance"] > 0
    assert val["r1"] >= 0


def test_validation_repeats(make_run: Callable[..., ExtensibleTrainer], lines: Callable[[Path], Any]) -> None:
    run = make_run("lofi_variational", "val", 1)
    run.train()
    run.evaluation.validate(1)
    first, second = [line for line in lines(run.folder.path) if line["split"] == "val"][-2:]
    assert first == second
    assert first["kl"] > 0


def test_the_same_experiment_trains_at_three_rates(make_run: Callable[..., ExtensibleTrainer]) -> None:
    for rate in (4410, 8000, 16000):
        assert make_run("lofi_lstm", str(rate), 1, f"datasets.train.sample_rate={rate}").train()


def test_a_pretrained_codec_stays_frozen(tmp_path: Path, make_run: Callable[..., ExtensibleTrainer]) -> None:
    first = make_run("lofi_conv_lstm", "codec", 1)
    first.train()
    weights = first.folder.checkpoints / "step_00000001" / "codec.safetensors"
    options = yaml.safe_load((EXPERIMENTS / "lofi_conv_lstm.yml").read_text())
    del options["steps"]["codec"], options["steps"]["lstm"]["after"]
    options["networks"]["codec"]["trainable"] = False
    options["path"] = {"pretrain_model_codec": str(weights), "root": str(tmp_path / "second")}
    options["datasets"]["train"] |= {"path": str(tmp_path / "music"), "batch_size": 2, "n_workers": 0}
    options["train"]["niter"], options["use_tb_logger"] = 2, False
    file = tmp_path / "second.yml"
    file.write_text(yaml.safe_dump(options, sort_keys=False))
    second = ExtensibleTrainer(load_experiment(file))
    second.train()
    now, was = second.parts.networks["codec"].state_dict(), first.parts.networks["codec"].state_dict()
    assert all(torch.equal(now[key], was[key]) for key in was)
    assert not (second.folder.checkpoints / "step_00000002" / "codec.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("datasets.train.next_frames=[0, 256]", "next_frames must be one length or .* of 1 or more, got [0, 256]"),
        ("datasets.train.prev_frames=400000", "are shorter than what an item takes"),
        ("networks.lstm.kwargs.next_steps=0", "next_steps is 0: it must be 1 or more"),
        ("networks.lstm.kwargs.output=text", "output"),
        ("steps.lstm.injectors.teacher.ratio=1.5", "ratio must be 0 to 1, got 1.5"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    change: str, message: str, make_run: Callable[..., ExtensibleTrainer]
) -> None:
    with pytest.raises(OptionError) as raised:
        make_run("lofi_lstm", "wrong", 1, change)
    assert re.search(message.replace("[", r"\["), str(raised.value))
    places = [line.split(": ")[0] for line in str(raised.value).splitlines()]
    assert all(re.fullmatch(r"(.*lofi_lstm\.yml:\d+:\d+|.*=.*:\d+:\d+)", place) for place in places), places


def test_an_autoencoder_that_is_none_is_said_with_its_place(make_run: Callable[..., ExtensibleTrainer]) -> None:
    with pytest.raises(OptionError, match=r"autoencoder=lstm>:1:\d+: .* must have encode\(\) and decode"):
        make_run("lofi_conv_lstm", "wrong", 1, "steps.lstm.injectors.encode.autoencoder=lstm")


@pytest.mark.parametrize(
    ("name", "network", "frames"), [("lofi_gan", "generator", 600), ("lofi_conv_lstm", "lstm", 100)]
)
def test_networks_of_floats_are_heard_during_a_run(
    name: str, network: str, frames: int, make_run: Callable[..., ExtensibleTrainer]
) -> None:
    samples = f"samples={{network: {network}, num: 2, prompt_frames: {frames}, new_frames: 500}}"
    run = make_run(name, "heard", 1, samples)
    assert all(module.training for module in run.parts.networks.values())  # as it was before the rehearsal
    run.train()
    folder = run.folder.samples / "step_00000001"
    for number in range(2):
        made, real = (soundfile.read(folder / f"{number}_{kind}.wav", dtype="int16")[0] for kind in ("model", "real"))
        assert made.shape == real.shape == (frames + 500,)
        assert np.array_equal(made[:frames], real[:frames])
        assert not np.array_equal(made[frames:], real[frames:])
