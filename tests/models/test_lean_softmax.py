"""Cross-entropy in blocks: equal to torch's own, with gradients, in a fraction of the memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.heads import Choice, SoftmaxHead
from codes.models.lean_softmax import block_by_liger, block_by_torch, lean_nats, liger_kernel, linear_terms


def problem(tokens: int = 100, num_codes: int = 5000, dim: int = 24) -> tuple[list[Tensor], Tensor]:
    """Two pairs of hidden vectors and weights, one of which has a row that is no code, and the codes."""
    torch.manual_seed(0)
    shapes = [(tokens, dim), (num_codes + 1, dim), (tokens, 3), (num_codes, 3)]
    tensors = [torch.randn(shape) * (0.3 if index % 2 else 1.0) for index, shape in enumerate(shapes)]
    return [tensor.requires_grad_() for tensor in tensors], torch.randint(0, num_codes, (tokens,))


def naive(tensors: list[Tensor], codes: Tensor, num_codes: int = 5000) -> Tensor:
    hidden, weight, hidden_2, weight_2 = tensors
    return functional.cross_entropy(hidden @ weight[:num_codes].t() + hidden_2 @ weight_2.t(), codes, reduction="none")


@pytest.mark.parametrize("weighing", ["sum", "mean of a view", "a weight for each", "a mask"])
@pytest.mark.parametrize("block", [1, 5000 * 7, 2**24], ids=["a row at a time", "uneven", "one block"])
def test_values_and_gradients_are_those_of_cross_entropy(weighing: str, block: int) -> None:
    tensors, codes = problem()
    weigh = {
        "sum": lambda nats: nats.sum(),
        "mean of a view": lambda nats: 3 * nats.view(4, 25).mean(),
        "a weight for each": lambda nats: (nats * torch.linspace(0, 2, 100)).sum(),
        "a mask": lambda nats: nats.view(4, 25)[:, ::2].mean(),
    }[weighing]
    nats = lean_nats([(tensors[0], tensors[1]), (tensors[2], tensors[3])], codes, 5000, block)
    expected = naive(tensors, codes)
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(weigh(nats), tensors)
    for made, known in zip(gradients, torch.autograd.grad(weigh(expected), tensors), strict=True):
        assert float((made - known).abs().max() / known.abs().max()) < 1e-5


def test_only_what_is_trained_gets_gradients() -> None:
    tensors, codes = problem()
    tensors[1] = tensors[1].detach()
    nats = lean_nats([(tensors[0], tensors[1]), (tensors[2], tensors[3])], codes, 5000)
    (nats * torch.rand(100)).sum().backward()
    assert tensors[1].grad is None
    assert all(tensors[index].grad is not None for index in (0, 2, 3))
    with torch.no_grad():
        assert not lean_nats([(tensors[0], tensors[1])], codes, 5000).requires_grad


def test_two_losses_on_the_same_code_lengths_add_up() -> None:
    tensors, codes = problem()
    nats, expected = lean_nats([(tensors[0], tensors[1]), (tensors[2], tensors[3])], codes, 5000), naive(tensors, codes)
    for made, known in zip(
        torch.autograd.grad(nats.sum() + nats[:10].sum(), tensors),
        torch.autograd.grad(expected.sum() + expected[:10].sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(made, known, rtol=1e-4, atol=1e-5)


def test_autocast_changes_nothing() -> None:
    tensors, codes = problem()
    with torch.autocast("cpu", torch.bfloat16):
        nats = lean_nats([(tensors[0], tensors[1]), (tensors[2], tensors[3])], codes, 5000)
        nats.sum().backward()
    torch.testing.assert_close(nats, naive(tensors, codes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighing", ["mean", "a weight for each"])
def test_peak_memory_is_a_fraction_of_naive(weighing: str, peak_memory: Any) -> None:
    """65,536 codes; here 1024 tokens, where the fixed parts (a block, the weights' gradients) still show."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(1024, 16, requires_grad=True), torch.randn(65536, 16, requires_grad=True)
    codes, factors = torch.randint(0, 65536, (1024,)), torch.rand(1024)
    peaks = []
    for lean in (True, False):
        with peak_memory() as peak:
            if lean:
                nats = lean_nats([(hidden, weight)], codes, 65536)
            else:
                nats = functional.cross_entropy(hidden @ weight.t(), codes, reduction="none")
            (nats.mean() if weighing == "mean" else (nats * factors).sum()).backward()
        peaks.append(peak.most)
        hidden.grad = weight.grad = None
    assert peaks[1] > 2 * 1024 * 65536 * 4  # the logits and their gradient at least: the count is right
    assert peaks[0] < 0.15 * peaks[1]


def test_softmax_head_is_lean_where_it_pays() -> None:
    torch.manual_seed(0)
    head = SoftmaxHead(8, 65536, nn.Parameter(torch.randn(65536, 8)))
    hidden, codes = torch.randn(2, 5, 8), torch.randint(0, 65536, (2, 5))
    expected = -head.log_probabilities(hidden).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(head.nats(hidden, codes), expected, rtol=1e-5, atol=1e-5)
    assert "LeanNats" in type(head.nats(hidden, codes).grad_fn.next_functions[0][0]).__name__  # type: ignore[union-attr]
    assert head.sample(hidden[0], Choice(temperature=0)).equal(head.log_probabilities(hidden[0]).argmax(-1))
    small = SoftmaxHead(8, 256).nats(hidden, codes % 256)
    assert "Lean" not in type(small.grad_fn.next_functions[0][0]).__name__  # type: ignore[union-attr]


def test_terms_of_an_adapted_layer_are_its_output() -> None:
    peft = pytest.importorskip("peft")
    body = nn.Sequential(nn.Linear(8, 50, bias=False))
    peft.inject_adapter_in_model(peft.LoraConfig(r=3, lora_alpha=12, target_modules="0"), body)
    layer: Any = body[0]
    layer.lora_B["default"].weight.data.normal_()
    hidden = torch.randn(6, 8)
    terms = linear_terms(layer, hidden)
    assert [tuple(part.shape) for pair in terms for part in pair] == [(6, 8), (50, 8), (6, 3), (50, 3)]
    torch.testing.assert_close(sum(part @ weight.t() for part, weight in terms), body(hidden))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Liger's kernels need a GPU")
@pytest.mark.parametrize("num_codes", [4096, 5000, 65_536])
def test_ligers_kernel_gives_the_same(num_codes: int) -> None:
    pytest.importorskip("liger_kernel")
    kernel = liger_kernel()
    assert kernel is not None, "this version of liger-kernel is not made use of: see LIGER_ARGUMENTS"
    torch.manual_seed(0)
    logits, codes = 3 * torch.randn(64, num_codes).cuda(), torch.randint(0, num_codes, (64,)).cuda()
    for grads in (True, False):
        found = [(logits.clone(), *torch.empty(2, 64).cuda()) for _ in range(2)]
        block_by_torch(found[0][0], codes, found[0][1], found[0][2], grads)
        block_by_liger(kernel, found[1][0], codes, found[1][1], found[1][2], grads)
        for one, other in zip(*(values if grads else values[1:] for values in found), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
