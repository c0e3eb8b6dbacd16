"""eval.injectors, eval.evaluators and logger.visuals: run, shown, or left out with one warning."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.experiment import load_experiment
from codes.trainer.evaluators import (
    BitsEvaluator,
    CodebookEvaluator,
    FrechetDistanceEvaluator,
    LossEvaluator,
    MelDistanceEvaluator,
    WerEvaluator,
    num_edits,
    words,
)
from codes.trainer.metrics import FigureSum, MetricsFile
from codes.trainer.visuals import Visuals
from codes.yaml_source import OptionError
from tests.data.speech.asr_models import save_ctc

VAL: dict[str, Any] = {"datasets.val": {"batch_size": 8}, "train.val_freq": 3}


def test_evaluators_and_visuals_of_a_run(toy: Any, lines: Any) -> None:
    run = toy.train(VAL | {
        "eval.injectors": {"again": {"type": "generator", "generator": "net", "in": "fake", "out": "fake_again"},
                           "instead": {"type": "direct", "in": "y", "out": "fake"}},
        "eval.evaluators": {"same": {"type": "loss", "value": "fake"}, "real": {"type": "loss", "in": "y"},
                            "far": {"type": "frechet_distance", "real": "y", "fake": "fake_again"}},
        "eval.output_state": "fake_again", "logger.visuals": ["x"], "logger.visual_debug_rate": 6,
    })  # fmt: skip
    val = [line for line in lines(run.folder.path) if line["split"] == "val"]
    assert [line["step"] for line in val] == [3, 6]
    assert all(line["same.mean"] == line["real.mean"] for line in val)  # what was written replaces the step's
    assert all(line["far.distance"] > 0 for line in val)
    assert all(line["error"] > 0 for line in val)
    shown = {str(path.relative_to(run.folder.path / "visuals")) for path in run.folder.path.glob("visuals/*/*")}
    assert shown == {f"step_00000006/{key}_{i}.{kind}" for key in ("x", "fake_again") for i in (0, 1)
                     for kind in ("png", "wav")}  # fmt: skip
    assert not run.experiment.warnings


def test_what_is_neither_picture_nor_sound_is_named(tmp_path: Path) -> None:
    written: list[Any] = []
    visuals = Visuals(tmp_path, ["mask", "codes", "wav"], None, False, 8000, lambda path, *_: written.append(path.name))
    state = {"mask": torch.ones(1, 9).bool(), "codes": torch.ones(1, 9).long(), "wav": torch.ones(1, 9)}
    assert visuals.show(state, 1, MetricsFile(tmp_path, 0, False)) == ["mask", "codes"]
    assert written == ["wav_0.wav"]


def test_a_key_that_an_option_names_must_be_there(toy: Any) -> None:
    crop = {"type": "random_audio_crop", "crop_size": 2, "lengths_key": "lengths", "in": "x", "out": "part"}
    run = toy.trainer(VAL | {"eval.injectors": {"crop": crop}})
    (warning,) = run.experiment.warnings
    assert warning.startswith("left out: eval.injectors.crop (no key 'lengths', line ")


def test_what_could_never_run_is_left_out_with_one_warning(toy: Any, lines: Any) -> None:
    run = toy.train(VAL | {
        "eval.output_state": "gen", "logger.visuals": ["gen", "mel"],
        "eval.injectors": {"gen_inj_eval": {"type": "generator", "generator": "generator", "in": "hq",
                                            "out": ["gen", "codebook_commitment_loss"]}},
    })  # fmt: skip
    (warning,) = run.experiment.warnings
    assert warning.startswith("left out: eval.injectors.gen_inj_eval (no network 'generator' and no key 'hq', line ")
    assert warning.endswith("visuals of 'gen', 'mel' (no such key in validation)")
    assert [line["step"] for line in lines(run.folder.path) if line["split"] == "val"] == [3, 6]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "loss", "value": "fakes"}, "evaluator it reads 'fakes', which validation does not have"),
        ({"type": "los", "value": "fake"}, "there is no evaluator 'los'; did you mean 'loss'?"),
        ({"type": "frechet_distance", "real": "y"}, "evaluator it: fake is missing"),
        ({"type": "codebook", "codes": "x", "num_code": 3}, "unknown key 'num_code' in evaluator codebook"),
    ],
)
def test_mistakes_in_evaluators_have_a_place(toy: Any, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message.replace("?", r"\?")):
        load_experiment(toy.write(VAL | {"eval.evaluators": {"it": entry}}))


def value(evaluator: Any, *batches: tuple[Any, ...]) -> dict[str, Any]:
    """The figures over some batches."""
    sums: dict[str, FigureSum] = {}
    for batch in batches:
        for name, figure in evaluator.forward(*batch).items():
            if name in sums:
                sums[name].add(figure)
            else:
                sums[name] = FigureSum(figure)
    return {name: total.read() for name, total in sums.items()}


def test_bits_means_and_codebooks() -> None:
    nats = torch.full((2, 3), math.log(8))
    assert value(BitsEvaluator(), (nats,), (nats,))["bits_per_token"] == pytest.approx(3)
    pair = torch.tensor(6 * math.log(2)), torch.tensor(3)
    assert value(BitsEvaluator(), (pair,))["bits_per_token"] == pytest.approx(2)
    assert value(LossEvaluator(), (torch.ones(4),), (torch.zeros(12),))["mean"] == pytest.approx(0.25)
    found = value(CodebookEvaluator(num_codes=8), (torch.tensor([[0, 1]]),), (torch.tensor([[2, 3]]),))
    assert found["perplexity"] == pytest.approx(4)
    assert found["codes_used"] == pytest.approx(0.5)


def test_mel_distance() -> None:
    wav = torch.randn(2, 1, 3000)
    assert value(MelDistanceEvaluator(), (wav, wav))["distance"] == 0
    halved = value(MelDistanceEvaluator(), (wav, wav / 2))["distance"]
    assert halved == pytest.approx(math.log(4), abs=1e-3)  # a quarter of the power
    with pytest.raises(ValueError, match=r"mel_distance: real \(2, 1, 3000\) and fake \(2, 1, 2999\) differ in shape"):
        MelDistanceEvaluator().forward(wav, wav[..., 1:])


def test_frechet_distance_of_normal_distributions() -> None:
    """For diagonal covariances it is |m1 - m2|^2 + sum (s1 - s2)^2."""
    torch.manual_seed(0)
    real = torch.randn(20_000, 3)
    fake = torch.randn(20_000, 3) * torch.tensor([2.0, 1.0, 1.0]) + torch.tensor([0.0, 3.0, 0.0])
    halves = (real[:10_000], fake[:10_000]), (real[10_000:], fake[10_000:])
    distance = value(FrechetDistanceEvaluator(), *halves)["distance"]
    assert distance == pytest.approx(9 + 1, rel=0.03)
    assert value(FrechetDistanceEvaluator(), (real, real))["distance"] == pytest.approx(0, abs=1e-6)
    columns = real[:1000].view(10, 100, 3).transpose(1, 2)
    assert value(FrechetDistanceEvaluator(), (columns, real[:1000]))["distance"] == pytest.approx(0, abs=1e-6)
    assert value(FrechetDistanceEvaluator(), (real[:1], fake[:1]))["distance"] is None


def test_a_step_that_requires_a_key_runs_only_where_it_is(toy: Any, lines: Any) -> None:
    """DL-Art-School's `requires`: the second step runs when the first, every other iteration, made its key."""
    inject = {"type": "generator", "generator": "net", "in": "x"}
    error = {"type": "pix", "criterion": "l2", "real": "y"}
    run = toy.train({
        "train.niter": 4, "networks.other": {"which_model": "toy_mlp"},
        "steps.fit": {"training": "net", "every": 2, "injectors": {"predict": {**inject, "out": "fake"}},
                      "losses": {"error": {**error, "fake": "fake"}}},
        "steps.second": {"training": "other", "requires": "fake",
                         "injectors": {"again": {**inject, "generator": "other", "in": "fake", "out": "better"}},
                         "losses": {"second": {**error, "fake": "better"}}},
        "steps.never": {"training": "other", "requires": ["absent"],
                        "injectors": {"never": {**inject, "generator": "other", "in": "absent", "out": "none"}},
                        "losses": {"never": {**error, "fake": "none"}}},
    })  # fmt: skip
    train = [line for line in lines(run.folder.path) if line["split"] == "train"]
    assert ["second" in line for line in train] == [False, True, True, True]
    assert not any("never" in line for line in train)
    assert run.parts.updaters["other"][0].optimizer.state_dict()["state"][0]["step"] == 2


