"""The llama network: no off-by-one, steps equal to the parallel pass, generation, pretrained weights, errors."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from codes.models.llama import Llama, LlamaStepper

SMALL: dict[str, Any] = {"layers": 2, "model_dim": 32, "heads": 4, "key_value_heads": 2, "max_length": 64}


def small(**options: Any) -> Llama:
    """A small network with parameters moved off their start."""
    torch.manual_seed(0)
    llama = Llama(**{**SMALL, **options})
    for parameter in llama.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return llama.eval()


def some_ids(batch: int = 2, length: int = 40, vocabulary: int = 256) -> torch.Tensor:
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def test_first_loss_is_near_ln_v_and_the_first_token_counts():
    torch.manual_seed(0)
    nats = Llama(**SMALL)(some_ids())
    assert nats.shape == (2, 40)
    assert nats.dtype == torch.float32
    assert nats.mean().item() == pytest.approx(math.log(257), abs=0.1)


def test_nats_are_those_of_the_token_after_the_ones_before():
    """Against transformers itself, called as its own documentation says: logits at i are of the token after i."""
    llama, ids = small(), some_ids()
    first = torch.full((2, 1), llama.first_token)
    with torch.no_grad():
        logits = llama.llama(input_ids=torch.cat([first, ids], 1)).logits[:, :-1, :256]
        expected = functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        torch.testing.assert_close(llama(ids), expected)


def test_no_token_sees_itself_or_later_ones():
    llama, ids = small(), some_ids()
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 100) % 256
    with torch.no_grad():
        before, after = llama(ids), llama(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20], after[:, 20])
    assert not torch.equal(before[:, 21], after[:, 21])


def test_logits_are_aligned_with_the_ids():
    llama, ids = small(), some_ids()
    llama.output = "logits"
    logits = llama(ids)
    assert logits.shape == (2, 40, 256)
    llama.output = "nats"
    expected = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
    torch.testing.assert_close(llama(ids), expected)


@pytest.mark.parametrize("known", [0, 1, 25])
def test_steps_equal_the_parallel_pass(known: int):
    llama, ids = small(), some_ids()
    with torch.inference_mode():
        expected = llama(ids)
        stepper, nats = LlamaStepper(llama, ids, known), []
        for token in range(known, 40):
            nats.append(functional.cross_entropy(stepper.step(), ids[:, token], reduction="none"))
            stepper.update(ids[:, token])
    torch.testing.assert_close(torch.stack(nats, 1), expected[:, known:], rtol=1e-4, atol=1e-4)


def test_a_full_cache_is_filled_again_from_its_last_half():
    llama, wide = small(max_length=16), small(max_length=64)
    ids = some_ids(length=30)
    with torch.inference_mode():
        stepper, logits = LlamaStepper(llama, ids, 0), []
        for token in range(30):
            logits.append(stepper.step())
            stepper.update(ids[:, token])
        whole = wide.llama(input_ids=wide.tokens(torch.cat([torch.full((2, 1), -1), ids], 1))).logits
        torch.testing.assert_close(torch.stack(logits[:16], 1), whole[:, :16, :256], rtol=1e-4, atol=1e-4)
        # the 17th step sees its own input, token 15, and the 7 before it, at positions from 0 on
        last_half = wide.llama(input_ids=ids[:, 8:16]).logits[:, -1, :256]
        torch.testing.assert_close(logits[16], last_half, rtol=1e-4, atol=1e-4)
        jumped = LlamaStepper(llama, ids, 16).step()
    torch.testing.assert_close(jumped, last_half, rtol=1e-4, atol=1e-4)


def test_generation_keeps_what_is_given_and_repeats():
    llama, ids = small().train(), some_ids(length=100)  # longer than max_length
    free = torch.zeros_like(ids, dtype=torch.bool)
    free[:, 31::2] = True
    free[0, 60:] = True
    asked, calls = ids.masked_fill(free, -1), []
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 50, "top_p": 0.95}
    done = llama.generate(
        asked, **options, generator=torch.Generator().manual_seed(0), progress=lambda *call: calls.append(call)
    )
    assert torch.equal(done[~free], ids[~free])
    assert done.min() >= 0
    assert done.max() < 256
    assert not torch.equal(done[free], ids[free])
    assert calls[-1] == (100, 100)
    assert torch.equal(llama.generate(asked, **options, generator=torch.Generator().manual_seed(0)), done)
    assert llama.training
    with pytest.raises(ValueError, match=r"ids from -2 to 300: they must be -1 \(free\) or 0 to 255"):
        llama.generate(torch.tensor([[-2, 300]]))
    with pytest.raises(ValueError, match=r"shape \(4,\): it needs \(B, T\)"):
        llama.generate(torch.full((4,), -1))


def test_it_learns():
    torch.manual_seed(0)
    llama, ids = Llama(**SMALL), some_ids(length=16).repeat(1, 3)
    optimizer, losses = torch.optim.Adam(llama.parameters(), 1e-2), []
    for _ in range(40):
        loss = llama(ids).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 2


def test_checkpointing_changes_no_gradient():
    plain, checkpointed = small().train(), small().train()
    checkpointed.gradient_checkpointing = True
    for llama in (plain, checkpointed):
        llama(some_ids()).mean().backward()
    assert checkpointed.llama.model.layers[0].gradient_checkpointing
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad)
    checkpointed.gradient_checkpointing = False
    checkpointed(some_ids())
    assert not checkpointed.llama.model.layers[0].gradient_checkpointing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained Llama of words and bytes, as a folder: 300 tokens, byte b being the token 290 - b."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    small(vocabulary=299).llama.save_pretrained(path)
    words = {f"<0x{byte:02X}>": 290 - byte for byte in range(256)} | {"<s>": 1, "</s>": 2, "<unk>": 0}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(path)
    return path


def test_mapped_bytes_are_the_tokens_of_the_tokenizer(folder: Path):
    llama, ids = Llama(pretrained=folder, tables="mapped").eval(), some_ids()
    assert llama.max_length == 64
    with torch.no_grad():
        inputs = torch.cat([torch.full((2, 1), 1), 290 - ids], 1)
        logits = llama.llama(input_ids=inputs).logits[:, :-1]
        of_bytes = logits[..., [290 - byte for byte in range(256)]]
        expected = functional.cross_entropy(of_bytes.transpose(1, 2), ids, reduction="none")
        torch.testing.assert_close(llama(ids), expected)
        assert torch.equal(llama.generate(ids[:, :5]), ids[:, :5])


def test_new_tables_keep_the_blocks(folder: Path):
    llama, source = Llama(pretrained=folder, vocabulary=512, max_length=32), Llama(pretrained=folder)
    assert llama.llama.get_input_embeddings().weight.shape == (513, 32)
    assert llama(some_ids(length=32, vocabulary=512)).shape == (2, 32)
    for name, parameter in llama.named_parameters():
        if "layers" in name:
            assert torch.equal(parameter, source.get_parameter(name)), name
    with pytest.raises(ValueError, match="T from 1 to max_length = 32"):
        llama(some_ids(length=33))
    with pytest.raises(ValueError, match="max_length is 65: the model has 64 positions"):
        Llama(pretrained=folder, max_length=65)
    restored = Llama(pretrained=folder, vocabulary=512, max_length=32)
    restored.load_state_dict(llama.state_dict())
    assert torch.equal(restored(some_ids(length=32)), llama(some_ids(length=32)))


@pytest.mark.parametrize("tables", ["new", "mapped"])
def test_a_portable_network_needs_no_pretrained_one(folder: Path, tables: Any):
    llama, ids = Llama(pretrained=folder, tables=tables).eval(), some_ids()
    options, weights = llama.portable()
    again = Llama(**json.loads(json.dumps(options))).eval()
    again.load_state_dict(weights)
    assert again.llama.get_input_embeddings().weight.shape == (257, 32)
    torch.testing.assert_close(again(ids), llama(ids), rtol=0, atol=0)


def test_further_options_of_transformers():
    llama = Llama(**SMALL, config={"rms_norm_eps": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}})
    assert llama.llama.model.norm.variance_epsilon == 0.5
    plain = Llama(**SMALL)
    plain.load_state_dict(llama.state_dict())
    assert not torch.allclose(llama(some_ids()), plain(some_ids()))
    with pytest.raises(ValueError, match="config: LlamaConfig has no colour"):
        Llama(**SMALL, config={"colour": 3})


def test_what_is_wrong_with_a_pretrained_model_is_said(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match=r"has no config\.json that transformers reads"):
        Llama(pretrained=tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"pretrained is {tmp_path}: its weights cannot be loaded: OSError"):
        Llama(pretrained=tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"does not hold all weights of its model: 1 missing \(model.layers.1.mlp.up"):
        Llama(pretrained=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Llama(pretrained=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    with pytest.raises(ValueError, match="a model of type 'mistral': which_model: llama takes 'llama' only"):
        Llama(pretrained=tmp_path)


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nobody/nothing: it is no folder here, and no model that the hub gives"):
        Llama(pretrained=Path("nobody/nothing"))


def test_a_tokenizer_without_bytes_cannot_be_mapped(folder: Path, tmp_path: Path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"))
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="mapped needs a token for each of 256 bytes"):
        Llama(pretrained=tmp_path, tables="mapped")
    with pytest.raises(ValueError, match="vocabulary is 512: tables: mapped knows the tokens of 256 bytes"):
        Llama(pretrained=folder, tables="mapped", vocabulary=512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": 1}, "vocabulary is 1: llama takes 2 to 65536 codes"),
        ({"layers": 0}, "layers is 0: it must be 1 or more"),
        ({"model_dim": 30}, r"model_dim is 30: it must be a multiple of 2 \* heads = 8"),
        ({"key_value_heads": 3}, "key_value_heads is 3: it must divide heads = 4"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"tables": "mapped"}, "mapped keeps the tables of a pretrained model"),
        (
            {"pretrained": Path("x"), "max_length": None},
            "layers, model_dim, heads, key_value_heads: a pretrained model brings",
        ),
        ({"max_length": 1}, "max_length is 1"),
    ],
)
def test_impossible_options_are_explained(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Llama(**{**SMALL, **options})
