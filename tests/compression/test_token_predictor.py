"""Token language models behind the interface of predictors: what is put is taken, for what the model says it costs."""

import numpy as np
import pytest
import torch

from codes.compression.pcm_tokens import PcmTokens
from codes.compression.predictor import Predictor, RangeDecoder, RangeEncoder
from codes.compression.token_codec import TokenCodec
from codes.compression.token_predictor import TokenPredictor
from codes.models.llama import Llama
from codes.models.token_walk import TokenLanguageModel
from tests.compression.test_token_codec import SMALL, codec, sound


def llama_bytes() -> TokenCodec:
    torch.manual_seed(0)
    network = Llama(**SMALL, vocabulary=256)
    return TokenCodec(TokenLanguageModel(network), PcmTokens(bits=16, num_channels=2, num_bytes=2))


@pytest.mark.parametrize("kind", ["8 bits", "bytes of 16 bits", "byte head", "logistics behind prediction", "llama"])
def test_what_is_taken_is_what_was_put(kind: str):
    tokens = llama_bytes() if kind == "llama" else codec(kind, lanes=1)
    bits, pcm = tokens.layout.bits, sound(tokens.layout.bits, num_frames=60)
    samples = pcm.T.flatten().tolist()
    predictor: Predictor = TokenPredictor(tokens.model, tokens.layout, most_frames=60)
    encoder, taken_bits = RangeEncoder(), 0.0
    for sample in samples:
        taken_bits += predictor.distribution().put(encoder, sample)
        predictor.update(sample)
    assert taken_bits == pytest.approx(tokens.ideal_bits(pcm, bits), rel=1e-3), "one walk, R with L in sight"
    words = encoder.finish()
    assert 32 * len(words) < taken_bits + 96
    predictor.reset(2, bits, 44_100)
    decoder, found = RangeDecoder(words), []
    for _ in samples:
        found.append(predictor.distribution().take(decoder))
        predictor.update(found[-1])
    assert found == samples
    with pytest.raises(ValueError, match="longer than the 60 frames"):
        predictor.distribution().put(encoder, 0)


def test_samples_may_be_told_that_were_not_coded():
    tokens = codec("bytes of 16 bits", lanes=1)
    *before, last = sound(16, num_frames=60).T.flatten().tolist()
    sizes = []
    for is_coded in (True, False):
        predictor, encoder = TokenPredictor(tokens.model, tokens.layout, most_frames=60), RangeEncoder()
        for sample in before:
            if is_coded:
                predictor.distribution().put(encoder, sample)
            predictor.update(sample)
        sizes.append(predictor.distribution().put(encoder, last))
    assert sizes[0] == sizes[1] > 0


def test_wrong_use_is_said():
    tokens = codec("bytes of 16 bits", lanes=1)
    predictor, encoder = TokenPredictor(tokens.model, tokens.layout, most_frames=9), RangeEncoder()
    for form in ((1, 16), (2, 8)):
        with pytest.raises(ValueError, match="the model codes 2 channels of 16 bits, got"):
            predictor.reset(*form, 8000)
    with pytest.raises(ValueError, match="the value 40000 is not between -32768 and 32767"):
        predictor.distribution().put(encoder, 40_000)
    predictor.distribution().put(encoder, 1000)
    with pytest.raises(ValueError, match="was coded already: tell it by update"):
        predictor.distribution().put(encoder, 1000)
    with pytest.raises(ValueError, match="-1 is not the sample that was coded"):
        predictor.update(-1)
    with pytest.raises(ValueError, match="it predicts frames, not samples"):
        TokenPredictor(tokens.model, PcmTokens(bits=16, num_channels=2, num_bytes=2, bytes_apart=True))
    decoder = RangeDecoder(np.full(4, 0xFFFFFFFF, np.uint32))
    predictor.reset(2, 16, 8000)
    with pytest.raises(ValueError, match="the words are no code of a sample"):
        predictor.distribution().take(decoder)
