"""The scripts that prepare corpora, against a server on localhost that offers small ones."""

import importlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codes.data.audio import preview
from codes.data.audio.birdvox import BirdvoxDataset
from codes.data.audio.published_layout import LayoutError
from codes.data.audio.reader import read
from codes.data.prepare import Preparation, main
from tests.data.audio import published_corpora as corpora
from tests.data.local_server import Site, serving

ROOT = Path(__file__).resolve().parents[1]
DOWNLOADED = ("ljspeech", "librispeech", "sc09", "vctk", "birdvox", "musdb18")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def script(name: str) -> Any:
    return importlib.import_module(f"scripts.prepare_{name}")


def packed(folder: Path, kind: str) -> bytes:
    """A folder's content as an archive."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(fileobj=out, mode=f"w:{kind}") as archive:  # pyright: ignore
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
    return out.getvalue()


def offered(name: str, site: Site, folder: Path) -> list[str]:
    """Put a small corpus on the site; what to say on the command line."""
    if name == "ljspeech":
        corpora.ljspeech(folder)
        site.files["/LJSpeech-1.1.tar.bz2"] = packed(folder, "bz2")
    elif name == "librispeech":
        corpora.librispeech(folder)
        for part in ("train-clean-100", "dev-clean"):  # each archive has the part alone below LibriSpeech/
            alone = folder.parent / part
            shutil.copytree(folder / "LibriSpeech" / part, alone / "LibriSpeech" / part)
            site.files[f"/{part}.tar.gz"] = packed(alone, "gz")
    elif name == "sc09":
        corpora.sc09(folder)
        site.files["/speech_commands_v0.02.tar.gz"] = packed(folder, "gz")
    elif name == "vctk":
        corpora.vctk(folder)
        site.files["/VCTK-Corpus-0.92.zip"] = packed(folder / "VCTK-Corpus-0.92", "zip")
    elif name == "birdvox":
        corpora.birdvox_20k(folder)
        table = folder / "BirdVox-DCASE-20k_csv-public.csv"
        site.files["/BirdVox-DCASE-20k.csv"] = table.read_bytes()
        table.unlink()
        site.files["/BirdVox-DCASE-20k.zip"] = packed(folder, "zip")
    else:
        corpora.musdb18_hq(folder, {"train": ["A - B", "Meaxic - Take A Step"], "test": ["C - D"]})
        site.files["/musdb18hq.zip"] = packed(folder, "zip")
    return ["--accept-terms"] if name == "musdb18" else []


@pytest.mark.parametrize("name", DOWNLOADED)
def test_downloaded_checked_unpacked_and_read(
    name: str, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "source").mkdir()
    more = offered(name, site, tmp_path / "source")
    preparation: Preparation = script(name).PREPARATION
    place = tmp_path / "place"
    arguments = [str(place), "--url", f"{site.url}/", "--attempts", "2", *more]
    if name != "birdvox":
        assert main(preparation, arguments) == 1, "the published checksum or length is another one"
        assert "it should" in capsys.readouterr().err
    assert main(preparation, [*arguments, "--no-checksum"]) == 0
    told = capsys.readouterr().out
    dataset = told.split("python -m codes.data.audio.")[1].split()[0]
    assert not [path for path in place.iterdir() if not path.is_dir()], "archives are taken away"
    preview.main(dataset, ["--path", str(place), "--chunk-frames", "100", "--out", str(tmp_path / "preview.png")])
    assert "taken: " in capsys.readouterr().out
    asked = len(site.asked)
    assert main(preparation, [*arguments, "--no-checksum"]) == 0
    assert "is there already" in capsys.readouterr().out
    assert len(site.asked) == asked


def test_parts_cuts_and_kept_archives(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "source").mkdir()
    offered("librispeech", site, tmp_path / "source")
    arguments = [str(tmp_path / "place"), "--url", site.url, "--no-checksum", "--parts", "dev-clean"]
    preparation = script("librispeech").PREPARATION
    site.cuts = [500]
    assert main(preparation, [*arguments, "--attempts", "1"]) == 1
    assert "500 bytes are kept in" in capsys.readouterr().err
    assert main(preparation, [*arguments, "--keep-archives"]) == 0
    assert [asked for _, asked in site.asked] == [None, "bytes=500-"]
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["LibriSpeech", "dev-clean.tar.gz"]
    with pytest.raises(SystemExit):
        main(preparation, [str(tmp_path), "--parts", "train-clean"])


def test_units_of_the_full_night(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "source").mkdir()
    pcm = corpora.birdvox_full_night(tmp_path / "source")
    for path in (tmp_path / "source").iterdir():
        site.files[f"/{path.name}"] = path.read_bytes()
    place = tmp_path / "place"
    assert main(script("birdvox").PREPARATION, [str(place), "--url", site.url, "--parts", "unit01", "unit02"]) == 0
    assert len(site.asked) == 4
    data = BirdvoxDataset(path=place, phase="val", val_fraction=1.0, chunk_frames=24_000)
    items = [data.item(index, np.random.default_rng(0)) for index in range(2)]
    assert [(item["unit"], item["label"]) for item in items] == [(1, 1), (2, 0)]
    np.testing.assert_array_equal(items[0]["wav"], pcm[1])
    (place / "BirdVox-DCASE-20k").mkdir()
    with pytest.raises(LayoutError, match="found both BirdVox-full-night/ and BirdVox-DCASE-20k/: name one of the two"):
        BirdvoxDataset(path=place)


def test_failures_have_a_line_and_a_status(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    preparation = script("ljspeech").PREPARATION
    arguments = [str(tmp_path / "place"), "--url", site.url, "--no-checksum"]
    assert main(preparation, arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"prepare_ljspeech.py: error: {site.url}/LJSpeech-1.1.tar.bz2: HTTP 404 Not Found")
    assert len(told.splitlines()) == 1
    site.files["/LJSpeech-1.1.tar.bz2"] = b"<html>moved</html>"
    assert main(preparation, arguments) == 1
    assert "is broken or cut" in capsys.readouterr().err
    (tmp_path / "place" / "LJSpeech-1.1.tar.bz2").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    site.files["/LJSpeech-1.1.tar.bz2"] = packed(tmp_path / "other", "gz")
    assert main(preparation, arguments) == 1
    assert "is not what it was: LJSpeech-1.1 is not in" in capsys.readouterr().err


def test_terms_come_first(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    preparation = script("musdb18").PREPARATION
    for arguments in ([], [str(tmp_path), "--url", site.url]):
        assert main(preparation, arguments) == 0
        assert "for research and education only" in capsys.readouterr().out
    assert site.asked == []
    assert main(preparation, ["--accept-terms"]) == 2
    assert "name the folder to download into" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*DOWNLOADED, "youtube_mix", "beethoven"])
def test_every_script_runs_by_itself(name: str):
    command = [sys.executable, str(ROOT / "scripts" / f"prepare_{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    assert f"usage: prepare_{name}.py" in done.stdout
    assert (name == "musdb18") == ("--accept-terms" in done.stdout)


def test_published_addresses_and_checksums_are_well_formed():
    for name in DOWNLOADED:
        for item in script(name).PREPARATION.downloads:
            assert item.remote.url.startswith("https://")
            assert item.remote.sha256 is None or len(bytes.fromhex(item.remote.sha256)) == 32
            assert item.gives.startswith(item.into)


@pytest.mark.parametrize(("name", "said"), [("youtube_mix", "nobody gives a licence"), ("beethoven", "archive.org")])
def test_steps(name: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert script(name).main([]) == 0
    told = capsys.readouterr().out
    assert said in told
    assert f"python -m codes.data.audio.{name} --path" in told


def test_beethoven_arrays_become_wav(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    clips = {part: rng.uniform(-1.0, 1.0, (3, 200)).astype(np.float16) for part in ("train", "valid", "test")}
    clips["test"][0, :2] = (1.0, -1.0)
    for part, array in clips.items():
        np.save(tmp_path / f"music_{part}.npy", array)
    convert = script("beethoven").main
    assert convert([str(tmp_path / "out"), "--arrays", str(tmp_path)]) == 0
    for part, array in clips.items():
        for number, clip in enumerate(array):
            pcm = read(tmp_path / "out" / part / f"{number:05}.wav")
            np.testing.assert_array_equal(pcm[0], np.clip(np.rint(clip.astype(np.float64) * 32768), -32768, 32767))
    assert read(tmp_path / "out" / "test" / "00000.wav")[0, :2].tolist() == [32767, -32768]
    preview.main(
        "beethoven", ["--path", str(tmp_path / "out"), "--chunk-frames", "100", "--out", str(tmp_path / "p.png")]
    )
    assert "3 files, 0.00 min to train, 3 files" in capsys.readouterr().out


def test_beethoven_arrays_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    convert = script("beethoven").main
    arguments = [str(tmp_path / "out"), "--arrays", str(tmp_path)]
    for array, message in (
        (None, "music_train.npy cannot be read"),
        (np.zeros(3, np.float16), "holds float16 (3,), it should hold floats (clips, samples)"),
        (np.zeros((2, 3), np.int16), "holds int16 (2, 3), it should hold floats"),
        (np.full((1, 3), np.nan, np.float16), "clip 0 has samples that are not finite"),
        (np.array([[{}]], object), "cannot be read"),
    ):
        if array is not None:
            np.save(tmp_path / "music_train.npy", array)
        assert convert(arguments) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out" / "train").exists()
    with pytest.raises(SystemExit):
        convert(["--arrays", str(tmp_path)])
