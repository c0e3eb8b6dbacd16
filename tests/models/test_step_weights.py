"""Weights laid out for steps of one vector: the same network, still tied, and its steps equal the plain pass."""

import pytest
import torch
from torch import nn

from codes.models import step_weights
from codes.models.generation import stepwise_nats
from codes.models.gpt import Gpt
from codes.models.step_weights import HUGE_PAGE_BYTES, huge_pages, lay_out_for_steps


@pytest.mark.parametrize("huge", [True, False])
def test_a_network_stays_what_it_is(huge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not huge:  # another system
        monkeypatch.delattr(step_weights.mmap, "MADV_HUGEPAGE", raising=False)
    torch.manual_seed(0)
    gpt = Gpt(vocabulary=24, num_channels=2, layers=2, model_dim=16, heads=2, tied=True, max_length=64).eval()
    for parameter in gpt.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ids = torch.randint(24, (1, 40))
    with torch.inference_mode():
        plain = gpt(ids)
    before = {name: value.clone() for name, value in gpt.state_dict().items()}
    lay_out_for_steps(gpt)
    assert all(torch.equal(value, before[name]) for name, value in gpt.state_dict().items())
    table: nn.Embedding = gpt.inputs[0].tables[0]  # type: ignore[index,assignment]
    assert gpt.head.output.weight is table.weight  # type: ignore[union-attr]
    assert table.weight.is_contiguous()
    assert gpt.transformer.blocks[0].attention.qkv.weight.stride() == (1, 48)  # type: ignore[union-attr,index]
    with torch.inference_mode():
        torch.testing.assert_close(stepwise_nats(gpt, ids), plain, rtol=1e-5, atol=1e-5)


def test_pages_begin_where_huge_ones_do() -> None:
    block = huge_pages(1000)
    assert block.shape == (1000,)
    assert not block.any()
    if hasattr(step_weights.mmap, "MADV_HUGEPAGE"):
        assert block.data_ptr() % HUGE_PAGE_BYTES == 0
