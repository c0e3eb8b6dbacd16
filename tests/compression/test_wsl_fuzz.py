"""Coded files that are changed at random never crash a decoder, hang it, or pass for what they are not.

    python -m tests.compression.test_wsl_fuzz --mutations 10000 [--model FILE] [--seed N]

A mutation flips bits, overwrites, cuts, inserts or doubles pieces; half of them then get their CRCs put right, so
that what a codec reads is as hostile as it can be. Decoding must end in the samples, or in an error of ours.
"""

import argparse
import collections
import contextlib
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from codes.compression.codec import BlockCodec, CodedFileError, ModelError
from codes.compression.container import CodecEntry, read_header, with_crc
from codes.compression.container_packet import HEAD_BYTES, Packet
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, write_coded_file
from codes.compression.linear_codec import LinearCodec

BLOCK_FRAMES = 300
MOST_SECONDS = 10.0  # that one mutation may take


def samples(num_channels: int, bits: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_frames = np.arange(2 * BLOCK_FRAMES + 50)
    waves = np.sin(time_frames * rng.uniform(0.02, 0.5, (num_channels, 1))) * 2.0 ** (bits - 4)
    return np.round(waves + rng.normal(0, 2.0 ** (bits - 10), waves.shape)).astype(np.int32)


def coded_file(path: Path, pcm: np.ndarray, bits: int, codecs: Sequence[BlockCodec]) -> bytes:
    form = PcmForm(sample_rate_hz=8000, num_channels=len(pcm), bits=bits)
    blocks = (pcm[:, first : first + BLOCK_FRAMES] for first in range(0, pcm.shape[1], BLOCK_FRAMES))
    with contextlib.ExitStack() as stack:
        if codecs:  # which are to be fuzzed, not linear prediction
            stack.enter_context(mock.patch.object(LinearCodec, "encode", side_effect=ValueError))
        file = stack.enter_context(open(path, "wb"))
        report = write_coded_file(file, blocks, form, block_frames=BLOCK_FRAMES, codecs=codecs, metadata=b"tags " * 9)
    assert report.packets_by_codec.keys() >= {codec.name for codec in codecs or [LinearCodec()]}
    return path.read_bytes()


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes of any kind, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(changed) + 1))
        size = int(rng.integers(1, 40))
        kind = rng.integers(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + size] = rng.bytes(size)
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = rng.bytes(size)
        elif kind == 4:
            del changed[at : at + size]
        elif kind == 5:
            changed[at:at] = changed[at : at + size]
        else:
            changed[at : at + size] = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size
    return bytes(changed)


def hostile(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes inside the header, the seek table or a payload, with CRCs and sizes that are right again."""
    header, start = read_header(data)
    sizes = struct.unpack_from(f"<{header.num_packets}I", data, start)
    place = start + 4 * header.num_packets + 4 + header.metadata_bytes
    head = bytearray(data[: start - 4])
    if rng.random() < 0.4:
        at = int(rng.integers(8, len(head)))
        head[at] = rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(256))])
    packets = []
    for number, size in enumerate(sizes):
        _, codec, num_zero_bits = struct.unpack_from("<IBB", data, place + 2)
        payload = data[place + HEAD_BYTES : place + size]
        if rng.random() < 0.5:
            payload = mutate(payload, rng)
        if rng.random() < 0.05:
            codec = int(rng.integers(4))
        if rng.random() < 0.05:
            num_zero_bits = int(rng.integers(34))
        packets.append(Packet(number, codec, num_zero_bits, payload).pack())
        place += size
    table = struct.pack(f"<{len(packets)}I", *map(len, packets))
    metadata = data[place - sum(sizes) - header.metadata_bytes : place - sum(sizes) - 4]
    return with_crc(bytes(head)) + with_crc(table) + with_crc(metadata) + b"".join(packets)


def outcome(path: Path, pcm: np.ndarray, codecs: Sequence[BlockCodec], keep_going: bool) -> str:
    """What becomes of a changed file: "same", "damaged", "refused"; anything else raises."""

    def resolve(entry: CodecEntry, embedded: bytes) -> BlockCodec:
        for codec in codecs:
            if codec.model_hash().startswith(entry.model_hash):
                return codec
        raise ModelError("no such model")

    try:
        with CodedFile(path, resolve, keep_going=keep_going) as coded:
            blocks = []
            for block in coded.blocks():
                blocks.append(block)
                if sum(block.size for block in blocks) > 1 << 22:  # a header that was made to promise more
                    return "endless"
            if coded.damages:
                return "damaged"
            back = np.concatenate([np.zeros((coded.header.num_channels, 0), np.int32), *blocks], 1)
            same_form = (coded.header.bits, coded.header.sample_rate_hz) == (16, 8000)
    except CodedFileError:
        return "damaged"
    except ModelError:
        return "refused"
    return "same" if back.shape == pcm.shape and np.array_equal(back, pcm) and same_form else "another"


def fuzz(folder: Path, num_mutations: int, codecs: Sequence[BlockCodec], seed: int) -> collections.Counter[str]:
    """Counts of outcomes; raises AssertionError for a silent difference and for what takes too long."""
    rng = np.random.default_rng(seed)
    counts: collections.Counter[str] = collections.Counter()
    originals = []
    for number, num_channels in enumerate((1, 2, 3)):
        pcm = samples(num_channels, 16, number)
        originals.append((pcm, coded_file(folder / f"{number}.wsl", pcm, 16, codecs)))
    path = folder / "changed.wsl"
    for number in range(num_mutations):
        pcm, data = originals[number % len(originals)]
        change: Callable[[bytes, np.random.Generator], bytes] = hostile if number % 2 else mutate
        changed = change(data, rng)
        path.write_bytes(changed)
        keep_going = bool(rng.random() < 0.5)
        started = time.perf_counter()
        found = outcome(path, pcm, codecs, keep_going)
        seconds = time.perf_counter() - started
        name = f"mutation {number} of seed {seed}"
        assert seconds < MOST_SECONDS, f"{name} took {seconds:.1f} s"
        # Where the CRCs were put right, other samples may pass only if their MD5 was: it never is. A changed rate or
        # depth with the CRCs put right is another file, whose samples are the same.
        if found == "another":
            assert change is hostile, f"{name} decodes to other samples and nobody says so"
            assert changed[12:18] != data[12:18] or changed[10] != data[10], f"{name}: other samples pass for the same"
        counts[f"{change.__name__}: {found}"] += 1
    return counts


def test_changed_files_never_pass_for_what_they_are_not(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, 600, [], seed=0)
    assert counts["mutate: damaged"] > 200
    assert counts["hostile: damaged"] > 100


def test_changed_files_of_a_model_neither(tmp_path: Path) -> None:
    from codes.compression.residual_codec import ResidualCodec, load_residual_model
    from tests.compression.compress_runs import small_model_file

    counts = fuzz(tmp_path, 150, [ResidualCodec(load_residual_model(small_model_file()))], seed=0)
    assert counts["mutate: damaged"] == 75
    assert counts["hostile: damaged"] > 40
    assert counts["hostile: refused"] > 2


def main() -> None:
    """Fuzz at length."""
    import tempfile

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--model", type=Path, help="code with this model as well")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    codecs: list[BlockCodec] = []
    if options.model is not None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
        from compress_models import model_codec  # pyright: ignore[reportMissingImports]

        codecs.append(model_codec(options.model.read_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for name, count in sorted(fuzz(Path(folder), options.mutations, codecs, options.seed).items()):
            print(f"{name} {count}")
        print(f"{options.mutations} mutations, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
