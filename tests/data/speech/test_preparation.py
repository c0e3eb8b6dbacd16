"""A folder of recordings to a dataset of speech: cuts, judgements, texts, going on, and what the dataset reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes.data.audio.paired_voice_audio import PairedVoiceAudioDataset
from codes.data.speech import preparation
from codes.data.speech.preparation import PreparationError, PreparationOptions, prepare
from codes.data.speech.quality import QualityLimits, measure_clip
from codes.data.speech.splitting import FrameLevels, SplitOptions, find_pieces, levels_of, quiet_and_loud
from codes.data.speech.transcription import Transcriber, TranscriberError
from scripts import prepare_speech as command
from tests.data.speech import asr_models

RATE = 8000
SPLIT = SplitOptions(min_seconds=0.5, max_seconds=3.0, margin_seconds=0.05, join_pause_seconds=0.4)


def sound(seconds: float, level: float = 0.3, seed: int = 0) -> np.ndarray:
    """Noise that rises and falls, as syllables do: (n,) int16."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, level, len(time)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    return np.clip(noise * 32767, -30000, 30000).astype(np.int16)


def pause(seconds: float, seed: int = 9) -> np.ndarray:
    """A quiet room: (n,) int16."""
    return np.random.default_rng(seed).integers(-20, 21, round(seconds * RATE)).astype(np.int16)


def speech(*seconds: float, gap: float = 0.6) -> np.ndarray:
    """Stretches of sound with pauses around them."""
    parts = [part for number, length in enumerate(seconds) for part in (sound(length, seed=number), pause(gap))]
    return np.concatenate([pause(gap), *parts])


def pieces(wav: np.ndarray, **options: float) -> list[tuple[float, float]]:
    """Start and end of the pieces in seconds."""
    chosen = SplitOptions(**{"min_seconds": 0.5, "max_seconds": 3.0, "margin_seconds": 0.05, **options})
    return [(start / 100, end / 100) for start, end in find_pieces(levels_of(wav, RATE), chosen)]


