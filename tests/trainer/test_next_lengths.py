"""Networks that make another length of next than the dataset's items hold are refused before anything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from codes.experiment import load_experiment
from codes.trainer.build import build
from codes.yaml_source import OptionError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("name", "override", "line", "message"),
    [
        ("lofi_lstm", "networks.lstm.kwargs.next_steps=200", "which_model: ", "of datasets.train has 256 frames"),
        ("lofi_lstm", "datasets.train.next_frames=200", "which_model: ", "is 256: next of datasets.train has 200"),
        ("lofi_lstm", "steps.lstm.injectors.teacher.num_steps=200", "type: teacher_forcing",
         "num_steps is 200: networks.lstm.kwargs.next_steps is 256"),
        ("lofi_variational", "networks.lstm.kwargs.next_steps=200", "which_model: ", "datasets.train has 256 frames"),
        ("lofi_conv_lstm", "networks.lstm.kwargs.next_steps=21", "which_model: ",
         "next_steps is 21: next of datasets.train has 8820 frames, a value for 441 of them"),
        ("lofi_conv_lstm", "datasets.train.prev_frames=13000", "which_model: ",
         "prev of datasets.train has 13000 frames: it must be a multiple of 441, those of a value"),
        ("lofi_gan", "datasets.train.next_frames=2100", "type: generator",
         "next_frames is 4410: next of datasets.train has 2100 frames"),
        ("lofi_gan", "datasets.train.prev_frames=[100, 2100]", "type: generator",
         "prev_frames is 4410: prev of datasets.train has 2100 frames"),
    ],
)  # fmt: skip
def test_another_length_is_said_with_its_place(
    name: str, override: str, line: str, message: str, make_stereo_folder: Callable[..., Path]
) -> None:
    file = EXPERIMENTS / f"{name}.yml"
    overrides = [f"datasets.train.path={make_stereo_folder(num_samples=24000)}", "datasets.train.sample_rate=44100"]
    with pytest.raises(OptionError) as raised:
        build(load_experiment(file, [*overrides, override]))
    said = [text for text in str(raised.value).splitlines() if message in text]
    assert said
    place = int(said[0].removeprefix(f"{file}:").partition(":")[0])
    assert file.read_text().splitlines()[place - 1].strip().startswith(line)
