"""unsupervised_audio, audio_with_noise, gpt_tts, nv_tacotron and grand_conjoined: keys, shapes, draws, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codes import registry
from codes.convert import Converter
from codes.data.audio import preview
from codes.data.audio.audio_with_noise import MUSIC, NOISE, NOTHING, VOICE, AudioWithNoiseDataset, swell
from codes.data.audio.gpt_tts import GptTtsDataset
from codes.data.audio.grand_conjoined import GrandConjoinedDataset, TextCorpus
from codes.data.audio.nv_tacotron import NvTacotronDataset
from codes.data.audio.transcripts.rows import TranscriptError
from codes.data.audio.unsupervised_audio import UnsupervisedAudioDataset
from codes.data.loader import collate
from codes.models.unified_voice import UnifiedVoice2
from codes.yaml_source import parse_yaml
from tests.data.audio import speech_corpora as corpora

RATE: dict[str, Any] = {"sample_rate": corpora.RATE_HZ}


def items(data: Any, seed: int = 0) -> list[dict[str, Any]]:
    return [data.item(index, np.random.default_rng([seed, index])) for index in range(len(data))]


def constants(folder: Path, values: list[int], num_frames: int = 4000) -> Path:
    """Recordings of one value each: what is heard says where it is from."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        soundfile.write(folder / f"{value}.wav", np.full((num_frames, 1), value, np.int16), corpora.RATE_HZ)
    return folder


def test_unsupervised_audio_cuts_and_fills(tmp_path: Path):
    long, short = corpora.write(tmp_path / "a" / "l.wav", 9000), corpora.write(tmp_path / "a" / "s.wav", 3000)
    data = UnsupervisedAudioDataset(path=tmp_path, sampling_rate=corpora.RATE_HZ, pad_to_samples=4000)
    cut, filled = items(data)
    assert set(cut) == set(UnsupervisedAudioDataset.provided_keys({}))
    np.testing.assert_array_equal(filled["clip"][:, :3000], short / np.float32(32768))
    assert not filled["clip"][:, 3000:].any()
    assert (filled["clip_lengths"], cut["clip_lengths"]) == (3000, 4000)
    whole = long[0] / np.float32(32768)
    assert any((whole[at : at + 4000] == cut["clip"][0]).all() for at in range(5001))
    assert len({float(items(data, seed)[0]["clip"][0, 0]) for seed in range(6)}) > 3


def test_unsupervised_audio_gives_second_stretches_and_neighbours(tmp_path: Path):
    constants(tmp_path / "a", [1000, 2000, 3000])
    constants(tmp_path / "b", [4000])
    options: dict[str, Any] = {**RATE, "pad_to_samples": 1000, "extra_samples": 2, "extra_sample_length": 5000}
    data = UnsupervisedAudioDataset(path=tmp_path, resample_clip=True, **options)
    made = items(data)
    assert set(made[0]) == set(UnsupervisedAudioDataset.provided_keys({"resample_clip": True, "extra_samples": 2}))
    assert made[0]["alt_clips"].shape == (2, 1, 5000)
    for item in made:
        own = int(Path(item["path"]).stem)
        heard = {round(float(value) * 32768) for value in item["alt_clips"][:, 0, 0]}
        assert heard == {1000, 2000, 3000} - {own}
        assert item["alt_contains_self"] is False
    assert any("alone in their folder" in line and "b/4000.wav" in line for line in data.report())
    assert len(UnsupervisedAudioDataset(path=tmp_path, extra_from_self=True, **options)) == 4


def test_unsupervised_audio_takes_what_is_asked_for(tmp_path: Path):
    constants(tmp_path / "a", [1, 2, 3, 4])
    constants(tmp_path / "b", [5], 100)
    (tmp_path / "not.txt").write_text("3.wav\na/1.wav\n")
    how: dict[str, Any] = {**RATE, "pad_to_samples": 10, "exclusions": [tmp_path / "not.txt"], "min_length": 101}
    data = UnsupervisedAudioDataset(path=tmp_path, **how, not_endswith=["4.wav"], cache_path="x.pth")
    assert [Path(item["path"]).name for item in items(data)] == ["2.wav"]
    report = "\n".join(data.report())
    assert "left out: 3 by endswith, not_endswith or exclusions" in report
    assert "cache_path has no effect" in report
    with pytest.raises(ValueError, match="leave out all 5 files"):
        UnsupervisedAudioDataset(path=tmp_path, **RATE, endswith=["flac"])
    with pytest.raises(ValueError, match=r"exclusions: none.txt cannot be read: No such file"):
        UnsupervisedAudioDataset(path=tmp_path, exclusions=[Path("none.txt")])


