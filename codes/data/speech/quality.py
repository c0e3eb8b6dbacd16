"""What a clip of speech is like, and whether it is good enough to train on: level, noise, clipping, bandwidth."""

from dataclasses import dataclass

import numpy as np

from codes.data.audio.health.signals import Clipping
from codes.data.audio.health.spectrum import MeanSpectrum, find_band
from codes.data.speech.splitting import levels_of, quiet_and_loud


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of a clip.

    Args:
        level_db: of its loud frames, 0 is full scale.
        snr_db: from its quiet to its loud frames: how far the speech stands out of what is always there.
        clipped_share: of its samples, those in runs at full scale.
        bandwidth_hz: where its spectrum ends; 0 where it is too short to tell.
    """

    level_db: float
    snr_db: float
    clipped_share: float
    bandwidth_hz: float


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """What is good enough.

    Args:
        min_level_db: quieter clips are left out.
        min_snr_db: noisier clips are left out.
        max_clipped_share: clips with more clipped samples are left out.
        min_bandwidth_hz: duller clips (of a telephone, of a lossy file) are left out; 0 takes all.
        min_characters_a_second: clips whose text is shorter for their length are left out: most of it was not heard.
        max_characters_a_second: clips whose text is longer for their length are left out: it was made up, or is of
            something else. English is read aloud at about 15.
    """

    min_level_db: float = -45.0
    min_snr_db: float = 15.0
    max_clipped_share: float = 0.001
    min_bandwidth_hz: float = 0.0
    min_characters_a_second: float = 3.0
    max_characters_a_second: float = 35.0

    def reason_against(self, quality: Quality) -> str | None:
        """Why a clip is left out, or None."""
        if quality.level_db < self.min_level_db:
            return f"quieter than {self.min_level_db:g} dB"
        if quality.snr_db < self.min_snr_db:
            return f"noisier than {self.min_snr_db:g} dB"
        if quality.clipped_share > self.max_clipped_share:
            return f"with more than {100 * self.max_clipped_share:g} % of clipped samples"
        if 0 < quality.bandwidth_hz < self.min_bandwidth_hz:
            return f"with nothing above {self.min_bandwidth_hz:g} Hz"
        return None

    def reason_against_text(self, text: str, seconds: float) -> str | None:
        """Why a clip of that length is left out with that text, or None."""
        if not text.strip():
            return "in which nothing was understood"
        pace = len(text) / seconds
        if pace < self.min_characters_a_second:
            return f"with less than {self.min_characters_a_second:g} characters of text a second"
        if pace > self.max_characters_a_second:
            return f"with more than {self.max_characters_a_second:g} characters of text a second"
        return None


def measure_clip(wav: np.ndarray, sample_rate_hz: int) -> Quality:
    """Measure (n,) int16 samples."""
    quiet, loud = quiet_and_loud(levels_of(wav, sample_rate_hz))
    clipping, spectrum = Clipping(1), MeanSpectrum(16)
    clipping.add(wav[None], 1)
    spectrum.add(wav[None])
    power = spectrum.power()
    return Quality(
        level_db=loud,
        snr_db=loud - quiet,
        clipped_share=clipping.totals(16)[1] / max(1, len(wav)),
        bandwidth_hz=0.0 if power is None else find_band(power, sample_rate_hz).bandwidth_hz,
    )
