"""How fast audio is read, beside what one would write with soundfile: ``python scripts/bench.py data``.

Random chunks of two seconds of 16-bit stereo in the page cache, one process, one thread, in turns (bench_rounds.py),
each after an untimed run-up of as many reads: without it only the baseline, which ends a round and begins the next,
would find its files in the processor's caches; a row shows cached PCM with these emptied. The baseline opens the file
each time and reads float32, as most training code does; beside the loader's batches it also turns the channels and
stacks: both give (B, C, T). Bytes are counted (/proc/self/io, Linux) with files dropped from the page cache before:
those fetched from the disk, by memory maps too and with what is read ahead, and those that read calls returned.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    print("bench_data.py is a part of bench.py: run python scripts/bench.py data", file=sys.stderr)
    sys.exit(2)

import numpy as np
import torch
from bench_rounds import AGAIN, Run, in_turns, quartiles

from codes.data.audio import reader
from codes.data.audio.stereo_chunk import StereoChunkDataset
from codes.data.loader import Loader

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_RATE_HZ = 44_100
FRAME_BYTES = 2 * 2  # int16, stereo
BATCH_SIZE = 16
WORKERS = (0, 1, 2, 4)
COMPARED_WORKERS = (0, 1, 4)
BASELINE = "soundfile WAV float32"
BATCHES = "soundfile float32, stacked"
FLAC_BASELINES = ("soundfile FLAC int16", "soundfile FLAC float32")
LEAST_WAV, LEAST_CACHED, LEAST_FLAC, MOST_BYTES, MOST_WAIT = 4.0, 10.0, 1.0, 1.1, 0.01
_COLD_READS = 60
_EVICTED_BYTES = 1 << 28  # what is written and read between, to empty the processor's caches


class Corpus:
    """The audio as WAV and as FLAC, and the datasets over it.

    Args:
        folder: what is made goes there.
        path: 16-bit stereo WAV files; None: six files are made.
        file_seconds: the length of a made file.
        chunk_seconds: the length of a chunk.
    """

    def __init__(self, folder: Path, path: Path | None, file_seconds: float, chunk_seconds: float) -> None:
        self.wav_folder, self.flac_folder = path or folder / "wav", folder / "flac"
        if path is None:
            make_wavs(self.wav_folder, file_seconds)
        options: dict[str, Any] = {"val_fraction": 0.0, "cache_folder": folder / "cache"}
        rate = SAMPLE_RATE_HZ if path is None else _rate_hz(path)
        self.num_frames = round(chunk_seconds * rate)
        options["chunk_frames"] = self.num_frames
        self.wav = StereoChunkDataset(path=self.wav_folder, index=folder / "wav.jsonl", **options)
        self.wav_files = [segment.recording.file.path for segment in self.wav.segments]
        self.flac_files = make_flacs(self.wav_files, self.flac_folder)
        self.flac = StereoChunkDataset(path=self.flac_folder, index=folder / "flac.jsonl", **options)
        self.cached = StereoChunkDataset(path=self.wav_folder, index=folder / "wav.jsonl", cache="all", **options)
        self.lengths = [segment.num_frames for segment in self.wav.segments]

    def places(self) -> Iterator[tuple[int, int]]:
        """File number and first frame of random chunks, without end."""
        rng = np.random.default_rng(0)
        while True:
            number = int(rng.integers(len(self.lengths)))
            yield number, int(rng.integers(self.lengths[number] - self.num_frames + 1))


def make_wavs(folder: Path, seconds: float, num_files: int = 6) -> None:
    """Tones with some noise, which FLAC packs about as well as music."""
    import soundfile

    folder.mkdir(parents=True)
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    for number in range(num_files):
        rng = np.random.default_rng(number)
        tones = np.sum([0.08 * np.sin(2 * np.pi * hz * time + hz) for hz in rng.uniform(60, 4000, 6)], axis=0)
        stereo = tones[:, None] * rng.uniform(0.3, 1.0, 2) + rng.normal(0, 0.004, (len(time), 2))
        pcm = np.round(32767 * np.clip(stereo, -1, 1)).astype(np.int16)
        soundfile.write(folder / f"{number}.wav", pcm, SAMPLE_RATE_HZ)


def make_flacs(wavs: list[Path], folder: Path) -> list[Path]:
    """The same audio as FLAC, in the same order."""
    import soundfile

    folder.mkdir(parents=True)
    made = [folder / f"{number:06}.flac" for number in range(len(wavs))]
    for wav, flac in zip(wavs, made, strict=True):
        pcm, rate_hz = soundfile.read(wav, dtype="int16")
        soundfile.write(flac, pcm, rate_hz)
    return made


def _rate_hz(path: Path) -> int:
    found = sorted(path.rglob("*.wav"))
    if not found:
        raise SystemExit(f"--path {path}: there is no .wav file")
    return reader.probe(found[0]).sample_rate_hz


def bench_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure and print everything; the figures as JSON takes them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = Corpus(folder, arguments.path, arguments.file_seconds, arguments.chunk_seconds)
        counted = count_bytes(corpus)  # first: the pages of entries that are mapped already cannot be dropped
        seconds = in_turns(_reads(corpus, arguments.reads) | _loaders(corpus, arguments.reads), arguments.rounds)
        result: dict[str, Any] = {
            "rounds": arguments.rounds,
            "chunk_frames": corpus.num_frames,
            "audio_seconds": sum(segment.seconds for segment in corpus.wav.segments),
            "speed": compare(seconds),
            "bytes": counted,
            "same_batches": same_batches(corpus),
            "dtypes": dtypes(corpus),
            "wait": wait_share(corpus, folder, arguments.steps),
        }
    result["targets"] = targets(result)
    report(result)
    return result


def _reads(corpus: Corpus, reads: int) -> dict[str, Run]:
    """Name -> read so many random chunks; FLAC, which is slow, fewer."""
    import soundfile

    num_frames, places = corpus.num_frames, corpus.places()
    rng = np.random.default_rng(0)

    def plain(files: list[Path], dtype: Any) -> np.ndarray:
        number, start = next(places)
        return soundfile.read(files[number], num_frames, start, dtype=dtype)[0]

    def stacked() -> int:
        for _ in range(max(1, reads // BATCH_SIZE)):
            torch.stack([torch.from_numpy(plain(corpus.wav_files, "float32").T) for _ in range(BATCH_SIZE)])
        return max(1, reads // BATCH_SIZE) * BATCH_SIZE

    def exact() -> None:
        number, start = next(places)
        reader.read(corpus.wav_files[number], start, num_frames)

    copies = [recording.cached for recording in corpus.cached.recordings if recording.cached is not None]

    def copy() -> None:
        number, start = next(places)
        copies[number].read(start, num_frames)

    def item(dataset: StereoChunkDataset) -> Callable[[], Any]:
        return lambda: dataset.item(0, rng)

    def repeated(read: Callable[[], Any], times: int = reads, run_up: Callable[[], object] | None = None) -> Run:
        def go() -> int:
            for _ in range(times):
                read()
            return times

        return Run(go=go, prepare=go if run_up is None else run_up)

    fewer = max(1, reads // 8)
    return {
        BASELINE: repeated(lambda: plain(corpus.wav_files, "float32")),
        "soundfile WAV int16": repeated(lambda: plain(corpus.wav_files, "int16")),
        "reader.read WAV": repeated(exact),
        "PCM cache, read alone": repeated(copy),
        "dataset WAV": repeated(item(corpus.wav)),
        "dataset cached PCM": repeated(item(corpus.cached)),
        "... after other traffic": repeated(item(corpus.cached), run_up=lambda: np.ones(_EVICTED_BYTES // 8).sum()),
        FLAC_BASELINES[0]: repeated(lambda: plain(corpus.flac_files, "int16"), fewer),
        FLAC_BASELINES[1]: repeated(lambda: plain(corpus.flac_files, "float32"), fewer),
        "dataset FLAC": repeated(item(corpus.flac), fewer),
        BATCHES: Run(go=stacked, prepare=stacked),
    }


def _loaders(corpus: Corpus, reads: int) -> dict[str, Run]:
    """Name -> take whole batches, over WAV and over cached PCM with each number of workers."""
    return {
        f"loader {title}, {count} worker{'' if count == 1 else 's'}": _batches(dataset, count, reads)
        for title, dataset in (("WAV", corpus.wav), ("cached PCM", corpus.cached))
        for count in WORKERS
    }


def _batches(dataset: StereoChunkDataset, num_workers: int, reads: int) -> Run:
    """The workers are started before, and what they have ready is taken before; they are stopped afterwards."""
    num_batches = max(1, reads // BATCH_SIZE)
    loader = _loader(dataset, num_workers)

    def take(count: int) -> int:  # and let each batch go before the next, as a trainer does
        with _quiet():
            for _ in range(count):
                loader.next()
        return count * BATCH_SIZE

    return Run(prepare=lambda: take(2 * num_workers + 1), go=lambda: take(num_batches), finish=loader.close)


def _loader(dataset: StereoChunkDataset, num_workers: int) -> Loader:
    with _quiet():
        return Loader(dataset, BATCH_SIZE, seed=0, endless=True, num_workers=num_workers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning of more workers than cores."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def compare(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Name -> chunks a second (median), and the ratio to the baseline by rounds: quartiles."""
    firsts, seconds_again = seconds[BASELINE], seconds[BASELINE + AGAIN]
    base = [(one + other) / 2 for one, other in zip(firsts, seconds_again, strict=True)]
    flac = [min(pair) for pair in zip(*(seconds[name] for name in FLAC_BASELINES), strict=True)]
    figures = {}
    for name, taken in seconds.items():
        versus = firsts if name.endswith(AGAIN) else base
        figures[name] = {
            "chunks_per_second": 1 / quartiles(taken)[1],
            "ratio": quartiles([one / other for one, other in zip(versus, taken, strict=True)]),
        }
        if name.startswith("loader"):
            figures[name]["ratio_to_stacked"] = quartiles([b / t for b, t in zip(seconds[BATCHES], taken, strict=True)])
    ratios = quartiles([one / other for one, other in zip(flac, seconds["dataset FLAC"], strict=True)])
    figures["dataset FLAC"]["ratio_to_faster_soundfile_flac"] = ratios
    return figures


