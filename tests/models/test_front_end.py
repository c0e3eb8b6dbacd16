"""Hierarchies of causal convolutions: no leak, steps equal to the parallel pass, long contexts in less memory."""

from typing import Any

import pytest
import torch

from codes.models.front_end import FrontEnd, Hierarchy, HierarchyState
from codes.models.generation import stepwise_nats
from codes.models.gpt import Gpt

SMALL = FrontEnd(strides=[2, 4], dims=[8, 16], kernel=5)
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {"bits": 8},
    "logistics": {"bits": 16, "head": "logistics", "input": "both", "convolution": 8, "context": 6},
    "bytes_four": {"bits": 16, "head": "bytes", "num_channels": 4},
    "one_level": {"bits": 8, "front_end": FrontEnd(strides=[2], dims=[16], kernel=2), "num_channels": 1},
}


def build(kind: str, **options: Any) -> Gpt:
    torch.manual_seed(0)
    gpt = Gpt(**{"model_dim": 32, "heads": 2, "layers": 2, "front_end": SMALL, **KINDS[kind], **options})
    for parameter in gpt.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    return gpt.eval()


def codes(gpt: Gpt, tokens: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, gpt.vocabulary, (2, tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_itself_or_later_ones(kind: str) -> None:
    """At every place within a block of the hierarchy."""
    gpt = build(kind)
    ids = codes(gpt, gpt.context + 43)
    with torch.no_grad():
        before = gpt(ids)
        for place in range(16, 33):
            changed = ids.clone()
            changed[:, gpt.context + place] = (changed[:, gpt.context + place] + 77) % gpt.vocabulary
            after = gpt(changed)
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place + 1], after[:, place + 1])


def test_the_transformer_carries_the_context() -> None:
    """A token far beyond the reach of the convolutions still matters, through the transformer alone."""
    gpt = build("softmax", layers=1)
    ids = codes(gpt, 160)
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 77) % 256
    with torch.no_grad():
        assert not torch.equal(gpt(ids)[:, -1], gpt(changed)[:, -1])
        transformer: Any = gpt.transformer
        for block in transformer.inner.blocks:
            block.attention.out.weight.zero_()
        assert torch.equal(gpt(ids)[:, -1], gpt(changed)[:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [0, 1, 24, 37])
def test_steps_equal_the_parallel_pass(kind: str, known: int) -> None:
    gpt = build(kind)
    ids = codes(gpt, gpt.context + 75)
    with torch.inference_mode():
        expected = gpt(ids)
        found = stepwise_nats(gpt, ids, gpt.context + known)
        torch.testing.assert_close(found, expected[:, known:], rtol=1e-4, atol=1e-3)


def test_generation_goes_on_when_the_cache_is_full() -> None:
    gpt = build("softmax", max_length=32)
    ids = codes(gpt, 100)
    asked = ids.clone()
    asked[:, 20:] = -1
    done = gpt.generate(asked, generator=torch.Generator().manual_seed(0))
    assert torch.equal(done[:, :20], ids[:, :20])
    assert done.min() >= 0
    with torch.inference_mode():
        assert stepwise_nats(gpt, ids).isfinite().all()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 40])
def test_a_hierarchy_alone_steps_as_it_runs(length: int) -> None:
    torch.manual_seed(0)
    hierarchy = Hierarchy(SMALL, 24)
    x = torch.randn(2, length, 8)
    with torch.no_grad():
        whole = hierarchy(x, lambda z: z * 2)
        assert hierarchy.down(x).shape == (2, -(-length // 8), 24)
        for known in {1, length // 2 or 1}:
            state = HierarchyState(2)
            found = [hierarchy(x[:, :known], lambda z: z * 2, state=state)]
            found += [hierarchy.step(x[:, n : n + 1], lambda z: z * 2, state) for n in range(known, length)]
            torch.testing.assert_close(torch.cat(found, 1), whole)


def test_recomputing_changes_no_gradient() -> None:
    plain, lean = build("softmax").train(), build("softmax").train()
    lean.gradient_checkpointing = True
    for gpt in (plain, lean):
        gpt(codes(gpt, 40)).mean().backward()
    for (name, one), other in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad)


def test_eight_times_the_context_in_less_memory(peak_memory: Any) -> None:
    """A training step over 8 x 256 tokens behind a front end, beside the same transformer over 256 tokens."""
    options = {"bits": 8, "model_dim": 64, "heads": 2, "layers": 4}
    front = FrontEnd(strides=[4, 4, 2], dims=[16, 32, 48], kernel=4)
    peaks = []
    for gpt, tokens in ((Gpt(**options, front_end=front), 8 * 256), (Gpt(**options), 256)):  # type: ignore[arg-type]
        ids = torch.randint(0, 256, (2, tokens))
        with peak_memory() as peak:
            gpt(ids).mean().backward()
        peaks.append(peak.most)
    assert peaks[0] < peaks[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": []}, r"strides must be one whole number or more, each 2 or larger: got \[\]"),
        ({"strides": [1, 4]}, "strides must be one whole number or more, each 2 or larger"),
        ({"strides": [2, 2], "dims": [8]}, r"dims must be one width for each of 2 strides: got \[8\]"),
        ({"kernel": 3}, "kernel must be at least the largest stride, 4: got 3"),
    ],
)
def test_impossible_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontEnd(**options)


def test_channels_must_fit_the_strides() -> None:
    with pytest.raises(ValueError, match=r"front_end.strides multiply to 8: it must be a multiple of num_channels, 3"):
        build("softmax", num_channels=3, max_length=12)


@pytest.mark.parametrize("kind", ["softmax", "logistics"])
def test_bfloat16_autocast_is_close_to_float32(kind: str) -> None:
    gpt = build(kind)
    ids = codes(gpt, gpt.context + 60)
    expected = gpt(ids)
    with torch.autocast("cpu", torch.bfloat16):
        nats = gpt(ids)
    assert nats.dtype == torch.float32
    assert (nats - expected).mean().abs() < 0.02
    nats.mean().backward()
