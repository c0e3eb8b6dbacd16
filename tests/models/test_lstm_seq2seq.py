"""The LSTM: lengths are respected exactly, fused equals stepwise, nothing leaks, sampling is what it says."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codes.models.heads import Choice
from codes.models.lstm import LstmLayer, LstmStack
from codes.models.lstm_seq2seq import LstmSeq2seq

KINDS = ("float", "vectors", "logistics", "codes")
PREV, NEXT = 40, 24


def network(kind: str, **options: Any) -> LstmSeq2seq:
    """A small network whose output layer is not at its start, so that hidden vectors matter."""
    kind_options: dict[str, Any] = {
        "float": {"output": "float"}, "vectors": {"output": "float", "width": 3},
        "logistics": {"output": "logistics", "bits": 12, "mixtures": 3}, "codes": {"output": "codes", "bits": 5},
    }[kind]  # fmt: skip
    net = LstmSeq2seq(**{"next_steps": NEXT, "dim": 16, **kind_options, **options})
    with torch.no_grad():
        for p in net.output.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return net


def values(kind: str, batch: int = 4, length: int = PREV + NEXT) -> Tensor:
    if kind == "float":
        return torch.randn(batch, length) * 0.2
    if kind == "vectors":
        return torch.randn(batch, length, 3)
    if kind == "codes":
        return torch.randint(0, 32, (batch, length))
    return (torch.randn(batch, length).cumsum(1) * 40 + 2048).round().long().clamp(0, 4095)


def test_a_layer_is_torchs_own_lstm() -> None:
    layer, reference = LstmLayer(3, 5), torch.nn.LSTM(3, 5, batch_first=True)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(layer.weight_input)
        reference.weight_hh_l0.copy_(layer.weight_hidden)
        reference.bias_ih_l0.copy_(layer.bias)
        reference.bias_hh_l0.zero_()
    x, start = torch.randn(2, 7, 3), (torch.randn(2, 5), torch.randn(2, 5))
    out, (hidden, cell) = layer(x, start, None)
    expected, (last, last_cell) = reference(x, (start[0][None], start[1][None]))
    assert torch.allclose(out, expected, atol=1e-6)
    assert torch.allclose(hidden, last[0], atol=1e-6)
    assert torch.allclose(cell, last_cell[0], atol=1e-6)


def test_state_is_exactly_zero_while_reset() -> None:
    stack = LstmStack(3, 8, 2, 0.0)
    x, reset = torch.randn(2, 9, 3) * 100, torch.zeros(2, 9, dtype=torch.bool)
    reset[0, :6] = True
    out, _ = stack(x, stack.start(2, x.device), reset)
    alone, _ = stack(x[:1, 6:], stack.start(1, x.device))
    assert (out[0, :6] == 0).all()
    assert torch.allclose(out[:1, 6:], alone, atol=1e-6)
    out[0].sum().backward()
    gradients = [p.grad for p in stack.parameters()]
    out, _ = stack(x[:1, 6:], stack.start(1, x.device))
    stack.zero_grad()
    out.sum().backward()
    for p, padded in zip(stack.parameters(), gradients, strict=True):
        assert p.grad is not None
        assert padded is not None
        assert torch.allclose(p.grad, padded, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_item_is_what_it_is_alone_without_padding(kind: str) -> None:
    net, sequence = network(kind), values(kind)
    lengths = torch.tensor([1, 2, 17, PREV])
    together = net(sequence, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = net(sequence[item : item + 1, PREV - length :])
        assert torch.allclose(together[item], alone[0], atol=1e-5), length
    spoilt = sequence.clone()
    for item, length in enumerate(lengths.tolist()):
        spoilt[item, : PREV - length] = 7
    assert torch.equal(net(spoilt, lengths), together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncate", [0, 7])
def test_stepwise_equals_fused_with_its_gradients(kind: str, truncate: int) -> None:
    net, sequence, lengths = network(kind, truncate_steps=truncate), values(kind), torch.tensor([1, 9, 30, PREV])
    found = []
    for forced in (None, torch.ones(4, NEXT, dtype=torch.bool)):
        net.zero_grad()
        out = net(sequence, lengths, forced)
        out.square().sum().backward()
        found.append((out, [p.grad.clone() for p in net.parameters() if p.grad is not None]))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert len(found[0][1]) == len(found[1][1]) == len(list(net.parameters()))
    for fused, stepwise in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(fused, stepwise, rtol=1e-4, atol=1e-4 * float(fused.abs().max()) + 1e-6)


@pytest.mark.parametrize("kind", ["float", "logistics", "codes"])
def test_nothing_leaks_from_the_future(kind: str) -> None:
    net, sequence = network(kind), values(kind)
    for at in (PREV, PREV + 5, PREV + NEXT - 1):
        other = sequence.clone()
        other[:, at:] = values(kind)[:, at:] if kind != "codes" else 31 - sequence[:, at:]
        was, now = net(sequence), net(other)
        unseen = at - PREV + (kind == "float")  # a prediction does not see its own value, a code length does
        assert torch.equal(was[:, :unseen], now[:, :unseen])
        assert not torch.equal(was, now) or at == PREV + NEXT - 1


def test_probabilities_of_logistics_add_up_to_one() -> None:
    net = network("logistics", bits=6, next_steps=1)
    prev = torch.randint(20, 40, (1, 12))
    every = torch.cat([prev.expand(64, -1), torch.arange(64)[:, None]], 1)
    assert math.isclose(float(torch.exp(-net(every)).sum().detach()), 1.0, rel_tol=1e-4)


def test_an_untrained_float_network_copies_the_last_value() -> None:
    net, sequence = LstmSeq2seq(next_steps=NEXT, output="float", dim=8), values("float")
    assert torch.equal(net(sequence), sequence[:, PREV - 1 : -1])


@pytest.mark.parametrize("kind", KINDS)
def test_scheduled_sampling_reads_its_own_values(kind: str) -> None:
    net, sequence = network(kind), values(kind)
    forced = torch.ones(4, NEXT, dtype=torch.bool)
    forced[0] = False
    forced[1, 5:] = False
    real, mixed = net(sequence), net(sequence, None, forced)
    assert torch.allclose(real[2:], mixed[2:], atol=1e-5)
    assert torch.allclose(real[1, :6], mixed[1, :6], atol=1e-5)
    assert not torch.allclose(real[0, 1:], mixed[0, 1:], atol=1e-3)
    assert not torch.allclose(real[1, 6:], mixed[1, 6:], atol=1e-3)


@pytest.mark.parametrize("kind", ["float", "vectors"])
def test_scheduled_sampling_is_greedy_decoding_where_nothing_is_forced(kind: str) -> None:
    net, sequence = network(kind), values(kind)
    free = net(sequence, None, torch.zeros(4, NEXT, dtype=torch.bool))
    assert torch.allclose(free, net.extend(sequence[:, :PREV], NEXT, Choice(0.0)), atol=1e-5)


def test_evaluation_is_teacher_forced() -> None:
    net, sequence = network("codes"), values("codes")
    net.eval()
    assert torch.equal(net(sequence, None, torch.zeros(4, NEXT, dtype=torch.bool)), net(sequence))


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_a_batch_of_any_size(kind: str) -> None:
    net, sequence = network(kind).eval(), values(kind)
    together = net.extend(sequence, 12, Choice(0.0))
    assert together.shape == (4, 12, *sequence.shape[2:])
    for item in range(4):
        assert torch.allclose(
            net.extend(sequence[item : item + 1], 12, Choice(0.0)), together[item : item + 1], atol=1e-5
        )


def test_temperature_spreads_and_zero_is_greedy() -> None:
    net, prompt = network("codes").eval(), values("codes", 1).expand(200, -1)
    wild = net.extend(prompt, 1, Choice(1.0, generator=torch.Generator().manual_seed(1)))
    again = net.extend(prompt, 1, Choice(1.0, generator=torch.Generator().manual_seed(1)))
    cold = net.extend(prompt, 1, Choice(1e-3, generator=torch.Generator().manual_seed(1)))
    greedy = net.extend(prompt, 1, Choice(0.0))
    assert torch.equal(wild, again)
    assert len(wild.unique()) > 20
    assert len(cold.unique()) <= 5
    assert len(greedy.unique()) == 1


def test_float_sampling_adds_the_noise_that_it_is_given() -> None:
    net, prompt = network("float", noise_scale=0.1).eval(), values("float", 1).expand(2000, -1)
    made = net.extend(prompt, 1, Choice(0.5, generator=torch.Generator().manual_seed(1)))
    assert math.isclose(float(made.std()), 0.05, rel_tol=0.1)
    assert float(net.extend(prompt, 1, Choice(0.0)).std()) < 1e-6


def test_generate_keeps_what_is_given() -> None:
    net, ids = network("logistics"), values("logistics")[:, None]
    ids[..., 30:] = -1
    ids[..., 33] = 5
    made = net.generate(ids, temperature=0.5, generator=torch.Generator().manual_seed(0))
    assert made.shape == ids.shape
    assert net.training
    assert torch.equal(made[..., :30], ids[..., :30])
    assert (made[..., 33] == 5).all()
    assert int(made.min()) >= 0
    assert int(made.max()) < 4096


def test_truncation_stops_gradients_and_checkpointing_changes_nothing() -> None:
    sequence = values("float").requires_grad_()
    net = network("float", truncate_steps=6)
    net(sequence)[:, -1].sum().backward()
    assert sequence.grad is not None
    reached = sequence.grad.abs().sum(0) > 0
    assert not reached[: PREV + NEXT - 1 - 6].any()  # the last stretch begins at step 18 and reads from value 57 on
    assert reached[PREV + NEXT - 2]
    grads = []
    for recompute in (False, True):
        net.zero_grad()
        net.gradient_checkpointing = recompute
        net(values("float") * 0 + 0.1 * torch.arange(PREV + NEXT)).square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_scale_follows_from_prev_alone_and_makes_loud_and_quiet_alike() -> None:
    net, sequence = network("logistics", bits=16), values("logistics")
    quiet, loud = sequence - 2048 + 32768, (sequence - 2048) * 8 + 32768
    difference = (net(loud) - net(quiet)).mean().detach() / math.log(2)
    assert 2.0 < float(difference) < 4.0  # three bits more


@pytest.mark.parametrize("kind", ["logistics", "codes", "float"])
def test_works_under_autocast(kind: str) -> None:
    net, sequence = network(kind), values(kind)
    exact = net(sequence)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(net(sequence), exact, atol=0.05)
        net(sequence, None, torch.zeros(4, NEXT, dtype=torch.bool)).sum().backward()


class NoSync(TorchDispatchMode):
    """Fails where something waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "is_nonzero", "aten.equal"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forced", [False, True])