def count_bytes(corpus: Corpus) -> dict[str, dict[str, float | None]]:
    """Bytes read over bytes of the chunks' PCM, with cold files; None where this system does not count them."""
    entries = [segment.recording.cached.path for segment in corpus.cached.segments if segment.recording.cached]
    rng = np.random.default_rng(1)
    counted = {}
    for name, dataset, files in (
        ("dataset WAV", corpus.wav, corpus.wav_files),
        ("dataset cached PCM", corpus.cached, entries),
        ("dataset FLAC", corpus.flac, corpus.flac_files),
    ):
        dropped = _drop(files)
        before = _io_counters()
        places = [(item["path"], item["start_frame"]) for item in (dataset.item(0, rng) for _ in range(_COLD_READS))]
        after = _io_counters()
        calls, disk = (after[key] - before[key] if before else 0 for key in ("rchar", "read_bytes"))
        # Of a file system in memory nothing comes from a disk; what chunks share is fetched once.
        counted[name] = {
            "by_read_calls": calls / (_COLD_READS * corpus.num_frames * FRAME_BYTES) if before else None,
            "from_disk": disk / (covered_frames(places, corpus.num_frames) * FRAME_BYTES) if dropped and disk else None,
        }
    return counted


def covered_frames(places: list[tuple[str, int]], num_frames: int) -> int:
    """How many frames are in at least one of the chunks that start at these (file, frame)."""
    covered, reached = 0, ("", 0)
    for path, start in sorted(places):
        first = max(start, reached[1]) if path == reached[0] else start
        covered += start + num_frames - first
        reached = path, start + num_frames
    return covered


