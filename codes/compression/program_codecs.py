"""Command line programs for lossless audio, where the user has them: OptimFROG, Monkey's Audio, Sac, WavPack, flac.

They are given a WAV file in a folder of their own and must leave a coded file there. Nothing is installed.
"""

import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """How a program is called: its command, its arguments with {wav} and {coded}, the ending of its files."""

    command: str
    arguments: tuple[str, ...]
    suffix: str


PROGRAMS = {
    "flac-program": Program(
        "flac", ("-8", "-e", "-p", "--no-padding", "--no-seektable", "-s", "-f", "-o", "{coded}", "{wav}"), ".flac"
    ),
    "wavpack-program": Program("wavpack", ("-hh", "-x4", "-q", "-y", "{wav}", "-o", "{coded}"), ".wv"),
    "optimfrog-program": Program("ofr", ("--encode", "--preset", "10", "{wav}", "--output", "{coded}"), ".ofr"),
    "monkeys-program": Program("mac", ("{wav}", "{coded}", "-c5000"), ".ape"),
    "sac-program": Program("sac", ("--encode", "--normal", "{wav}", "{coded}"), ".sac"),
}


def find_program(name: str) -> str | None:
    """Where a program is, or None."""
    return shutil.which(PROGRAMS[name].command)


def code_with_program(
    name: str, pcm: bytes, num_channels: int, bits: int, sample_rate_hz: int, *, timeout_seconds: float = 3600
) -> bytes:
    """The file that a program makes of samples.

    Args:
        name: a key of `PROGRAMS`.
        pcm: samples as a WAV file holds them.
        num_channels, bits, sample_rate_hz: of the WAV file; bits are 8, 16, 24 or 32.
        timeout_seconds: how long it may take.

    Raises:
        OSError: it is not installed, fails, takes too long or leaves no file; the message ends with what it said.
    """
    program, command = PROGRAMS[name], find_program(name)
    if command is None:
        raise OSError(f"{name}: {PROGRAMS[name].command} is not on PATH")
    with tempfile.TemporaryDirectory(prefix="waveschool-") as folder:
        wav, coded = Path(folder) / "audio.wav", Path(folder) / f"coded{program.suffix}"
        wav.write_bytes(wav_header(len(pcm), num_channels, bits, sample_rate_hz) + pcm + b"\0" * (len(pcm) % 2))
        call = [command, *(part.format(wav=wav, coded=coded) for part in program.arguments)]
        try:
            done = subprocess.run(
                call, cwd=folder, capture_output=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{name}: {command} took longer than {timeout_seconds:.0f} s") from error
        if done.returncode or not coded.is_file():
            said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
            raise OSError(f"{name}: {command} ended with status {done.returncode} and no file: {said}")
        return coded.read_bytes()


def wav_header(num_bytes: int, num_channels: int, bits: int, sample_rate_hz: int) -> bytes:
    """The 44 bytes before the samples of a plain WAV file."""
    frame_bytes = num_channels * bits // 8
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + num_bytes + num_bytes % 2, b"WAVE", b"fmt ", 16, 1, num_channels, sample_rate_hz),
        *(sample_rate_hz * frame_bytes, frame_bytes, bits, b"data", num_bytes),
    )
