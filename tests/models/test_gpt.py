"""The gpt network: causality, steps equal to the parallel pass, first loss, generation, options."""

import math
from typing import Any

import pytest
import torch

from codes.models.generation import stepwise_nats
from codes.models.gpt import Gpt
from codes.models.linear_prediction import LinearPrediction

PREDICTION = LinearPrediction(
    own_taps=8,
    other_taps=4,
    block_frames=16,
    long_taps=12,
    long_other_taps=2,
    long_block_frames=32,
    long_memory_frames=[300.0],
    memory_frames=[100.0, 400.0],
    warm_up_frames=32,
    history=4,
)
KINDS: dict[str, dict[str, Any]] = {
    "predicted": {"bits": 16, "head": "logistics", "linear_prediction": PREDICTION, "input": "values", "context": 128},
    "predicted_24_bits": {"bits": 24, "head": "logistics", "linear_prediction": PREDICTION, "input": "ids"},
    "logistics": {"bits": 16, "head": "logistics", "input": "both", "convolution": 16, "context": 8},
    "bytes": {"bits": 16, "head": "bytes", "input": "both", "convolution": 8, "activation": "gelu"},
    "mu_law": {"bits": 8, "norm": "layernorm"},
    "tied": {"bits": 8, "tied": True},
    "tokens": {"vocabulary": 512, "num_channels": 4},
}


def build(kind: str, shake: float = 0.02, **options: Any) -> Gpt:
    """A small network with parameters moved off their start, so that every path carries something."""
    torch.manual_seed(0)
    gpt = Gpt(**{"model_dim": 32, "heads": 2, "layers": 2, **KINDS[kind], **options})
    for parameter in gpt.parameters():
        parameter.data += torch.randn_like(parameter) * shake
    return gpt


