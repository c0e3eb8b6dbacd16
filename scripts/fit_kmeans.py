"""Fit k-means to features of speech: the clusters that make semantic tokens of audio (`semantic_codes`).

    python scripts/fit_kmeans.py DIR --features mfcc --clusters 100 --out FILE
    python scripts/fit_kmeans.py DIR --model facebook/hubert-base-ls960 --layer 9 --clusters 500 --out FILE

Goes through the audio once, in an order that the seed decides, and keeps no more than a batch of it: any amount of
audio fits. The same command gives the same file. Exit status: 0; 2 where something is wrong.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from codes import kmeans
from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.mono_chunk import MonoChunkDataset
from codes.devices import usable_device
from codes.models.speech_features import SpeechFeatures
from codes.trainer.injectors.semantic import write_clusters

PIECE_SECONDS = 20.0  # of audio that is heard at once
BATCH_VECTORS = 4096
FLOAT_BITS = 24  # depth that floating point files are read at


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        for line in fit(options):
            print(line)
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fit_kmeans.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="DIR", help="folders of audio, files, lists of files")
    add("--features", choices=("model", "mfcc"), help="default: model where --model is given, else mfcc")
    add("--model", metavar="PATH", help="a folder or hub name of HuBERT, wav2vec 2.0 or WavLM")
    add("--layer", type=int, default=9, help="which layer's output, from 1 (default: %(default)s)")
    add("--clusters", type=int, default=100, metavar="K", help="how many (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the order and the first centres (default: %(default)s)")
    add("--device", type=usable_device, default="cpu", help="that the model runs on (default: %(default)s)")
    add("--out", type=Path, required=True, metavar="FILE", help="where the clusters go (.safetensors)")
    return parser


def fit(options: argparse.Namespace) -> Iterator[str]:
    """Fit and write; yields what is to be said.

    Raises:
        ValueError: an option cannot be meant, or there is too little audio.
    """
    if options.clusters < 1:
        raise ValueError(f"--clusters must be 1 or more, got {options.clusters}")
    if options.out.suffix != ".safetensors" or not options.out.absolute().parent.is_dir():
        raise ValueError(f"--out must be a .safetensors file in a folder that exists, got {options.out}")
    kind = options.features or ("model" if options.model else "mfcc")
    features = SpeechFeatures(features=kind, model=options.model, layer=options.layer).to(options.device)
    features.eval()
    stream = kmeans.StreamingKMeans(options.clusters, max(20 * options.clusters, BATCH_VECTORS), options.seed)
    for vectors in _batches(_heard(options, features)):
        stream.add(vectors)
    centres = stream.finish()
    write_clusters(options.out, centres, features.described)
    share = stream.counts / stream.counts.sum()
    perplexity = float(torch.special.entr(share).sum().exp())
    seconds = stream.num_vectors * features.hop_samples / features.sample_rate_hz
    yield f"{stream.num_vectors:,} frames, about {seconds / 60:.1f} minutes of audio, of {features.dim} numbers"
    yield f"{options.out}: {options.clusters} clusters, perplexity {perplexity:.1f}"


def _heard(options: argparse.Namespace, features: SpeechFeatures) -> Iterator[Tensor]:
    """The features (F, D) of piece after piece of the audio, on the CPU."""
    rate = features.sample_rate_hz
    audio = MonoChunkDataset(
        path=options.paths,
        channels="mono",
        sample_rate=rate,
        chunk_frames=rate // 10,
        val_fraction=0.0,
        float_bits=FLOAT_BITS,
    )
    length = round(PIECE_SECONDS * rate)
    pieces = [
        (segment, start, min(length, segment.start_frame + segment.num_frames - start))
        for segment in audio.segments
        for start in range(segment.start_frame, segment.start_frame + segment.num_frames, length)
    ]
    pieces = [piece for piece in pieces if piece[2] >= rate // 10]
    order = np.random.default_rng(options.seed).permutation(len(pieces))
    with FileProgress("pieces of audio", len(pieces)) as progress:
        for index in order:
            pcm = torch.from_numpy(audio.read(*pieces[index]).astype(np.float32)) * 2.0 ** (1 - audio.bits)
            yield features(pcm[None].to(options.device))[0].cpu()
            progress.advance()


def _batches(parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """Parts (F, D) put together to batches of BATCH_VECTORS or more; the last one is what is left."""
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= BATCH_VECTORS:
            yield torch.cat(held)
            held.clear()
    if held:
        yield torch.cat(held)


if __name__ == "__main__":
    sys.exit(main())
