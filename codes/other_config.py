"""A trained network of another experiment's YAML, as DL-Art-School's injectors name it by ``dvae_config``."""

from pathlib import Path
from typing import Any

from torch import nn

from codes.convert import INVALID, Component, Converter
from codes.run_files import best_checkpoint, network_weights
from codes.weights import fit_weights, load_weights
from codes.yaml_source import Mark, Node, OptionError, read_yaml


def network_of(config: Path, name: str, weights: Path | None = None) -> nn.Module:
    """Build a network of another YAML and load its weights; it is frozen and in evaluation mode.

    Only ``networks.NAME`` and ``path.pretrain_model_NAME`` of that file are read: the rest may be meant for another
    program. Without a pretrained path the weights are those of the run that the file trained, ``path.root/name``.

    Args:
        config: the YAML.
        name: of the network in it.
        weights: a file of weights, or the folder of a run, in place of what the YAML says.

    Raises:
        OptionError: what is wrong in that file, with its place.
        CheckpointError: the weights cannot be read, or do not fit.
    """
    problems: list[tuple[Mark, str]] = []
    root = read_yaml(config, [], [])
    folders = [config.resolve().parent, config.resolve().parent.parent]
    converter = Converter(problems, [*folders, Path.cwd()])
    component = _component(root, name, converter)
    if problems:
        raise OptionError(problems)
    network = component.build()
    source = weights_file(weights or _named(root, name, converter), name)
    fit_weights(network, name, load_weights(source), source, strict=True)
    return network.eval().requires_grad_(False)


def weights_file(source: Path, name: str) -> Path:
    """The file itself; of a run's folder, the moving average where there is one."""
    if not source.is_dir():
        return source
    return network_weights(best_checkpoint(source), name)


def _child(node: Node, *keys: str) -> Node | None:
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return None
        node = node.value[key]
    return node


def _component(root: Node, name: str, converter: Converter) -> Component | Any:
    entry = _child(root, "networks", name)
    if entry is None:
        networks = _child(root, "networks")
        known = ", ".join(networks.value) if networks and isinstance(networks.value, dict) else "none"
        return converter.problem(root.mark, f"there is no network {name!r} here (networks: {known})")
    for key in ("which_model", "which_model_G", "which_model_D"):
        model = _child(entry, key)
        if model is not None:
            found = converter.component("network", model, _child(entry, "kwargs") or Node({}, entry.mark))
            return found if found is not INVALID else None
    return converter.problem(entry.mark, f"networks.{name}: which_model is missing")


def _named(root: Node, name: str, converter: Converter) -> Path:
    """What the YAML says of the network's weights, else the folder of the run that it trains."""
    given = _child(root, "path", f"pretrain_model_{name}")
    if given is not None and isinstance(given.value, str):
        return converter.path(given.value, given.mark)
    title, folder = _child(root, "name"), _child(root, "path", "root")
    run = Path(str(folder.value if folder else "runs")) / str(title.value if title else "")
    found = converter.path(str(run), root.mark)
    if title is None or not (found / "checkpoints").is_dir():
        raise OptionError([(
            root.mark, f"the weights of network {name!r} are not known: give path.pretrain_model_{name}, or train this "
            f"experiment first (there is no run {run} beside it, beside its folder or here)",
        )])  # fmt: skip
    return found
