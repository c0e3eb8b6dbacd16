"""`compress.py bench`: sizes are what coders wrote, excerpts are what they should be, the table adds up."""

import csv
import importlib
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes.compression import reference_codecs
from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("compress_bench")


def sound(num_channels: int, num_frames: int, seed: int) -> np.ndarray:
    rng, time = np.random.default_rng(seed), np.arange(num_frames)
    wave = [
        0.3 * np.sin(0.03 * (seed + 1) * time + c) + 0.003 * rng.normal(size=num_frames) for c in range(num_channels)
    ]
    return np.rint(np.stack(wave) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files: stereo, mono, and 24 bits."""
    path = tmp_path_factory.mktemp("audio")
    soundfile.write(path / "a.wav", sound(2, 6000, 0).T, 44_100)
    soundfile.write(path / "b.flac", sound(1, 4000, 1).T, 22_050)
    (path / "deep").mkdir()
    wide = sound(2, 3000, 2).astype(np.int32) * 256 + 77
    soundfile.write(path / "deep" / "c.wav", wide.T << 8, 48_000, subtype="PCM_24")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run over 8-bit stereo."""
    root = tmp_path_factory.mktemp("runs")
    options = [
        f"path.root={root}", "train.niter=3", "train.val_freq=3", "eval.max_batches=1", "eval.baselines=false",
        "datasets.train.batch_size=2", "datasets.val.batch_size=2", "datasets.train.n_workers=0", "name=tokens",
        "datasets.train.chunk_frames=32", "networks.lm.kwargs.layers=1", "samples.new_frames=2",
        "samples.prompt_frames=2", "networks.lm.kwargs.max_length=64",
    ]  # fmt: skip
    ExtensibleTrainer(load_experiment(ROOT / "experiments" / "llama_bytes.yml", options)).train()
    return root / "tokens"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_whole_files(bench: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sizes.csv"
    assert bench.main([str(folder), "--csv", str(out), "--coders", "flac", "gzip", "alac"]) == 0
    rows = [row for row in rows_of(out) if row["coder"] in ("flac", "gzip", "alac", "wsl linear")]
    assert [row["name"] for row in rows if row["coder"] == "flac"] == ["a.wav", "b.flac", "deep/c.wav"]
    assert {row["coder"] for row in rows} == {"flac", "gzip", "alac", "wsl linear"}
    for row in rows:
        assert float(row["bits_per_sample"]) == pytest.approx(
            8 * int(row["coded_bytes"]) / int(row["num_samples"]), 1e-4
        )
        num_bytes = 3 if row["bits"] == "24" else 2
        assert int(row["raw_bytes"]) == num_bytes * int(row["num_samples"])
        assert float(row["bits_per_byte"]) == pytest.approx(float(row["bits_per_sample"]) / num_bytes, 1e-4)
    flac = next(row for row in rows if (row["coder"], row["name"]) == ("flac", "a.wav"))
    expected = reference_codecs.coders(["flac"])["flac"](sound(2, 6000, 0), 16, 44_100)
    assert (int(flac["coded_bytes"]), int(flac["header_bytes"])) == (expected.total_bytes, expected.header_bytes)
    table = capsys.readouterr().out
    assert table.startswith("3 files at their own depth; flac is the reference\n")
    line = next(line for line in table.splitlines() if line.startswith("flac "))
    assert line.split()[1] == "3"
    assert line.split()[-3:-1] == ["100.00", "100.00"]


def test_files_that_cannot_be_read_are_named(bench: Any, folder: Path, tmp_path: Path, capsys: Any):
    shutil.copy(folder / "a.wav", tmp_path)
    (tmp_path / "cut.flac").write_bytes((folder / "b.flac").read_bytes()[:30])
    assert bench.main([str(tmp_path), "--coders", "gzip"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 files at their own depth")
    assert re.search(r"^left out: .*cut\.flac", said.err, re.M)


def test_our_size_is_that_of_the_file_that_encode_writes(bench: Any, folder: Path, tmp_path: Path):
    from compress import main as compress  # type: ignore[import-not-found]

    out = tmp_path / "sizes.csv"
    assert bench.main([str(folder / "a.wav"), "--csv", str(out), "--coders", "flac", "--verify"]) == 0
    size = next(int(row["coded_bytes"]) for row in rows_of(out) if row["coder"] == "wsl linear")
    assert compress(["encode", str(folder / "a.wav"), str(tmp_path / "a.wsl"), "--no-model"]) == 0
    assert (tmp_path / "a.wsl").stat().st_size == size


def test_chunks_are_stretches_of_the_files_at_the_depth_asked_for(bench: Any, folder: Path):
    from compress_bench_coders import Excerpt, chunks  # type: ignore[import-not-found]

    from codes.data.audio.listing.folder import scan

    files = scan([folder]).files
    found = list(chunks(files, 40, 2048, 8, seed=1))
    assert all(isinstance(chunk, Excerpt) for chunk in found)
    assert len(found) == 40
    whole = {"a.wav": sound(2, 6000, 0) >> 8, "b.flac": sound(1, 4000, 1) >> 8, "deep/c.wav": sound(2, 3000, 2) >> 8}
    for chunk in found:
        name, _, start = chunk.name.partition("@")
        assert chunk.bits == 8
        assert chunk.raw_bytes == 2048
        np.testing.assert_array_equal(chunk.pcm, whole[name][:, int(start) : int(start) + chunk.pcm.shape[1]])
    assert {chunk.name.partition("@")[0] for chunk in found} == set(whole)
    assert [chunk.name for chunk in chunks(files, 40, 2048, 8, seed=1)] == [chunk.name for chunk in found]
    assert [chunk.name for chunk in chunks(files, 40, 2048, 8, seed=2)] != [chunk.name for chunk in found]
    deep = list(chunks(files, 3, 2048, 24, seed=0))
    assert deep[:2] == ["a.wav: has 16 bits, fewer than 24", "b.flac: has 16 bits, fewer than 24"]
    assert [chunk.pcm.shape for chunk in deep[2:]] == [(2, 341)] * 3, "whole frames only"
    assert deep[2].raw_bytes == 2046


def test_chunks_by_a_model(bench: Any, folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Each chunk is what the model's codec makes of it by itself, in a file of its own."""
    from compress_bench_coders import TokenCoder, chunks, run_coder

    from codes.data.audio.listing.folder import scan

    out = tmp_path / "chunks.csv"
    arguments = [str(folder), "--chunks", "6", "--chunk-size", "64", "--bits", "8", "--coders", "flac", "gzip"]
    assert bench.main([*arguments, "--run", str(model), "--csv", str(out)]) == 0
    rows = [row for row in rows_of(out) if row["coder"] == "tokens alone"]
    assert len(rows) == 6
    coder = run_coder(model, 20.0, verify=True)
    assert isinstance(coder, TokenCoder)
    for row, chunk in zip(rows, chunks(scan([folder]).files, 6, 64, 8, seed=0), strict=True):
        assert row["name"] == chunk.name
        alone = coder.code(chunk)
        assert abs(int(row["coded_bytes"]) - alone.total_bytes) <= 4
        assert int(row["header_bytes"]) == alone.header_bytes
    table = capsys.readouterr().out
    assert table.startswith("6 chunks of 64 bytes at 8 bits; flac is the reference\n")
    line = next(line for line in table.splitlines() if line.startswith("tokens alone")).split()
    rate, without_header, with_model = (float(value) for value in line[5:8])
    assert without_header < rate < with_model
    assert with_model - rate == pytest.approx(100 * int(rows[0]["model_bytes"]) / (6 * 64), rel=1e-3)
    assert f'the model of tokens alone has {int(rows[0]["model_bytes"]):,} bytes, in "with model" counted once' in table


def test_a_model_alone_codes_its_blocks_whatever_they_cost(bench: Any, model: Path):
    """Silence too, which linear prediction would have for nothing, and low bits that are all zero."""
    from compress_bench_coders import Excerpt, run_coder

    coder = run_coder(model, 20.0, verify=True)
    silence, even = np.zeros((2, 300), np.int32), np.arange(-128, 128, 2).repeat(4).reshape(2, -1)
    for pcm in (silence, even):
        size = coder.code(Excerpt(name="x", pcm=pcm, bits=8, sample_rate_hz=8000))
        stream = coder.codec.encode(pcm, 8, 8000)
        assert len(stream) < size.total_bytes < len(stream) + 140
        assert size.header_bytes < size.total_bytes - len(stream)
    assert size.total_bytes > 0.9 * even.size, "hardly trained"


def test_a_codec_that_loses_samples_fails(
    bench: Any, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from codes.compression.token_codec import TokenCodec

    decode = TokenCodec.decode
    monkeypatch.setattr(TokenCodec, "decode", lambda *arguments: decode(*arguments) ^ 1)
    chunked = [str(folder / "a.wav"), "--chunks", "1", "--chunk-size", "64", "--bits", "8", "--coders", "flac"]
    assert bench.main([*chunked, "--run", str(model)]) == 0
    assert bench.main([*chunked, "--run", str(model), "--verify"]) == 1
    assert "samples that" in capsys.readouterr().err


def test_only_files_that_a_list_names(bench: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "names.txt").write_text("# held out\nb.flac\n\nc.wav\ngone.wav\n")
    out = tmp_path / "sizes.csv"
    arguments = [str(folder), "--names", str(tmp_path / "names.txt"), "--coders", "flac", "--csv", str(out)]
    assert bench.main(arguments) == 0
    assert {row["name"] for row in rows_of(out)} == {"b.flac", "deep/c.wav"}
    assert "not there: gone.wav" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("gone.wav")
    assert bench.main(arguments) == 2
    assert "none of 3 files is named in" in capsys.readouterr().err


def test_a_model_of_other_bits_codes_nothing(bench: Any, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    assert bench.main([str(folder / "a.wav"), "--coders", "flac", "--run", str(model)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tokens alone"))
    assert line.split()[2:] == ["0"]


def test_masked_bits_are_counted_as_they_are(bench: Any, folder: Path, tmp_path: Path):
    out = tmp_path / "masked.csv"
    common = [str(folder / "a.wav"), "--coders", "gzip", "--csv", str(out)]
    assert bench.main([*common, "--bits", "8", "--mask-bits", "7"]) == 0
    row = next(row for row in rows_of(out) if row["coder"] == "gzip")
    assert (row["bits"], row["raw_bytes"]) == ("8", "12000")
    coded = reference_codecs.coders(["gzip"])["gzip"](sound(2, 6000, 0) >> 9, 7, 44_100)
    assert float(row["coded_bytes"]) == coded.total_bytes + 12_000 / 8


def test_chunks_and_whole_files_in_one_go(bench: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "both.csv"
    arguments = [str(folder), "--chunks", "4", "--whole", "--bits", "16", "--coders", "flac", "--seconds", "0.05"]
    assert bench.main([*arguments, "--csv", str(out)]) == 0
    flac = [row for row in rows_of(out) if row["coder"] == "flac"]
    assert [row["part"] for row in flac] == ["chunks"] * 4 + ["whole"] * 3
    assert [int(row["num_samples"]) for row in flac[4:]] == [2 * 2205, 1102, 2 * 2400]
    assert capsys.readouterr().out.count("is the reference") == 2


def test_summary_compares_what_both_have_coded(bench: Any):
    def row(name: str, coder: str, coded: int, samples: int = 100) -> Any:
        return bench.Row(
            part="whole", name=name, coder=coder, bits=16, num_channels=2, sample_rate_hz=50, num_samples=samples,
            raw_bytes=2 * samples, coded_bytes=coded, header_bytes=10, model_bytes=40, seconds=0.5,
        )  # fmt: skip

    rows = [
        row("a", "flac", 100),
        row("b", "flac", 300, 200),
        row("c", "flac", 50),
        row("a", "x", 50),
        row("b", "x", 240, 200),
    ]
    found = bench.summary(rows, "x", "flac")
    assert found["num"] == 2
    assert found["bits_per_sample"] == pytest.approx(290 * 8 / 300)
    assert found["bits_per_byte"] == pytest.approx(290 * 8 / 600)
    assert found["rate"] == pytest.approx(100 * 290 / 600)
    assert found["rate_without_header"] == pytest.approx(100 * 270 / 600)
    assert found["rate_with_model"] == pytest.approx(100 * 330 / 600)
    assert found["of_reference"] == pytest.approx(100 * 290 / 400)
    assert found["mean_of_reference"] == pytest.approx(100 * (0.5 + 0.8) / 2)
    assert found["times_real_time"] == pytest.approx((1 + 2) / 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chunks", "0"], "--chunks is 0: it must be above 0"),
        (["--mask-bits", "7"], "--mask-bits is 7: it must be 1 to --bits - 1, and --bits be given"),
        (["--bits", "40"], "--bits is 40: it must be 1 to 32"),
        (["--coders", "mp3"], "no such coder here: mp3 (there are flac, "),
        (["--coders", "gzip", "--reference", "flac"], "--reference is flac: there are gzip"),
        (["--coders", "gzip", "--bits", "32"], "nothing to compare: 3 files left out"),
        (["--chunks", "2", "--chunk-size", "1", "--coders", "gzip"], "1 bytes do not hold a frame of 2 channels"),
        (["--coders", "gzip", "--run", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_is_said(
    bench: Any, folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert bench.main([str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_calls_it(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    compress = importlib.import_module("compress")
    assert compress.main(["bench", str(folder / "b.flac"), "--coders", "flac"]) == 0
    assert "1 files" in capsys.readouterr().out
    assert sys.path[0] == str(ROOT / "scripts")