def test_audio_with_noise_says_what_it_added(tmp_path: Path):
    for name, values in (("speech", [8000, 9000]), ("noise", [100]), ("music", [200])):
        constants(tmp_path / name, values, 4000 if name != "noise" else 500)
    data = AudioWithNoiseDataset(
        path=tmp_path / "speech", env_noise_paths=[tmp_path / "noise"], music_paths=[tmp_path / "music"],
        pad_to_samples=2000, **RATE,
    )  # fmt: skip
    made = [item for seed in range(20) for item in items(data, seed)]
    assert set(made[0]) == set(AudioWithNoiseDataset.provided_keys({}))
    assert {item["label"] for item in made} == {NOTHING, NOISE, MUSIC, VOICE}
    for item in made:
        own = int(Path(item["path"]).stem)
        np.testing.assert_allclose(item["clip"] - item["aug"], own / 32768 * item["clipvol"], atol=1e-6)
        assert 0.5 <= item["clipvol"] <= 0.8
        if item["label"] == NOTHING:
            assert (item["augpath"], item["augvol"], item["aug"].any()) == ("", 0.0, False)
            continue
        source = int(Path(item["augpath"]).stem)
        assert source != own
        low, high = (0.1, 0.25) if item["label"] == MUSIC else (0.2, 0.5)
        assert low <= item["augvol"] <= high
        assert item["aug"].max() == pytest.approx(source / 32768 * item["augvol"], rel=0.01)
        if item["label"] == NOISE:
            assert np.count_nonzero(item["aug"]) == 500
    assert registry.find("dataset", "unsupervised_audio_with_noise") is not None


def test_audio_with_noise_without_sources_and_bad_volumes(tmp_path: Path):
    constants(tmp_path, [5000])
    data = AudioWithNoiseDataset(path=tmp_path, pad_to_samples=100, **RATE)
    assert {item["label"] for seed in range(8) for item in items(data, seed)} == {NOTHING}
    with pytest.raises(ValueError, match=r"min_noise_volume is 0.6, above max_noise_volume, 0.5"):
        AudioWithNoiseDataset(path=tmp_path, min_noise_volume=0.6)


def test_a_swell_rises_stays_and_falls():
    for seed in range(5):
        envelope = swell(1000, np.random.default_rng(seed))
        assert envelope.shape == (1000,)
        assert 0.0 <= envelope.min() <= envelope.max() <= 1.0
        loud = np.flatnonzero(envelope == 1.0)
        assert (np.diff(envelope[: loud[0]]) >= 0).all()
        assert (np.diff(envelope[loud[-1] :]) <= 0).all()


CODES = [{"audio": "wavs/a.wav", "text": "ab.", "codes": [5, 6, 7]}, {"audio": "wavs/b.wav", "text": "c", "codes": [1]}]


def test_gpt_tts_frames_text_and_codes_as_dlas(tmp_path: Path):
    path = corpora.json_lines(tmp_path, CODES)
    data = GptTtsDataset(path=path, fetcher_mode="jsonl", mel_vocab_size=10, max_text_length=6, max_mel_length=4)
    first = items(data)[0]
    assert set(first) == set(GptTtsDataset.provides)
    # 64 characters; start is 64 + 8 - 1, stop one below; the filling of place n is 64 + n
    assert first["padded_text"].tolist() == [71, 38, 39, 7, 70, 69, 70, 71]
    assert first["padded_qmel"].tolist() == [10, 5, 6, 7, 11, 12]
    assert (first["text_lengths"], first["input_lengths"], first["output_lengths"]) == (3, 5, 5)
    assert first["wav_lengths"] == 3 * 1024 - 1
    assert data.report()[-1] == "taken: 2 recordings of 1 to 3 codes; 4 of 10 codes are used"
    assert (
        data.fingerprint()
        == GptTtsDataset(
            path=tmp_path, fetcher_mode="jsonl", mel_vocab_size=10, max_text_length=6, max_mel_length=4
        ).fingerprint()
    )