def _drop(files: list[Path]) -> bool:
    """Ask the system to forget the files' pages."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)
    return True


def _io_counters() -> dict[str, int]:
    """The kernel's counters of this process; empty where there are none."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def same_batches(corpus: Corpus, num_batches: int = 6) -> bool:
    """Whether loaders with every number of workers give the same batches, bit for bit, in every key."""
    taken = []
    for count in COMPARED_WORKERS:
        loader = _loader(corpus.wav, count)
        with _quiet():
            taken.append([loader.next() for _ in range(num_batches)])
        loader.close()
    return all(_equal(one, other) for batches in taken[1:] for one, other in zip(taken[0], batches, strict=True))


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


def dtypes(corpus: Corpus) -> dict[str, str]:
    """Of what the loader hands to the trainer, which moves it to the device as it is."""
    datasets = {"WAV": corpus.wav, "cached PCM": corpus.cached, "FLAC": corpus.flac}
    return {name: str(_loader(dataset, 0).batch(0)["wav"].dtype) for name, dataset in datasets.items()}


def wait_share(corpus: Corpus, folder: Path, steps: int) -> dict[str, Any]:
    """Train experiments/stereo_lm.yml on the WAV files with two workers: the share of time spent waiting for data.

    The figures are the run's own, of metrics.jsonl, without its first third.
    """
    every = max(1, steps // 6)
    overrides = [
        "name=wait", f"path.root={folder / 'runs'}", f"datasets.train.path={corpus.wav_folder}",
        f"datasets.train.index={folder / 'wait.jsonl'}", "datasets.train.n_workers=2", "datasets.train.val_seconds=1",
        f"train.niter={steps}", "train.val_freq=null", f"logger.print_freq={every}",
        "logger.save_checkpoint_freq=null", "eval.baselines=false", "samples=null", "use_tb_logger=false",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(ROOT / "experiments" / "stereo_lm.yml"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"training stereo_lm failed:\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in (folder / "runs/wait/metrics.jsonl").read_text().splitlines()]
    shares = [line["data_wait_share"] for line in lines if "data_wait_share" in line and line["step"] > steps // 3]
    return {"steps": steps, "share": sum(shares) / len(shares), "largest": max(shares)}


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What is to be reached, what was, and whether it is; None where this system cannot tell."""
    speed, counted, wait = result["speed"], result["bytes"], result["wait"]
    rows: list[tuple[str, Any, str, bool | None]] = []
    for name, least in (("dataset WAV", LEAST_WAV), ("dataset cached PCM", LEAST_CACHED)):
        ratio = speed[name]["ratio"][1]
        rows.append((f"{name} against soundfile float32", ratio, f"at least {least:g}", ratio >= least))
    ratio = speed["dataset FLAC"]["ratio_to_faster_soundfile_flac"][1]
    rows.append(("dataset FLAC against soundfile's faster", ratio, f"at least {LEAST_FLAC:g}", ratio >= LEAST_FLAC))
    for name in ("dataset WAV", "dataset cached PCM"):
        # Read calls count no memory map: of the cache only the disk's bytes say anything.
        known = [counted[name]["from_disk"], counted[name]["by_read_calls"] if name == "dataset WAV" else None]
        most = max((value for value in known if value is not None), default=None)
        reached = None if most is None else most <= MOST_BYTES
        rows.append((f"{name}: bytes read / needed", most, f"at most {MOST_BYTES:g}", reached))
    rows.append(
        ("stereo_lm, 2 workers: wait for data", wait["share"], f"at most {MOST_WAIT:g}", wait["share"] <= MOST_WAIT)
    )
    same, integer = result["same_batches"], set(result["dtypes"].values()) == {"torch.int16"}
    rows.append((f"batches of {', '.join(map(str, COMPARED_WORKERS))} workers", same, "identical", same))
    rows.append(("what the loader gives", ", ".join(set(result["dtypes"].values())), "torch.int16", integer))
    return [{"what": what, "is": value, "target": target, "reached": reached} for what, value, target, reached in rows]


def report(result: dict[str, Any]) -> None:
    """Print the tables."""
    frames, minutes = result["chunk_frames"], result["audio_seconds"] / 60
    print(f"random stereo chunks of {frames} frames from {minutes:.1f} minutes, {result['rounds']} rounds in turns")
    print(f"{'':<32} {'chunks/s':>9} {'x float32':>9}  quartiles")
    for name, figures in result["speed"].items():
        low, middle, high = figures["ratio"]
        print(f"{name:<32} {figures['chunks_per_second']:>9.0f} {middle:>9.2f}  {low:.2f} .. {high:.2f}")
    for name, figures in result["speed"].items():
        if "ratio_to_stacked" in figures:
            low, middle, high = figures["ratio_to_stacked"]
            print(f"{name}, against {BATCHES}: {middle:.2f}, quartiles {low:.2f} .. {high:.2f}")
    low, middle, high = result["speed"]["dataset FLAC"]["ratio_to_faster_soundfile_flac"]
    print(f"dataset FLAC against the faster of soundfile's: {middle:.3f}, quartiles {low:.3f} .. {high:.3f}")
    print("bytes read / bytes of the chunks, files cold:")
    for name, figures in result["bytes"].items():
        calls, disk = (_number(figures[key]) for key in ("by_read_calls", "from_disk"))
        print(f"  {name:<30} by read calls {calls}, from the disk {disk}")
    wait = result["wait"]
    print(f"stereo_lm, {wait['steps']} steps: wait for data {wait['share']:.3%}, at most {wait['largest']:.3%}")
    print(f"{'target':<46} {'is':>12}  should be")
    for row in result["targets"]:
        verdict = {True: "reached", False: "NOT REACHED", None: "cannot be counted here"}[row["reached"]]
        print(f"{row['what']:<46} {_number(row['is']):>12}  {row['target']}: {verdict}")


def _number(value: Any) -> str:
    if value is None:
        return "not counted"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
