"""Fixtures of the tests of scripts/compress.py."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.compression.compress_runs import ROOT, music, small_model_file, wav_bytes


@pytest.fixture(scope="session")
def compress() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import compress as command  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return command


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(music(2, 8000)))
    return path


@pytest.fixture(scope="session")
def model() -> bytes:
    return small_model_file()


@pytest.fixture
def no_kept_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"
