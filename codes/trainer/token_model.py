"""From a run to a model file that codes audio, and from the file back to a codec.

    data = token_model_file(Path("runs/byte_lm"))        # the best checkpoint, as one safetensors file
    codec = token_codec(data)                            # a BlockCodec, named by the file's SHA-256

The file holds the weights and, as YAML in its metadata, the network with its options and how samples become tokens: a
decoder needs neither the run nor its data. What the tokens are is read from the injectors between `wav` and the
network, and compared with what these injectors really do.
"""

import dataclasses
import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from codes import registry, resolve
from codes.compression.pcm_tokens import PcmTokens
from codes.compression.token_codec import TokenCodec
from codes.convert import INVALID, Converter, NetworkName
from codes.entries import Entry, Experiment, StepEntry
from codes.experiment import load_experiment
from codes.models.llama import Llama
from codes.models.token_walk import TokenLanguageModel, fingerprint
from codes.run_files import network_weights
from codes.trainer.checkpoint import CheckpointError, fit_weights, load_weights
from codes.trainer.run_folder import choose_checkpoint
from codes.yaml_source import Mark, Node, OptionError, parse_yaml

KEY = "waveschool_tokens"
LANES, LANE_FRAMES = 16, 2048  # a lane begins without a past: for a transformer that is a matter of a few bytes,
LANE_CONTEXTS = 16  # but linear prediction must adapt anew, so its lanes are long: so many times its context
AUDIO_KEY = "wav"


@dataclass(frozen=True, kw_only=True)
class TokenModelSpec:
    """What a model file says of itself, beside the weights.

    Args:
        which_model: the network.
        kwargs: its options.
        tokens: how samples become its tokens.
        mu_law: of a model of companded samples, the options of `mu_law`: its codes do not give back the samples.
        lanes: into how many lanes a block is cut.
        lane_frames: the least length of a lane.
    """

    which_model: str
    kwargs: dict[str, Any]
    tokens: PcmTokens
    mu_law: dict[str, Any] | None = None
    lanes: int = LANES
    lane_frames: int = LANE_FRAMES


def token_model_file(run: Path, network: str | None = None, **lanes: int) -> bytes:
    """The model file of a run's best checkpoint: the same bytes whenever it is made.

    Args:
        run: folder of the run.
        network: which of its networks; may be left out where only one is a language model of tokens.
        lanes: lanes and lane_frames, where they are not to be as usual.

    Raises:
        ValueError: the run has no such network or no whole checkpoint, or its tokens do not come from samples in a way
            that is known.
    """
    from safetensors.torch import save

    if not (run / "options.yml").is_file():
        raise ValueError(f"{run} is no folder of a run: it has no options.yml")
    experiment = load_experiment(run / "options.yml")
    name, step, reader = _reader(experiment, run, network)
    tokens, mu_law = _tokens(step, reader.flags.in_[0])
    component = experiment.networks[name].built_from
    kwargs = resolve.resolved(experiment)["networks"][name]["kwargs"]
    built: nn.Module = component.build()
    try:
        weights = load_weights(network_weights(choose_checkpoint(run), name))
        fit_weights(built, name, weights, run, strict=True)
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    if isinstance(built, Llama) and kwargs["pretrained"] is not None:
        kwargs, weights = built.portable()
    usual = {"lane_frames": _lane_frames(component.options, tokens)}
    spec = TokenModelSpec(which_model=component.type, kwargs=kwargs, tokens=tokens, mu_law=mu_law, **(usual | lanes))
    weights = {key: tensor.contiguous() for key, tensor in weights.items()}
    return save(weights, {KEY: yaml.safe_dump(dataclasses.asdict(spec), sort_keys=True)})


