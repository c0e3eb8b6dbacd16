"""Let a trained run go on after a piece of audio.

    python scripts/sample.py --run runs/lofi_lstm --prompt song.wav --seconds 5 --temperature 0.9 --num 8 --out heard
    python scripts/sample.py --run runs/lofi_variational --seconds 5 --style-at 2.5 --out heard
    python scripts/sample.py --run runs/acoustic_gpt --semantic-run runs/semantic_gpt --prompt voice.wav --out heard

A run over the codes of a codec writes while it samples; its prompt is heard through the codec. Without --prompt it goes
on after the middle of the first validation file. Into --out go prompt.wav, and 0.wav, 1.wav and so on with the prompt
and what follows it, each with a spectrogram. --style-at starts another style at so many seconds after the prompt
(several times, if you like); up to there all is as without it. A network that predicts one piece of audio from another,
as a t5 does, gets that of validation items, as during its run: 0_model.wav, 0_real.wav and 0_given.wav. Exit status: 0;
2 where something is wrong.

A run over codes given semantic tokens (acoustic_gpt.yml) says what --semantic-run makes up, or, without it, what
--prompt says behind its first --prompt-seconds.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from codes.data.audio.picture import save_png, spectrogram_image
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.continuation import Continuation, NoContinuationError, Prompt
from codes.trainer.predicted_samples import Predictions
from codes.trainer.sampling import to_float, write_wav
from codes.trainer.semantic_sampling import SemanticContinuation, SemanticRun
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _check(options)
        for line in sample(options):
            print(line)
    except (OptionError, CheckpointError, ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sample.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="the folder of a run")
    add("--prompt", type=Path, metavar="FILE", help="audio to go on after (default: from the validation set)")
    add("--prompt-seconds", type=float, default=2.0, help="how much of its end is used (default: %(default)s)")
    add("--seconds", type=float, default=5.0, help="how much is made (default: %(default)s)")
    add("--temperature", type=float, default=1.0, help="below 1 safer, above 1 wilder (default: %(default)s)")
    add("--top-k", type=int, default=0, help="draw from so many of the likeliest codes; 0: from all")
    add("--top-p", type=float, default=1.0, help="draw from the likeliest codes of this probability together")
    add("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    add("--num", type=int, default=4, help="how many continuations, all at once (default: %(default)s)")
    add("--style-at", type=float, nargs="+", default=[], metavar="SECONDS", help="another style from here on")
    add("--style-fade", type=float, default=0.0, metavar="SECONDS", help="how long the transition takes")
    add("--semantic-run", type=Path, metavar="DIR", help="a run that decides what is said (acoustic_gpt.yml)")
    add("--network", help="which network, where several can go on")
    add("--checkpoint", type=Path, metavar="DIR", help="a checkpoint (default: the run's best)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, least in (("prompt_seconds", 0), ("seconds", 0), ("temperature", -1e-9), ("num", 0)):
        if not getattr(options, name) > least:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}: it must be above 0")
    if options.top_k < 0 or not 0 < options.top_p <= 1:
        raise ValueError(f"--top-k is {options.top_k}, --top-p {options.top_p}: 0 or more, and above 0 up to 1")
    outside = [at for at in options.style_at if not 0 <= at < options.seconds]
    if outside or options.style_fade < 0:
        raise ValueError(f"--style-at must be 0 to --seconds ({options.seconds}), --style-fade 0 or more")


def sample(options: argparse.Namespace) -> list[str]:
    """Make and write the continuations; returns what is to be said."""
    try:
        run = SemanticContinuation(options.run, options.network, options.checkpoint)
    except NoContinuationError as error:
        return _predicted(options, str(error))
    prompt, notes = run.fit(read_prompt(options.prompt) if options.prompt else validation_prompt(run))
    rate = prompt.sample_rate_hz
    kept = min(prompt.pcm.shape[1], max(round(options.prompt_seconds * rate), run.frames_per_value))
    kept = kept // run.frames_per_value * run.frames_per_value
    whole = prompt
    prompt = Prompt(pcm=prompt.pcm[:, prompt.pcm.shape[1] - kept :], bits=prompt.bits, sample_rate_hz=rate)
    if hasattr(run.network, "carry_on") and (options.top_k or options.top_p < 1):
        raise ValueError(f"--top-k and --top-p: network {run.name} has no list of codes to keep; use --temperature")
    if run.way is not None:
        prompt, note = _said(run, whole, prompt, options)
        notes.append(note)
    elif options.semantic_run:
        raise ValueError(f"--semantic-run: network {run.name} is given no semantic tokens")
    if run.codes is not None:
        return notes + _streamed(run, prompt, options)
    made = run.make(
        prompt, round(options.seconds * rate), options.num, temperature=options.temperature, seed=options.seed,
        style_at=[round(at * rate) for at in options.style_at], fade=round(options.style_fade * rate),
        top_k=options.top_k, top_p=options.top_p,
    )  # fmt: skip
    before = (prompt.pcm / 2.0 ** (prompt.bits - 1)).astype(np.float32)
    options.out.mkdir(parents=True, exist_ok=True)
    _write(options.out / "prompt.wav", before, prompt.bits, rate)
    for number, audio in enumerate(made):
        _write(options.out / f"{number}.wav", np.concatenate([before, audio], 1), prompt.bits, rate)
    seconds = f"{kept / rate:.2f} s of prompt, {options.seconds:g} s made"
    return [*notes, f"{len(made)} continuations ({seconds}, {run.checkpoint}): {options.out}"]


def _said(run: SemanticContinuation, whole: Prompt, prompt: Prompt, options: argparse.Namespace) -> tuple[Prompt, str]:
    """Decide what continuations say; returns the prompt that is heard, and what is to be said of it."""
    draws = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    new = round(options.seconds * prompt.sample_rate_hz)
    semantic = SemanticRun(options.semantic_run) if options.semantic_run else None
    return run.says(whole, prompt, new, options.num, draws, options.seed, semantic)


def _predicted(options: argparse.Namespace, why: str) -> list[str]:
    """Write predictions of validation items, beside what was given and the real audio; returns what is to be said."""
    if options.prompt or options.style_at:
        raise ValueError(f"--prompt and --style-at: {why}, of items of the run's validation set, and has no style")
    run = Predictions(options.run, options.network, options.checkpoint)
    frames = max(1, round(options.seconds * run.sample_rate_hz()))
    made = run.make(frames, options.num, temperature=options.temperature, seed=options.seed, top_k=options.top_k,
                    top_p=options.top_p)  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    for number, sounds in enumerate(made):
        for name, sound in sounds.items():
            wav = to_float(sound.wav.cpu(), sound.bits)
            _write(options.out / f"{number}_{name}.wav", wav, sound.bits, sound.sample_rate_hz)
    return [f"{len(made)} predictions ({options.seconds:g} s of each, {run.checkpoint}): {options.out}"]


def _streamed(run: Continuation, prompt: Prompt, options: argparse.Namespace) -> list[str]:
    """Write continuations of a run over codes while they are made; returns what is to be said."""
    import soundfile

    if options.style_at:
        raise ValueError(f"--style-at: network {run.name} has no style")
    rate, channels = prompt.sample_rate_hz, len(prompt.pcm)
    options.out.mkdir(parents=True, exist_ok=True)
    before = (prompt.pcm / 2.0 ** (prompt.bits - 1)).astype(np.float32)
    _write(options.out / "prompt.wav", before, prompt.bits, rate)
    places = [options.out / f"{number}.wav" for number in range(options.num)]
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(soundfile.SoundFile(p, "w", rate, channels, subtype="PCM_16")) for p in places]

        def write(part: np.ndarray) -> None:
            for file, wav in zip(files, part, strict=True):
                file.write(wav.T)
                file.flush()

        run.stream(
            prompt, round(options.seconds * rate), options.num, temperature=options.temperature, seed=options.seed,
            top_k=options.top_k, top_p=options.top_p, write=write, progress=_show,
        )  # fmt: skip
    took = time.perf_counter() - started
    for place in places:
        wav = soundfile.read(place, dtype="float32", always_2d=True)[0].T
        save_png(place.with_suffix(".png"), spectrogram_image(wav, rate))
    made = f"{options.num} continuations ({before.shape[1] / rate:.2f} s of prompt, {options.seconds:g} s made"
    factor = options.num * options.seconds / took
    return [
        f"{made}, {run.checkpoint}): {options.out}",
        f"{took:.1f} s of computing: {factor:.2f} times real time, all streams together",
    ]


def _show(done: int, total: int) -> None:
    """Progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} tokens", end="\n" if done == total else "", file=sys.stderr, flush=True)


