"""The data doctor: every kind of finding on files made to have it, none on clean ones, the command and its outputs."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from codes.data.audio.doctor import diagnose, main
from codes.data.audio.health.as_json import as_record
from codes.data.audio.health.as_text import print_diagnosis
from codes.data.audio.health.diagnosis import TITLES, Diagnosis, Finding, Plan, verdict
from codes.data.audio.health.measure import measure
from codes.data.audio.reader import AudioReadError
from codes.data.audio.resample import resample
from codes.data.audio.splits import Split
from codes.data.audio.stereo_chunk import StereoChunkDataset
from tests.data.audio.coded_audio import tones, write_coded
from tests.data.audio.doctor_folders import RATE_HZ, music, noise, write, write_broken

NO_SPLIT = Plan(split=Split(val_fraction=0.0))


def examine(folder: Path, plan: Plan = NO_SPLIT) -> Diagnosis:
    return diagnose([folder], plan=plan, workers=2)


def only(diagnosis: Diagnosis) -> Finding:
    """The one finding that there is."""
    assert [finding.kind for finding in diagnosis.findings] == [diagnosis.findings[0].kind], diagnosis.findings
    return diagnosis.findings[0]


def kinds(diagnosis: Diagnosis) -> dict[str, set[str]]:
    """File name -> kinds of findings about it."""
    found: dict[str, set[str]] = {}
    for finding in diagnosis.findings:
        for path in finding.files:
            found.setdefault(path.name, set()).add(finding.kind)
    return found


# -- files that cannot be read


def test_each_broken_file_is_an_error_of_its_kind(tmp_path: Path):
    expected = write_broken(tmp_path)
    diagnosis = examine(tmp_path)
    assert kinds(diagnosis) == {name: {kind} for name, kind in expected.items()}
    assert {finding.severity for finding in diagnosis.findings} == {"error"}
    assert [file.path.name for file in diagnosis.readable] == ["good.wav"]
    by_name = {finding.files[0].name: finding for finding in diagnosis.findings}
    assert by_name["cut.wav"].what.startswith("truncated: ")  # without the path, which stands beside it
    assert by_name["nothing.wav"].what == "is empty (0 bytes)"
    assert "on_error: skip" in by_name["cut.wav"].advice
    assert by_name["float.wav"].advice.startswith("float_bits: 24")
    assert not diagnosis.is_safe()


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path):
    write_broken(tmp_path)
    hit = next(file for file in examine(tmp_path).files if file.path.name == "hit.flac")
    assert hit.info is not None  # its header is sound
    assert hit.measures is None
    assert "broken" in str(hit.error)


def test_skipped_files_are_warnings(tmp_path: Path):
    write_broken(tmp_path)
    diagnosis = examine(tmp_path, Plan(split=Split(val_fraction=0.0), on_error="skip"))
    assert {finding.severity for finding in diagnosis.findings} == {"warning"}
    assert diagnosis.is_safe()
    assert not diagnosis.is_safe(strict=True)


def _bad_files(folder: Path, num_bad: int) -> None:
    """Four sound files, and files that are none."""
    for seed in range(4):
        write(folder / f"{seed}.wav", noise(seed))
    for number in range(num_bad):
        (folder / f"bad{number}.wav").write_bytes(b"x")


@pytest.mark.parametrize(("num_bad", "max_errors", "is_safe"), [(3, 3, True), (3, 2, False), (1, 0, False)])
def test_more_errors_than_a_dataset_takes(tmp_path: Path, num_bad: int, max_errors: int, is_safe: bool):
    folder = tmp_path / "sound"
    _bad_files(folder, num_bad)
    told = {"on_error": "skip", "max_errors": max_errors}
    diagnosis = diagnose([folder], plan=Plan(**told))
    assert diagnosis.is_safe() is is_safe
    common = {"path": [folder], "chunk_frames": 1000, "index": tmp_path / "index.jsonl"}
    if is_safe:
        assert len(StereoChunkDataset(**common, **told)) > 0
        return
    worst = diagnosis.findings[0]
    assert (worst.kind, worst.severity, worst.option) == ("too_many_errors", "error", f"max_errors: {num_bad}")
    assert worst.what == f"{num_bad} files cannot be read; max_errors is {max_errors}"
    assert len(worst.files) == num_bad
    with pytest.raises(AudioReadError, match=f"max_errors is {max_errors}, and {num_bad} files cannot be read"):
        StereoChunkDataset(**common, **told)
    assert diagnose([folder], plan=Plan(on_error="skip", max_errors=num_bad)).is_safe()


def test_files_that_do_not_decode_count_on_their_side(tmp_path: Path):
    write_broken(tmp_path)  # hit.flac has a sound header; seven others have none
    for names, most in (("hit.flac\n", 8), ("good.wav\n", 8)):
        (tmp_path / "val.txt").write_text(names)
        split = Split(by="list", val_list=tmp_path / "val.txt")
        for max_errors in (most - 1, most):
            diagnosis = examine(tmp_path, Plan(split=split, on_error="skip", max_errors=max_errors))
            assert diagnosis.is_safe() is (max_errors == most)
    for name in ("hit", "hit2"):
        (tmp_path / f"{name}.flac").write_bytes((tmp_path / "hit.flac").read_bytes())
    (tmp_path / "val.txt").write_text("hit.flac\n")
    assert examine(tmp_path, Plan(split=split, on_error="skip", max_errors=8)).is_safe()  # one on each side


def test_skipping_all_files_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"x")
    diagnosis = examine(tmp_path, Plan(split=Split(val_fraction=0.0), on_error="skip"))
    assert [finding.kind for finding in diagnosis.findings] == ["none_readable", "not_audio"]
    assert not diagnosis.is_safe()


def test_the_command_counts_errors_as_a_dataset_does_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _bad_files(tmp_path, 101)
    assert main([str(tmp_path), "--on-error", "skip"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Not safe to train: 1 error. Change: max_errors: 101 (1 error)."
    assert main([str(tmp_path), "--on-error", "skip", "--max-errors", "101"]) == 0


def test_float_bits_reads_floating_point(tmp_path: Path):
    soundfile.write(tmp_path / "float.wav", noise().T / 32768.0, RATE_HZ, "FLOAT")
    assert only(examine(tmp_path)).kind == "floating_point"
    assert examine(tmp_path, Plan(split=Split(val_fraction=0.0), float_bits=16)).findings == []
    padded = only(examine(tmp_path, Plan(split=Split(val_fraction=0.0), float_bits=24)))
    assert (padded.kind, padded.values["real_bits"]) == ("padded_bits", 16)


def test_folder_with_nothing_but_broken_files(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"")
    diagnosis = diagnose([tmp_path])
    assert only(diagnosis).kind == "empty"
    assert verdict(diagnosis) == "Not safe to train: 1 error. Change: on_error: skip (1 error)."


# -- clean files


@pytest.mark.parametrize("make", [noise, music])
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_clean_files_give_no_finding(tmp_path: Path, make: object, suffix: str):
    assert callable(make)
    for seed in range(3):
        write(tmp_path / f"{seed}.{suffix}", make(seed))
    diagnosis = diagnose([tmp_path])
    assert diagnosis.findings == []
    assert verdict(diagnosis) == "Safe to train: all 3 readable files decode to their end, and no problem was found."


@pytest.mark.parametrize("bits", [8, 24])
def test_clean_files_of_other_depths(tmp_path: Path, bits: int):
    samples = np.random.default_rng(0).normal(0.0, 0.1, (1, 50_000)) * 2 ** (bits - 1)
    write(tmp_path / "a.wav", np.rint(samples).astype(np.int32), bits=bits)
    assert examine(tmp_path).findings == []


@pytest.mark.parametrize("num_frames", [1, 2, 440, 3000, 9000])
def test_short_files_are_measured(tmp_path: Path, num_frames: int):
    write(tmp_path / "a.wav", np.tile(np.array([[505, -909, 1212, 4041]], np.int16), 2250)[:, :num_frames])
    diagnosis = examine(tmp_path)
    assert len(diagnosis.readable) == 1
    assert kinds(diagnosis).get("a.wav", set()) <= {"silent"}  # a single sample never changes


# -- what is wrong with the sound


def test_clipping(tmp_path: Path):
    time = np.arange(44_100) / RATE_HZ
    sine = 1.3 * np.sin(2 * np.pi * 443.0 * time)[None]
    rms = noise(num_channels=1) / 32768.0
    loud = np.clip(np.rint((sine + 0.1 * rms) * 32767), -32767, 32767).astype(np.int16)
    write(tmp_path / "a.wav", loud)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity) == ("clipping", "warning")
    assert finding.values["share"] == pytest.approx((np.abs(loud) == 32767).mean(), abs=1e-3)
    assert 880 <= finding.values["num_runs"] <= 890  # two in each period


@pytest.mark.parametrize("hz", [30.0, 443.0])
def test_full_scale_without_clipping_is_clean(tmp_path: Path, hz: float):
    time = np.arange(44_100) / RATE_HZ
    write(tmp_path / "a.wav", np.rint(32767 * np.sin(2 * np.pi * hz * time)[None]).astype(np.int16))
    assert "clipping" not in kinds(examine(tmp_path)).get("a.wav", set())


def test_flat_tops_below_full_scale_are_no_clipping(tmp_path: Path):
    write(tmp_path / "a.wav", np.clip(noise(), -3000, 3000).astype(np.int16))
    assert examine(tmp_path).findings == []


def test_a_single_clipped_run_is_a_note(tmp_path: Path):
    pcm = noise(num_channels=1)
    pcm[0, 1000:1004] = 32767
    write(tmp_path / "a.wav", pcm)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity, finding.values["num_runs"]) == ("clipping", "note", 1)
    assert finding.values["share"] == pytest.approx(4 / 44_100)


@pytest.mark.parametrize(("value", "what"), [(0, "digital silence"), (77, "one constant value")])
def test_silent_files(tmp_path: Path, value: int, what: str):
    write(tmp_path / "a.wav", np.full((2, 20_000), value, np.int16))
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity, finding.what) == ("silent", "warning", what)


def test_silent_files_are_not_duplicates_besides(tmp_path: Path):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, np.zeros((2, 20_000), np.int16))
    assert [finding.kind for finding in examine(tmp_path).findings] == ["silent", "silent"]


def test_quiet_file(tmp_path: Path):
    write(tmp_path / "a.wav", noise(rms=5.0))
    finding = only(examine(tmp_path))
    assert finding.kind == "quiet"
    assert finding.values["peak"] == np.abs(noise(rms=5.0)).max() / 32768


@pytest.mark.parametrize(("share", "severity"), [(0.1, None), (0.3, "note"), (0.7, "warning")])
def test_digital_silence_inside(tmp_path: Path, share: float, severity: str | None):
    pcm = noise()
    pcm[:, 4410 : 4410 + round(share * 44_100)] = 0
    write(tmp_path / "a.wav", pcm)
    diagnosis = examine(tmp_path)
    if severity is None:
        assert diagnosis.findings == []
        return
    finding = only(diagnosis)
    assert (finding.kind, finding.severity) == ("silence", severity)
    assert finding.values["share"] == pytest.approx(share)
    assert finding.values["longest_seconds"] == pytest.approx(share)


def test_offset(tmp_path: Path):
    pcm = noise()
    pcm[1] += 400
    write(tmp_path / "a.wav", pcm)
    finding = only(examine(tmp_path))
    assert finding.kind == "offset"
    assert finding.values["share"] == pytest.approx(400 / 32768, rel=0.05)


def test_half_a_step_is_no_offset(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", (noise(rms=600.0) & ~255).T, RATE_HZ, subtype="PCM_U8")
    assert measure(tmp_path / "a.wav").offsets[0] < -0.003
    assert "offset" not in kinds(examine(tmp_path)).get("a.wav", set())


def test_a_one_sided_drum_has_no_offset(tmp_path: Path):
    time = np.arange(66_150) / RATE_HZ
    drum = 12_000 * np.exp(-30 * time) + noise(num_channels=1, num_frames=66_150, rms=300.0)
    assert drum.mean() / 32768 > 0.003
    write(tmp_path / "a.wav", np.rint(drum).astype(np.int16))
    assert "offset" not in kinds(examine(tmp_path)).get("a.wav", set())


def test_equal_channels(tmp_path: Path):
    write(tmp_path / "a.wav", np.repeat(noise(num_channels=1), 2, axis=0))
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.what) == ("fake_stereo", "channels 0 and 1 are equal, sample by sample")
    assert finding.advice == "channels: {select: [0]} takes one of them"


@pytest.mark.parametrize("gain", [0.5, -1.0, -0.31, 1.7])
def test_equal_up_to_a_gain(tmp_path: Path, gain: float):
    left = noise(num_channels=1).astype(np.float64)
    write(tmp_path / "a.wav", np.rint(np.concatenate([left, gain * left])).astype(np.int16))
    finding = only(examine(tmp_path))
    assert finding.kind == "fake_stereo"
    assert finding.values["pairs"][0]["gain"] == pytest.approx(gain, rel=1e-3)
    assert ("inverted" in finding.what) == (gain < 0)


def test_several_equal_channels_are_one_finding(tmp_path: Path):
    left, right = noise(num_channels=2)
    write(tmp_path / "a.wav", np.stack([left, right, left, right, left]))
    finding = only(examine(tmp_path))
    words = [f"channels {i} and {j} are equal, sample by sample" for i, j in ((0, 2), (0, 4), (1, 3))]
    assert finding.what == "; ".join(words)
    assert finding.advice == "channels: {select: [0, 1]} takes each signal once"


def test_nearly_equal_channels_are_stereo(tmp_path: Path):
    mid, side = noise(0, num_channels=1), noise(1, num_channels=1, rms=4.0)
    write(tmp_path / "a.wav", np.concatenate([mid + side, mid - side]))
    assert examine(tmp_path).findings == []


def test_dead_channel(tmp_path: Path):
    pcm = noise()
    pcm[0] = 0
    write(tmp_path / "a.wav", pcm)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.advice) == ("dead_channel", "channels: {select: [1]} takes the others")


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 44_100), (16_000, 44_100), (22_050, 44_100), (44_100, 96_000)])
@pytest.mark.parametrize("make", [noise, music])
def test_upsampled(tmp_path: Path, make: object, from_hz: int, to_hz: int):
    assert callable(make)
    low = resample(make(0), RATE_HZ, from_hz, 16) if from_hz != RATE_HZ else make(0)
    write(tmp_path / "a.wav", resample(low, from_hz, to_hz, 16), to_hz)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity) == ("band_limited", "warning")
    assert 0.9 <= finding.values["edge_hz"] / (from_hz / 2) <= 1.04
    assert f"sample_rate: {from_hz} keeps all of it" in finding.advice
    assert finding.what.startswith(f"{to_hz / 1000:g} kHz, nothing above ")


def test_a_high_edge_is_a_note(tmp_path: Path):
    write(tmp_path / "a.wav", resample(noise(), RATE_HZ, 48_000, 16), 48_000)
    assert (only(examine(tmp_path)).kind, only(examine(tmp_path)).severity) == ("band_limited", "note")


@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize("corner_hz", [300.0, 2000.0, 8000.0])
def test_dark_sounds_are_not_upsampled(tmp_path: Path, order: int, corner_hz: float):
    """A Butterworth filter of order 8 falls by 48 dB an octave, down to the rounding noise."""
    spectrum = np.fft.rfft(music().astype(np.float64), axis=1)
    hz = np.fft.rfftfreq(music().shape[1], 1 / RATE_HZ)
    dark = np.fft.irfft(spectrum / np.sqrt(1 + (hz / corner_hz) ** (2 * order)), axis=1)
    write(tmp_path / "a.wav", np.rint(dark).astype(np.int16))
    assert examine(tmp_path).findings == []


def test_padded_bits(tmp_path: Path):
    write(tmp_path / "a.flac", noise().astype(np.int32) << 8, bits=24)
    finding = only(examine(tmp_path))
    assert finding.kind == "padded_bits"
    assert finding.what == "24 bits, of which the lowest 8 bits are always zero: 16 real bits"
    assert finding.advice == "bits: 16 loses nothing"


def test_few_values(tmp_path: Path):
    coarse = np.rint(noise(num_frames=88_200) / 256.0) * 201.7
    write(tmp_path / "a.wav", np.rint(coarse).astype(np.int16))
    finding = only(examine(tmp_path))
    assert finding.kind == "few_values"
    assert finding.values == {"num_values": len(np.unique(np.rint(coarse))), "step": 202}


@pytest.mark.parametrize("hz", [441.0, 147.0, 44.1])
def test_tones_of_whole_periods_have_few_values_and_are_clean(tmp_path: Path, hz: float):
    tone = 9000 * np.sin(2 * np.pi * hz * np.arange(88_200) / RATE_HZ)
    write(tmp_path / "a.wav", np.rint(tone)[None].astype(np.int16))
    assert len(np.unique(np.rint(tone))) < 1024
    assert examine(tmp_path).findings == []


def test_lossy_is_a_note_and_keeps_its_own_edge(tmp_path: Path):
    write_coded(tmp_path / "a.mp3", "libmp3lame", tones(2, 60_000, RATE_HZ), sample_rate_hz=RATE_HZ)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity, finding.what) == (
        "lossy",
        "note",
        "1 MP3 MP3FLOAT",
    ) or finding.kind == "lossy"


# -- files together


def test_duplicates_by_bytes_and_by_sound(tmp_path: Path):
    first = write(tmp_path / "a.wav", noise(0))
    (tmp_path / "b.wav").write_bytes(first.read_bytes())
    write(tmp_path / "c.wav", noise(1))
    write(tmp_path / "d.flac", noise(1), title="another")
    write(tmp_path / "e.aiff", noise(1))
    write(tmp_path / "f.wav", noise(2))
    diagnosis = examine(tmp_path)
    found = {finding.kind: {path.name for path in finding.files} for finding in diagnosis.findings}
    assert found == {"duplicate_files": {"a.wav", "b.wav"}, "duplicate_sound": {"c.wav", "d.flac", "e.aiff"}}


def test_the_same_samples_with_more_bits_are_duplicates_and_at_another_rate_are_not(tmp_path: Path):
    write(tmp_path / "a.wav", noise(0))
    write(tmp_path / "b.wav", noise(0).astype(np.int32) << 8, bits=24)
    write(tmp_path / "c.wav", noise(0), 22_050)
    found = [finding for finding in examine(tmp_path).findings if finding.kind.startswith("duplicate")]
    assert [[path.name for path in finding.files] for finding in found] == [["a.wav", "b.wav"]]


def _leaky(folder: Path) -> Path:
    """One sound under two names in two folders, and two other sounds."""
    for seed, name in enumerate(("one/a.wav", "one/b.wav", "two/c.wav")):
        write(folder / name, noise(seed))
    write(folder / "two/again.flac", noise(0))
    return folder


def test_a_leak_is_an_error(tmp_path: Path):
    folder = _leaky(tmp_path)
    (tmp_path / "val.txt").write_text("two/*\n")
    diagnosis = examine(folder, Plan(split=Split(by="list", val_list=tmp_path / "val.txt")))
    leak = next(finding for finding in diagnosis.findings if finding.kind == "leak")
    assert leak.severity == "error"
    assert leak.what == "to train: one/a.wav; to validate: two/again.flac"
    assert diagnosis.findings[0] is leak  # the worst comes first
    assert not diagnosis.is_safe()


def test_a_leak_of_many_files_names_a_few(tmp_path: Path):
    for number in range(12):
        write(tmp_path / "music" / f"{number:02}.wav", noise())
    (tmp_path / "val.txt").write_text("0*\n")
    plan = Plan(split=Split(by="list", val_list=tmp_path / "val.txt"))
    diagnosis = examine(tmp_path / "music", plan)
    leak = next(finding for finding in diagnosis.findings if finding.kind == "leak")
    assert leak.what == "to train: 10.wav, 11.wav; to validate: 00.wav, 01.wav, 02.wav, 03.wav and 6 more"
    assert len(leak.values["val"]) == 10


def test_a_list_that_names_nothing_is_advised_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(2):
        write(tmp_path / "music" / f"{number}.wav", noise(seed=number))
    (tmp_path / "val.txt").write_text("other.wav\n")
    diagnosis = examine(tmp_path / "music", Plan(split=Split(by="list", val_list=tmp_path / "val.txt")))
    finding = next(finding for finding in diagnosis.findings if finding.kind == "no_split")
    assert finding.option == f"val_list: {tmp_path / 'val.txt'}"
    wrong = [str(tmp_path / "music"), "--split", "list", "--val-list", str(tmp_path / "none.txt")]
    assert main(wrong) == 2
    assert capsys.readouterr().err == f"error: val_list: {tmp_path / 'none.txt'} does not exist\n"


@pytest.mark.parametrize("split", [Split(val_fraction=0.0), Split(val_fraction=1.0), Split(by="interval")])
def test_no_leak_where_equal_files_are_treated_alike(tmp_path: Path, split: Split):
    diagnosis = examine(_leaky(tmp_path), Plan(split=split))
    assert {finding.kind for finding in diagnosis.findings} == {"duplicate_sound"}


def test_sides_are_those_of_the_split(tmp_path: Path):
    folder = _leaky(tmp_path)
    diagnosis = examine(folder, Plan(split=Split(by="folder", val_fraction=0.4)))
    sides = {file.relative.split("/")[0]: file.side for file in diagnosis.files}
    assert set(sides.values()) == {"train", "val"}
    assert all(file.side == sides[file.relative.split("/")[0]] for file in diagnosis.files)


def test_one_file_cannot_be_split(tmp_path: Path):
    write(tmp_path / "a.wav", noise())
    finding = only(diagnose([tmp_path]))
    assert (finding.kind, finding.severity) == ("no_split", "error")
    assert "split: interval" in finding.advice


def test_mixed_rates(tmp_path: Path):
    write(tmp_path / "a.wav", noise(0))
    write(tmp_path / "b.wav", noise(1))
    write(tmp_path / "c.wav", noise(2), 16_000)
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity, finding.what) == ("mixed_rates", "error", "1 of 16000 Hz, 2 of 44100 Hz")
    assert finding.advice.startswith("sample_rate: 44100 resamples the others")
    assert [path.name for path in finding.files] == ["c.wav"]
    told = only(examine(tmp_path, Plan(split=Split(val_fraction=0.0), sample_rate_hz=16_000)))
    assert (told.severity, [path.name for path in told.files]) == ("note", ["a.wav", "b.wav"])


def test_mixed_channels_and_depths(tmp_path: Path):
    write(tmp_path / "a.wav", noise(0))
    write(tmp_path / "b.wav", noise(1, num_channels=1).astype(np.int32) * 255 + 1, bits=24)
    found = {finding.kind: finding for finding in examine(tmp_path).findings}
    assert {kind: finding.severity for kind, finding in found.items()} == {
        "mixed_channels": "error",
        "mixed_depths": "note",
    }
    assert found["mixed_channels"].what == "1 of 1 channel, 1 of 2 channels"
    assert found["mixed_depths"].advice.startswith("bits: 24")
    for plan in (
        Plan(split=Split(val_fraction=0.0), channels="any"),
        Plan(split=Split(val_fraction=0.0), other_channels="skip"),
    ):
        assert examine(tmp_path, plan).is_safe()


def test_left_out_files_are_noted(tmp_path: Path):
    write(tmp_path / "a.wav", noise())
    (tmp_path / "cover.jpg").write_bytes(b"x")
    finding = only(examine(tmp_path))
    assert (finding.kind, finding.severity, finding.what) == ("left_out", "note", "1 not audio by its name (.jpg)")


# -- what it says is what datasets do


def _mixed(folder: Path, case: str) -> None:
    for seed in range(4):
        write(folder / f"{seed}.wav", noise(seed))
    if case == "rates":
        write(folder / "odd.wav", noise(9), 22_050)
    if case == "channels":
        write(folder / "odd.wav", noise(9, num_channels=1))
    if case == "text":
        (folder / "odd.wav").write_text("text" * 100)
    if case == "float":
        soundfile.write(folder / "odd.wav", noise(9).T / 32768.0, RATE_HZ, "FLOAT")


@pytest.mark.parametrize(
    ("case", "plan", "options"),
    [
        ("rates", {"sample_rate_hz": 44_100}, {"sample_rate": 44_100}),
        ("channels", {"other_channels": "skip"}, {"other_channels": "skip"}),
        ("channels", {"channels": "any"}, {"channels": "duplicate"}),
        ("text", {"on_error": "skip"}, {"on_error": "skip"}),
        ("float", {"float_bits": 24}, {"float_bits": 24}),
    ],
)
def test_errors_stop_a_dataset_and_the_advised_option_helps_both(
    tmp_path: Path, case: str, plan: dict[str, Any], options: dict[str, Any]
):
    folder = tmp_path / "sound"
    _mixed(folder, case)
    common = {"chunk_frames": 1000, "cache_folder": tmp_path / "cache", "index": tmp_path / "index.jsonl"}
    before = diagnose([folder])
    assert not before.is_safe()
    advised = ", ".join(f"{finding.option} {finding.advice}" for finding in before.findings)
    assert all(f"{name}: " in advised and str(value) in advised for name, value in options.items())
    with pytest.raises((ValueError, OSError)):
        StereoChunkDataset(path=[folder], **common)
    assert diagnose([folder], plan=Plan(**plan)).is_safe()
    assert len(StereoChunkDataset(path=[folder], **common, **options)) > 0


def test_sides_are_those_of_a_dataset(tmp_path: Path):
    folder = tmp_path / "sound"
    _mixed(folder, "none")
    sides = {file.path.name: file.side for file in diagnose([folder]).files}
    for phase in ("train", "val"):
        dataset = StereoChunkDataset(path=[folder], chunk_frames=1000, phase=phase, index=tmp_path / "index.jsonl")
        names = {recording.file.path.name for recording in dataset.recordings}
        assert names == {name for name, side in sides.items() if side == phase}


# -- the command


def test_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "sound"
    write_broken(folder)
    report, drawn = tmp_path / "report.json", tmp_path / "report.png"
    status = main(
        [str(folder), "--json", str(report), "--picture", str(drawn), "--val-fraction", "0", "--workers", "1"]
    )
    assert status == 1
    printed = capsys.readouterr().out
    assert "found     9 files, " in printed
    assert "error: truncated (2)\n  get it again; on_error: skip leaves such files out\n" in printed
    assert "    nothing.wav  is empty (0 bytes)\n" in printed
    changes = "on_error: skip (7 errors); float_bits: 24 (1 error)"
    assert printed.splitlines()[-1] == f"Not safe to train: 8 errors. Change: {changes}."
    record = json.loads(report.read_text())
    assert record["safe"] is False
    assert record["counts"] == {"error": 8, "warning": 0, "note": 0}
    assert record["durations"]["sample_rate_hz"] == {"44100": 2.0}
    assert {finding["option"] for finding in record["findings"]} == {"on_error: skip", "float_bits: 24"}
    good = next(file for file in record["files"] if file["relative"] == "good.wav")
    assert good["info"]["num_frames"] == 44_100
    assert good["measures"]["peak"] == pytest.approx(np.abs(noise(1)).max() / 32768)
    assert len(good["measures"]["pcm_hash"]) == 64
    assert good["side"] == "train"
    with Image.open(drawn) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (900, 1280, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_exit_status_with_and_without_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed in range(3):
        write(tmp_path / f"{seed}.wav", noise(seed))
    assert main([str(tmp_path), "--strict"]) == 0
    write(tmp_path / "3.wav", np.repeat(noise(7, num_channels=1), 2, axis=0))
    assert main([str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("But look at 1 warning about quality: channels that are one signal (1).")
    assert main([str(tmp_path), "--strict"]) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("Not safe to train, as --strict counts warnings: 1 warning")
    )


def test_most_limits_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed in range(5):
        (tmp_path / f"{seed}.wav").write_bytes(b"")
    assert main([str(tmp_path), "--most", "2"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("is empty") == 2
    assert "and 3 more" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/none"], "{0}/none does not exist: give a folder of audio files, or one such file"),
        (["{0}"], "no audio in {0}: there is no file at all"),
        (["{0}", "--json", "{0}/x/y.json"], "{0}/x/y.json cannot be written: {0}/x is not a folder"),
        (["{0}", "--val-fraction", "2"], "val_fraction is 2.0, allowed are 0 to 1"),
        (["{0}", "--split", "list"], "val_list: split: list needs val_list, the file that names the validation files"),
        (["{0}", "--workers", "0"], "workers is 0, it must be at least 1"),
        (["{0}", "--most", "0"], "--most is 0, it must be at least 1"),
        (["{0}", "--max-errors", "-1"], "--max-errors is -1, it must be at least 0"),
        (["{0}", "--float-bits", "7"], "--float-bits is 7, it must be 8 to 32"),
        (["{0}", "--sample-rate", "0"], "--sample-rate is 0, it must be at least 1"),
    ],
)
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {message.format(tmp_path)}\n"
    assert printed.out == ""


def test_runs_as_a_module(tmp_path: Path):
    write(tmp_path / "a.wav", noise(0))
    write(tmp_path / "b.wav", noise(1)).rename(tmp_path / "b\udcff.wav")  # a name that is not UTF-8
    command = [sys.executable, "-m", "codes.data.audio.doctor", str(tmp_path), "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Safe to train" in done.stdout
    assert "\\udcff" in (tmp_path / "out.json").read_text()
    assert subprocess.run(command[:3], capture_output=True).returncode == 2


def test_on_a_terminal_it_is_in_colours(tmp_path: Path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write_broken(tmp_path)
    stream = Terminal()
    print_diagnosis(examine(tmp_path), stream=stream)
    assert "\x1b[" in stream.getvalue()
    assert "Not safe to train: 8 errors" in stream.getvalue().replace("\n", " ")


def test_every_kind_of_finding_has_a_title_and_json_is_finite(tmp_path: Path):
    write(tmp_path / "a.wav", np.zeros((1, 5000), np.int16))
    record = as_record(examine(tmp_path))
    assert record["files"][0]["measures"]["rms_db"] is None
    assert all(finding["kind"] in TITLES for finding in record["findings"])
    json.dumps(record, allow_nan=False)
