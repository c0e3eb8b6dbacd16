"""The loss over codes and its baselines: figures of known sources."""

import math

import pytest
import torch

from codes.trainer.code_baselines import of_codes
from codes.trainer.losses_codes import CodebookCodeLengthLoss


def test_baselines_of_known_sources() -> None:
    even = [torch.randint(8, (16, 2, 400)) for _ in range(2)]
    found = of_codes(even[:1], even[1:])
    assert found.unigram == pytest.approx(math.log(8), abs=0.02)
    assert found.bigram_in_time == pytest.approx(math.log(8), abs=0.02)
    counting = (torch.arange(400) + torch.randint(8, (16, 1, 1))) % 8  # each code follows from the one before
    both = torch.cat([counting, (counting + 3) % 8], 1)
    found = of_codes([both], [both])
    assert found.unigram == pytest.approx(math.log(8), abs=0.02)
    assert found.bigram_in_time < 0.05
    assert found.bigram_in_order < 0.05
    halves = [torch.cat([torch.randint(8, (16, 1, 400)), counting], 1)]
    found = of_codes(halves, halves)
    assert found.bigram_in_time == pytest.approx(math.log(8) / 2, abs=0.05)
    assert found.bigram_in_order > 1.9
    assert "to beat on the validation codes, in nats a code: unigrams 2.0" in found.lines()[0]


def test_loss_by_codebook() -> None:
    loss = CodebookCodeLengthLoss(frame_rate_hz=50, sample_rate_hz=16000, num_codebooks=2)
    nats = torch.stack([torch.full((3, 5), math.log(2)), torch.full((3, 5), 3 * math.log(2))], 1)
    codes = torch.zeros(3, 2, 5, dtype=torch.long)
    total, count = loss(nats, codes)
    assert float(total) / float(count) == pytest.approx(2 * math.log(2))
    figures = {name: float(figure.total) / float(figure.count) for name, figure in loss.figures(nats, codes).items()}
    assert figures == pytest.approx({"bits_codebook_0": 1.0, "bits_codebook_1": 3.0, "bits_per_second": 200.0})
    assert loss.tokens_per_sample == 2 * 50 / 16000
    with pytest.raises(ValueError, match=r"both must be \(B, 2, F\)"):
        loss(nats[:, :1], codes)
    with pytest.raises(ValueError, match="must be above 0"):
        CodebookCodeLengthLoss(frame_rate_hz=0, sample_rate_hz=1, num_codebooks=1)
