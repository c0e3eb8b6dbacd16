"""The key-value cache of fixed shapes: equal to the uncached networks, one compiled graph, a CUDA graph on a GPU."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from codes.models.codes_gpt import CodesGpt
from codes.models.front_end import FrontEnd
from codes.models.generation import Stepper, stepwise_nats
from codes.models.gpt import Gpt
from codes.models.gpt2_trunk import Gpt2Trunk
from codes.models.key_value_cache import WARM_CALLS, Caches, FixedStep
from codes.models.linear_prediction import LinearPrediction
from codes.models.llama import Llama, LlamaStepper

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
PREDICTION = LinearPrediction(own_taps=4, other_taps=2, block_frames=8, warm_up_frames=8, history=2, long_taps=0)
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {"bits": 8},
    "predicted": {"bits": 16, "head": "logistics", "linear_prediction": PREDICTION, "context": 16, "input": "values"},
    "hierarchy": {"bits": 8, "front_end": FrontEnd(strides=[2, 2], dims=[16, 24], kernel=4)},
}


def shaken(network: Any) -> Any:
    """Parameters moved off their start, for evaluation."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def small(kind: str, **options: Any) -> Gpt:
    torch.manual_seed(0)
    return shaken(Gpt(**{"layers": 2, "model_dim": 32, "heads": 2, "max_length": 64, **KINDS[kind], **options}))


