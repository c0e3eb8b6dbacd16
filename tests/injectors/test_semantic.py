"""Semantic tokens: fitted by the command, given by the injector, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from codes import kmeans
from codes.models.speech_features import SpeechFeatures
from codes.trainer.injectors.semantic import (
    JoinTokensInjector,
    SemanticCodesInjector,
    read_clusters,
    without_repeats,
    write_clusters,
)
from scripts import fit_kmeans


@pytest.fixture
def clusters(tmp_path: Path, stereo_folder: Path) -> Path:
    path = tmp_path / "clusters.safetensors"
    assert fit_kmeans.main([str(stereo_folder), "--clusters", "6", "--out", str(path)]) == 0
    return path


def test_the_command_fits_the_same_twice(
    clusters: Path, stereo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.safetensors"
    assert fit_kmeans.main([str(stereo_folder), "--clusters", "6", "--out", str(again)]) == 0
    assert again.read_bytes() == clusters.read_bytes()
    said = capsys.readouterr().out
    assert "200 frames, about 0.0 minutes of audio, of 39 numbers" in said
    assert "again.safetensors: 6 clusters, perplexity" in said
    centres, described = read_clusters(clusters)
    assert centres.shape == (6, 39)
    assert described == {"features": "mfcc", "sample_rate_hz": "16000"}


def test_codes_are_the_nearest_clusters(clusters: Path) -> None:
    features = SpeechFeatures(features="mfcc")
    injector = SemanticCodesInjector(features=features, clusters=clusters, audio_rate_hz=16_000)
    wav = torch.randint(-9000, 9000, (2, 1, 4000), dtype=torch.int16)
    codes = injector.forward(wav)
    assert isinstance(codes, torch.Tensor)
    assert (codes.shape, codes.dtype) == ((2, 25), torch.int64)
    centres, _ = read_clusters(clusters)
    assert codes[1].equal(kmeans.nearest(features(wav[1:] / 32768)[0], centres))
    assert injector.frames_of(4000) == 25
    fast = SemanticCodesInjector(features=features, clusters=clusters, audio_rate_hz=32_000, resample=True)
    noise = torch.randn(4, 1, 32_000) * 0.1
    expected = [one.forward(noise) for one in (injector, fast)]
    with torch.autocast("cpu", torch.bfloat16):
        found = [one.forward(noise) for one in (injector, fast)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))  # type: ignore[arg-type]
    silence = injector.forward(torch.zeros(1, 1, 4000))
    assert isinstance(silence, torch.Tensor)
    assert len(silence.unique()) == 1


def test_repeats_are_cut() -> None:
    codes = torch.tensor([[3, 3, 3, 1, 1, 3], [0, 1, 2, 3, 4, 5], [2, 2, 2, 2, 2, 2]])
    shorter, mask = without_repeats(codes)
    assert shorter.tolist() == [[3, 1, 3, 0, 0, 0], [0, 1, 2, 3, 4, 5], [2, 0, 0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [3, 6, 1]
    assert all(row[keep].equal(one.unique_consecutive()) for row, keep, one in zip(shorter, mask, codes, strict=True))


def test_kinds_of_tokens_are_joined_with_numbers_of_their_own() -> None:
    join = JoinTokensInjector(vocabularies=[4, 3, 2])
    values = torch.tensor([[3, 0]]), torch.tensor([[0, 2, 1]]), torch.tensor([[1]], dtype=torch.int32)
    assert join.forward(*values).tolist() == [[3, 0, 4, 6, 5, 8]]
    with pytest.raises(ValueError, match="join_tokens has 3 vocabularies, but `in` has 2 keys"):
        join.forward(*values[:2])
    with pytest.raises(ValueError, match=r"expected integer tokens \(B, N\), got torch.float32 \(1, 2\)"):
        JoinTokensInjector(vocabularies=[4]).forward(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="vocabularies must be 1 or more each"):
        JoinTokensInjector(vocabularies=[0])


def test_another_rate_is_resampled_only_where_asked(clusters: Path) -> None:
    features = SpeechFeatures(features="mfcc")
    message = "audio_rate_hz: the audio has 22050 Hz, the features take 16000 Hz: set sample_rate: 16000"
    with pytest.raises(ValueError, match=message):
        SemanticCodesInjector(features=features, clusters=clusters, audio_rate_hz=22_050)
    injector = SemanticCodesInjector(features=features, clusters=clusters, audio_rate_hz=22_050, resample=True,
                                     remove_repeats=True)  # fmt: skip
    codes, mask = injector.forward(0.1 * torch.randn(1, 1, 22_050))
    assert codes.shape == mask.shape == (1, 100)


def test_what_is_refused(clusters: Path, tmp_path: Path) -> None:
    features = SpeechFeatures(features="mfcc", sample_rate_hz=8000)
    with pytest.raises(ValueError, match=r"was fitted to features mfcc, sample_rate_hz 16000, the features are .*8000"):
        SemanticCodesInjector(features=features, clusters=clusters)
    with pytest.raises(ValueError, match=r"clusters: .*none.safetensors does not exist: python scripts/fit_kmeans.py"):
        SemanticCodesInjector(features=features, clusters=tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.safetensors holds no clusters"):
        SemanticCodesInjector(features=features, clusters=tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="features must name a network of speech_features, Linear is none"):
        SemanticCodesInjector(features=nn.Linear(1, 1), clusters=clusters)
    write_clusters(tmp_path / "own.safetensors", torch.zeros(2, 39), features.described)
    injector = SemanticCodesInjector(features=features, clusters=tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="audio_rate_hz is needed"):
        injector.forward(torch.zeros(1, 1, 800))
    with pytest.raises(ValueError, match=r"expected wav \(B, 1, T\), got \(1, 2, 800\)"):
        injector.forward(torch.zeros(1, 2, 800))


def test_errors_of_the_command(stereo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.safetensors")
    for arguments, message in (
        ([str(stereo_folder), "--clusters", "999", "--out", out], "200 vectors are too few for 999 clusters"),
        ([str(stereo_folder), "--clusters", "0", "--out", out], "--clusters must be 1 or more, got 0"),
        ([str(stereo_folder), "--out", str(tmp_path / "x.pt")], "--out must be a .safetensors file"),
        ([str(stereo_folder), "--features", "model", "--out", out], "model is missing: get weights"),
        ([str(tmp_path / "none"), "--out", out], "none"),
    ):
        assert fit_kmeans.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not Path(out).exists()
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "floating.wav", noise, 16_000, subtype="FLOAT")
    assert fit_kmeans.main([str(tmp_path / "floating.wav"), "--clusters", "6", "--out", out]) == 0
