"""LoRA on any network, through peft: adapters put in, counted, and merged into the weights again.

The network keeps its class and its forward(); layers that are adapted are wrapped where they are. A checkpoint holds
the frozen weights and the adapters, so resuming needs nothing else.
"""

import re
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from codes.convert import did_you_mean
from codes.entries import Entry, Experiment, LoraOptions
from codes.trainer import checkpoint as checkpoints

ADAPTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def add_lora(network: nn.Module, name: str, options: LoraOptions) -> str:
    """Freeze a network and give the target layers adapters, in place.

    Args:
        network: with its pretrained weights loaded.
        name: of the network, for people.
        options: rank, strength, dropout and targets.

    Returns:
        a line that says how much is trained.

    Raises:
        ValueError: a target matches no layer that can be adapted.
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(f"lora needs peft: pip install peft ({error})") from error

    chosen = _matching(network, name, options.targets)
    untied = _untie(network, chosen)
    config = LoraConfig(
        r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout,  # type: ignore[arg-type]
        target_modules="|".join(re.escape(layer) for layer in chosen),  # a text is a pattern for the whole name
    )  # fmt: skip
    total = sum(p.numel() for p in network.parameters())
    inject_adapter_in_model(config, network)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    rest = f"; {', '.join(untied)} no longer shares its weights" if untied else ""
    what = f"LoRA of rank {options.r} on {len(chosen)} layers"
    return f"network {name}: {what} trains {trained:,} parameters beside {total:,} frozen ones{rest}"


def _matching(network: nn.Module, name: str, targets: list[str]) -> list[str]:
    """The names of the layers that the targets mean, in the network's order."""
    layers = [title for title, module in network.named_modules() if _adaptable(module)]
    for target in targets:
        if not any(_means(target, layer) for layer in layers):
            others = {layer.rpartition(".")[2] for layer in layers if not layer.rpartition(".")[2].isdigit()}
            known = {title for title, _ in network.named_modules()}
            what = "cannot be adapted as a layer" if any(_means(target, title) for title in known) else "is no layer"
            raise ValueError(f"lora.targets: {target!r} {what} of network {name}{did_you_mean(target, others)}")
    return [layer for layer in layers if any(_means(target, layer) for target in targets)]


def _adaptable(module: nn.Module) -> bool:
    """Whether it has a weight of its own: spectral norm and the like make it anew at every pass."""
    return isinstance(module, ADAPTED) and not is_parametrized(module)


def _means(target: str, layer: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def _untie(network: nn.Module, chosen: list[str]) -> list[str]:
    """Give adapted layers that share their weight with another one a copy of it; returns their names."""
    owners: dict[int, list[str]] = {}
    for title, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(title)
    untied = []
    for title in chosen:
        layer: Any = network.get_submodule(title)
        shared = owners[id(layer.weight)]
        if len(shared) > 1:
            shared.remove(title)
            layer.weight = nn.Parameter(layer.weight.detach().clone())
            untied.append(title)
    return untied


def merge_lora(network: nn.Module) -> None:
    """Add the adapters to the weights and take them out, in place: the network is as if it had been trained whole."""
    from peft.tuners.lora import LoraLayer

    adapted = [(title, module) for title, module in network.named_modules() if isinstance(module, LoraLayer)]
    for title, module in adapted:
        layer: Any = module
        layer.merge(safe_merge=True)
        parent, _, child = title.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())


def export(
    experiment: Experiment, checkpoint: Path, out: Path, name: str | None = None, ema: bool = False,
    hub: Path | None = None,
) -> list[str]:  # fmt: skip
    """Write the merged weights of a run's network; see scripts/export_lora.py.

    Args:
        experiment: the run's options.yml.
        checkpoint: a checkpoint folder of the run.
        out: the file that is written (.safetensors).
        name: of the network; None: the one that has lora.
        ema: take the moving average of the weights.
        hub: a folder for transformers, where the network can be saved for it.

    Returns:
        lines for people.

    Raises:
        ValueError: there is no such network, or it cannot be saved for transformers.
        CheckpointError: the checkpoint cannot be read.
    """
    entry = _adapted(experiment, name)
    network, fresh = entry.built_from.build(), entry.built_from.build()
    notes = [add_lora(network, entry.name, entry.flags.lora)]
    checkpoints.verify(checkpoint)
    path = checkpoint / f"{entry.name}{'_ema' if ema else ''}.safetensors"
    checkpoints.fit_weights(network, entry.name, checkpoints.load_weights(path), path, strict=True)
    merge_lora(network)
    checkpoints.save_weights(out, network.state_dict())
    notes.append(f"{out}: {checkpoint.name} with its adapters merged")
    checkpoints.fit_weights(fresh, entry.name, checkpoints.load_weights(out), out, strict=True)
    merged = network.state_dict()
    differing = [key for key, value in fresh.state_dict().items() if not value.equal(merged[key])]
    if differing:
        notes.append(f"load it into a network whose weights are not tied ({', '.join(differing)} would be overwritten)")
    if hub is not None:
        if not hasattr(network, "save_pretrained"):
            raise ValueError(f"network {entry.name} cannot be saved for transformers (which_model: t5 can)")
        network.save_pretrained(hub)
        notes.append(f"{hub}: the same for transformers")
    return notes


def _adapted(experiment: Experiment, name: str | None) -> Entry:
    """The network's entry."""
    with_lora = [title for title, entry in experiment.networks.items() if entry.flags.lora is not None]
    if name is None and len(with_lora) != 1:
        count = f"{len(with_lora)} networks have lora, name one" if with_lora else "no network has lora"
        raise ValueError(f"{experiment.file}: {count}")
    chosen = name or with_lora[0]
    if chosen not in with_lora:
        raise ValueError(
            f"{experiment.file}: there is no network {chosen!r} with lora{did_you_mean(chosen, with_lora)}"
        )
    return experiment.networks[chosen]