def codes(gpt: Gpt, tokens: int) -> torch.Tensor:
    drawn = torch.randn(2, tokens, generator=torch.Generator().manual_seed(1))
    return (drawn * gpt.vocabulary / 16 + gpt.silence).round().long().clamp(0, gpt.vocabulary - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_shapes_give_what_the_uncached_network_gives(kind: str) -> None:
    gpt = small(kind)
    ids = codes(gpt, gpt.context + 48)
    with torch.inference_mode():
        whole = gpt(ids)
        for known in (gpt.context, gpt.context + 20):
            found = stepwise_nats(gpt, ids, known, static=True)
            torch.testing.assert_close(found, whole[:, known - gpt.context :], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_both_caches_make_the_same_sequences(kind: str) -> None:
    gpt = small(kind, max_length=16)  # filled again on the way
    ids = torch.full((3, gpt.context + 50), -1)
    ids[:, : gpt.context + 3] = gpt.silence
    made = [
        gpt.generate(ids, temperature=0.9, generator=torch.Generator().manual_seed(4), static_cache=static)
        for static in (True, False, None)
    ]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[2], made[1])


def test_the_step_is_one_graph_whatever_the_position() -> None:
    """No shape depends on the position, and nothing is read back: what a CUDA graph needs, says the compiler."""
    gpt = small("softmax")
    ids = codes(gpt, 40)
    with torch.inference_mode():
        stepper = Stepper(gpt, ids, 4, static=True)
        caches: Any = stepper.caches
        graphs: list[Any] = []

        def backend(graph: Any, inputs: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        transformer: Any = gpt.transformer
        through = transformer._through
        compiled = torch.compile(
            lambda x, place, *rotary: through(caches.blocks, x, place, *rotary), backend=backend, fullgraph=True,
            dynamic=False,
        )  # fmt: skip
        caches.step = FixedStep(compiled)
        found = [gpt.head.nats(stepper.step()[0], ids[:, 4:5])]
        for token in range(4, 39):
            stepper.update(ids[:, token])
            found.append(gpt.head.nats(stepper.step()[0], ids[:, token + 1 : token + 2]))
        torch.testing.assert_close(torch.cat(found, 1), gpt(ids)[:, 4:], rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1


def test_codes_gpt_and_gpt2_by_fixed_shapes() -> None:
    torch.manual_seed(0)
    network = shaken(CodesGpt(num_codebooks=2, codebook_size=16, layers=2, model_dim=16, heads=2, max_length=16))
    trunk = shaken(Gpt2Trunk(2, 16, 2, 0.0))
    x = torch.randn(2, 9, 16)
    rotary = network.transformer.rotary_at(0, 9, x.device)
    with torch.inference_mode():
        caches = network.transformer.caches(2, 16, x.device, static=True)
        steps = [network.transformer.extend(x[:, :4], caches, 0, tuple(part[:4] for part in rotary))]
        for place in range(4, 9):
            own = tuple(part[place : place + 1] for part in rotary)
            steps.append(network.transformer.extend(x[:, place : place + 1], caches, place, own))
        torch.testing.assert_close(torch.cat(steps, 1), network.transformer(x), rtol=1e-4, atol=1e-5)
        caches = trunk.caches(2, 16, x.device, static=True)
        steps = [trunk.extend(x[:, place : place + 1], caches, place) for place in range(9)]
        torch.testing.assert_close(torch.cat(steps, 1), trunk(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_length", [64, 16])
def test_llama_by_fixed_shapes(max_length: int) -> None:
    """Beside the growing cache, through the edge where it is filled again, and beside the parallel pass."""
    torch.manual_seed(0)
    llama = shaken(Llama(layers=2, model_dim=32, heads=4, key_value_heads=2, max_length=max_length))
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        walks = [LlamaStepper(llama, ids, 3, static) for static in (True, False)]
        nats = []
        for token in range(3, 40):
            fixed, grown = (walk.step() for walk in walks)
            torch.testing.assert_close(fixed, grown, rtol=1e-4, atol=1e-4)
            nats.append(functional.cross_entropy(fixed, ids[:, token], reduction="none"))
            for walk in walks:
                walk.update(ids[:, token])
        if max_length == 64:
            torch.testing.assert_close(torch.stack(nats, 1), llama(ids)[:, 3:], rtol=1e-4, atol=1e-4)


def test_keys_are_kept_in_the_data_type_of_autocast() -> None:
    gpt = small("softmax")
    ids = codes(gpt, 12)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        caches: Any = Stepper(gpt, ids, 4, static=True).caches
        found = stepwise_nats(gpt, ids, 4, static=True)
        whole = gpt(ids)[:, 4:]
    assert caches.blocks[0].keys.dtype == torch.bfloat16
    torch.testing.assert_close(found, whole, rtol=0.05, atol=0.05)


def test_several_positions_only_from_the_start() -> None:
    caches = Caches(1, 1, 1, 8, 4, torch.device("cpu"))
    with pytest.raises(AssertionError, match="several positions at once only from the start"):
        caches.extend(lambda blocks, x, start: x, torch.zeros(1, 2, 4), 3)


@CUDA
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_recorded_step_gives_what_the_uncached_network_gives(kind: str, bf16: bool) -> None:
    gpt = small(kind).cuda()
    ids = codes(gpt, gpt.context + 48).cuda()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        stepper = Stepper(gpt, ids, gpt.context)
        for token in range(stepper.token, stepper.token + 6 * WARM_CALLS):
            stepper.step()
            stepper.update(ids[:, token])
        caches: Any = stepper.caches
        caches = getattr(caches, "inner", caches)
        assert caches.step is not None
        assert caches.step.graph is not None
        rtol, atol = (0.05, 0.1) if bf16 else (1e-3, 1e-2)
        torch.testing.assert_close(stepwise_nats(gpt, ids), gpt(ids), rtol=rtol, atol=atol)
        asked = torch.cat([ids[:, : gpt.context + 4], torch.full_like(ids, -1)], 1)
        made = [
            gpt.generate(asked, generator=torch.Generator("cuda").manual_seed(4), static_cache=static)
            for static in (True, None)
        ]
        assert torch.equal(made[0], made[1])


@CUDA
def test_a_recorded_llama_gives_what_a_growing_cache_gives() -> None:
    torch.manual_seed(0)
    llama = shaken(Llama(layers=2, model_dim=32, heads=4, max_length=64)).cuda()
    ids = torch.randint(0, 256, (2, 40)).cuda()
    with torch.inference_mode():
        walks = [LlamaStepper(llama, ids, 3, static) for static in (None, False)]
        for token in range(3, 40):
            fixed, grown = (walk.step() for walk in walks)
            torch.testing.assert_close(fixed, grown, rtol=1e-3, atol=1e-3)
            for walk in walks:
                walk.update(ids[:, token])
    assert walks[0].fixed is not None
    assert walks[0].fixed.graph is not None


@CUDA
def test_nothing_is_recorded_wrong_where_inputs_change() -> None:
    memory = torch.zeros(4, device="cuda")

    def function(place: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        memory.index_copy_(0, place, value)
        return memory.sum()[None]

    step = FixedStep(function)
    for number in range(12):
        place, value = torch.tensor([number % 4]).cuda(), torch.tensor([float(number)]).cuda()
        expected = memory.clone().index_copy_(0, place, value).sum()
        assert step(place, value).item() == expected.item()
    assert step.graph is not None