def test_no_pass_waits_for_the_device(kind: str, forced: bool) -> None:
    net, sequence, lengths = network(kind), values(kind), torch.tensor([1, 9, 30, PREV])
    coins = torch.rand(4, NEXT) < 0.5 if forced else None
    with NoSync():
        net(sequence, lengths, coins).sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"next_steps": 0}, "next_steps is 0: it must be 1 or more"),
        ({"next_steps": 4, "layers": 0}, "layers is 0"),
        ({"next_steps": 4, "width": 2}, "width is 2: only output: float takes vectors"),
        ({"next_steps": 4, "bits": 33}, "bits is 33: output: logistics takes 2 to 32 bits"),
        ({"next_steps": 4, "output": "codes", "bits": 17}, "output: codes takes 1 to 16 bits"),
        ({"next_steps": 4, "mixtures": 0}, "mixtures is 0"),
        ({"next_steps": 4, "truncate_steps": -1}, "must be 0 or more"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LstmSeq2seq(**options)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, T\) with T > next_steps = 24.* got \(4, 24\)"):
        network("codes")(values("codes")[:, :NEXT])
    with pytest.raises(ValueError, match="expected integer codes, got float32"):
        network("codes")(torch.randn(2, 50))
    with pytest.raises(ValueError, match="expected float values, got int64"):
        network("float")(values("codes"))
    with pytest.raises(ValueError, match="expected float values, got int64"):
        network("float").extend(values("codes"), 1, Choice(0.0))
    with pytest.raises(ValueError, match=r"expected \(B, T, 3\)"):
        network("vectors")(torch.randn(2, 50, 4))
    with pytest.raises(ValueError, match="1 value or more and 1 step or more, got 64 and 0"):
        network("codes").extend(values("codes"), 0, Choice(0.0))
    with pytest.raises(ValueError, match="the first value is free"):
        network("codes").generate(torch.full((1, 8), -1))
    with pytest.raises(ValueError, match="top_k is 3: a logistics head has no list of codes"):
        network("logistics").generate(torch.tensor([[5, -1]]), top_k=3)
    with pytest.raises(ValueError, match="no codes to fill in"):
        network("float").generate(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="no style to change"):
        network("codes").carry_on(values("codes"), 3, temperature=1.0, seed=0, style_at=[1], fade=0)
