"""A DL-Art-School user's YAML runs as it is; mel -> DVAE -> codes -> GPT -> sound; the commands of speech."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from codes.experiment import load_experiment
from codes.models.hifi_gan import HifiGan
from codes.models.unified_voice import UnifiedVoice2
from codes.models.vocoders import open_vocoder
from codes.trainer.check import check
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors.speech import MelSpectrogramInjector
from codes.trainer.speaking import Speaker
from codes.weights import CheckpointError, fit_weights, load_weights
from scripts import mel_norms, speak
from tests.speech_networks import DVAE, write_corpus, write_networks

ROOT = Path(__file__).resolve().parents[1]
# The keys and values of the example that DL-Art-School's users start from; sizes are cut down by overrides below.
GPT_YML = """
name: mine
model: extensibletrainer
scale: 1
gpu_ids: [0]
start_step: -1
checkpointing_enabled: true
fp16: false
wandb: false
use_tb_logger: true
datasets:
  train: &train
    name: lj
    n_workers: 8
    batch_size: 128
    mode: paired_voice_audio
    path: metadata.csv
    fetcher_mode: ['lj']
    phase: train
    max_wav_length: 255995
    max_text_length: 200
    sample_rate: 22050
    load_conditioning: True
    num_conditioning_candidates: 2
    conditioning_length: 44000
    use_bpe_tokenizer: True
    load_aligned_codes: False
  val:
    <<: *train
    n_workers: 1
    batch_size: 32
    phase: val
steps:
  gpt_train:
    training: gpt
    loss_log_buffer: 500
    optimizer: adamw
    optimizer_params:
      lr: !!float 1e-5
      weight_decay: !!float 1e-2
      beta1: 0.9
      beta2: 0.96
    clip_grad_eps: 4
    injectors:
      paired_to_mel: {type: torch_mel_spectrogram, mel_norm_file: ../experiments/clips_mel_norms.pth, in: wav,
                      out: paired_mel}
      paired_cond_to_mel: {type: for_each, subtype: torch_mel_spectrogram,
                           mel_norm_file: ../experiments/clips_mel_norms.pth, in: conditioning,
                           out: paired_conditioning_mel}
      to_codes: {type: discrete_token, in: paired_mel, out: paired_mel_codes,
                 dvae_config: "../experiments/networks.yml"}
      paired_fwd_text:
        type: generator
        generator: gpt
        in: [paired_conditioning_mel, padded_text, text_lengths, paired_mel_codes, wav_lengths]
        out: [loss_text_ce, loss_mel_ce, logits]
    losses:
      text_ce: {type: direct, weight: .01, key: loss_text_ce}
      mel_ce: {type: direct, weight: 1, key: loss_mel_ce}
networks:
  gpt:
    type: generator
    which_model_G: unified_voice2
    kwargs:
      layers: 30
      model_dim: 1024
      heads: 16
      max_text_tokens: 402
      max_mel_tokens: 604
      max_conditioning_inputs: 2
      mel_length_compression: 1024
      number_text_tokens: 256
      number_mel_codes: 8194
      start_mel_token: 8192
      stop_mel_token: 8193
      start_text_token: 255
      train_solo_embeddings: False
      use_mel_codes_as_input: True
      checkpointing: True
path:
  pretrain_model_gpt: '../experiments/autoregressive.pth'
  strict_load: true
train:
  niter: 50000
  warmup_iter: -1
  mega_batch_factor: 4
  val_freq: 500
  default_lr_scheme: MultiStepLR
  gen_lr_steps: [500, 1000, 1400, 1800]
  lr_gamma: 0.5
eval:
  output_state: gen
  injectors:
    gen_inj_eval: {type: generator, generator: generator, in: hq, out: [gen, codebook_commitment_loss]}
logger:
  print_freq: 100
  save_checkpoint_freq: 500
  visuals: [gen, mel]
  visual_debug_rate: 500
  is_mel_spectrogram: true