def write(path: Path, wav: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two signals, as long as the shorter one."""
    length = min(len(first), len(second))
    return first[:length] + second[:length]


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "clips.jsonl").read_text(encoding="utf-8").splitlines()]


def test_pieces_lie_between_pauses():
    found = pieces(speech(1.0, 2.0, 0.8), join_pause_seconds=0.4)
    np.testing.assert_allclose(found, [(0.55, 1.65), (2.15, 4.25), (4.75, 5.65)], atol=0.04)


def test_short_pauses_belong_to_speech_and_near_pieces_are_joined():
    found = pieces(speech(1.0, 1.0, gap=0.2))
    np.testing.assert_allclose(found, [(0.15, 2.45)], atol=0.04)
    found = pieces(speech(1.0, 1.0, 1.0), join_pause_seconds=0.7)
    np.testing.assert_allclose(found, [(0.55, 3.25), (3.75, 4.85)], atol=0.04)


def test_what_has_no_pause_is_cut_where_it_is_quietest():
    wav = sound(8.0)
    wav[int(2.4 * RATE) : int(2.6 * RATE)] //= 8
    found = pieces(wav)
    assert 2.4 < found[0][1] - 0.0 < 2.7
    assert all(0.5 <= end - start <= 3.0 for start, end in found)
    assert sum(end - start for start, end in found) == pytest.approx(8.0, abs=0.3)


@pytest.mark.parametrize("wav", [np.zeros(4000, np.int16), np.zeros(0, np.int16), np.zeros(30, np.int16)])
def test_silence_has_no_pieces(wav: np.ndarray):
    assert pieces(wav) == []


def test_digital_silence_is_not_the_quiet_of_a_recording():
    wav = np.concatenate([speech(1.0, 1.0), np.zeros(4 * RATE, np.int16)])
    quiet, loud = quiet_and_loud(levels_of(wav, RATE))
    assert -75 < quiet < -60
    assert loud > -20
    assert len(pieces(wav, join_pause_seconds=0.4)) == 2


@pytest.mark.parametrize("block", [1, 77, 1000, 9999])
@pytest.mark.parametrize("rate", [8000, 22_050])
def test_levels_do_not_depend_on_the_blocks(block: int, rate: int):
    wav = sound(0.4)[:3001] if block == 1 else sound(1.3)
    levels = FrameLevels(rate, 16)
    for start in range(0, len(wav), block):
        levels.add(wav[start : start + block])
    made = levels.decibels()
    whole = levels_of(wav, rate)
    np.testing.assert_allclose(made[:-2], whole[: len(made) - 2], atol=1e-9)
    first = wav[: rate // 100] / 32768
    assert whole[0] == pytest.approx(10 * np.log10(np.mean(first**2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_seconds": 0.0}, "min_seconds is 0.0, allowed are above 0 to 5.8"),
        ({"min_seconds": 9.0}, "min_seconds is 9.0, allowed are above 0 to 5.8"),
        ({"margin_seconds": -1.0}, "margin_seconds must be 0 or more"),
        ({"margin_seconds": 5.5}, "margin_seconds is 5.5: two leave nothing of 11.6"),
    ],
)
def test_split_options_that_cannot_be(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        SplitOptions(**options)


def test_quality_and_its_limits():
    clean = measure_clip(speech(1.0, gap=0.2), RATE)
    assert clean.snr_db > 40
    limits = QualityLimits()
    assert limits.reason_against(clean) is None
    noisy = joined(speech(1.0, gap=0.2) // 2, sound(1.4, 0.1))
    assert limits.reason_against(measure_clip(noisy, RATE)) == "noisier than 15 dB"
    assert limits.reason_against(measure_clip(speech(1.0) // 400, RATE)) == "quieter than -45 dB"
    clipped = np.clip(speech(1.0, gap=0.2).astype(int) * 30, -32768, 32767).astype(np.int16)
    assert limits.reason_against(measure_clip(clipped, RATE)) == "with more than 0.1 % of clipped samples"
    dull = QualityLimits(min_bandwidth_hz=3000)
    assert dull.reason_against(clean) is None, "too short to tell"
    assert measure_clip(speech(3.0), RATE).bandwidth_hz > 3000
    low = np.sin(2 * np.pi * 200 * np.arange(4 * RATE) / RATE) * np.geomspace(1, 0.01, 4 * RATE)
    quality = measure_clip(np.rint(low * 9000).astype(np.int16), RATE)
    assert dull.reason_against(quality) == "with nothing above 3000 Hz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two speakers: a long recording, one with a text, one that is noisy, one that is broken."""
    root = tmp_path / "in"
    write(root / "ann" / "long.wav", speech(1.0, 2.0, 0.2, 1.5))
    write(root / "bob" / "said.flac", np.repeat(speech(0.7, 0.7, gap=0.3), 2), 2 * RATE)
    (root / "bob" / "said.txt").write_text("\ufeffWhat he  said | so.\n", encoding="utf-8")
    write(root / "bob" / "street.wav", joined(sound(3.0, 0.1), speech(0.7, 0.4) // 9))
    (root / "bob" / "broken.wav").write_bytes(b"RIFF")
    return root


def test_a_folder_becomes_a_dataset(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    options = ["--sample-rate", "8000", "--min-seconds", "0.5", "--max-seconds", "3", "--join-pause-seconds", "0.4"]
    assert command.main([str(folder), "--out", str(out), *options]) == 1
    printed = capsys.readouterr().out
    assert "recordings: 3, " in printed
    assert "clips: 4, " in printed
    assert "of 2 speakers; 1 with text" in printed
    assert "left out: 1 shorter than 0.5 seconds" in printed
    assert "left out: 2 noisier than 15 dB" in printed
    assert "broken.wav: is not audio" in printed
    assert f"look at it with: python -m codes.data.audio.paired_voice_audio --path {out}" in printed
    clips = [record for record in records(out) if "audio" in record]
    assert [clip["source"] for clip in clips] == ["ann/long.wav"] * 3 + ["bob/said.flac"]
    first, rate = soundfile.read(out / clips[0]["audio"], dtype="int16")
    source = soundfile.read(folder / "ann" / "long.wav", dtype="int16")[0]
    start = round(clips[0]["start_seconds"] * RATE)
    np.testing.assert_array_equal(first, source[start : start + len(first)])
    assert rate == RATE
    assert (out / "metadata.csv").read_text() == f"{clips[3]['audio']}|What he said   so.\n"
    data = PairedVoiceAudioDataset(path=out, sample_rate=RATE)
    assert data.item(0, np.random.default_rng(0))["real_text"] == "What he said   so."


def test_it_goes_on_where_it_was_interrupted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = PreparationOptions(sample_rate=RATE, split=SPLIT)
    whole = prepare(folder, tmp_path / "whole", options)
    out = tmp_path / "out"
    real, calls = preparation._prepare_file, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            with (out / "clips.jsonl").open("a") as log:
                log.write('{"audio": "wavs/x.wav", "source": "bob/said.flac", "seconds": 1, "speaker": "b"}\n{"aud')
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(preparation, "_prepare_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, out, options)
    monkeypatch.setattr(preparation, "_prepare_file", real)
    again = prepare(folder, out, options)
    assert again.lines() == whole.lines()
    assert sorted(map(str, records(out))) == sorted(map(str, records(tmp_path / "whole")))
    assert prepare(folder, out, options).lines() == whole.lines()
    with pytest.raises(PreparationError, match="was begun with another sample_rate: 8000, now 16000; give the same"):
        prepare(folder, out, PreparationOptions(split=SPLIT, sample_rate=16_000))


@pytest.mark.parametrize(
    ("speaker", "folders"),
    [("folder", ["ann", "bob"]), ("file", ["ann_long", "bob_said"]), ("me", ["me"])],
)
def test_speakers(folder: Path, tmp_path: Path, speaker: str, folders: list[str]):
    prepare(folder, tmp_path / "out", PreparationOptions(sample_rate=RATE, split=SPLIT, speaker=speaker))
    assert sorted(path.name for path in (tmp_path / "out" / "wavs").iterdir()) == folders


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--out", "out"], "none does not exist"),
        (["in", "--out", "in/out"], "lies in "),
        (["in", "--out", "full"], "is not empty and no dataset of this command: name another folder"),
        (["in", "--out", "out", "--asr", "in"], "--asr in cannot be loaded"),
        (["in", "--out", "out", "--min-seconds", "7"], "min_seconds is 7.0, allowed are above 0 to 5.8"),
        (["in", "--out", "out", "--speaker", "/"], "speaker is '/': give folder, file or a name"),
        (["in", "--out", "out", "--sample-rate", "10"], "sample_rate is 10, it must be 100 Hz or more"),
    ],
)
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(Path("in") / "a.wav", speech(1.0))
    Path("full").mkdir()
    Path("full/mine.txt").write_text("x")
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_recordings_of_one_name_do_not_overwrite_each_other(tmp_path: Path):
    for name in ("a b.wav", "a_b.wav", "a b.flac", "A_b.wav", "c.wav"):
        write(tmp_path / "in" / name, speech(1.0))
    out = tmp_path / "out"
    summary = prepare(tmp_path / "in", out, PreparationOptions(sample_rate=RATE, split=SPLIT))
    names = [path.name for path in (out / "wavs" / "speaker").iterdir()]
    assert summary.num_clips == len({name.casefold() for name in names}) == 5
    assert any(name.startswith("c_0000") for name in names)


def test_a_full_disk_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "in" / "a.wav", speech(1.0))

    def full(*arguments: Any, **options: Any) -> None:
        raise soundfile.SoundFileRuntimeError("No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(OSError, match=r"a_000000.54.wav cannot be written: No space left"):
        prepare(tmp_path / "in", tmp_path / "out", PreparationOptions(sample_rate=RATE, split=SPLIT))


def test_texts_that_cannot_be_of_the_clip_are_left_out(tmp_path: Path):
    texts = {"long": "so it is said at length " * 3, "right": "so it is said.", "short": "so", "no": ""}
    for name, text in texts.items():
        write(tmp_path / "in" / f"{name}.wav", speech(1.0))
        (tmp_path / "in" / f"{name}.txt").write_text(text)
    out = tmp_path / "out"
    summary = prepare(tmp_path / "in", out, PreparationOptions(sample_rate=RATE, split=SPLIT))
    assert summary.left_out == {
        "with more than 35 characters of text a second": 1,
        "with less than 3 characters of text a second": 1,
        "in which nothing was understood": 1,
    }
    assert (out / "metadata.csv").read_text().count("\n") == summary.num_clips == 1
    assert next(r for r in records(out) if "short" in r["source"] and "left_out" in r)["text"] == "so"


def test_a_text_that_cannot_be_read_names_its_file(tmp_path: Path):
    write(tmp_path / "in" / "a.wav", speech(1.0))
    (tmp_path / "in" / "a.txt").write_bytes(b"\xff\xfe\x00")
    summary = prepare(tmp_path / "in", tmp_path / "out", PreparationOptions(sample_rate=RATE, split=SPLIT))
    assert "a.txt: cannot be read as text" in summary.errors[0]
    (tmp_path / "in" / "a.txt").write_text("word " * 20_000)
    summary = prepare(tmp_path / "in", tmp_path / "out", PreparationOptions(sample_rate=RATE, split=SPLIT))
    assert "a.txt: has 100000 bytes, more than the text of a clip can have" in summary.errors[0]
    assert len(summary.errors) == 1, "what could not be read is tried again"


def test_models_write_down_what_is_said(tmp_path: Path):
    write(tmp_path / "in" / "a.wav", speech(1.0, 1.2))
    model = asr_models.save_ctc(tmp_path / "ctc")
    limits = QualityLimits(min_characters_a_second=0, max_characters_a_second=1000)  # a random model writes anything
    options = PreparationOptions(sample_rate=RATE, split=SPLIT, asr=str(model), limits=limits)
    summary = prepare(tmp_path / "in", tmp_path / "out", options, device="cpu")
    assert summary.num_clips + summary.left_out["in which nothing was understood"] == 2
    assert summary.num_texts == summary.num_clips > 0
    clips = [np.repeat(sound(0.5, seed=seed), 2) for seed in range(5)]
    one_by_one = Transcriber(str(model), device="cpu", batch_size=1)
    together = Transcriber(str(model), device="cpu", batch_size=4)
    texts = together.transcribe(clips, 2 * RATE)
    assert texts == one_by_one.transcribe(clips, 2 * RATE)
    assert len(set(texts)) == 5
    assert set("".join(texts)) <= set("abcdef ")


def test_whisper_writes_and_takes_a_language(tmp_path: Path):
    model = str(asr_models.save_whisper(tmp_path / "whisper"))
    clips = [sound(0.5), sound(1.5)]
    assert len(Transcriber(model, "en", "cpu").transcribe(clips, RATE)) == 2
    assert all(Transcriber(model, None, "cpu").transcribe(clips, RATE))
    with pytest.raises(TranscriberError, match=r"--language xx: .* does not take it"):
        Transcriber(model, "xx", "cpu").transcribe(clips, RATE)


def test_a_model_that_does_not_write_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(TranscriberError, match="a gpt2 model does not write down speech"):
        Transcriber(str(tmp_path))
