"""unified_voice2: figures of the public implementation, the text's places by hand, padding, sampling."""

import re
import zlib
from typing import Any

import pytest
import torch
from torch import Tensor

from codes.models.mel_encoders import MelFrames
from codes.models.unified_voice import LossSum, UnifiedVoice2, arrange, cross_entropy
from tests.known_weights import drawn, seeded

SMALL: dict[str, Any] = {
    "layers": 2, "model_dim": 64, "heads": 4, "max_text_tokens": 20, "max_mel_tokens": 30,
    "max_conditioning_inputs": 2, "number_mel_codes": 50, "start_mel_token": 48, "stop_mel_token": 49,
}  # fmt: skip
TEXT = torch.arange(1, 13).expand(2, -1)
CODES = (torch.arange(20) * 7 % 48).expand(2, -1)
LENGTHS = torch.tensor([12, 12]), torch.tensor([20 * 1024] * 2)

# Public tortoise-tts with the weights of `known()` and the inputs of the tests below, float32 on a CPU.
VOICE = [
    [1.0316305, -0.9708127, -0.8031323, 1.9624351, 0.4563689],
    [1.2247477, 0.7802799, 0.4086527, 1.6214293, -0.1378059],
]
TRUNK = [
    [-0.3229725, 0.5618019, -2.4615948, -0.4968889], [0.8975695, 1.7026621, -1.5272801, 1.1933875],
    [1.4919468, 1.9630098, -1.7541761, 0.3997221],
]  # fmt: skip
LOGITS = [
    [[-0.8057461, 0.6096061, -0.3688116, -0.5184563], [0.2930369, 0.1264790, 0.5393684, -0.0017919],
     [0.6349646, 0.0045175, 0.7302733, 0.3533086]],
    [[-0.7026904, 0.4959325, -0.1131015, -0.5511220], [0.4967276, 0.2579598, 0.7286716, 0.0453671],
     [1.0667104, 0.2360702, 0.8016500, 0.4525259]],
]  # fmt: skip

# The same of two clips that are averaged.
LATENTS = [
    [[2.2566171, 1.0026029, -0.9135423, -0.3152615], [2.3639164, 0.7909951, 0.6218786, -1.4243284],
     [1.5203452, 0.9569831, 0.2880194, -0.3726134]],
    [[2.2296052, 0.8184140, -1.0806248, -0.5120848], [2.2346749, 0.6286438, 0.3893586, -1.2309276],
     [1.3500637, 0.6802278, -0.0930285, -0.0601380]],
]  # fmt: skip
CODES_FIRST = [
    [[0.8410645, 0.2179808, 0.2533031, -0.2825292], [-0.5058366, 0.0343474, 0.3960701, -0.0145329],
     [-0.3773583, 0.1111829, 0.5322498, 0.8781474]],
    [[-0.1655186, 0.1809560, 0.2572222, -0.2316412], [0.2966309, -0.0504460, 0.5210454, 0.1053392],
     [1.0290294, 0.0268696, 0.4732604, 0.8179634]],
]  # fmt: skip
LOSSES = 6.0459957, 4.2605515
FRAMES = [
    [0.0855511, 0.1111840, 0.0153653, 0.0000000, 0.1912081], [0.0322548, 0.1092125, 0.0110183, 0.0202442, 0.2242883]
]  # fmt: skip


def known(**options: Any) -> UnifiedVoice2:
    """A network whose weights follow from their names."""
    network = UnifiedVoice2(**{**SMALL, **options}).eval()
    for name, value in sorted(network.state_dict().items()):
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        is_norm = ("norm" in name.lower() or ".ln_" in name) and name.endswith("weight")
        value.copy_(torch.randn(value.shape, generator=generator) * 0.1 + float(is_norm))
    return network


def mean(loss: LossSum) -> float:
    return float((loss.total / loss.count).detach())


