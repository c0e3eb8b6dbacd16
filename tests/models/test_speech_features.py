"""Features of speech: a small HuBERT that the test saves, at each layer; cepstra; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codes import mel
from codes.models.speech_features import SpeechFeatures


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(1)
    config = HubertConfig(
        hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, conv_dim=[8, 8],
        conv_kernel=[10, 4], conv_stride=[5, 4], num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True).save_pretrained(folder)
    return folder


def test_each_layer_is_the_one_of_transformers(hubert: Path) -> None:
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    wav = 0.1 * torch.randn(2, 400) + 0.05
    prepared = Wav2Vec2FeatureExtractor.from_pretrained(hubert)(list(wav.numpy()), sampling_rate=16_000)
    model = HubertModel.from_pretrained(hubert).eval()
    with torch.no_grad():
        states = model(torch.from_numpy(np.stack(prepared["input_values"])), output_hidden_states=True).hidden_states
    for layer in range(4):
        net = SpeechFeatures(model=str(hubert), layer=layer)
        assert (net.sample_rate_hz, net.hop_samples, net.dim) == (16_000, 20, 12)
        found = net(wav[:, None])
        torch.testing.assert_close(found, states[layer], atol=1e-4, rtol=1e-4)
        assert not net.train().training
        assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_checkpoint_holds_a_hash_of_the_weights(hubert: Path, tmp_path: Path) -> None:
    from transformers import HubertModel

    net = SpeechFeatures(model=str(hubert), layer=1)
    saved = net.state_dict()
    assert saved.keys() == {"weights_sha256"}
    net.load_state_dict(saved)
    other = HubertModel.from_pretrained(hubert)
    other.encoder.layer_norm.bias.data.add_(1)
    other.save_pretrained(tmp_path / "other")
    for path in hubert.glob("preprocessor*.json"):
        (tmp_path / "other" / path.name).write_text(path.read_text())
    with pytest.raises(ValueError, match="the weights at `model` are not those that the checkpoint was made with"):
        SpeechFeatures(model=str(tmp_path / "other"), layer=1).load_state_dict(saved)


def test_cepstra_need_no_weights() -> None:
    net = SpeechFeatures(features="mfcc", sample_rate_hz=8000)
    wav = torch.randn(2, 1, 810)
    assert net(wav).equal(mel.mfcc(wav[:, 0], 8000))
    assert net(wav).shape == (2, 11, net.dim)
    assert net.described == {"features": "mfcc", "sample_rate_hz": "8000"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model is missing: get weights where there is a network .* or take features: mfcc"),
        ({"model": "/none/there"}, "model is /none/there: it is not there .*hf download facebook/hubert-base-ls960"),
        ({"features": "mfcc", "model": "x"}, "model is given, but features: mfcc need none"),
        ({"features": "mfcc", "sample_rate_hz": 10}, "sample_rate_hz is 10: cepstra need 1000 or more"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeechFeatures(**options)


def test_bad_models_and_input(hubert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer is 4: .* has layers 1 to 3, and 0"):
        SpeechFeatures(model=str(hubert), layer=4)
    with pytest.raises(ValueError, match=r"it lacks config.json or preprocessor_config.json"):
        SpeechFeatures(model=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    for path in hubert.glob("preprocessor*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    with pytest.raises(ValueError, match="of type 't5': wanted is one of hubert, wav2vec2, wavlm"):
        SpeechFeatures(model=str(tmp_path))
    net = SpeechFeatures(model=str(hubert), layer=1)
    with pytest.raises(ValueError, match="the audio has 9 samples: too few for a frame of"):
        net(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match=r"expected float audio \(B, 1, T\) at 16000 Hz, got torch.int16"):
        net(torch.zeros(1, 1, 400, dtype=torch.int16))
