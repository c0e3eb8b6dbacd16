"""The t5 network: causality, alignment, steps equal to the parallel pass, generation, pretrained weights, options."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from codes.models.front_end import FrontEnd
from codes.models.t5 import T5
from codes.models.t5_generation import stepwise_nats

SIZES: dict[str, Any] = {"model_dim": 32, "feed_forward_dim": 64, "layers": 2, "heads": 2}
FRONT = FrontEnd(strides=[2, 4], dims=[8, 16], kernel=5)
KINDS: dict[str, dict[str, Any]] = {
    "mu_law": {"bits": 8},
    "tied": {"bits": 8, "tied": True},
    "bytes_as_tokens": {"vocabulary": 512, "context": 4},
    "sixteen_bits": {"bits": 16, "input": "both", "context": 5, "alignment": "encoder"},
    "logistics": {"bits": 16, "head": "logistics", "input": "values", "convolution": 6, "context": 4},
    "bytes_head": {"bits": 16, "head": "bytes", "alignment": "none"},
    "front_end": {"bits": 8, "context": 3, "front_end": FRONT},
    "front_end_logistics": {
        "bits": 16,
        "head": "logistics",
        "input": "values",
        "convolution": 6,
        "context": 4,
        "front_end": FRONT,
        "alignment": "encoder",
    },
}


def build(kind: str, shake: float = 0.05, **options: Any) -> T5:
    torch.manual_seed(0)
    network = T5(**{**SIZES, **KINDS[kind], **options})
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * shake
    return network.eval()


def pair(network: T5, tokens: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    source = torch.randint(0, network.vocabulary, (2, tokens + 2 * network.context))
    return source, torch.randint(0, network.vocabulary, (2, tokens))


def other(network: T5, ids: torch.Tensor, place: int) -> torch.Tensor:
    changed = ids.clone()
    changed[:, place] = (changed[:, place] + network.vocabulary // 3) % network.vocabulary
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_first_loss_is_near_ln_v(kind: str) -> None:
    network = build(kind, shake=0.0)
    nats = network(*pair(network))
    assert nats.shape == (2, 60)
    assert nats.dtype == torch.float32
    # a tied table of T5's own start gives logits of unit variance, which cost half a nat
    assert nats.mean().item() == pytest.approx(math.log(network.vocabulary), abs=0.8 if kind == "tied" else 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_itself_or_later_ones(kind: str) -> None:
    network = build(kind)
    source, target = pair(network)
    with torch.no_grad():
        before = network(source, target)
        for place in (20, 21, 23, 30):
            after = network(source, other(network, target, place))
            torch.testing.assert_close(before[:, :place], after[:, :place], rtol=0, atol=1e-5)
            assert (before[:, place] - after[:, place]).abs().max() > 1e-4
            assert (before[:, place + 1 :] - after[:, place + 1 :]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["mu_law", "sixteen_bits", "logistics", "front_end"])
def test_every_token_sees_all_of_the_source(kind: str) -> None:
    network = build(kind)
    source, target = pair(network)
    with torch.no_grad():
        before = network(source, target)
        for place in (0, source.shape[1] - 1):
            moved = before != network(other(network, source, place), target)
            assert moved.float().mean() > 0.8  # some differences are lost in float32


def test_alignment_tells_the_decoder_which_sample_belongs_to_it() -> None:
    """With the encoder silenced, the aligned embedding is all that is left of the source."""
    network = build("mu_law", context=3)
    source, target = pair(network)
    with torch.no_grad():
        for block in network.decoder.block:  # type: ignore[union-attr]
            block.layer[0].SelfAttention.o.weight.zero_()
            block.layer[1].EncDecAttention.o.weight.zero_()
        changed = (network(source, target) - network(other(network, source, 3 + 25), target)).abs().sum(0) > 0
    assert changed.nonzero().flatten().tolist() == [25]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_parallel_pass(kind: str) -> None:
    network = build(kind)
    source, target = pair(network)
    with torch.inference_mode():
        expected = network(source, target)
        for known in (0, 1, 17):
            found = stepwise_nats(network, source, target, known)
            torch.testing.assert_close(found, expected[:, known:], rtol=1e-4, atol=1e-4)


def test_a_target_with_the_source_s_context_is_cut() -> None:
    network = build("logistics")
    source, target = pair(network)
    wide = torch.nn.functional.pad(target, (4, 4))
    torch.testing.assert_close(network(source, wide), network(source, target))


@pytest.mark.parametrize("kind", KINDS)
def test_generation_keeps_what_is_given(kind: str) -> None:
    network = build(kind, max_length=24).train()
    source, target = pair(network)
    asked = target.clone()
    asked[:, 20:] = -1
    asked[0, 30:33] = target[0, 30:33]
    calls: list[tuple[int, int]] = []
    options: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95}
    done = network.generate(
        source, asked, generator=torch.Generator().manual_seed(0), progress=lambda *a: calls.append(a), **options
    )
    assert torch.equal(done[asked >= 0], asked[asked >= 0])
    assert done.min() >= 0
    assert done.max() < network.vocabulary
    assert calls[-1] == (60, 60)
    assert torch.equal(done, network.generate(source, asked, generator=torch.Generator().manual_seed(0), **options))
    assert network.training


def test_generation_without_context_puts_silence_around_the_source() -> None:
    network = build("logistics")
    source, target = pair(network)
    asked = torch.full_like(target, -1)
    inner = source[:, 4:-4]
    silent = torch.nn.functional.pad(inner, (4, 4), value=2**15)
    assert torch.equal(
        network.generate(inner, asked, temperature=0.0), network.generate(silent, asked, temperature=0.0)
    )


def test_generation_takes_the_likeliest_code() -> None:
    network = build("mu_law")
    source, target = pair(network, 8)
    done = network.generate(source, torch.full_like(target, -1), temperature=0.0)
    with torch.no_grad():
        best = network(source, done)
        for place in range(8):
            for code in range(0, 256, 17):
                tried = done.clone()
                tried[:, place] = code
                assert (network(source, tried)[:, place] >= best[:, place] - 1e-5).all()


def test_the_start_token_is_no_code() -> None:
    """Its row is behind those of the codes, and its probability is none of theirs."""
    network = build("mu_law")
    assert network.embedding.table.num_embeddings == 257
    source, target = pair(network, 1)
    with torch.no_grad():
        total = sum(network(source, torch.full_like(target, code)).neg().exp() for code in range(256))
        torch.testing.assert_close(total, torch.ones(2, 1))
        network.embedding.table.weight[256] += 1
        assert not torch.equal(network(source, target), build("mu_law")(source, target))


def test_it_learns_to_copy() -> None:
    network = build("mu_law", shake=0.0, context=2).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    loss = torch.zeros(())
    for _ in range(40):
        source = torch.randint(0, 256, (8, 36))
        loss = network(source, source).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * math.log(256)


@pytest.mark.parametrize("kind", ["mu_law", "front_end"])
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    plain, lean = build(kind).train(), build(kind).train()
    lean.gradient_checkpointing = True
    for network in (plain, lean):
        network(*pair(network)).mean().backward()
    for (name, one), same in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, same.grad)


def test_eight_times_the_context_in_less_memory(peak_memory: Any) -> None:
    sizes: dict[str, Any] = {"bits": 8, "model_dim": 64, "feed_forward_dim": 128, "layers": 2, "heads": 2}
    front = FrontEnd(strides=[4, 4, 2], dims=[16, 32, 48], kernel=4)
    peaks = []
    for network, tokens in ((T5(**sizes, front_end=front), 8 * 256), (T5(**sizes), 256)):
        ids = torch.randint(0, 256, (2, tokens))
        with peak_memory() as peak:
            network(ids, ids).mean().backward()
        peaks.append(peak.most)
    assert peaks[0] < peaks[1]


# --- pretrained weights


def saved(folder: Path, vocabulary: int = 40, **options: Any) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(3)
    config = T5Config(vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, **options)
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    return model


def test_pretrained_weights_are_taken_and_the_vocabulary_is_resized(tmp_path: Path) -> None:
    model = saved(tmp_path)
    network = T5(bits=8, pretrained=tmp_path)
    assert network.embedding.table.num_embeddings == 257
    assert torch.equal(network.embedding.table.weight[:40], model.shared.weight)
    assert network.head.output.weight is network.embedding.table.weight  # type: ignore[union-attr]
    theirs = model.encoder.state_dict()
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_saved_for_transformers_and_back(tmp_path: Path, tied: bool) -> None:
    """Transformers' own forward pass gives the same probabilities, and what it saved loads again."""
    from transformers import T5ForConditionalGeneration

    network = build("tied" if tied else "mu_law", alignment="none")
    network.save_pretrained(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    source, target = pair(network)
    start = torch.full((2, 1), 256)
    network.source_input.none.data.zero_()  # type: ignore[union-attr]  # what transformers' T5 does not know
    with torch.no_grad():
        logits = model(input_ids=source, decoder_input_ids=torch.cat([start, target[:, :-1]], 1)).logits
        nats = torch.nn.functional.cross_entropy(logits[..., :256].flatten(0, 1), target.flatten(), reduction="none")
        torch.testing.assert_close(nats.view(2, 60), network(source, target), rtol=1e-4, atol=1e-4)
        again = T5(bits=8, pretrained=tmp_path, alignment="none").eval()
        torch.testing.assert_close(again(source, target), network(source, target), rtol=1e-4, atol=1e-4)


def test_a_folder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=10)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"pretrained is .*, a model of type 'gpt2': which_model: t5 takes 't5' only"):
        T5(bits=8, pretrained=tmp_path)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained is .*: it has no config.json that transformers reads"):
        T5(bits=8, pretrained=tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"not hold all weights of its model: 1 missing \(encoder.final_layer_norm.w"):
        T5(bits=8, pretrained=tmp_path)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="its weights cannot be loaded"):
        T5(bits=8, pretrained=tmp_path)


