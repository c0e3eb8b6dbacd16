"""What codes cost: sampling with and without the key-value cache, one stream and sixteen, cached codes and live ones.

    OMP_NUM_THREADS=1 python scripts/bench_codes.py
    OMP_NUM_THREADS=1 python scripts/bench_codes.py --codes coded/speech --codec runs/codec

The network has the sizes of experiments/encodec_gpt.yml, unless told otherwise. Without the cache every token costs a
pass over all before it; that is timed at every 64th length, each standing for those around it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from codes.models.gpt import Gpt

EVERY = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench_codes.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024, help="that are sampled (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="of the network (default: %(default)s)")
    parser.add_argument("--codes", type=Path, metavar="DIR", help="a folder of codes: how fast it is read ...")
    parser.add_argument(
        "--codec", type=Path, metavar="PATH", help="... beside encoding the same windows with this codec"
    )
    options = parser.parse_args(arguments)
    if options.codes is not None and options.codec is not None:
        print(reading(options.codes, options.codec))
    else:
        for line in sampling(options.tokens, options.layers):
            print(line)
    return 0


def sampling(tokens: int, layers: int) -> list[str]:
    """Seconds for so many tokens: cached, not cached, and sixteen at a time."""
    torch.manual_seed(0)
    network = Gpt(
        vocabulary=1024, num_channels=4, layers=layers, model_dim=384, heads=6, tied=True, max_length=max(2048, tokens)
    ).eval()
    ids = torch.full((1, tokens), -1)
    sixteen = _seconds(lambda: network.generate(ids.expand(16, -1)))
    cached = _seconds(lambda: network.generate(ids))
    plain = 0.0
    with torch.inference_mode():
        for length in range(EVERY // 2, tokens, EVERY):
            known = torch.randint(1024, (1, length))
            plain += EVERY * _seconds(lambda k=known: network.head.log_probabilities(_hidden(network, k)))
    return [
        f"{tokens} tokens, {layers} layers: with the cache {cached:.2f} s, without {plain:.1f} s: "
        f"{plain / cached:.1f} times",
        f"sixteen streams {sixteen:.2f} s: {16 * cached / sixteen:.1f} times the throughput of one",
    ]


def _hidden(network: Gpt, ids: torch.Tensor) -> torch.Tensor:
    """The last hidden vector (B, D) of a pass over all tokens."""
    return network.transformer(network.embed(ids, 0, None))[:, -1]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def reading(codes: Path, codec: Path) -> str:
    """Windows from a folder of codes beside the codec's encoding of as much audio."""
    from codes.data.audio.codes import CodesDataset
    from codes.models.pretrained_codec import PretrainedCodec

    dataset, network = CodesDataset(path=codes, frames=64), PretrainedCodec(path=codec)
    rng, windows = np.random.default_rng(0), 2000
    cached = _seconds(lambda: [dataset.item(0, rng) for _ in range(windows)]) / windows
    wav = torch.randn(8, network.num_channels, 64 * network.hop_samples) * 0.1
    network.encode(wav)
    live = _seconds(lambda: [network.encode(wav) for _ in range(5)]) / 40
    return (
        f"a window of 64 frames: cached {cached * 1e6:.0f} us, encoded {live * 1e3:.1f} ms: {live / cached:.0f} times"
    )


if __name__ == "__main__":
    sys.exit(main())