@torch.no_grad()
def test_figures_of_the_public_implementation() -> None:
    network, mel = known(), drawn(2, 80, 37)
    torch.testing.assert_close(network.voice(mel)[:, 0, ::13], torch.tensor(VOICE), rtol=0, atol=1e-5)
    torch.testing.assert_close(network.gpt(drawn(1, 9, 64))[0, ::4, ::17], torch.tensor(TRUNK), rtol=0, atol=1e-5)
    _, _, logits = network(mel, TEXT, LENGTHS[0], CODES, LENGTHS[1])
    torch.testing.assert_close(logits[:, ::17, ::7], torch.tensor(LOGITS), rtol=0, atol=1e-5)


@torch.no_grad()
def test_figures_of_two_clips_latents_losses_and_frames() -> None:
    network, inputs = known(average_conditioning_embeddings=True), (drawn(2, 2, 80, 37), TEXT, LENGTHS[0], CODES)
    text, sound, _ = network(*inputs, LENGTHS[1])
    assert (mean(text), mean(sound)) == pytest.approx(LOSSES, abs=1e-5)
    latents = network.latents(*inputs, LENGTHS[1])
    torch.testing.assert_close(latents[:, ::9, ::21], torch.tensor(LATENTS), rtol=0, atol=1e-5)
    _, _, logits = network(*inputs, LENGTHS[1], text_first=False)
    torch.testing.assert_close(logits[:, ::17, ::7], torch.tensor(CODES_FIRST), rtol=0, atol=1e-5)
    frames = MelFrames(64)
    frames.load_state_dict(seeded({name: tuple(value.shape) for name, value in frames.state_dict().items()}))
    torch.testing.assert_close(frames(drawn(2, 80, 16))[:, 3, ::13], torch.tensor(FRAMES), rtol=0, atol=1e-5)


def test_names_and_shapes_of_released_weights() -> None:
    with torch.device("meta"):  # Tortoise's own widths and lengths, as the example YAML gives them, in fewer layers
        network = UnifiedVoice2(
            layers=2, model_dim=1024, heads=16, max_text_tokens=402, max_mel_tokens=604, max_conditioning_inputs=2
        )
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["conditioning_encoder.init.weight"] == (1024, 80, 1)
    assert shapes["conditioning_encoder.attn.5.qkv.weight"] == (3072, 1024, 1)
    assert shapes["gpt.h.1.attn.c_attn.weight"] == (1024, 3072)
    assert shapes["gpt.h.1.mlp.c_proj.weight"] == (4096, 1024)
    assert shapes["mel_pos_embedding.emb.weight"] == (608, 1024)
    assert shapes["text_pos_embedding.emb.weight"] == (404, 1024)
    assert shapes["text_head.weight"] == (256, 1024)
    assert shapes["mel_head.bias"] == (8194,)
    assert {name.split(".")[0] for name in shapes} == {
        *("conditioning_encoder", "text_embedding", "mel_embedding", "gpt", "mel_pos_embedding"),
        *("text_pos_embedding", "final_norm", "text_head", "mel_head"),
    }
    masks = {"gpt.h.0.attn.bias": torch.ones(1), "gpt.h.0.attn.masked_bias": torch.ones(1)}
    copies = {"gpt.wte.weight": torch.ones(1), "inference_model.lm_head.1.bias": torch.ones(1)}
    kept = {"gpt.h.0.attn.c_attn.bias": torch.ones(1)}
    assert network.released_weights(masks | copies | kept) == kept


def test_start_stop_and_padding_by_hand() -> None:
    part = arrange(torch.tensor([[5, 6, 7], [8, 9, 9]]), torch.tensor([3, 1]), start=255, stop=0)
    assert part.inputs.tolist() == [[255, 5, 6, 7, 0], [255, 8, 0, 0, 0]]
    assert part.targets.tolist() == [[5, 6, 7, 0, 0], [8, 0, 0, 0, 0]]
    assert part.scored.tolist() == [[True, True, True, True, False], [True, True, False, False, False]]
    assert part.attended.tolist() == [[True] * 5, [True, True, True, False, False]]