def test_gpt_tts_without_special_tokens(tmp_path: Path):
    path = corpora.json_lines(tmp_path, CODES)
    data = GptTtsDataset(
        path=path,
        fetcher_mode="jsonl",
        max_text_length=6,
        max_mel_length=4,
        special_tokens=False,
        use_bpe_tokenizer=True,
    )
    batch = collate(items(data))
    assert batch["padded_qmel"].tolist() == [[5, 6, 7, 0], [1, 0, 0, 0]]
    assert batch["padded_text"].shape == (2, 6)
    sizes: dict[str, Any] = {"layers": 1, "model_dim": 32, "heads": 1}
    network = UnifiedVoice2(**sizes, max_text_tokens=6, max_mel_tokens=4)
    keys = ("padded_text", "text_lengths", "padded_qmel", "wav_lengths")
    _, code_nats, _ = network(torch.zeros(2, 80, 8), *(batch[key] for key in keys))
    assert code_nats.count == (3 + 1) + (1 + 1), "codes and stops are scored, what fills up is not"


def test_gpt_tts_reads_files_of_codes(tmp_path: Path):
    path = corpora.listed(tmp_path, ["wavs/a.wav|ab."])
    (tmp_path / "quantized_mels").mkdir()
    file = tmp_path / "quantized_mels" / "a.wav.pth"
    torch.save(torch.tensor([[5, 6]]), file)
    data = GptTtsDataset(path=path, special_tokens=False, max_mel_length=3)
    assert items(data)[0]["padded_qmel"].tolist() == [5, 6, 0]
    for saved, message in (
        (torch.tensor([0.5]), "must hold one row of whole numbers"),
        (torch.tensor([9000]), r"train.txt:1: codes are 9000 to 9000, allowed are 0 to 8191 .mel_vocab_size"),
    ):
        torch.save(saved, file)
        with pytest.raises(TranscriptError, match=message):
            GptTtsDataset(path=path)
    file.write_bytes(b"x")
    with pytest.raises(TranscriptError, match=r"a.wav.pth cannot be read"):
        GptTtsDataset(path=path)
    file.unlink()
    with pytest.raises(TranscriptError, match=r"train.txt:1: has no codes, and .*a.wav.pth does not exist"):
        GptTtsDataset(path=path)
    with pytest.raises(
        ValueError, match="none of the 1 recordings can be taken; left out: 1 that cannot be understood"
    ):
        GptTtsDataset(path=path, on_error="skip")


