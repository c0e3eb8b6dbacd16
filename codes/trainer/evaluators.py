"""Evaluators: what validation measures besides the losses, by name under ``eval.evaluators``.

    eval:
      evaluators:
        voice: {type: mel_distance, real: wav, fake: made}

The names of forward()'s parameters are the keys by which the YAML says where its values come from, as for a loss. What
forward() returns adds up over the validation set; it is written as NAME.FIGURE where the losses' figures are.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from codes.data.speech.transcription import Transcriber
from codes.data.text.cleaners import clean
from codes.registry import Registered
from codes.speech_mel import MelSettings, mel_spectrogram
from codes.trainer.losses import Figure


class Evaluator(Registered):
    """Figures of a validation batch."""

    kind: ClassVar[str] = "evaluator"

    def forward(self, *values: Any) -> Mapping[str, Figure]:
        """Figures by name; their totals and counts add up over all batches."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, ...)")


class LossEvaluator(Evaluator):
    """The mean of a value. value: any shape, or a pair (sum, count)."""

    def forward(self, value: Tensor | tuple[Tensor, Tensor]) -> Mapping[str, Figure]:
        """Sum and count."""
        total, count = value if isinstance(value, tuple) else (value.float().sum(), value.numel())
        return {"mean": Figure(total, count)}


class BitsEvaluator(Evaluator):
    """Bits of a token. nats: code lengths of any shape, or a pair (sum, count)."""

    def forward(self, nats: Tensor | tuple[Tensor, Tensor]) -> Mapping[str, Figure]:
        """Bits, and the tokens that they code."""
        total, count = nats if isinstance(nats, tuple) else (nats.float().sum(), nats.numel())
        return {"bits_per_token": Figure(total / math.log(2), count)}


class CodebookEvaluator(Evaluator):
    """How evenly codes are used. codes: integers of any shape.

    Args:
        num_codes: how many there are.
    """

    def __init__(self, *, num_codes: int) -> None:
        if num_codes < 1:
            raise ValueError(f"num_codes must be 1 or more, got {num_codes}")
        self.num_codes = num_codes

    def forward(self, codes: Tensor) -> Mapping[str, Figure]:
        """Perplexity, and the share of the codes that came at all."""
        chosen = codes.reshape(-1)
        counts = torch.zeros(self.num_codes, dtype=torch.float64, device=codes.device)
        counts.index_add_(0, chosen, torch.ones_like(chosen, dtype=torch.float64))
        return {"perplexity": Figure(counts, kind="perplexity"), "codes_used": Figure(counts, kind="usage")}


class MelDistanceEvaluator(Evaluator):
    """Mean absolute difference of logarithmic mel spectrograms. real, fake: (B, C, T) float sound of one length.

    Args:
        sample_rate: of both, in Hz.
    """

    def __init__(self, *, sample_rate: int = 22050) -> None:
        self.settings = MelSettings(sample_rate_hz=sample_rate, highest_hz=min(8000.0, sample_rate / 2))

    def forward(self, real: Tensor, fake: Tensor) -> Mapping[str, Figure]:
        """The distance in nats of power, and the values that it is a mean of."""
        if real.shape != fake.shape:
            raise ValueError(f"mel_distance: real {tuple(real.shape)} and fake {tuple(fake.shape)} differ in shape")
        distance = (mel_spectrogram(real, self.settings) - mel_spectrogram(fake, self.settings)).abs()
        return {"distance": Figure(distance.sum(), distance.numel())}


class WerEvaluator(Evaluator):
    """Word error rate: the share of words that a speech recognition model does not hear in sound. Capitals and
    punctuation do not count.

    sound: (B, 1, T) float in [-1, 1]; text: what is said in each item, as the dataset gives it under real_text.

    Args:
        asr: the model, a folder or a name on the Hugging Face hub, as scripts/prepare_speech.py takes it.
        language: of the speech, for models that know several.
        sample_rate: of the sound, in Hz.
    """

    def __init__(self, *, asr: str, language: str | None = None, sample_rate: int = 22050) -> None:
        self.transcriber, self.sample_rate_hz = Transcriber(asr, language), sample_rate

    def forward(self, sound: Tensor, text: list[str]) -> Mapping[str, Figure]:
        """Words to replace, add and take away, and the words of the texts."""
        if sound.dim() != 3 or sound.shape[1] != 1 or len(sound) != len(text):
            raise ValueError(f"wer: sound must be (B, 1, T) with B texts, got {tuple(sound.shape)} and {len(text)}")
        pcm = (sound[:, 0].float() * 32768).round().clamp(-32768, 32767).to(torch.int16).cpu().numpy()
        heard = [words(line) for line in self.transcriber.transcribe(list(pcm), self.sample_rate_hz)]
        said = [words(line) for line in text]
        edits = sum(num_edits(*pair) for pair in zip(heard, said, strict=True))
        return {"rate": Figure(torch.tensor(float(edits)), sum(map(len, said)))}


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", clean(text, "basic"))


def num_edits(found: list[str], wanted: list[str]) -> int:
    """The fewest words to replace, add or take away that turn one list into the other (Levenshtein 1966)."""
    row = list(range(len(wanted) + 1))
    for number, word in enumerate(found, start=1):
        before, row = row, [number]
        for place, other in enumerate(wanted):
            row.append(min(before[place] + (word != other), before[place + 1] + 1, row[place] + 1))
    return row[-1]


class FrechetDistanceEvaluator(Evaluator):
    """Distance of two sets of embeddings, each taken for a normal distribution (Heusel et al. 2017, section 2).

    real, fake: (B, D), or (B, D, N) of which every column counts. Few vectors of many dimensions give too large a
    distance: take more of them than D.
    """

    def forward(self, real: Tensor, fake: Tensor) -> Mapping[str, Figure]:
        """Numbers, sums and products of both sets, in float64."""
        return {"distance": Figure(torch.cat([_moments(real), _moments(fake)]), kind="frechet")}


def _moments(x: Tensor) -> Tensor:
    """x (B, D) or (B, D, N) as one vector: D, the number of vectors, their sum, the sum of their outer products."""
    rows = (x.transpose(1, 2).flatten(0, 1) if x.dim() == 3 else x).double()
    number = torch.tensor([len(rows)], dtype=torch.float64, device=x.device)
    return torch.cat([number, rows.sum(0), (rows.t() @ rows).flatten()])
