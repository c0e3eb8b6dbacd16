"""MUSDB18 in both layouts, the clips of SampleRNN and SaShiMi, BirdVox: exact samples, splits, labels, errors."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codes import registry
from codes.data.audio import preview
from codes.data.audio.beethoven import BeethovenDataset
from codes.data.audio.birdvox import BirdvoxDataset
from codes.data.audio.channel_layout import ChannelMix
from codes.data.audio.musdb18 import VALIDATION_TRACKS
from codes.data.audio.musdb18_mono import Musdb18MonoDataset
from codes.data.audio.musdb18_stereo import Musdb18StereoDataset
from codes.data.audio.published_layout import LayoutError
from codes.data.audio.reader import AudioReadError, read
from codes.data.audio.youtube_mix import YoutubeMixDataset
from tests.data.audio import published_corpora as corpora

ROOT = Path(__file__).resolve().parents[3]
TRACKS = {
    "train": [
        *("A Classic Education - NightOwl", "ANiMAL - Clinic A"),
        *("Meaxic - Take A Step", "Johnny Lokke - Promises & Lies"),
    ],
    "test": ["AM Contra - Heart Peripheral", "Al James - Schoolboy Facination"],
}


def items(data: Any) -> list[dict[str, Any]]:
    return [data.item(index, np.random.default_rng(index)) for index in range(len(data))]


def names(data: Any) -> list[str]:
    return [recording.file.relative for recording in data.recordings]


@pytest.fixture(scope="module")
def hq(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], np.ndarray]]:
    root = tmp_path_factory.mktemp("hq")
    return root, corpora.musdb18_hq(root / "musdb18hq", TRACKS)


@pytest.fixture(scope="module")
def stem_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stem_mp4")
    for track in ("A Classic Education - NightOwl", "Meaxic - Take A Step"):
        corpora.write_stem_mp4(root / "train" / f"{track}.stem.mp4", 30_000)
    return root


def test_there_are_14_validation_tracks():
    assert len(VALIDATION_TRACKS) == 14


@pytest.mark.parametrize("stem", corpora.STEMS)
def test_musdb18_hq_stereo(hq: tuple[Path, dict[tuple[str, str], np.ndarray]], stem: Any):
    root, pcm = hq
    train = Musdb18StereoDataset(path=root, stems=stem, chunk_frames=100)
    val = Musdb18StereoDataset(path=root / "musdb18hq", stems=stem, chunk_frames=100, phase="val")
    test = Musdb18StereoDataset(path=root, stems=stem, chunk_frames=100, phase="val", subset="test")
    assert names(train) == ["A Classic Education - NightOwl", "ANiMAL - Clinic A"]
    assert names(val) == ["Johnny Lokke - Promises & Lies", "Meaxic - Take A Step"]
    assert names(test) == sorted(TRACKS["test"])
    for item in items(train) + items(val) + items(test):
        start = item["start_frame"]
        np.testing.assert_array_equal(item["wav"], pcm[item["track"], stem][:, start : start + 100])
        assert set(item) == set(Musdb18StereoDataset.provides)
        assert Path(item["path"]).name == f"{stem}.wav"
    assert any("left out: 16 other stems (" in line for line in train.report())


def test_musdb18_hq_stacked_stems(hq: tuple[Path, dict[tuple[str, str], np.ndarray]]):
    root, pcm = hq
    data = Musdb18StereoDataset(path=root, stems=["vocals", "drums", "mixture"], chunk_frames=100, context_frames=30)
    assert data.num_channels == 6
    for item in items(pickle.loads(pickle.dumps(data))):
        track = np.concatenate([pcm[item["track"], stem] for stem in ("vocals", "drums", "mixture")])
        padded = np.pad(track, ((0, 0), (30, 0)))
        np.testing.assert_array_equal(item["wav"], padded[:, item["start_frame"] :][:, :130])
    other = Musdb18StereoDataset(path=root, stems=["vocals", "bass"], chunk_frames=100)
    assert other.fingerprint() != data.fingerprint()
    val = Musdb18StereoDataset(path=root, stems=["vocals", "drums"], chunk_frames=100, phase="val")
    for path, samples, _, _ in val.scored_audio():
        track = Path(path).parent.name
        np.testing.assert_array_equal(samples, np.concatenate([pcm[track, "vocals"], pcm[track, "drums"]]))


def test_musdb18_hq_mono(hq: tuple[Path, dict[tuple[str, str], np.ndarray]]):
    root, pcm = hq
    mean = Musdb18MonoDataset(path=root, stems=["bass", "other"], chunk_frames=400, phase="val")
    for item in items(mean):
        stems = [pcm[item["track"], stem].astype(np.float64) for stem in ("bass", "other")]
        np.testing.assert_array_equal(item["wav"], np.stack([np.floor(stem.mean(0) + 0.5) for stem in stems]))
    right = Musdb18MonoDataset(path=root, channels=ChannelMix(select=[1]), chunk_frames=400, phase="val")
    for item in items(right):
        np.testing.assert_array_equal(item["wav"], pcm[item["track"], "mixture"][1:])
    each = Musdb18MonoDataset(path=root, channels="each", stems=["drums", "vocals"], chunk_frames=400, phase="val")
    found = [item["wav"] for item in items(each) if item["track"] == "Meaxic - Take A Step"]
    tracks = [pcm["Meaxic - Take A Step", stem] for stem in ("drums", "vocals")]
    for channel, samples in enumerate(found):
        np.testing.assert_array_equal(samples, np.stack([track[channel] for track in tracks]))


def test_musdb18_resampled_stems_stay_together(hq: tuple[Path, dict[tuple[str, str], np.ndarray]]):
    how: dict[str, Any] = {"path": hq[0], "sample_rate": 22_050, "chunk_frames": 200, "phase": "val"}
    both = items(Musdb18StereoDataset(stems=["bass", "drums"], **how))
    bass, drums = (items(Musdb18StereoDataset(stems=stem, **how)) for stem in ("bass", "drums"))
    assert len(both) == len(bass) == 2
    for item, first, second in zip(both, bass, drums, strict=True):
        np.testing.assert_array_equal(item["wav"], np.concatenate([first["wav"], second["wav"]]))


def test_musdb18_by_ones_own_split(hq: tuple[Path, dict[tuple[str, str], np.ndarray]]):
    how: dict[str, Any] = {"path": hq[0], "subset": "test", "split": "file", "val_fraction": 0.5, "chunk_frames": 100}
    train, val = Musdb18StereoDataset(**how), Musdb18StereoDataset(phase="val", **how)
    assert sorted(names(train) + names(val)) == sorted(TRACKS["test"])
    interval = Musdb18StereoDataset(path=hq[0], split="interval", phase="val", chunk_frames=10)
    assert len(names(interval)) == 4


@pytest.mark.parametrize("number", range(5))
def test_musdb18_stem_mp4(stem_mp4: Path, number: int):
    stem: Any = corpora.STEMS[number]
    data = Musdb18StereoDataset(path=stem_mp4, stems=stem, chunk_frames=8192, phase="val")
    assert names(data) == ["Meaxic - Take A Step"]
    whole = np.concatenate([item["wav"] for item in items(data)], axis=1)
    path = stem_mp4 / "train" / "Meaxic - Take A Step.stem.mp4"
    np.testing.assert_array_equal(whole, read(path, 0, whole.shape[1], stream=number))
    spectrum = np.abs(np.fft.rfft(whole[0, 4096:20_480]))
    peak_hz = np.argmax(spectrum) * 44_100 / 16_384
    assert abs(peak_hz - 200 * (number + 1)) < 3, "the stem's own tone"


def test_musdb18_stem_mp4_stacked(stem_mp4: Path):
    data = Musdb18StereoDataset(path=stem_mp4, stems=["other", "mixture"], chunk_frames=1000)
    path = stem_mp4 / "train" / "A Classic Education - NightOwl.stem.mp4"
    track = np.concatenate([read(path, stream=3), read(path, stream=0)])
    for item in items(data):
        np.testing.assert_array_equal(item["wav"], track[:, item["start_frame"] :][:, :1000])
        assert item["track"] == "A Classic Education - NightOwl"


def test_musdb18_errors(tmp_path: Path, hq: tuple[Path, dict[tuple[str, str], np.ndarray]]):
    for stems in ([], ["bass", "bass"], "guitar"):
        with pytest.raises(
            ValueError, match=r"stems is .*, it must be one or several different ones of mixture, drums"
        ):
            Musdb18StereoDataset(path=hq[0], stems=stems)  # pyright: ignore
    with pytest.raises(ValueError, match="split: official has no file of MUSDB18 for phase 'train': of the 2 files"):
        Musdb18StereoDataset(path=hq[0], subset="test")
    with pytest.raises(
        LayoutError, match=r"looked for train/SONG/mixture\.wav or .*; found nothing in it\. MUSDB18 is"
    ):
        Musdb18StereoDataset(path=tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(LayoutError, match="found neither layout"):
        Musdb18StereoDataset(path=tmp_path)
    corpora.write_stem_mp4(tmp_path / "train" / "X - Y.stem.mp4", 3000, num_streams=2)
    with pytest.raises(LayoutError, match=r"Y\.stem\.mp4 is not MUSDB18 .* it has 2 audio streams, not 5"):
        Musdb18StereoDataset(path=tmp_path)
    corpora.write(tmp_path / "train" / "X - Y" / "mixture.wav", 100, channels=2)
    with pytest.raises(LayoutError, match="found both layouts at once: give each a folder of its own"):
        Musdb18StereoDataset(path=tmp_path)


def test_musdb18_stems_that_do_not_fit(tmp_path: Path):
    corpora.musdb18_hq(tmp_path, {"train": ["A - B", "Meaxic - Take A Step"]})
    (tmp_path / "train" / "A - B" / "drums.wav").unlink()
    with pytest.raises(LayoutError, match=r"A - B is not MUSDB18 .*; drums\.wav is not in it"):
        Musdb18StereoDataset(path=tmp_path, stems=["mixture", "drums"], chunk_frames=100)
    assert names(Musdb18StereoDataset(path=tmp_path, stems=["mixture", "bass"], chunk_frames=100)) == ["A - B"]
    corpora.write(tmp_path / "train" / "A - B" / "drums.wav", 390, channels=2, rate=44_100)
    with pytest.raises(LayoutError, match=r"drums has 390 frames, 2 channels, .* but mixture has 400 frames"):
        Musdb18StereoDataset(path=tmp_path, stems=["mixture", "drums"], chunk_frames=100)
    (tmp_path / "train" / "A - B" / "drums.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioReadError, match=r"drums\.wav"):
        Musdb18StereoDataset(path=tmp_path, stems=["mixture", "drums"], chunk_frames=100)
    corpora.musdb18_hq(tmp_path, {"train": ["C - D"]})
    data = Musdb18StereoDataset(path=tmp_path, stems=["mixture", "drums"], chunk_frames=100, on_error="skip")
    assert names(data) == ["C - D"]
    assert any("1 songs with a stem that cannot be read (A - B)" in line for line in data.report())


@pytest.mark.parametrize(
    ("cls", "folder", "num_clips", "last"),
    [(YoutubeMixDataset, "youtube_mix", 241, (212, 226)), (BeethovenDataset, "beethoven", 50, (44, 47))],
)
def test_clips_in_the_order_of_their_numbers(tmp_path: Path, cls: Any, folder: str, num_clips: int, last: Any):
    pcm = corpora.clips(tmp_path / folder, num_clips)
    train = cls(path=tmp_path, chunk_frames=120)
    val = cls(path=tmp_path / folder, chunk_frames=120, phase="val")
    test = cls(path=tmp_path / folder, chunk_frames=120, phase="val", subset="test")
    numbers = [sorted(int(name[3:-4]) for name in names(data)) for data in (train, val, test)]
    assert numbers == [list(range(last[0])), list(range(*last)), list(range(last[1], num_clips))]
    for item in items(val) + items(test):
        np.testing.assert_array_equal(item["wav"], pcm[Path(item["path"]).name])
    with pytest.raises(ValueError, match="split: official has no file of"):
        cls(path=tmp_path, subset="test")


def test_clips_in_folders(tmp_path: Path):
    pcm = {part: corpora.clips(tmp_path / part, 3, "{}.flac") for part in ("train", "valid", "test")}
    for part, how in (("train", {}), ("valid", {"phase": "val"}), ("test", {"phase": "val", "subset": "test"})):
        data = BeethovenDataset(path=tmp_path, chunk_frames=120, **how)  # pyright: ignore
        assert names(data) == [f"{part}/{number}.flac" for number in range(3)]
        for item in items(data):
            np.testing.assert_array_equal(item["wav"], pcm[part][Path(item["path"]).name])


def test_clips_errors(tmp_path: Path):
    with pytest.raises(
        LayoutError, match=r"looked for numbered clips \*\.wav .*; found nothing in it\. YouTubeMix is to"
    ):
        YoutubeMixDataset(path=tmp_path)
    np.save(tmp_path / "music_train.npy", np.zeros((2, 3), np.float16))
    with pytest.raises(LayoutError, match=r"found arrays \(music_train\.npy\): python scripts/prepare_beethoven\.py"):
        BeethovenDataset(path=tmp_path)


def test_birdvox_full_night(tmp_path: Path):
    pcm = corpora.birdvox_full_night(tmp_path)
    data = BirdvoxDataset(path=tmp_path, phase="val", split="folder", val_fraction=1.0, chunk_frames=6000)
    labels = {}
    for item in items(data):
        start = item["start_frame"]
        np.testing.assert_array_equal(item["wav"], pcm[item["unit"]][:, start : start + 6000])
        labels[item["unit"], start // 6000] = item["label"]
    assert [labels[1, n] for n in range(4)] == [0, 0, 1, 0], "the call is at 0.5 s, where the third chunk starts"
    assert {labels[2, n] for n in range(4)} == {0}
    assert {labels[10, n] for n in range(4)} == {-1}
    assert "no annotation, so label is -1: 1 files" in data.report()
    assert names(data)[0] == "unit01/BirdVox-full-night_flac-audio_unit01.flac"


def test_birdvox_20k(tmp_path: Path):
    pcm = corpora.birdvox_20k(tmp_path / "BirdVox-DCASE-20k")
    data = BirdvoxDataset(path=tmp_path, phase="val", val_fraction=1.0, chunk_frames=441)
    found = {Path(item["path"]).stem: item for item in items(data)}
    for name, item in found.items():
        np.testing.assert_array_equal(item["wav"], pcm[name])
    assert [(name, item["label"], item["unit"]) for name, item in sorted(found.items())] == [
        ("aa-1", 1, -1), ("bb-2", 0, -1), ("cc-3", 1, -1), ("dd-4", -1, -1),
    ]  # fmt: skip


def test_birdvox_errors(tmp_path: Path):
    with pytest.raises(LayoutError, match=r"found nothing in it\. BirdVox is to be had at https://zenodo"):
        BirdvoxDataset(path=tmp_path)
    corpora.birdvox_full_night(tmp_path)
    table = tmp_path / "BirdVox-full-night_csv-annotations_unit01.csv"
    table.write_text("Time (s),Freq (Hz)\nsoon,1\n", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"unit01\.csv:2 has no number in a column Time \(s\)"):
        BirdvoxDataset(path=tmp_path)
    table.write_bytes(b"\xff")
    with pytest.raises(LayoutError, match=r"unit01\.csv cannot be read"):
        BirdvoxDataset(path=tmp_path)
    corpora.birdvox_20k(tmp_path / "20k")
    (tmp_path / "20k" / "labels.csv").write_text("itemid,datasetid,hasbird\na,b,maybe\n", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"labels\.csv:2 has no itemid, or a hasbird that is neither 0 nor 1"):
        BirdvoxDataset(path=tmp_path / "20k")


NAMES = (
    "beethoven",
    "birdvox",
    "librispeech",
    "ljspeech",
    "musdb18_mono",
    "musdb18_stereo",
    "sc09",
    "vctk",
    "youtube_mix",
)


@pytest.mark.parametrize("name", NAMES)
def test_registered_documented_and_runnable(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cls: Any = registry.find("dataset", name)
    assert cls.corpus.home.split()[0] in (cls.__doc__ or ""), "where it is to be had"
    assert all(option.doc for option in registry.options_of(cls).values())
    assert (ROOT / "codes" / "data" / "audio" / f"{name}.py").is_file()
    with pytest.raises(SystemExit) as ended:
        preview.main(name, ["--path", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: path: {tmp_path} is not ")


def test_preview_of_stacked_stems(hq: tuple[Path, dict[tuple[str, str], np.ndarray]], tmp_path: Path, capsys: Any):
    out = tmp_path / "picture.png"
    arguments = ["--path", str(hq[0]), "--stems", "[bass, drums]", "--chunk-frames", "100", "--out", str(out)]
    preview.main("musdb18_stereo", arguments)
    told = capsys.readouterr().out
    assert "split: 2 files, 0.00 min to train, 2 files, 0.00 min to validate; this is train" in told
    assert "(4, 100)" in told
    assert out.stat().st_size > 100


def test_as_a_process():
    command = [sys.executable, "-m", "codes.data.audio.sc09", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--subset {train,test}" in told