def test_nv_tacotron_gives_spectrograms_and_gates(tmp_path: Path):
    pcm = corpora.lj(tmp_path)
    settings: dict[str, Any] = {"filter_length": 256, "win_length": 256, "hop_length": 64, "mel_fmax": 4000.0}
    data = NvTacotronDataset(path=tmp_path, **RATE, **settings, n_mel_channels=20, max_mel_length=140)
    item = items(data)[1]
    assert set(item) == set(NvTacotronDataset.provided_keys({}))
    frames = 1 + pcm["LJ001-0001.wav"].shape[1] // 64
    assert item["output_lengths"] == frames
    assert item["padded_mel"].shape == (20, 140)
    assert not item["padded_mel"][:, frames:].any()
    assert item["padded_gate"].tolist() == [0.0] * (frames - 1) + [1.0] * (141 - frames)
    sound = torch.from_numpy(pcm["LJ001-0001.wav"] / np.float32(32768))[0]
    magnitude = torch.stft(sound, 256, 64, window=torch.hann_window(256), return_complex=True).abs()
    peak = item["padded_mel"][:, :frames].max()
    assert peak < np.log(magnitude.max().item())
    assert item["padded_text"][: item["input_lengths"]].tolist() == data.screen.tokenizer.encode(item["real_text"])
    exact = NvTacotronDataset(path=tmp_path, **RATE, **settings, n_mel_channels=20, max_mel_length=1 + 8030 // 64)
    assert len(exact) == 4


def test_nv_tacotron_mel_of_a_tone(tmp_path: Path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050)
    soundfile.write(tmp_path / "a.wav", tone * 0.5, 22050, subtype="PCM_16")
    item = items(NvTacotronDataset(path=corpora.listed(tmp_path, ["a.wav|so."]), max_mel_length=100))[0]
    middle = item["padded_mel"][:, 40]
    # Slaney's scale is linear up to 1000 Hz, 15 mels, of 45.2 in 81 steps: band 26 is centred at 1005 Hz
    assert middle.argmax() == 26
    assert 0.5 < middle.max() < 3.0


def test_nv_tacotron_gives_sound_if_asked(tmp_path: Path):
    corpora.lj(tmp_path)
    data = NvTacotronDataset(path=tmp_path, sampling_rate=8000, mel_fmax=4000.0, return_wavs=True, max_mel_length=40)
    item = items(data)[0]
    assert set(item) == set(NvTacotronDataset.provided_keys({"return_wavs": True}))
    assert item["padded_mel"].shape == (1, 40 * 256)
    for wrong, message in (
        ({"mel_fmax": 8000.0}, r"mel_fmax is 8000.0 Hz: allowed are above mel_fmin, 0.0, to 4000.0 Hz"),
        ({"win_length": 2048}, "win_length is 2048, it must not be above filter_length, 1024"),
    ):
        with pytest.raises(ValueError, match=message):
            NvTacotronDataset(path=tmp_path, **{**RATE, "mel_fmax": 4000.0, **wrong})


def conjoined(root: Path, **options: Any) -> GrandConjoinedDataset:
    lengths: dict[str, Any] = {
        "max_paired_audio_length": 9000,
        "max_solo_audio_length": 1000,
        "max_solo_text_length": 8,
    }
    return GrandConjoinedDataset(paired_dataset_args={"path": root / "lj"}, **RATE, **{**lengths, **options})


def test_grand_conjoined_joins_three_sources(tmp_path: Path):
    corpora.lj(tmp_path / "lj")
    constants(tmp_path / "solo", [100, 200, 300])
    text = corpora.listed(tmp_path, ["a text that is much too long for it", "б", "with * it", "b", "c", "d", "e"])
    data = conjoined(
        tmp_path, unsupervised_audio_args={"path": tmp_path / "solo"}, text_corpus_args=TextCorpus(path=[text]),
        num_conditioning_candidates=1, conditioning_length=500,
    )  # fmt: skip
    assert len(data) == 5
    made = items(data)
    assert set(made[0]) == set(GrandConjoinedDataset.provided_keys({"num_conditioning_candidates": 1}))
    assert [item["text_text"][0] for item in made] == list("abcde")
    assert [Path(item["speech_file"]).stem for item in made] == ["100", "200", "300", "100", "200"]
    assert made[4]["paired_text"] == corpora.TEXTS[0]
    assert made[0]["text_tokens"].shape == (8,)
    assert made[0]["text_lengths"] == 8
    batch = collate(made)
    assert batch["paired_audio"].shape == (5, 1, 9000)
    assert batch["speech_audio"].shape == (5, 1, 1000)
    assert batch["paired_audio_conditioning"].shape == batch["speech_audio_conditioning"].shape == (5, 1, 1, 500)
    assert any("text alone: left out: 2 with * or characters" in line for line in data.report())
    assert data.fingerprint()["items"] == 5


def test_grand_conjoined_with_pairs_only(tmp_path: Path):
    corpora.lj(tmp_path / "lj")
    made = items(conjoined(tmp_path, only_paired=True))[2]
    assert set(made) == set(GrandConjoinedDataset.provided_keys({}))
    np.testing.assert_array_equal(made["speech_audio"], made["paired_audio"])
    np.testing.assert_array_equal(made["text_tokens"], made["paired_text_tokens"])
    assert made["text_text"] == corpora.TEXTS[2]


def test_grand_conjoined_bad_input(tmp_path: Path):
    corpora.lj(tmp_path / "lj")
    constants(tmp_path / "solo", [100])
    with pytest.raises(
        ValueError, match="only_paired is false: unsupervised_audio_args and text_corpus_args are needed"
    ):
        conjoined(tmp_path)
    for where, key in (
        ("paired_dataset_args", "max_wav_length"),
        ("paired_dataset_args", "sample_rate"),
        ("unsupervised_audio_args", "pad_to_samples"),
        ("unsupervised_audio_args", "extra_samples"),
        ("unsupervised_audio_args", "sampling_rate"),
    ):
        args = {"paired_dataset_args": {"path": tmp_path}, "unsupervised_audio_args": {"path": tmp_path}}
        with pytest.raises(ValueError, match=f"{where}: {key} must stand outside"):
            GrandConjoinedDataset(**{**args, where: {"path": tmp_path, key: 3}}, only_paired=True)
    with pytest.raises(ValueError, match=r"path is missing: .*data sets of the hub .*bookcorpus.* are not read here"):
        TextCorpus(corpi=[["bookcorpus", ""]])
    bad = corpora.json_lines(tmp_path, [{"text": 3}])
    for text, message in (
        (bad, "train.jsonl:1: has no text"),
        (corpora.listed(tmp_path, ["*"]), "no text can be taken"),
    ):
        with pytest.raises(ValueError, match=message):
            conjoined(
                tmp_path, unsupervised_audio_args={"path": tmp_path / "solo"}, text_corpus_args=TextCorpus(path=[text])
            )


def test_options_of_another_class_are_checked_as_its_own():
    annotation = registry.options_of(GrandConjoinedDataset)["paired_dataset_args"].annotation
    optional = registry.options_of(GrandConjoinedDataset)["unsupervised_audio_args"].annotation
    for text, kind, message in (
        ("{path: x, fetcher_mod: lj}", annotation, "unknown key 'fetcher_mod' in args; did you mean 'fetcher_mode'?"),
        ("{fetcher_mode: lj}", annotation, "args.path is missing"),
        ("{path: x, fetcher_mode: ogg}", annotation, "args.fetcher_mode must be one of lj"),
        ("[1]", annotation, "args must be a mapping, got a list"),
        ("{path: x, pad_to: 3}", optional, "unknown key 'pad_to' in args"),
    ):
        problems: list[Any] = []
        Converter(problems, []).convert(parse_yaml(text, "x.yml", problems), kind, "args")
        assert message in problems[0][1]
    found = Converter([], []).convert(parse_yaml("{path: [a, b]}", "x.yml", []), annotation, "args")
    assert found == {"path": [Path("a"), Path("b")]}


@pytest.mark.parametrize(
    ("name", "options", "printed"),
    [
        ("unsupervised_audio", ["--path", "wavs", "--pad-to-samples", "500"], "wrote x.png: clip of 3 items"),
        ("audio_with_noise", ["--path", "wavs", "--pad-to-samples", "500"], "wrote x.png: clip, aug of 3 items"),
        ("nv_tacotron", ["--path", ".", "--mel-fmax", "4000"], "wrote x.png: padded_mel of 1 item"),
        ("gpt_tts", ["--path", "train.jsonl", "--fetcher-mode", "jsonl"], "taken: 2 recordings of 1 to 3 codes"),
        ("grand_conjoined", ["--paired-dataset-args", "{path: .}", "--only-paired"], "paired_audio, speech_audio of 3"),
    ],
)
def test_as_modules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, options: list[str],
    printed: str,
):  # fmt: skip
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    corpora.lj(tmp_path)
    corpora.json_lines(tmp_path, CODES)
    rate = [] if name == "gpt_tts" else ["--sample-rate", "8000"]
    preview.main(name, [*options, *rate, "--out", "x.png", "--items", "3"])
    assert printed in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        preview.main(name, ["--help"])
    assert caught.value.code == 0
    assert f"python -m codes.data.audio.{name}" in capsys.readouterr().out
