"""LoRA by YAML: what is trained and what is not, the count, resuming, merging, and errors with their place."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("peft")

from codes.entries import LoraOptions
from codes.models.front_end import FrontEnd
from codes.models.gpt import Gpt
from codes.models.lofi_gan import LofiDiscriminator
from codes.trainer.check import check
from codes.trainer.lora import add_lora, merge_lora
from codes.yaml_source import OptionError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import export_lora  # type: ignore[import-not-found]

LM: dict[str, Any] = {
    "datasets": {"train": {"mode": "toy_tokens", "vocabulary": 16, "length": 12, "batch_size": 4}, "val": {}},
    "networks.net": {
        "which_model": "gpt",
        "kwargs": {"bits": 4, "num_channels": 1, "layers": 1, "model_dim": 16, "heads": 2},
        "lora": {"r": 3, "alpha": 6.0, "targets": ["qkv", "output", "tables.0"]},
    },
    "steps.fit.injectors": {"predict": {"type": "generator", "generator": "net", "in": "ids", "out": "nats"}},
    "steps.fit.losses": {"code_length": {"type": "code_length", "nats": "nats"}},
    "train.niter": 4,
}
TRAINED = 3 * (16 + 48) + 3 * (16 + 16) + 3 * (16 + 16)  # r (in + out) of qkv, the head and the embedding


def test_only_the_adapters_are_trained_and_their_number_is_said(toy: Any, weights: Any) -> None:
    trainer = toy.trainer(LM | {"steps.fit.optimizer_params": {"lr": 0.05, "weight_decay": 0.1}})
    before = weights(trainer)
    network = trainer.parts.networks["net"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == TRAINED
    assert trainer.train()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert len(moved) == 6
    frozen = sum(value.numel() for name, value in before.items() if "lora_" not in name)
    text = (trainer.folder.path / "log.txt").read_text()
    assert f"network net: LoRA of rank 3 on 3 layers trains {TRAINED:,} parameters beside {frozen:,} frozen" in text


def test_check_counts_what_is_trained(toy: Any) -> None:
    from codes.experiment import load_experiment

    text = check(load_experiment(toy.write(LM)))
    row = next(line.split() for line in text.splitlines() if line.startswith("net "))
    assert row[2] == f"{TRAINED:,}"
    assert int(row[1].replace(",", "")) > TRAINED


def test_resuming_is_exact(toys: Any, weights: Any, same: Any, lines: Any) -> None:
    dropping = LM | {
        "datasets": {"train": LM["datasets"]["train"]},
        "networks.net.lora.dropout": 0.3,
        "logger.save_checkpoint_freq": 2,
    }
    whole, halves = toys(), toys()
    one = whole.train(dropping)
    halves.train(dropping | {"train.niter": 2})
    other = halves.train(dropping)
    assert same(weights(one), weights(other))
    assert lines(one.folder.path) == lines(other.folder.path)


def test_accumulation_changes_nothing(toys: Any, weights: Any) -> None:
    one, other = toys().train(LM), toys().train(LM | {"train.mega_batch_factor": 4})
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", ["qvk", "attention", "tables.7"])
def test_a_target_that_matches_nothing_is_said_with_its_place(toy: Any, target: str) -> None:
    what = "cannot be adapted as a layer" if target == "attention" else "is no layer"
    text = rf"toy.yml:(\d+):\d+: lora.targets: '{re.escape(target)}' {what} of network net"
    with pytest.raises(OptionError, match=text) as caught:
        toy.trainer(LM | {"networks.net.lora.targets": ["qkv", target]})
    found = re.search(text, str(caught.value))
    assert found is not None
    assert abs(int(found.group(1)) - toy.line("targets:")) <= 1
    assert "did you mean 'qkv'?" in str(caught.value) or target != "qvk"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks.net.lora.targets": []}, "targets must name one layer or more"),
        ({"networks.net.lora.r": 0}, "r must be a whole number at least 1"),
        ({"networks.net.trainable": False}, "lora adds what is trained: trainable cannot be false"),
        ({"networks.net.lora.rank": 4}, "unknown key 'rank'"),
    ],
)
def test_wrong_options_are_explained(toy: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        toy.trainer(LM | changes)


KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all of a gpt": ({"bits": 8}, ["qkv", "out", "up", "output", "tables.0"]),
    "tied": ({"bits": 8, "tied": True}, ["output", "tables.0"]),
    "65,536 codes": ({"bits": 16}, ["output", "qkv"]),
    "bytes": ({"bits": 16, "head": "bytes"}, ["high", "low", "low_hidden", "low_given_high"]),
    "logistics": ({"bits": 16, "head": "logistics", "input": "both"}, ["output", "linear", "tables.1"]),
    "convolutions": ({"bits": 8, "front_end": FrontEnd(strides=[2], dims=[8], kernel=3)}, ["taps", "up"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_and_the_count_is_the_formula(kind: str) -> None:
    torch.manual_seed(0)
    options, targets = KINDS[kind]
    network = Gpt(model_dim=16, heads=2, layers=1, num_channels=1, **options)
    ids = torch.randint(0, network.vocabulary, (2, 20))
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    before = network(ids)
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d) and name.endswith(tuple(targets))
    }
    add_lora(network, "lm", LoraOptions(r=2, alpha=4.0, targets=targets))
    torch.testing.assert_close(network(ids), before)  # adapters begin at nothing
    trained = [p for p in network.parameters() if p.requires_grad]
    expected = sum(2 * (module.weight[0].numel() + len(module.weight)) for module in layers.values())
    assert sum(p.numel() for p in trained) == expected
    for parameter in trained:
        parameter.data += torch.randn_like(parameter) * 0.3
    unmerged = network(ids)
    unmerged.mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
    assert not torch.allclose(unmerged, before, atol=1e-3)
    merge_lora(network)
    torch.testing.assert_close(network(ids), unmerged, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name in network.state_dict())


def test_adapting_a_tied_table_unties_it() -> None:
    network = Gpt(bits=8, model_dim=16, heads=2, layers=1, tied=True)
    line = add_lora(network, "lm", LoraOptions(targets=["output"]))
    assert line.endswith("head.output no longer shares its weights")


def test_a_weight_that_is_made_anew_at_every_pass_is_none_to_adapt() -> None:
    network = LofiDiscriminator(strides=[2, 5], channels=4, spectral=True)
    with pytest.raises(ValueError, match="'verdict' cannot be adapted as a layer of network judge"):
        add_lora(network, "judge", LoraOptions(targets=["verdict"]))


# --- export


def test_export_writes_weights_that_load_without_lora(toy: Any, tmp_path: Path, capsys: Any) -> None:
    from codes.experiment import load_experiment
    from codes.trainer.build import build

    trainer = toy.train(LM | {"steps.fit.optimizer_params": {"lr": 0.05}, "train.ema_enabled": True})
    ids = torch.randint(0, 16, (2, 12))
    with torch.no_grad():
        expected = trainer.parts.networks["net"].eval()(ids)
    out = tmp_path / "merged" / "net.safetensors"
    assert export_lora.main(["--run", str(trainer.folder.path), "--out", str(out)]) == 0
    assert "step_00000004 with its adapters merged" in capsys.readouterr().out
    file = toy.write(LM | {"networks.net.lora": toy.drop, "path.pretrain_model_net": str(out), "name": "again"})
    parts = build(load_experiment(file))
    with torch.no_grad():
        torch.testing.assert_close(parts.networks["net"].eval()(ids), expected, rtol=1e-4, atol=1e-4)
    assert export_lora.main(["--run", str(trainer.folder.path), "--out", str(out), "--ema"]) == 0


def test_export_says_where_weights_must_not_be_tied(toy: Any, tmp_path: Path, capsys: Any) -> None:
    tied = LM | {"networks.net.kwargs.tied": True, "networks.net.lora.targets": ["output"]}
    trainer = toy.train(tied | {"steps.fit.optimizer_params": {"lr": 0.05}})
    assert export_lora.main(["--run", str(trainer.folder.path), "--out", str(tmp_path / "x.safetensors")]) == 0
    assert "load it into a network whose weights are not tied" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*swig.*:DeprecationWarning")
def test_export_of_t5_for_transformers(toy: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"bits": 4, "layers": 1, "model_dim": 16, "feed_forward_dim": 16, "heads": 2, "alignment": "none"}
    t5 = {
        "networks.net": {"which_model": "t5", "kwargs": sizes,
                         "lora": {"r": 2, "targets": ["q", "k", "v", "o", "wi", "wo", "table", "output"]}},
        "steps.fit.injectors.predict.in": ["ids", "ids"],
    }  # fmt: skip
    trainer = toy.train(LM | t5)
    arguments = ["--run", str(trainer.folder.path), "--out", str(tmp_path / "x.safetensors"), "--hub"]
    assert export_lora.main([*arguments, str(tmp_path / "hub")]) == 0
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "hub")
    assert model.config.vocab_size == 17
    attention = 12 * 2 * (16 + 16)  # q k v o of encoder, decoder and cross-attention
    feed_forward = 4 * 2 * (16 + 16)
    tables = 2 * (17 + 16) + 2 * (16 + 16)
    text = (trainer.folder.path / "log.txt").read_text()
    assert f"trains {attention + feed_forward + tables:,} parameters" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "nett"], "there is no network 'nett' with lora; did you mean 'net'?"),
        (["--hub", "x"], "network net cannot be saved for transformers"),
        (["--checkpoint", "nowhere"], "nowhere is not a checkpoint"),
    ],
)
def test_export_explains_what_it_cannot_do(
    toy: Any, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    trainer = toy.train(LM)
    common = ["--run", str(trainer.folder.path), "--out", str(tmp_path / "x.safetensors")]
    assert export_lora.main([*common, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_export_of_a_run_without_lora(toy: Any, tmp_path: Path, capsys: Any) -> None:
    trainer = toy.train(LM | {"networks.net.lora": toy.drop})
    arguments = ["--run", str(trainer.folder.path), "--out", str(tmp_path / "x.safetensors")]
    assert export_lora.main(arguments) == 2
    assert "no network has lora" in capsys.readouterr().err
