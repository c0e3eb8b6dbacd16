"""Speech to text by a model that the user has: Whisper, wav2vec 2.0 and their like, through transformers.

A model is a folder in transformers' form, or a name on the Hugging Face hub, which is then downloaded. Models that
write letter by letter (CTC: wav2vec2, hubert, wavlm) and those that generate text (whisper, speech_to_text) are told
apart by their configuration.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from codes.data.audio.resample import resample


class TranscriberError(ValueError):
    """A model that cannot be loaded, or that does not write down speech."""


class Transcriber:
    """A model that writes down what is said.

    Args:
        model: a folder, or a name on the hub ("openai/whisper-small").
        language: of the speech, for models that know several ("en"); None: they find out.
        device: where it runs; None: a GPU where there is one.
        batch_size: clips at once.

    Raises:
        TranscriberError: it cannot be loaded.
    """

    def __init__(self, model: str, language: str | None = None, device: str | None = None, batch_size: int = 8) -> None:
        from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CTC_MAPPING_NAMES,
            MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
        )

        self.name, self._language, self._batch_size = model, language, batch_size
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            kind = AutoConfig.from_pretrained(model).model_type
            self._filling = "max_length" if kind == "whisper" else True  # Whisper hears windows of one length
            self.generates = kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES
            if not self.generates and kind not in MODEL_FOR_CTC_MAPPING_NAMES:
                raise TranscriberError(f"--asr {model}: a {kind} model does not write down speech")
            loader: Any = AutoModelForSpeechSeq2Seq if self.generates else AutoModelForCTC
            self._processor: Any = AutoProcessor.from_pretrained(model)
            self._model: Any = loader.from_pretrained(model).to(self._device).eval()
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, TranscriberError):
                raise
            raise TranscriberError(
                f"--asr {model} cannot be loaded: {str(error).splitlines()[0]}; give a folder with config.json, "
                "weights and processor, or a name on the hub such as openai/whisper-small"
            ) from error
        self.sample_rate_hz: int = self._processor.feature_extractor.sampling_rate

    def transcribe(self, clips: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is said in each clip.

        Args:
            clips: (n,) int16 each.
            sample_rate_hz: of them; they are resampled to the model's.
        """
        heard = [resample(clip[None], sample_rate_hz, self.sample_rate_hz, 16)[0] for clip in clips]
        order = sorted(range(len(heard)), key=lambda number: len(heard[number]))  # little filling
        texts = [""] * len(clips)
        for first in range(0, len(order), self._batch_size):
            numbers = order[first : first + self._batch_size]
            for number, text in zip(numbers, self._batch([heard[n] for n in numbers]), strict=True):
                texts[number] = _tidied(text)
        return texts

    @torch.inference_mode()
    def _batch(self, clips: list[np.ndarray]) -> list[str]:
        sounds = [clip.astype(np.float32) / 32768.0 for clip in clips]
        inputs = self._processor.feature_extractor(
            sounds, sampling_rate=self.sample_rate_hz, return_tensors="pt", padding=self._filling
        ).to(self._device)
        if not self.generates:
            ids = self._model(**inputs).logits.argmax(-1)
            return self._processor.batch_decode(ids, skip_special_tokens=True)
        spoken = {"language": self._language, "task": "transcribe"} if self._language else {}
        try:
            ids = self._model.generate(**inputs, **spoken)
        except ValueError as error:
            if not spoken:
                raise
            raise TranscriberError(f"--language {self._language}: {self.name} does not take it: {error}") from error
        return self._processor.batch_decode(ids, skip_special_tokens=True)


def _tidied(text: str) -> str:
    """One line, and not all in capitals, as models of letters write."""
    text = " ".join(text.replace("|", " ").split())
    return text.lower() if text.isupper() else text
