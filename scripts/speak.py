"""Read a text aloud with a trained GPT of speech, in the voice of some recordings.

    python scripts/speak.py --run runs/speech_gpt --text "Hello there." --voice a.wav b.wav --out spoken

Writes the readings as WAV files with their spectrograms. Sound is made of the DVAE's mel spectrogram by Griffin and
Lim's algorithm, or by a vocoder as it was published: --vocoder FOLDER, which holds a HiFi-GAN (config.json and g_...),
a UnivNet (Tortoise's vocoder.pth) or a Vocos (config.yaml and pytorch_model.bin).
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.audio.picture import save_png, spectrogram_image
from codes.data.audio.reader import AudioReadError
from codes.models.vocoders import open_vocoder
from codes.trainer.sampling import write_wav
from codes.trainer.speaking import Speaker
from codes.weights import CheckpointError
from codes.yaml_source import OptionError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run that trained a unified_voice2")
    parser.add_argument("--text", required=True, help="what is to be said")
    parser.add_argument("--voice", type=Path, nargs="+", required=True, help="recordings of the voice")
    parser.add_argument("--out", type=Path, default=Path("spoken"), help="folder for the readings (default: spoken)")
    parser.add_argument("--num", type=int, default=1, help="readings (default: 1)")
    parser.add_argument("--seconds", type=float, help="longest reading (default: as long as the network can)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest code (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=50, help="draw from so many codes; 0: all (default: 50)")
    parser.add_argument("--top-p", type=float, default=0.8, help="draw from this share of probability (default: 0.8)")
    parser.add_argument("--repetition-penalty", type=float, default=2.0, help="1: none (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--vocoder", type=Path, help="folder or weights of a vocoder (default: Griffin-Lim)")
    return parser.parse_args(arguments)


def speak(arguments: argparse.Namespace) -> list[Path]:
    """Write the readings; returns the WAV files."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speaker = Speaker(arguments.run, device)
    vocoder = open_vocoder(arguments.vocoder, device) if arguments.vocoder is not None else None
    rate_hz = vocoder.settings.sample_rate_hz if vocoder is not None else speaker.sample_rate_hz
    code_seconds = speaker.gpt.mel_length_compression / speaker.sample_rate_hz
    choice: dict[str, Any] = {"num": arguments.num, "temperature": arguments.temperature, "top_k": arguments.top_k}
    choice |= {"top_p": arguments.top_p, "repetition_penalty": arguments.repetition_penalty}
    choice["max_codes"] = None if arguments.seconds is None else max(1, round(arguments.seconds / code_seconds))
    started = time.perf_counter()
    readings = speaker.say(arguments.text, arguments.voice, arguments.seed, **choice)
    spent = time.perf_counter() - started
    made = sum(len(codes) for codes in readings)
    print(f"{made} codes, {made * code_seconds:.1f} s of sound, in {spent:.1f} s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, codes in enumerate(readings):
        if not len(codes):
            print(f"reading {number} is empty: its first code was the stop")
            continue
        wav = speaker.to_sound(codes, vocoder).cpu()[None].numpy()
        path = arguments.out / f"{number}.wav"
        write_wav(path, wav, 16, rate_hz)
        save_png(path.with_suffix(".png"), spectrogram_image(wav, rate_hz))
        print(f"{path}: {len(codes)} codes, {wav.shape[1] / rate_hz:.1f} s")
        written.append(path)
    return written


def main() -> int:
    """0 when it spoke, 2 when something that was given is wrong."""
    try:
        speak(parse_arguments())
    except (OptionError, CheckpointError, AudioReadError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