@pytest.mark.parametrize("clips", [1, 2, 3])
@pytest.mark.parametrize("text_first", [True, False])
def test_the_text_is_scored_at_its_own_places(clips: int, text_first: bool) -> None:
    """A trunk that lets everything through, a text that repeats nothing: token n + 1 follows from token n alone."""
    network = UnifiedVoice2(**{**SMALL, "number_text_tokens": 64, "start_text_token": 63, "max_conditioning_inputs": 3})
    network.eval()
    following = {63: 3, 3: 4, 4: 5, 5: 0}  # start 3 4 5 stop
    with torch.no_grad():
        for module in (network.gpt.h, network.text_pos_embedding, network.mel_pos_embedding):
            for parameter in module.parameters():
                parameter.zero_()
        network.text_embedding.weight.copy_(torch.eye(64) * 20)
        network.text_head.weight.zero_()
        network.text_head.bias.zero_()
        for now, then in following.items():
            network.text_head.weight[then, now] = 20.0
    text = torch.tensor([[3, 4, 5, 0], [3, 4, 5, 0]])
    lengths = torch.tensor([3, 3]), torch.tensor([20 * 1024] * 2)
    loss, _, logits = network(drawn(2, clips, 80, 9), text, lengths[0], CODES, lengths[1], text_first=text_first)
    assert loss.count == 2 * 4
    assert mean(loss) < 1e-3
    assert logits.shape == (2, 50, 22)


@torch.no_grad()
def test_an_item_does_not_depend_on_its_batch() -> None:
    network, mel = known(average_conditioning_embeddings=True), drawn(2, 3, 80, 11)
    lengths = torch.tensor([12, 5]), torch.tensor([20 * 1024, 9 * 1024])
    losses = network(mel, TEXT, lengths[0], CODES, lengths[1])
    alone = [
        network(mel[i, None], TEXT[i, None, :n], lengths[0][i, None], CODES[i, None], lengths[1][i, None])
        for i, n in ((0, 12), (1, 5))
    ]
    for together, parts in zip(losses[:2], zip(*(found[:2] for found in alone), strict=True), strict=True):
        torch.testing.assert_close(together.total, sum(part.total for part in parts))
        assert together.count == sum(part.count for part in parts)
    assert [int(found[1].count) for found in alone] == [21, 11]  # 9 codes, the one the end falls into, the stop
    garbage = torch.where(torch.arange(12) < lengths[0][:, None], TEXT, 99), torch.where(CODES > 40, CODES, CODES)
    torch.testing.assert_close(network(mel, garbage[0], lengths[0], CODES, lengths[1])[0].total, losses[0].total)


@torch.no_grad()
def test_text_alone_sound_alone_and_latents() -> None:
    network, mel = known(train_solo_embeddings=True), drawn(2, 80, 11)
    assert network.text_forward(mel, TEXT, LENGTHS[0]).count == 2 * 13
    assert network.speech_forward(mel, CODES, LENGTHS[1]).count == 2 * 21
    assert network.latents(mel, TEXT, LENGTHS[0], CODES, LENGTHS[1]).shape == (2, 20, 64)
    marked = network.text_forward(mel, TEXT, LENGTHS[0]).total
    network.text_solo_embedding.zero_()  # type: ignore[union-attr]
    assert not torch.equal(network.text_forward(mel, TEXT, LENGTHS[0]).total, marked)


@torch.no_grad()
def test_frames_in_place_of_codes() -> None:
    network = known(use_mel_codes_as_input=False)
    assert isinstance(network.mel_embedding, MelFrames)
    loss = network(drawn(2, 80, 11), TEXT, LENGTHS[0], CODES, LENGTHS[1], drawn(2, 80, 80))[1]
    assert loss.total.isfinite()
    with pytest.raises(ValueError, match="use_mel_codes_as_input: false needs raw_mels as its sixth input"):
        network(drawn(2, 80, 11), TEXT, LENGTHS[0], CODES, LENGTHS[1])
    with pytest.raises(ValueError, match="use_mel_codes_as_input is false: such a network reads sound"):
        network.generate(drawn(1, 80, 11), TEXT[0])