def test_word_errors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    evaluator = WerEvaluator(asr=str(save_ctc(tmp_path / "asr")), sample_rate=16000)
    sound = torch.rand(2, 1, 8000) - 0.5
    heard = evaluator.transcriber.transcribe(list((sound[:, 0] * 32768).round().short().numpy()), 16000)
    assert all(words(line) for line in heard)
    assert value(evaluator, (sound, [f"{line.upper()}!" for line in heard]))["rate"] == 0
    missed = [f"{line} and more" for line in heard]
    total = sum(len(words(line)) for line in missed)
    assert value(evaluator, (sound[:1], missed[:1]), (sound[1:], missed[1:]))["rate"] == pytest.approx(4 / total)
    with pytest.raises(ValueError, match=r"sound must be \(B, 1, T\) with B texts, got \(2, 1, 8000\) and 1"):
        evaluator.forward(sound, heard[:1])


@pytest.mark.parametrize(
    ("found", "wanted", "edits"),
    [("", "", 0), ("", "a b", 2), ("a b", "", 2), ("a b c", "a c", 1), ("a x c", "a b c", 1), ("b a", "a b", 2)],
)
def test_the_fewest_edits(found: str, wanted: str, edits: int) -> None:
    assert num_edits(words(found), words(wanted)) == edits


def test_words_are_without_capitals_and_punctuation() -> None:
    assert words("Don\u2019t \u201cgo\u201d, he_said: 3 t\u00eates-de-veau!") == [
        "don't",
        "go",
        "he",
        "said",
        "3",
        "t\u00eates",
        "de",
        "veau",
    ]
