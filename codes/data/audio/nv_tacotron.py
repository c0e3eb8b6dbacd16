"""Speech as mel spectrograms with text, as Tacotron 2 is trained on them.

    python -m codes.data.audio.nv_tacotron --path LJSpeech-1.1/metadata.csv [--return-wavs ...]

Its options and keys are those of DL-Art-School's dataset of this name. The spectrogram is NVIDIA's for Tacotron 2: the
magnitude of the Fourier transform, Slaney's mel scale and norm, natural logarithm of at least 1e-5.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch

from codes.data.audio.clip_dataset import padded
from codes.data.audio.speech_dataset import SpeechDataset
from codes.registry import Range

_LEAST_MAGNITUDE = 1e-5


class NvTacotronDataset(SpeechDataset):
    """Recordings as ``padded_mel`` with the characters of their text; or as sound, with return_wavs.

    Args:
        sampling_rate: DL-Art-School's name of sample_rate.
        max_mel_length: most frames of a spectrogram; longer recordings are left out and counted.
        filter_length: length of the Fourier transform.
        hop_length: samples from one frame to the next.
        win_length: length of the window.
        n_mel_channels: bands of the spectrogram.
        mel_fmin: lowest frequency in Hz.
        mel_fmax: highest frequency in Hz.
        return_wavs: give the sound in the spectrogram's place, (1, max_mel_length * hop_length).
        use_bpe_tokenizer: byte pair encoding; false: one token a character, Tacotron's symbols.
        max_wav_value: no effect: samples are always -1 .. 1.
    """

    provides = {
        "real_text": "the text as it was written, str",
        "padded_text": "its characters as numbers, filled up with 0, (max_text_length,) int64",
        "input_lengths": "number of characters, int",
        "padded_mel": "(n_mel_channels, max_mel_length) float32, filled up with 0",
        "padded_gate": "1 from the last frame on, else 0, (max_mel_length,) float32",
        "output_lengths": "frames of the recording, int",
        "filenames": "the file, str",
    }

    def __init__(
        self,
        *,
        sampling_rate: Annotated[int, Range(least=1)] | None = None,
        max_mel_length: Annotated[int, Range(least=1)] = 1000,
        filter_length: Annotated[int, Range(least=2)] = 1024,
        hop_length: Annotated[int, Range(least=1)] = 256,
        win_length: Annotated[int, Range(least=2)] = 1024,
        n_mel_channels: Annotated[int, Range(least=1)] = 80,
        mel_fmin: Annotated[float, Range(least=0)] = 0.0,
        mel_fmax: Annotated[float, Range(above=0)] = 8000.0,
        return_wavs: bool = False,
        use_bpe_tokenizer: bool = False,
        max_wav_value: float | None = None,
        **speech: Any,
    ) -> None:
        if sampling_rate is not None:
            speech["sample_rate"] = sampling_rate
        self.max_mel_length, self._hop, self._return_wavs = max_mel_length, hop_length, return_wavs
        self.longest_frames = max_mel_length * hop_length - (
            0 if return_wavs else 1
        )  # of T samples 1 + T // hop frames
        super().__init__(use_bpe_tokenizer=use_bpe_tokenizer, **speech)
        rate = self.sample_rate_hz
        if not mel_fmin < mel_fmax <= rate / 2:
            raise ValueError(f"mel_fmax is {mel_fmax} Hz: allowed are above mel_fmin, {mel_fmin}, to {rate / 2} Hz")
        if win_length > filter_length:
            raise ValueError(f"win_length is {win_length}, it must not be above filter_length, {filter_length}")
        self._frames = {"n_fft": filter_length, "win_length": win_length, "hop_length": hop_length}
        self._bands = {"f_min": mel_fmin, "f_max": mel_fmax, "n_mels": n_mel_channels}
        self._transform: Any = None

    @classmethod
    def provided_keys(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an item."""
        if not options.get("return_wavs"):
            return dict(cls.provides)
        sound = "(1, max_mel_length * hop_length) float32 in -1 .. 1, filled up with silence"
        return {key: text for key, text in cls.provides.items() if key != "padded_gate"} | {"padded_mel": sound}

    def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Recording ``index``; nothing is drawn."""
        text, wav = self.text(index), self.sound(index)
        item = {
            "real_text": text["real_text"],
            "padded_text": text["padded_text"],
            "input_lengths": text["text_lengths"],
            "filenames": str(self.clip_path(index)),
        }
        if self._return_wavs:
            return item | {"padded_mel": padded(wav, self.max_mel_length * self._hop), "output_lengths": wav.shape[1]}
        mel = self.mel(wav)
        gate = (np.arange(self.max_mel_length) >= mel.shape[1] - 1).astype(np.float32)
        return item | {
            "padded_mel": padded(mel, self.max_mel_length),
            "padded_gate": gate,
            "output_lengths": mel.shape[1],
        }

    def mel(self, wav: np.ndarray) -> np.ndarray:
        """(1, T) in -1 .. 1 -> (n_mel_channels, 1 + T // hop_length) float32."""
        if self._transform is None:
            from torchaudio.transforms import MelSpectrogram

            how: dict[str, Any] = {"norm": "slaney", "mel_scale": "slaney", **self._frames, **self._bands}
            self._transform = MelSpectrogram(self.sample_rate_hz, power=1.0, **how)
        return self._transform(torch.from_numpy(wav))[0].clamp(min=_LEAST_MAGNITUDE).log().numpy()


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("nv_tacotron")
