"""Speech with its text, and other clips of the same speaker: what a text-to-speech model is trained on.

    python -m codes.data.audio.paired_voice_audio --path LJSpeech-1.1/metadata.csv [--load-conditioning ...]

Its options and keys are those of DL-Art-School's dataset of this name, so that its YAML runs here; LJ Speech is read as
it is downloaded, as well. ``codes/data/audio/transcripts/fetchers.py`` describes the forms of metadata.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from codes.data.audio.clip_dataset import padded
from codes.data.audio.speech_dataset import SpeechDataset
from codes.data.audio.transcripts.rows import Row
from codes.registry import Range

_LONELY = "without another clip of the speaker (conditioning_self: true lets a clip stand for itself)"


class PairedVoiceAudioDataset(SpeechDataset):
    """Recordings with text: ``wav`` float in -1 .. 1, ``padded_text``, their lengths, and ``conditioning`` clips.

    Every item has the same shapes; what is longer is left out and counted. Conditioning clips are drawn from other
    recordings of the speaker (of the folder, where the metadata names no speaker; or of ``similarities.pth`` there).

    Args:
        max_wav_length: longest recording in samples; shorter ones are filled up with silence.
        load_conditioning: give other clips of the speaker as well.
        num_conditioning_candidates: how many.
        conditioning_length: their length in samples.
        conditioning_self: the clip itself may be among them; as in DL-Art-School where there is no other.
        load_aligned_codes: give the codes that the metadata holds (the third column of a tsv, or ``codes``).
        aligned_codes_ratio: samples for each of those codes.
        types: a number for each path, given as ``type``; null: 0.
    """

    provides = {
        "real_text": "the text as it was written, str",
        "padded_text": "its tokens, filled up with 0, (max_text_length,) int64",
        "text_lengths": "number of tokens, int",
        "wav": "the recording, filled up with silence, (1, max_wav_length) float32 in -1 .. 1",
        "wav_lengths": "its samples, int",
        "filenames": "the file, str",
        "type": "the number that types gives to its path, int",
        "sample_rate": "samples per second, int",
        "conditioning": "of the speaker, (num_conditioning_candidates, 1, conditioning_length) float32, if loaded",
        "conditioning_lengths": "their samples, (num_conditioning_candidates,) int64",
        "conditioning_contains_self": "whether the clip itself is among them, bool",
        "aligned_codes": "filled up with 0, (max_wav_length // aligned_codes_ratio,) int64, if loaded",
    }

    def __init__(
        self,
        *,
        max_wav_length: Annotated[int, Range(least=1)] = 255_995,
        load_conditioning: bool = False,
        num_conditioning_candidates: Annotated[int, Range(least=1)] = 1,
        conditioning_length: Annotated[int, Range(least=1)] = 44_100,
        conditioning_self: bool = False,
        load_aligned_codes: bool = False,
        aligned_codes_ratio: Annotated[int, Range(least=1)] = 443,
        types: list[int] | None = None,
        **speech: Any,
    ) -> None:
        paths = speech["path"] if isinstance(speech["path"], list) else [speech["path"]]
        if types is not None and len(types) != len(paths):
            raise ValueError(f"types has {len(types)} numbers for {len(paths)} paths: give one for each")
        self._types = types
        self.longest_frames = max_wav_length
        self._conditioning = (num_conditioning_candidates, conditioning_length) if load_conditioning else None
        self._most_codes = max_wav_length // aligned_codes_ratio if load_aligned_codes else None
        super().__init__(**speech)
        if load_conditioning:
            self.find_companions(conditioning_self, _LONELY)
            groups = len({self.group(segment) for segment in self.segments})
            which = "speakers" if self.speakers_known() else "speakers, or folders where the metadata names none"
            self._notes.append(f"conditioning clips come from the same of {groups} {which}")

    @classmethod
    def provided_keys(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an item: those of conditioning and of codes only where they are loaded."""
        unasked = [] if options.get("load_conditioning") else [key for key in cls.provides if "conditioning" in key]
        unasked += [] if options.get("load_aligned_codes") else ["aligned_codes"]
        return {key: text for key, text in cls.provides.items() if key not in unasked}

    def takes(self, row: Row) -> bool:
        """Whether it has the codes that are wanted."""
        if self._most_codes is None:
            return True
        if row.codes is None or len(row.codes) > self._most_codes:
            self.left_out.add(f"without codes, or with more than {self._most_codes}", row.where)
            return False
        return True

    def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Recording ``index`` with its text, and conditioning clips that ``rng`` chooses."""
        assert self.longest_frames is not None
        wav, row = self.sound(index), self.row(index)
        item = self.text(index) | {
            "wav": padded(wav, self.longest_frames),
            "wav_lengths": wav.shape[1],
            "filenames": str(self.clip_path(index)),
            "type": self._types[row.source] if self._types else 0,
            "sample_rate": self.sample_rate_hz,
        }
        if self._conditioning is not None:
            clips, lengths, with_self = self.related(index, *self._conditioning, rng)
            item |= {"conditioning": clips, "conditioning_lengths": lengths, "conditioning_contains_self": with_self}
        if self._most_codes is not None:
            item["aligned_codes"] = padded(np.array(row.codes, np.int64), self._most_codes)
        return item


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("paired_voice_audio")
