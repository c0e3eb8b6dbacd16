"""Whether what a network makes of next is as long as the next of the dataset's items, before anything runs.

A step that is wrong in this would say so at its first batch, as two shapes that differ; coins of teacher forcing only
when their ratio falls below 1, thousands of steps later. Where audio takes a way to the network whose lengths are not
known here, nothing is said.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from codes.data.dataset import Dataset
from codes.entries import Entry, Experiment, StepEntry
from codes.yaml_source import Mark

SAME_LENGTH = ("pcm_quantize", "mu_law", "normalize", "squeeze", "unsqueeze")
Problem = tuple[Mark, str]


def problems(
    entry: StepEntry, experiment: Experiment, networks: Mapping[str, nn.Module], datasets: Mapping[str, Dataset]
) -> Iterator[Problem]:
    """What does not fit in a step, at the line of the network or of the injector that is to be changed."""
    makers = {key: injector for injector in entry.injectors for key in injector.flags.out}
    for injector in entry.injectors:
        for name in _names(injector):
            network, mark = networks.get(name), experiment.networks[name].mark
            if hasattr(network, "next_steps"):
                yield from _coins(injector, makers, name, network)
                frames = _frames_per_value(injector.flags.in_[0], makers, networks)
                if frames:
                    yield from _first(_steps(mark, network, *found, frames) for found in datasets.items())
            if hasattr(network, "next_frames") and _root(injector.flags.in_[0], makers) == "prev":
                yield from _first(_frames(mark, network, *found) for found in datasets.items())


def _first(found: Iterable[Iterator[Problem]]) -> list[Problem]:
    """Those of the first dataset that has some: the others mostly have the same."""
    return next((several for one in found if (several := list(one))), [])


def _names(injector: Entry) -> list[str]:
    """The networks that a call of one reads from and whose output it hands on."""
    options = injector.built_from.options
    return [options[key].name for key in ("generator",) if key in options]


def _root(key: str, makers: Mapping[str, Entry]) -> str | None:
    """The dataset's key behind a key, one value for one frame; None where something else lies between."""
    while key in makers:
        if makers[key].built_from.type not in SAME_LENGTH:
            return None
        key = makers[key].flags.in_[0]
    return key


def _frames_per_value(key: str, makers: Mapping[str, Entry], networks: Mapping[str, nn.Module]) -> int:
    """Frames of ``wav`` for a value under a key; 0 where that cannot be told."""
    frames, maker = 1, makers.get(key)
    if maker is not None and maker.built_from.type == "encode_latents":
        codec: Any = networks.get(maker.built_from.options["autoencoder"].name)
        frames, key = int(getattr(codec, "stride", 0)), maker.flags.in_[0]
    return frames if _root(key, makers) == "wav" else 0


def _coins(injector: Entry, makers: Mapping[str, Entry], name: str, network: Any) -> Iterator[Problem]:
    for key in injector.flags.in_:
        maker = makers.get(key)
        if maker is not None and maker.built_from.type == "teacher_forcing":
            steps = maker.built_from.options["num_steps"]
            if steps != network.next_steps:
                yield maker.mark, f"num_steps is {steps}: networks.{name}.kwargs.next_steps is {network.next_steps}"


def _steps(mark: Mark, network: Any, title: str, dataset: Any, frames: int) -> Iterator[Problem]:
    found = getattr(dataset, "next_frames", None)
    if found is not None and network.next_steps * frames != found:
        rule = f", a value for {frames} of them" if frames > 1 else ""
        yield mark, f"next_steps is {network.next_steps}: next of datasets.{title} has {found} frames{rule}"
    before = getattr(dataset, "prev_frames", None)
    if before is not None and before % frames:
        yield mark, f"prev of datasets.{title} has {before} frames: it must be a multiple of {frames}, those of a value"


def _frames(mark: Mark, network: Any, title: str, dataset: Any) -> Iterator[Problem]:
    for key in ("prev", "next"):
        wanted, found = getattr(network, f"{key}_frames"), getattr(dataset, f"{key}_frames", None)
        if found not in (None, wanted):
            yield mark, f"{key}_frames is {wanted}: {key} of datasets.{title} has {found} frames"