def test_gradients_are_the_same_with_recomputed_blocks() -> None:
    network = known(dropout=0.0).train()
    grads = []
    for recompute in (False, True):
        network.gradient_checkpointing = recompute
        network.zero_grad()
        text, sound, _ = network(drawn(2, 2, 80, 11), TEXT, LENGTHS[0], CODES, LENGTHS[1])
        (text.total + sound.total).backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert len(grads[0]) == len(list(network.parameters()))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_only_positions_are_trained_where_the_rest_is_frozen() -> None:
    network = known(freeze_everything_but_position_embeddings=True)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == ["mel_pos_embedding.emb.weight", "text_pos_embedding.emb.weight"]


@torch.no_grad()
def test_sampling_equals_the_parallel_pass_and_follows_its_seed() -> None:
    network, mel = known(), drawn(1, 2, 80, 11)
    made = network.generate(mel, TEXT[0], num=2, max_codes=9, temperature=0.0, repetition_penalty=1.0)
    assert torch.equal(made[0], made[1])
    codes = made[0][None]
    _, _, logits = network(mel, TEXT[:1], LENGTHS[0][:1], codes, torch.tensor([1024 * codes.shape[1]]))
    logits[:, 48] = -torch.inf
    assert torch.equal(logits.argmax(1)[0, : codes.shape[1]], codes[0])
    drawn_codes = [
        network.generate(mel, TEXT[0], num=3, max_codes=8, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    same = [[torch.equal(*pair) for pair in zip(drawn_codes[0], other, strict=True)] for other in drawn_codes[1:]]
    assert all(same[0])
    assert not all(same[1])
    assert all(int(codes.max()) < 48 for codes in drawn_codes[0])
    with torch.no_grad():
        network.mel_head.bias[49] = 100.0
    assert [len(codes) for codes in network.generate(mel, TEXT[0], num=2)] == [0, 0]


@pytest.mark.parametrize("wrong", [{"num": 0}, {"repetition_penalty": 0.0}])
def test_how_to_draw_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="num must be 1 or more and repetition_penalty above 0, got"):
        known().generate(drawn(1, 80, 11), TEXT[0], **wrong)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((drawn(2, 79, 5), TEXT, CODES), "expected reference clips as mel spectrograms (B, n, 80, S), got (2, 79, 5)"),
        ((drawn(2, 80, 5), TEXT.float(), CODES), "expected text (B, N) as integers, got torch.float32 (2, 12)"),
        ((drawn(2, 80, 5), TEXT.repeat(1, 2), CODES), "text has 24 places, the network 20: raise max_text_tokens"),
        ((drawn(2, 80, 5), TEXT, CODES.repeat(1, 2)), "mel_codes has 40 places, the network 30: raise max_mel_tokens"),
    ],
)
def test_inputs_are_checked(inputs: tuple[Tensor, Tensor, Tensor], message: str) -> None:
    conditioning, text, codes = inputs
    with pytest.raises(ValueError, match=re.escape(message)):
        known()(conditioning, text, LENGTHS[0], codes, LENGTHS[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "model_dim is 64: it must be a multiple of heads, 5"),
        ({"layers": 0}, "layers is 0: it must be 1 or more"),
        ({"number_mel_codes": 49}, "number_mel_codes is 49: start_mel_token 48 and stop_mel_token 49 must be below it"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        UnifiedVoice2(**{**SMALL, **options})


def test_losses_count_what_is_scored() -> None:
    part = arrange(torch.tensor([[1, 2], [1, 1]]), torch.tensor([2, 1]), start=3, stop=0)
    loss = cross_entropy(torch.zeros(2, 4, 8), part)
    assert loss.count == 5
    torch.testing.assert_close(loss.total, 5 * torch.tensor(8.0).log())