"""
SIZES = {"layers": 2, "model_dim": 32, "heads": 2}


@pytest.fixture
def dlas(tmp_path: Path) -> Path:
    """experiments/gpt.yml as the user wrote it, with what it names beside it."""
    folder = tmp_path / "experiments"
    write_networks(folder)
    write_corpus(folder)
    (folder / "gpt.yml").write_text(GPT_YML)
    torch.save(torch.linspace(-9, -2, 80), folder / "clips_mel_norms.pth")
    kwargs = yaml.safe_load(GPT_YML)["networks"]["gpt"]["kwargs"] | SIZES
    weights = UnifiedVoice2(**kwargs).state_dict()
    wrapped = {f"module._orig_mod.{name}": value for name, value in weights.items()}
    wrapped |= {f"module._orig_mod.gpt.h.{n}.attn.masked_bias": torch.ones(()) for n in range(2)}
    torch.save(wrapped, folder / "autoregressive.pth")
    return folder / "gpt.yml"


def short(root: Path, steps: int) -> list[str]:
    sizes = [f"networks.gpt.kwargs.{name}={value}" for name, value in SIZES.items()]
    return [
        *sizes, f"path.root={root}", f"train.niter={steps}", "train.val_freq=2", "logger.print_freq=1",
        "logger.save_checkpoint_freq=2", "datasets.train.batch_size=4", "datasets.val.batch_size=3",
        "datasets.train.n_workers=0", "datasets.train.max_wav_length=40960", "datasets.val.max_wav_length=40960",
    ]  # fmt: skip


def test_a_dlas_yaml_checks_trains_validates_and_resumes(dlas: Path, tmp_path: Path) -> None:
    text = check(load_experiment(dlas, short(tmp_path / "runs", 4)))
    assert "everything checks" in text
    assert "network gpt: 74 of 74 tensors from" in text
    left_out = [line for line in text.splitlines() if line.startswith("left out")]
    assert len(left_out) == 1
    for key in ("gen_inj_eval (no network 'generator' and no key 'hq'", "visuals of 'gen', 'mel'"):
        assert key in left_out[0]
    whole = ExtensibleTrainer(load_experiment(dlas, [*short(tmp_path / "whole", 4)]))
    assert whole.train()
    for steps in (2, 4):
        part = ExtensibleTrainer(load_experiment(dlas, short(tmp_path / "parts", steps)))
        assert part.train()
    for name, value in whole.parts.networks["gpt"].state_dict().items():
        assert torch.equal(value, part.parts.networks["gpt"].state_dict()[name]), name
    lines = [json.loads(line) for line in (part.folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "val"] == [2, 4]
    assert all(line["mel_ce"] == pytest.approx(9.01, abs=1.0) for line in lines)  # ln 8194
    train_again(dlas.with_name("dvae.pth"))
    with pytest.raises(CheckpointError, match=r"has other weights now than when .*step_00000004 was trained"):
        ExtensibleTrainer(load_experiment(dlas, short(tmp_path / "parts", 6)))


def train_again(weights: Path) -> None:
    """Change all weights of a file."""
    torch.save({name: value * 2 for name, value in load_weights(weights).items()}, weights)


def keys_of(value: Any) -> set[str]:
    """All keys of a mapping and of those within it."""
    return {key for name, part in value.items() for key in {name} | keys_of(part)} if isinstance(value, dict) else set()


def test_every_key_of_it_is_explained() -> None:
    page = (ROOT / "docs" / "speech.md").read_text(encoding="utf-8")
    table = "".join(line for line in page.splitlines() if line.startswith("| `"))
    values = yaml.safe_load(GPT_YML)
    del values["networks"]["gpt"]["kwargs"]  # all of them are the network's own
    entries = [values["networks"], values["steps"], values["eval"]["injectors"]]
    entries += [values["steps"]["gpt_train"][kind] for kind in ("injectors", "losses")]
    given_by_users = {name for named in entries for name in named}
    sections = {"datasets", "train", "val", "steps", "networks", "eval", "logger", "injectors", "losses"}
    missing = {key for key in keys_of(values) - given_by_users - sections if not re.search(rf"[`.]{key}[`:]", table)}
    assert not missing


def test_a_mel_norm_of_the_wrong_length_has_its_place(dlas: Path, tmp_path: Path) -> None:
    torch.save(torch.ones(100), dlas.with_name("clips_mel_norms.pth"))
    with pytest.raises(ValueError, match=r"gpt\.yml:\d+:\d+: injector torch_mel_spectrogram: mel_norm_file .* holds"):
        check(load_experiment(dlas, short(tmp_path, 1)))


def test_half_matching_weights(dlas: Path, tmp_path: Path) -> None:
    sizes = ["networks.gpt.kwargs.max_text_tokens=300"]
    message = (
        r"does not fit network gpt: of another shape text_pos_embedding\.emb\.weight \(404, 32\) for \(302, 32\); 73"
    )
    with pytest.raises(ValueError, match=message):
        check(load_experiment(dlas, [*short(tmp_path, 1), *sizes]))
    text = check(load_experiment(dlas, [*short(tmp_path, 1), *sizes, "path.strict_load=false"]))
    assert "network gpt: 73 of 74 tensors from" in text


def test_wrappers_names_are_taken_off_only_where_all_have_them() -> None:
    network = torch.nn.Linear(2, 2)
    own = network.state_dict()
    wrapped = {f"_orig_mod.module.{name}": value for name, value in own.items()}
    assert fit_weights(network, "it", wrapped, Path("x"), strict=True) == "network it: 2 of 2 tensors from x"
    with pytest.raises(CheckpointError, match=r"missing weight; unexpected module\.weight"):
        fit_weights(network, "it", {"module.weight": own["weight"], "bias": own["bias"]}, Path("x"), strict=True)


@pytest.fixture
def spoken_run(dlas: Path, tmp_path: Path) -> Path:
    """A run of experiments/speech_gpt.yml, small, whose codes are those of dlas's DVAE."""
    small = {
        "layers": 1,
        "model_dim": 32,
        "heads": 2,
        "number_mel_codes": 50,
        "start_mel_token": 48,
        "stop_mel_token": 49,
    }
    overrides = [
        f"path.root={tmp_path / 'runs'}", "train.niter=2", "train.val_freq=1", "datasets.train.n_workers=0",
        f"datasets.train.path={dlas.with_name('metadata.csv')}", "datasets.train.batch_size=2",
        f"steps.gpt.injectors.to_codes.dvae_config={dlas.with_name('networks.yml')}", "logger.print_freq=1",
        "datasets.train.conditioning_length=8192", "datasets.train.max_wav_length=40960",
        "datasets.train.val_fraction=0.4", *(f"networks.gpt.kwargs.{name}={value}" for name, value in small.items()),
    ]  # fmt: skip
    trainer = ExtensibleTrainer(load_experiment(ROOT / "experiments" / "speech_gpt.yml", overrides))
    assert trainer.train()
    return trainer.folder.path


