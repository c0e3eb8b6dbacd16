"""The measurements of loss and sampling run, compare the right things, and give their figures back."""

import argparse
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = argparse.Namespace(tokens=16, width=16, codes=65_536, rounds=1, path=None, overrides=[])


@pytest.fixture
def bench_model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("bench_model")


def test_losses_beside_the_naive_one(bench_model: ModuleType) -> None:
    passes = bench_model.loss_passes(16, 16, 65_536)
    assert {"naive", "lean", "bytes", "mixture of 10 logistics"} <= set(passes)
    assert all(go() == 1 for go in passes.values())


def test_sampling(bench_model: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench_model.bench_sampling(SMALL)["sampling"]
    assert found["no cache"]["ratio"] == [1.0, 1.0, 1.0]
    assert {"generate, cache by views", "generate, fixed shapes", "transformers' generate", "no cache (A/A)"} <= {
        name.removesuffix(", graph") for name in found
    }
    assert "sampling 16 tokens" in capsys.readouterr().out


def test_ratios_are_taken_round_by_round(bench_model: ModuleType) -> None:
    found = bench_model._ratios({"a": [1.0, 4.0, 2.0], "b": [2.0, 2.0, 2.0]}, "a")
    assert found["b"] == {"seconds": [2.0, 2.0, 2.0], "ratio": [0.75, 1.0, 1.5]}