def _lane_frames(options: dict[str, Any], tokens: PcmTokens) -> int:
    """The least length of a lane."""
    return max(LANE_FRAMES, LANE_CONTEXTS * options.get("context", 0) // len(tokens.places))


def _reader(experiment: Experiment, run: Path, network: str | None) -> tuple[str, StepEntry, Entry]:
    """The network, the step that it is called in, and the injector that calls it."""
    found = {}
    for step in experiment.steps:
        for entry in step.injectors:
            for value in entry.built_from.options.values():
                if isinstance(value, NetworkName) and experiment.networks[value.name].built_from.type in _WALKED:
                    found.setdefault(value.name, (value.name, step, entry))
    if network is None and len(found) == 1:
        return next(iter(found.values()))
    if network in found:
        return found[network]
    known = ", ".join(sorted(found)) or "none"
    asked = f"network {network!r}" if network else "one language model of tokens"
    raise ValueError(f"{run}: expected {asked} ({' or '.join(_WALKED)}), found: {known}")


_WALKED = ("gpt", "llama")


def _tokens(step: StepEntry, key: str) -> tuple[PcmTokens, dict[str, Any] | None]:
    """How the key that a network reads is made of samples; options of `mu_law` where it is in between.

    Raises:
        ValueError: by other injectors than those that are known here.
    """
    chain: list[Entry] = []
    makers = {out: entry for entry in step.injectors if not entry.flags.train for out in entry.flags.out}
    while key in makers:
        chain.insert(0, makers[key])
        key = chain[0].flags.in_[0]
    types = [entry.built_from.type for entry in chain]
    allowed = {"interleave_channels", "byte_split", "direct"}
    if key != AUDIO_KEY or not types or types[0] not in ("pcm_quantize", "mu_law") or not set(types[1:]) <= allowed:
        raise ValueError(
            f"step {step.name}: tokens made of {key!r} by {', '.join(types) or 'nothing'} cannot be coded: it must be "
            f"pcm_quantize (or mu_law) of {AUDIO_KEY!r}, then interleave_channels and, for bytes, byte_split"
        )
    options = [_options(entry) for entry in chain]
    by_type = dict(zip(types, options, strict=True))
    split = by_type.get("byte_split")
    bits = options[0]["bits"]
    layout = PcmTokens(
        bits=bits,
        num_channels=by_type.get("interleave_channels", {"num_channels": 1})["num_channels"],
        num_bytes=-(-bits // 8) if split else 1,
        distinct=bool(split and split["distinct"]),
        bytes_apart=bool(split and "interleave_channels" in types[types.index("byte_split") :]),
    )
    mu_law = options[0] if types[0] == "mu_law" else None
    _compare(layout, chain[1:] if mu_law else chain, mu_law is not None, step.name)
    return layout, mu_law


def _options(entry: Entry) -> dict[str, Any]:
    schema = registry.options_of(entry.built_from.cls)
    defaults = {name: option.default for name, option in schema.items() if not option.required}
    return defaults | entry.built_from.options


def _compare(layout: PcmTokens, chain: list[Entry], centred: bool, step: str) -> None:
    """What the injectors make of some samples must be what the layout makes of them."""
    generator = torch.Generator().manual_seed(0)
    half = 1 << (layout.bits - 1)
    pcm = torch.randint(-half, half, (1, layout.num_channels, 64), generator=generator)
    value: Any = pcm + half if centred else pcm
    for entry in chain:
        injector = entry.built_from.build()
        if hasattr(injector, "input_bits"):
            injector.input_bits = layout.bits
        value = injector.forward(value)
    if not torch.equal(value.flatten(), torch.from_numpy(layout.tokens(pcm[0].numpy()).reshape(-1))):
        raise ValueError(f"step {step}: its injectors do not give the tokens of {layout}")


def read_spec(data: bytes) -> TokenModelSpec:
    """What a model file says of itself.

    Raises:
        ValueError: it is no model file of tokens.
    """
    try:
        (size,) = struct.unpack_from("<Q", data)
        text = json.loads(data[8 : 8 + size])["__metadata__"][KEY]
        values = yaml.safe_load(text)
        return TokenModelSpec(**{**values, "tokens": PcmTokens(**values["tokens"])})
    except (struct.error, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"no model file of tokens: {type(error).__name__}: {' '.join(str(error).split())}") from error


def token_codec(data: bytes, *, device: str = "cpu", lossy: bool = False) -> TokenCodec:
    """The codec of a model file.

    Args:
        data: the file.
        device: where it computes; the fingerprint tells one from the other.
        lossy: take a model of mu-law codes as well, which codes these codes (minus half their number) exactly.

    Raises:
        ValueError: it is no such file, or what it describes does not fit its weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    spec = read_spec(data)
    if spec.mu_law is not None and not lossy:
        raise ValueError(
            "this model codes mu-law samples, which do not give back the audio: it gives a rate in "
            "`bench`, and no lossless file"
        )
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ValueError(f"the model file is damaged: {error}") from error
    component = _component(spec)
    if spec.kwargs.get("pretrained") is not None:
        raise ValueError("the model file names pretrained weights: it must hold its own")
    layers = spec.kwargs.get("layers") or (spec.kwargs.get("config") or {}).get("num_hidden_layers", 0)
    if int(layers) > len(weights):
        raise ValueError(f"the model file describes {layers} layers and holds {len(weights)} tensors")
    with torch.device("meta"):  # sizes first, memory when they are known to be right
        own = {name: tensor.shape for name, tensor in component.build().state_dict().items()}
    unlike = sorted(name for name in own.keys() | weights.keys() if own.get(name) != _shape(weights, name))
    if unlike:
        raise ValueError(f"the model file's weights are not those of its network: {', '.join(unlike[:3])}")
    network: nn.Module = component.build()
    network.load_state_dict(weights)
    model = TokenLanguageModel(network.to(device).requires_grad_(False))
    return TokenCodec(
        model, spec.tokens, model_hash=hashlib.sha256(data).digest(), lanes=spec.lanes, lane_frames=spec.lane_frames,
        fingerprint=functools.partial(fingerprint, model),
    )  # fmt: skip


def _shape(weights: dict[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def _component(spec: TokenModelSpec) -> Any:
    """The network as the YAML's checker reads it."""
    problems: list[tuple[Mark, str]] = []
    root = parse_yaml(yaml.safe_dump({"network": spec.which_model, "kwargs": spec.kwargs}), "model file", problems)
    if not problems and spec.which_model in _WALKED:
        converter = Converter(problems, [])
        options: Node = root.value["kwargs"]
        component = converter.component("network", root.value["network"], options)
        if component is not INVALID and not problems:
            return component
    raise OptionError(problems or [(root.mark, f"network {spec.which_model!r} is none of {', '.join(_WALKED)}")])
