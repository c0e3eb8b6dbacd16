"""What tests of networks share: a count of the memory that tensors hold."""

import pytest

from codes.trainer.peak_memory import PeakMemory


@pytest.fixture
def peak_memory() -> type[PeakMemory]:
    """`with peak_memory() as peak: ...`, then `peak.most` in bytes."""
    return PeakMemory
