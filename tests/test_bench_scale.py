"""The measurements of several processes and of the cost model count what they say."""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import distributed

from tests.trainer.conftest import Toy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench_scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("bench_scale")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux tells it")
def test_reckoned_beside_taken(bench_scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Toy(tmp_path).write({"datasets.val": {"num_items": 5}})
    found = bench_scale.compare_cost(argparse.Namespace(opt=file, overrides=[]))
    assert found["flops_counted"] == found["flops_reckoned"] == 2 * 8 * 6 * 8 * 5
    assert found["memory_reckoned"] > 3 * 4 * (6 * 8 + 8 + 8 + 8 + 8 * 6 + 6)  # gradients and moments
    assert found["memory_taken"] >= 0
    assert "operations: reckoned 3840, counted in an iteration 3840: 1.0000 of it" in capsys.readouterr().out


def test_messages_and_their_bytes(bench_scale: ModuleType) -> None:
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    try:
        with bench_scale.Traffic() as traffic:
            distributed.all_reduce(torch.zeros(10))
            distributed.all_reduce(torch.zeros(3, dtype=torch.float64))
            torch.zeros(4).add_(1)
    finally:
        distributed.destroy_process_group()
    counted: Any = (dict(traffic.calls), dict(traffic.sizes))
    assert counted == ({"allreduce_": 2}, {"allreduce_": 64})