def test_text_becomes_sound(spoken_run: Path, dlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(dlas.with_name("wavs") / "LJ001-0000.wav")
    (tmp_path / "hifi").mkdir()
    options = {"upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32], "upsample_initial_channel": 16,
               "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]], "resblock": "1"}  # fmt: skip
    mel = {"num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22050, "fmin": 0,
           "fmax": 8000}  # fmt: skip
    (tmp_path / "hifi" / "config.json").write_text(json.dumps(options | mel))
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    vocoder = HifiGan(**{**options, "resblock": 1}).state_dict()
    published = {
        next((k.removesuffix(a) + b for a, b in names.items() if k.endswith(a)), k): v for k, v in vocoder.items()
    }
    torch.save({"generator": published}, tmp_path / "hifi" / "g_1")
    assert open_vocoder(tmp_path / "hifi").settings == MelSpectrogramInjector().settings  # nothing to convert
    for extra in ([], ["--vocoder", str(tmp_path / "hifi")]):
        arguments = ["--run", str(spoken_run), "--text", "other words", "--voice", clip, clip, "--num", "2"]
        written = speak.speak(speak.parse_arguments([*arguments, "--seconds", "0.4", "--out", str(tmp_path), *extra]))
        assert written
        assert all(path.stat().st_size > 2000 and path.with_suffix(".png").is_file() for path in written)
    assert "codes, " in capsys.readouterr().out


def test_a_voice_is_what_training_hears(spoken_run: Path, tmp_path: Path) -> None:
    """Any format and rate that a dataset takes: the same sound as floats in two channels and at twice the rate."""
    import soundfile

    sound = np.sin(np.arange(44100) * 0.05) * 0.3
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound], 1), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", sound[::2], 22050, subtype="PCM_16")
    speaker = Speaker(spoken_run)
    first, second = speaker.voice([tmp_path / "a.wav", tmp_path / "b.wav"]).unbind(1)
    assert first.shape == (1, 80, 8192 // 256 + 1)
    loud = second > second.max() - 6
    torch.testing.assert_close(first[loud], second[loud], rtol=0, atol=0.05)


def test_the_codes_may_come_of_a_network_of_the_run(dlas: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(GPT_YML)
    values["networks"]["gpt"]["kwargs"] |= SIZES
    values["networks"]["dvae"] = {"which_model": "lucidrains_dvae", "kwargs": DVAE, "trainable": False}
    values["path"] = {"pretrain_model_dvae": "dvae.pth"}
    to_codes = values["steps"]["gpt_train"]["injectors"]["to_codes"]
    del to_codes["dvae_config"]
    to_codes["dvae"] = "dvae"
    injectors = values["steps"]["gpt_train"]["injectors"]
    injectors["paired_to_mel"] = {"type": "mel_spectrogram", "in": "wav", "out": "paired_mel"}
    file = dlas.with_name("both.yml")
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    trainer = ExtensibleTrainer(load_experiment(file, short(tmp_path, 1)))
    assert trainer.train()
    speaker, dvae = Speaker(trainer.folder.path), load_weights(dlas.with_name("dvae.pth"))
    assert torch.equal(speaker.codes.dvae.codebook.embed, dvae["codebook.embed"])
    mel = speaker.to_mel(torch.tensor([3, 40]))
    torch.testing.assert_close(mel, speaker.codes.inverse(torch.tensor([[3, 40]]))[0])  # magnitudes have no norms
    assert mel.shape == (80, 8)
    assert speaker.mel.settings.magnitude
    assert not speaker.voice_mel.settings.magnitude
    assert speaker.voice_mel.norms is not None  # type: ignore[union-attr]


def test_what_cannot_be_spoken(spoken_run: Path, tmp_path: Path) -> None:
    speaker = Speaker(spoken_run)
    with pytest.raises(ValueError, match="has what the tokenizer does not know: '漢'"):
        speaker.tokens("漢")
    with pytest.raises(ValueError, match=re.escape("has 0 tokens: the network takes 1 to 122")):
        speaker.tokens("")
    with pytest.raises(ValueError, match="code 48 is none of the DVAE's 48"):
        speaker.to_mel(torch.tensor([48]))
    with pytest.raises(ValueError, match="the reading is empty"):
        speaker.to_sound(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="a voice needs one reference recording or more"):
        speaker.voice([])
    with pytest.raises(CheckpointError, match=r"is no run: it has no options\.yml"):
        Speaker(tmp_path)
    values = yaml.safe_load((spoken_run / "options.yml").read_text())
    injectors = values["steps"]["gpt"]["injectors"]
    injectors["to_mel"] = {"type": "normalize_mel", "in": "wav", "out": "mel"}
    (spoken_run / "options.yml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(CheckpointError, match="'mel' is no mel spectrogram that torch_mel_spectrogram or mel_spec"):
        Speaker(spoken_run)
    injectors["to_codes"] = {"type": "normalize_mel", "in": "mel", "out": "codes"}
    (spoken_run / "options.yml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(CheckpointError, match="has no discrete_token, or no call of its unified_voice2"):
        Speaker(spoken_run)


def test_codes_of_a_dvae_that_was_trained_again_are_refused(spoken_run: Path, dlas: Path) -> None:
    Speaker(spoken_run)
    train_again(dlas.with_name("dvae.pth"))
    with pytest.raises(CheckpointError, match=r"injector gpt\.to_codes: its network has other weights now than when "):
        Speaker(spoken_run)


def test_norms_of_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path)
    assert mel_norms.main([str(tmp_path), "--out", str(tmp_path / "norms.pth")]) == 0
    norms = torch.load(tmp_path / "norms.pth", weights_only=True)
    assert norms.shape == (80,)
    assert norms.isfinite().all()
    assert "80 bands over " in capsys.readouterr().out
    assert mel_norms.main([str(tmp_path / "nothing")]) == 2
    assert "nothing does not exist" in capsys.readouterr().err
    assert mel_norms.main([str(tmp_path), "--out", str(tmp_path / "no" / "norms.pth")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_the_commands_say_what_is_wrong(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["speak.py", "--run", str(tmp_path), "--text", "a", "--voice", "b.wav"])
    assert speak.main() == 2
    assert "has no options.yml" in capsys.readouterr().err
