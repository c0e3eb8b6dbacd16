"""scripts/encode_audio.py, its cache and the dataset of codes: equal to whole encoding, aligned, split, never stale."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codes.data.audio import preview
from codes.data.audio.codes import CodesDataset
from codes.data.audio.codes_cache import CodecDescription, CodesCache, CodesCacheError
from codes.data.audio.reader import read
from codes.models.codec_blocks import blocks_of, decode_in_blocks
from codes.models.pretrained_codec import PretrainedCodec
from scripts import encode_audio as command
from tests.codecs import own_codec
from tests.conftest import stereo_music, write_wav

RATE_HZ = 8000


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_codec(tmp_path_factory.mktemp("codec"))


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Two mono files, one of them long."""
    for number, samples in enumerate((40_001, 3_000)):
        write_wav(tmp_path / "music" / f"{number}.wav", stereo_music(samples, seed=number)[:, :1], RATE_HZ)
    return tmp_path / "music"


@pytest.fixture
def encode(codec: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(folder: Path, *arguments: str, status: int = 0, source: Path = codec, out: str = "codes") -> Path:
        place = tmp_path / out
        assert command.main([str(folder), "--codec", str(source), "--out", str(place), *arguments]) == status
        return place

    return run


def test_blocks_keep_every_frame_once() -> None:
    for frames in (1, 5, 17, 18, 40, 101):
        blocks = list(blocks_of(frames, 10, 4, 3))
        assert [block.first for block in blocks] == [0, *(block.last for block in blocks[:-1])]
        assert blocks[-1].last == frames
        assert all(block.end - block.start == min(17, frames) for block in blocks)
        assert all(0 <= block.kept.start < block.kept.stop <= block.end - block.start for block in blocks)
        assert all(block.first - block.start >= 4 or block.start == 0 for block in blocks)
        assert all(block.end - block.last >= 3 or block.end == frames for block in blocks)
    with pytest.raises(ValueError, match="a block has 1 frame or more"):
        list(blocks_of(5, 0, 1, 1))


def test_long_files_in_blocks_give_the_codes_of_the_whole(
    music: Path, codec: Path, encode: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = CodesCache(encode(music, "--block-seconds", "0.5", "--batch", "3"))
    assert "2 recordings, 0.09 min: 2,689 frames, 10,756 codes of 4 codebooks of 16" in capsys.readouterr().out
    network = PretrainedCodec(path=codec)
    for recording in cache.recordings():
        wav = torch.from_numpy(read(recording.path).astype(np.float32))[None] / 32768
        whole = network.encode(wav)[0].numpy().T
        codes = cache.open(recording)
        assert isinstance(codes, np.memmap)
        assert codes.dtype == np.uint16
        assert codes.shape == whole.shape == (-(-wav.shape[2] // 16), 4)
        assert (codes == whole).mean() > 0.999  # a near tie may fall the other way in another batch
    encode(music, "--block-seconds", "0.5", "--batch", "3")
    assert "nothing new" in capsys.readouterr().out
    assert command.main(["--decode", str(cache.root), "--codec", str(codec), "--out", str(tmp_path / "heard")]) == 0
    recording = cache.recordings()[0]
    heard, rate = soundfile.read(tmp_path / "heard" / "0.wav", dtype="float32")
    assert (len(heard), rate) == (40_001, RATE_HZ)
    codes = torch.from_numpy(cache.open(recording).astype(np.int64).T[None])
    whole = network.decode(codes)[0, 0, : len(heard)].clamp(-1, 1).numpy()
    assert np.abs(heard - whole).max() < 1e-3
    parts = list(decode_in_blocks(network, codes, block_frames=100, before_frames=20, after_frames=20))
    assert torch.cat(parts, 2).shape == network.decode(codes).shape


def test_windows_are_whole_frames_and_val_is_the_middle(music: Path, encode: Callable[..., Path]) -> None:
    root = encode(music)
    train, val = (CodesDataset(path=root, phase=phase, frames=32, num_codebooks=2) for phase in ("train", "val"))
    cache = CodesCache(root)
    codes = {recording.path: cache.open(recording) for recording in cache.recordings()}
    for dataset in (train, val):
        for index in range(len(dataset)):
            item = dataset.item(index, np.random.default_rng(index))
            start = item["start_frame"] // 16
            assert item["codes"].dtype == np.int64
            assert np.array_equal(item["codes"], codes[item["path"]][start : start + 32, :2].T)
    (path, start, length), *_ = [(r.path, start, length) for r, start, length in val.segments]
    assert path.endswith("0.wav")
    assert (start, length) == (1126, 250)  # the middle tenth of 2501
    held = {
        (recording.path, frame) for recording, first, count in val.segments for frame in range(first, first + count)
    }
    taken = {
        (recording.path, frame) for recording, first, count in train.segments for frame in range(first, first + count)
    }
    assert not held & taken
    assert [len(part) for _, part in val.scored_codes()] == [2]
    assert train.item(0, np.random.default_rng(1))["sample_rate"] == RATE_HZ
    assert val.fingerprint() != train.fingerprint()
    assert "2 codes" in train.report()[0]
    by_file = CodesDataset(path=root, phase="val", frames=32, split="file", val_fraction=0.1)
    assert [(start, length) for _, start, length in by_file.segments] in ([(0, 2501)], [(0, 188)])
    with pytest.raises(ValueError, match=r"frames is 9999: no stretch for phase 'train' .* has 2501 frames"):
        CodesDataset(path=root, frames=9999)
    with pytest.raises(ValueError, match="num_codebooks is 5"):
        CodesDataset(path=root, num_codebooks=5)


def test_stale_and_damaged_codes_are_refused(music: Path, encode: Callable[..., Path], tmp_path: Path) -> None:
    root = encode(music)
    write_wav(music / "0.wav", stereo_music(40_001, seed=7)[:, :1], RATE_HZ)
    with pytest.raises(CodesCacheError, match=r"0\.wav has changed since it was coded .*encode_audio\.py again"):
        CodesDataset(path=root)
    CodesDataset(path=encode(music))
    (music / "0.wav").touch()  # the same bytes
    CodesDataset(path=root)
    shutil.rmtree(music)  # codes are enough
    CodesDataset(path=root)
    described = json.loads((root / "codes.json").read_text())
    (root / "codes.json").write_text(json.dumps({**described, "weights_hash": "0" * 64}))
    with pytest.raises(CodesCacheError, match=r"the codes of 0\.wav are stale"):
        CodesDataset(path=root)
    (root / "codes.json").write_text(json.dumps(described))
    first = CodesCache(root).recordings()[0]
    place = CodesCache(root).place(first.key)
    place.write_bytes(place.read_bytes()[:500])
    with pytest.raises(CodesCacheError, match=r"the codes of 0\.wav, cannot be read"):
        CodesDataset(path=root)
    np.save(place, np.zeros((3, 4), np.uint16))
    with pytest.raises(CodesCacheError, match=r"holds uint16 \(3, 4\), expected uint16 \(2501, 4\)"):
        CodesDataset(path=root)
    with pytest.raises(CodesCacheError, match=r"holds no codes .*encode_audio\.py DIR --codec PATH"):
        CodesDataset(path=tmp_path)


def test_codes_out_of_range_are_not_kept(tmp_path: Path) -> None:
    described = CodecDescription(
        codec="x", weights_hash="0" * 64, sample_rate_hz=8000, num_channels=1, num_codebooks=1, codebook_size=16,
        hop_samples=16,
    )  # fmt: skip
    cache = CodesCache(tmp_path, described)
    for wrong in (-1, 16):
        with pytest.raises(CodesCacheError, match=r"codes must lie in 0 \.\. 15"):
            cache.write("ab", np.array([[wrong]]))


def test_what_the_codec_does_not_take(
    music: Path, encode: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], codec: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    root = encode(music)
    other = own_codec(tmp_path / "other", seed=1)
    encode(music, status=2, source=other)
    assert "holds codes of another codec or other settings" in capsys.readouterr().err
    assert command.main(["--decode", str(root), "--codec", str(other), "--out", str(tmp_path / "heard")]) == 2
    assert "holds codes of other weights" in capsys.readouterr().err
    write_wav(tmp_path / "fast" / "a.wav", stereo_music(3000), 16000)
    encode(tmp_path / "fast", status=2, out="a")
    assert "has 16000 Hz, the codec takes 8000 Hz: --resample" in capsys.readouterr().err
    encode(tmp_path / "fast", "--resample", status=2, out="a")
    assert "has 2 channel(s), the codec takes 1 (--each-channel" in capsys.readouterr().err
    both: Any = CodesDataset(path=encode(tmp_path / "fast", "--resample", "--each-channel", out="a"), frames=8)
    assert both.num_codebooks == 8
    encode(tmp_path / "nowhere", status=2, out="b")
    assert "nowhere" in capsys.readouterr().err
    assert command.main(["--codec", str(codec), "--out", str(tmp_path / "b")]) == 2
    assert "give a folder of audio, or --decode" in capsys.readouterr().err
    encode(music, "--batch", "0", status=2, out="b")
    assert "--batch is 0" in capsys.readouterr().err
    write_wav(tmp_path / "fast" / "b.wav", stereo_music(3000)[:, :1], 16000)
    encode(tmp_path / "fast", "--resample", "--each-channel", status=2, out="b")
    assert re.search(r"b\.wav has 1 channel\(s\), .*a\.wav has 2: a folder of codes", capsys.readouterr().err)
    soundfile.write(music / "nan.wav", np.full(3000, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    encode(music, status=2, out="b")
    assert "nan.wav: holds samples that are not numbers (NaN)" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "transformers", None)
    encode(music, status=2, source=Path("facebook/encodec_24khz"), out="b")
    assert "needs the package transformers (pip install transformers)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        encode(music, "--device", "cuda:99")
    assert "argument --device: cuda:99 is no device that can be used here: " in capsys.readouterr().err


def test_two_files_of_one_name_are_both_decoded(tmp_path: Path, encode: Callable[..., Path], codec: Path) -> None:
    (tmp_path / "two").mkdir()
    for ending, frames in (("flac", 900), ("wav", 500)):
        soundfile.write(tmp_path / "two" / f"a.{ending}", stereo_music(frames)[:, 0].astype(np.int16), RATE_HZ)
    heard = tmp_path / "heard"
    root = encode(tmp_path / "two")
    assert command.main(["--decode", str(root), "--codec", str(codec), "--out", str(heard)]) == 0
    assert {path.name: soundfile.info(path).frames for path in heard.iterdir()} == {"a.wav": 900, "a.wav.wav": 500}


def test_the_module_shows_what_there_is(music: Path, encode: Callable[..., Path], tmp_path: Path, capsys: Any) -> None:
    preview.main("codes", ["--path", str(encode(music)), "--frames", "32", "--out", str(tmp_path / "x.png")])
    printed = capsys.readouterr().out
    assert "items an epoch" in printed
    assert re.search(r"codes +\(\d+, 32\) +int64 ", printed)
    assert not (tmp_path / "x.png").exists()  # codes are no sound