def sound(gpt: Gpt, tokens: int = 240, batch: int = 2, level: float = 0.2) -> torch.Tensor:
    """Codes (B, T) of a noisy stereo tone at the network's depth, or any codes for tokens without a depth."""
    torch.manual_seed(3)
    if gpt.bits is None:
        return torch.randint(0, gpt.vocabulary, (batch, tokens))
    time = torch.arange(tokens // 2)[None, :, None] + torch.randint(0, 1000, (batch, 1, 2))
    wave = level * torch.sin(0.1 * time) + 0.01 * torch.randn(batch, tokens // 2, 2)
    half = 2 ** (gpt.bits - 1)
    return (wave.double() * half).round().long().flatten(1) + half


@pytest.mark.parametrize("kind", KINDS)
def test_first_loss_is_near_ln_v(kind: str):
    gpt = build(kind, shake=0.0)
    nats = gpt(sound(gpt))
    assert nats.shape == (2, 240 - gpt.context)
    assert nats.dtype == torch.float32
    assert nats.mean().item() == pytest.approx(math.log(gpt.vocabulary), abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_itself_or_later_ones(kind: str):
    gpt = build(kind).eval()
    ids = sound(gpt)
    for token in (gpt.context + 40, gpt.context + 41):
        changed = ids.clone()
        changed[:, token] = (changed[:, token] + gpt.vocabulary // 3) % gpt.vocabulary
        with torch.no_grad():
            before, after = gpt(ids), gpt(changed)
        place = token - gpt.context
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.equal(before[:, place], after[:, place])
        assert not torch.equal(before[:, place + 1], after[:, place + 1])
        assert not torch.equal(before[:, place + 2 :], after[:, place + 2 :])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_parallel_pass(kind: str):
    gpt = build(kind).eval()
    ids = sound(gpt)
    with torch.inference_mode():
        expected = gpt(ids)
        torch.testing.assert_close(stepwise_nats(gpt, ids), expected, rtol=1e-4, atol=1e-3)
        known = gpt.context + 50
        torch.testing.assert_close(stepwise_nats(gpt, ids, known), expected[:, 50:], rtol=1e-4, atol=1e-3)


def test_odd_number_of_tokens_is_fine():
    gpt = build("predicted").eval()
    ids = sound(gpt)
    torch.testing.assert_close(gpt(ids[:, :-1]), gpt(ids)[:, :-1])


@pytest.mark.parametrize("kind", ["predicted", "bytes", "mu_law"])
def test_full_cache_starts_again_from_its_last_half(kind: str):
    gpt = build(kind, max_length=64).eval()
    ids = sound(gpt)
    wide = build(kind).eval()
    with torch.inference_mode():
        nats, expected = stepwise_nats(gpt, ids), wide(ids)
        torch.testing.assert_close(nats[:, :64], expected[:, :64], rtol=1e-4, atol=1e-3)
        assert nats.isfinite().all()
        start = gpt.context + 32  # the first refill forgets the first 32 positions
        again = wide.transformer(wide.embed(ids, gpt.context, wide.forecast(ids))[:, 32:96])
        forecast = wide.forecast(ids)
        if forecast is not None:
            forecast = type(forecast)(*(value[:, 32:96] for value in vars(forecast).values()))
        tail = wide.head.nats(again, ids[:, start : start + 64], forecast)
    torch.testing.assert_close(nats[:, 64:96], tail[:, 32:64], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_keeps_what_is_given(kind: str):
    gpt = build(kind)
    ids = sound(gpt)
    free = torch.zeros_like(ids, dtype=torch.bool)
    free[:, gpt.context + 41 :: 2] = True  # a given channel
    free[0, gpt.context + 60 :] = True  # one sequence goes on alone
    asked = ids.masked_fill(free, -1)
    calls: list[tuple[int, int]] = []
    generator = torch.Generator().manual_seed(0)
    done = gpt.generate(asked, temperature=0.9, top_p=0.95, generator=generator, progress=lambda *a: calls.append(a))
    assert torch.equal(done[~free], ids[~free])
    assert done.min() >= 0
    assert done.max() < gpt.vocabulary
    assert not torch.equal(done[free], ids[free])
    assert calls[-1] == (240, 240)
    again = gpt.generate(asked, temperature=0.9, top_p=0.95, generator=torch.Generator().manual_seed(0))
    assert torch.equal(done, again)
    assert gpt.training


def test_generation_without_a_prompt_starts_after_silence():
    gpt = build("predicted")
    done = gpt.generate(torch.full((1, 20), -1), temperature=0.0)
    assert done.shape == (1, 20)
    silence = torch.full((1, gpt.context), gpt.silence)
    prompted = gpt.generate(torch.cat([silence, torch.full((1, 20), -1)], 1), temperature=0.0)
    assert torch.equal(prompted[:, gpt.context :], done)


def test_generation_without_a_prompt_hands_on_what_is_done():
    gpt = build("predicted")
    told: list[tuple[torch.Tensor, int]] = []
    done = gpt.generate(torch.full((1, 300), -1), temperature=0.0, emit=lambda ids, n: told.append((ids.clone(), n)))
    assert [n for _, n in told] == [256 - gpt.context]
    (made, count), *_ = told
    assert made.shape == done.shape
    assert torch.equal(made[:, :count], done[:, :count])


def test_generation_refuses_what_it_cannot_do():
    gpt = build("logistics")
    with pytest.raises(ValueError, match="top_k is 5: a logistics head has no list"):
        gpt.generate(torch.full((1, 4), -1), top_k=5)
    with pytest.raises(ValueError, match=r"ids from -2 to 70000: they must be -1 \(free\) or 0 to 65535"):
        gpt.generate(torch.tensor([[-2, 70000]]))
    with pytest.raises(ValueError, match=r"shape \(4,\): it needs \(B, T\)"):
        gpt.generate(torch.full((4,), -1))


@pytest.mark.parametrize("kind", ["predicted", "bytes", "tied"])
def test_checkpointing_changes_no_gradient(kind: str):
    plain, checkpointed = build(kind), build(kind)
    checkpointed.gradient_checkpointing = True
    for gpt in (plain, checkpointed):
        gpt(sound(gpt)).mean().backward()
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("kind", ["predicted", "predicted_24_bits", "bytes", "mu_law"])
def test_bfloat16_autocast_is_close_to_float32(kind: str):
    gpt = build(kind)
    ids = sound(gpt)
    expected = gpt(ids)
    with torch.autocast("cpu", torch.bfloat16):
        nats = gpt(ids)
    assert nats.dtype == torch.float32
    assert (nats - expected).mean().abs() < 0.02
    nats.mean().backward()


@pytest.mark.parametrize("kind", ["predicted", "mu_law", "bytes"])
def test_it_learns(kind: str):
    gpt = build(kind, shake=0.0)
    optimizer = torch.optim.Adam(gpt.parameters(), 1e-2)
    ids = sound(gpt)
    losses = []
    for _ in range(30):
        loss = gpt(ids).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.5


def test_tied_table_is_one_parameter():
    gpt = build("tied")
    assert gpt.head.output.weight is gpt.inputs[0].tables[0].weight  # type: ignore[union-attr, index]
    untied = build("tied", tied=False)
    assert len(list(untied.parameters())) == len(list(gpt.parameters())) + 1


def test_int16_and_int32_codes_are_taken():
    gpt = build("mu_law").eval()
    ids = sound(gpt)
    assert torch.equal(gpt(ids), gpt(ids.to(torch.int16)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs bits or vocabulary, one of them: got bits: None, vocabulary: None"),
        ({"bits": 8, "vocabulary": 256}, "needs bits or vocabulary, one of them"),
        ({"vocabulary": 512, "head": "logistics"}, "vocabulary goes with head: softmax and input: ids"),
        ({"vocabulary": 1}, "vocabulary is 1: head: softmax takes 2 to 65536"),
        ({"bits": 17}, "bits is 17: head: softmax takes 1 to 16 bits"),
        ({"bits": 24, "head": "bytes"}, "bits is 24: head: bytes takes 9 to 16 bits"),
        ({"bits": 8, "linear_prediction": PREDICTION}, "linear_prediction needs head: logistics"),
        ({"bits": 8, "convolution": -1}, "convolution is -1"),
        ({"bits": 16, "head": "bytes", "tied": True}, "tied: true shares the embedding table with the softmax head"),
        ({"bits": 8, "model_dim": 30}, "model_dim is 30: it must be a multiple of 2 [*] heads = 8"),
        ({"bits": 8, "layers": 0}, "layers is 0: it must be 1 or more"),
        ({"bits": 8, "dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"bits": 8, "context": 3}, "context is 3 tokens: it must be a multiple of num_channels = 2"),
        ({"bits": 8, "max_length": 6}, "max_length is 6: it must be a multiple of 2 [*] num_channels = 4"),
    ],
)
def test_impossible_options_are_explained(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Gpt(**options)


def test_too_short_a_sequence_is_explained():
    gpt = build("predicted")
    with pytest.raises(ValueError, match=r"shape \(1, 128\): it needs \(B, T\) with T > context = 128"):
        gpt(torch.zeros(1, 128, dtype=torch.long))