def test_a_wrong_folder_is_said_with_its_place(tmp_path: Path, make_stereo_folder: Any) -> None:
    from codes.experiment import load_experiment
    from codes.trainer.build import build as build_parts
    from codes.yaml_source import OptionError

    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    text = (Path(__file__).parents[2] / "experiments" / "stereo_t5.yml").read_text()
    text = text.replace("      bits: 16                #", f"      pretrained: {tmp_path / 'wrong'}\n      bits: 16  #")
    for line in ("layers", "decoder_layers", "model_dim", "feed_forward_dim", "heads", "convolution"):
        text = "\n".join(kept for kept in text.split("\n") if not kept.strip().startswith(f"{line}:"))
    file = tmp_path / "x.yml"
    file.write_text(text.replace("input: values", "input: ids").replace("head: logistics", "head: softmax"))
    number = next(n for n, line in enumerate(file.read_text().split("\n"), 1) if "wrong" in line)
    folder = make_stereo_folder()
    with pytest.raises(OptionError, match=rf"x.yml:{number}:\d+: network t5: pretrained is .* a model of type 'bert'"):
        build_parts(load_experiment(file, [f"datasets.train.path={folder}", f"path.root={tmp_path}"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs bits or vocabulary, one of them: got bits: None, vocabulary: None"),
        ({"vocabulary": 512, "input": "values"}, "vocabulary goes with head: softmax and input: ids"),
        ({"bits": 17}, "bits is 17: head: softmax takes 1 to 16 bits"),
        ({"bits": 24, "head": "logistics"}, "input is ids: a table of 2.24 codes is too large; use input: values"),
        ({"vocabulary": 1}, "vocabulary is 1: head: softmax takes 2 to 65536 codes"),
        ({"bits": 8, "context": -1}, "context is -1: it must be 0 or more"),
        ({"bits": 8, "dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"bits": 8, "layers": 0}, "layers is 0: it must be 1 or more"),
        ({"bits": 8, "model_dim": 33}, "model_dim is 33: it must be a multiple of heads = 2"),
        ({"bits": 8, "input": "values", "tied": True}, "tied: true shares the embedding table with the softmax head"),
        ({"bits": 8, "pretrained": Path("x")}, "model_dim, feed_forward_dim, layers, heads: a pretrained model brings"),
    ],
)
def test_impossible_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        T5(**{**SIZES, **options})


def test_shapes_that_do_not_fit_are_explained() -> None:
    network = build("logistics")
    source, target = pair(network)
    with pytest.raises(ValueError, match=r"source \(2, 68\) and target \(2, 59\): .* with S = N [+] 2 x context \(4\)"):
        network(source, target[:, 1:])
    with pytest.raises(ValueError, match=r"a target of codes from -2 to \d+: they must be -1 \(free\) or 0 to 65535"):
        network.generate(source, torch.where(target == target[0, 0], -2, target))
    with pytest.raises(ValueError, match="top_k is 5: a logistics head has no list of codes"):
        network.generate(source, target, top_k=5)
    with pytest.raises(ValueError, match="none of transformers'"):
        network.save_pretrained(Path("x"))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_is_close_to_float32(kind: str) -> None:
    network = build(kind)
    source, target = pair(network)
    expected = network(source, target)
    with torch.autocast("cpu", torch.bfloat16):
        nats = network(source, target)
        network.generate(source, torch.where(torch.arange(60) < 50, target, -1))
    assert nats.dtype == torch.float32
    assert (nats - expected).mean().abs() < 0.05
    nats.mean().backward()
