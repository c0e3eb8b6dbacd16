"""Mutated audio files, and what the reader must do with each: read consistently, or raise AudioReadError.

    PYTHONPATH=. python tests/data/audio/reader_fuzzer.py 10000 [first_seed]

runs so many mutations, with little memory and a time limit for each, and prints what became of them.
"""

import collections
import faulthandler
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from codes.data.audio.reader import AudioFile, AudioReadError, read
from tests.data.audio.coded_audio import tones, write_coded
from tests.data.audio.flac_writer import flac_bytes

_HEADER_BYTES = 200
_VALUES = (0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF)
_LONGEST_SECONDS = 20


def seed_files() -> dict[str, bytes]:
    """Small sound files, one of each kind."""
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 600))
    smooth = (tones(2, 3000, 44_100) * 2**14).astype(np.int16)
    files = {"verbatim.flac": flac_bytes(pcm, 16), "verbatim12.flac": flac_bytes(pcm >> 4, 12)}
    files["unknown.flac"] = flac_bytes(pcm, 16, promised=0)
    for name, subtype in {"a.wav": "PCM_16", "b.wav": "PCM_24", "c.wav": "FLOAT", "a.flac": "PCM_16"}.items():
        files[name] = _sndfile(smooth, name.split(".")[1].upper(), subtype)
    files["ext.wav"] = _sndfile(smooth, "WAVEX", "PCM_24")
    files["a.w64"] = _sndfile(smooth, "W64", "PCM_16")
    for kind in ("AIFF", "RF64", "CAF", "AU"):
        files[f"a.{kind.lower()}"] = _sndfile(smooth, kind, "PCM_16")
    for name, codec, container in (
        ("a.mp3", "libmp3lame", "mp3"),
        ("a.m4a", "aac", "mp4"),
        ("alac.m4a", "alac", "mp4"),
        ("a.opus", "libopus", "ogg"),
        ("a.mka", "aac", "matroska"),
        ("a.wv", "wavpack", "wv"),
    ):
        target = io.BytesIO()
        write_coded(target, codec, smooth, sample_rate_hz=48_000, container=container)
        files[name] = target.getvalue()
    return files


def _sndfile(pcm: np.ndarray, container: str, subtype: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, pcm.T, 44_100, format=container, subtype=subtype)
    return target.getvalue()


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bytes set, a number set to an extreme, a piece cut out, doubled, or the end cut off."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        in_header = rng.random() < 0.7
        at = int(rng.integers(0, min(len(changed), _HEADER_BYTES) if in_header else len(changed)))
        kind = int(rng.integers(0, 8))
        if kind < 3:
            changed[at] = int(rng.choice(_VALUES)) if kind else int(rng.integers(256))
        elif kind == 3:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            extreme = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 0x10000)[int(rng.integers(6))]
            changed[at : at + 4] = extreme.to_bytes(4, "little" if rng.random() < 0.5 else "big")
        elif kind == 5:
            del changed[at : at + int(rng.integers(1, 64))]
        elif kind == 6:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        else:
            del changed[max(1, len(changed) - int(rng.integers(1, len(changed) + 1))) :]
        if not changed:
            return b"\0"
    return bytes(changed)


def outcome(path: Path, rng: np.random.Generator) -> str:
    """ "read" or "refused"; AssertionError if the reader contradicts itself, any other error if it lets one through."""
    try:
        with AudioFile(path, float_bits=24) as file:
            whole = file.read()
            assert whole.shape == (file.info.num_channels, file.info.num_frames), (path, whole.shape, file.info)
            start = int(rng.integers(0, file.info.num_frames))
            part = file.read(start, min(50, file.info.num_frames - start))
        np.testing.assert_array_equal(part, whole[:, start : start + 50])
        np.testing.assert_array_equal(read(path, start, part.shape[1], float_bits=24), part)
    except AudioReadError as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name the file: {error}") from error
        return "refused"
    return "read"


def _main(count: int, first_seed: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    files = seed_files()
    names = sorted(files)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first_seed, first_seed + count):
            rng = np.random.default_rng(seed)
            name = names[seed % len(names)]
            path = Path(folder, name)
            path.write_bytes(mutate(files[name], rng))
            faulthandler.dump_traceback_later(_LONGEST_SECONDS, exit=True)
            started = time.perf_counter()
            try:
                result = outcome(path, rng)
            except BaseException:
                print(f"seed {seed}, {name}", flush=True)
                raise
            slowest = max(slowest, (time.perf_counter() - started, f"seed {seed}, {name}"))
            outcomes[f"{name} {result}"] += 1
        faulthandler.cancel_dump_traceback_later()
    for key in sorted(outcomes):
        print(f"{key:25} {outcomes[key]}")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} mutations; slowest {slowest[0]:.2f} s ({slowest[1]}); peak memory {peak_mib:.0f} MiB")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