def read_prompt(path: Path) -> Prompt:
    """A whole audio file; floating point files are read at 24 bits."""
    from codes.data.audio.reader import probe, read

    info = probe(path, float_bits=24)
    return Prompt(pcm=read(path, float_bits=24), bits=info.bits, sample_rate_hz=info.sample_rate_hz)


def validation_prompt(run: Continuation) -> Prompt:
    """The first half of the first validation recording, as the run's dataset gives it."""
    entry = run.experiment.datasets.get("val", run.experiment.datasets["train"])
    dataset: Any = entry.built_from.build()
    if run.codes is not None and hasattr(dataset, "scored_codes"):
        codes = torch.from_numpy(next(iter(dataset.scored_codes()))[1])[None].to(run.device)
        wav = run.codes.sound(codes[:, :, : max(1, codes.shape[2] // 2)])[0].clamp(-1, 1 - 2.0**-15)
        return Prompt(
            pcm=(wav * 2**15).round().cpu().numpy().astype(np.int16),
            bits=16,
            sample_rate_hz=int(run.sample_rate_hz or 0),
        )
    if not hasattr(dataset, "scored_audio"):
        raise ValueError("the run's dataset has no audio to begin with: give --prompt")
    _, pcm, bits, rate = next(iter(dataset.scored_audio()))
    return Prompt(pcm=pcm[:, : max(1, pcm.shape[1] // 2)], bits=bits, sample_rate_hz=rate)


def _write(path: Path, wav: np.ndarray, bits: int, sample_rate_hz: int) -> None:
    write_wav(path, wav, bits, sample_rate_hz)
    save_png(path.with_suffix(".png"), spectrogram_image(wav, sample_rate_hz))


if __name__ == "__main__":
    sys.exit(main())
