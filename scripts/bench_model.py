"""The parts of bench.py on the loss over many codes, on sampling and on coding.

    python scripts/bench.py loss [--tokens 2048] [--width 256] [--codes 65536]
    python scripts/bench.py sampling [--tokens 256] [--width 256]
    python scripts/bench.py compress [--path DIR]

Each takes turns with what one would write instead: the cross-entropy of all logits at once; a forward pass over the
whole sequence for every token, and transformers' generate; FLAC by libsndfile.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_rounds import Run, in_turns, quartiles, resident_bytes
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _ratios(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, list[float]]]:
    """Quartiles of seconds, and of ratios to the base round by round."""
    return {
        name: {
            "seconds": quartiles(taken),
            "ratio": quartiles([one / other for one, other in zip(taken, seconds[base], strict=True)]),
        }
        for name, taken in seconds.items()
    }


def _print_table(title: str, found: dict[str, dict[str, list[float]]], per: str) -> None:
    print(title)
    for name, figures in found.items():
        (_, middle, _), (low, ratio, high) = figures["seconds"], figures["ratio"]
        print(f"  {name:<34} {1000 * middle:10.3f} ms a {per}   x {ratio:.3f}  ({low:.3f} .. {high:.3f})")


def loss_passes(tokens: int, width: int, codes: int) -> dict[str, Callable[[], int]]:
    """Forward and backward passes from hidden vectors to code lengths."""
    from codes.models.heads import BytesHead, LogisticsHead, SoftmaxHead
    from codes.models.lean_softmax import lean_nats

    if not SoftmaxHead(1, codes).lean:
        raise SystemExit(f"--codes {codes}: so few take the plain way in a network as well; give 4096 or more")
    device = _device()
    torch.manual_seed(0)
    hidden = torch.randn(1, tokens, width, device=device, requires_grad=True)
    target = torch.randint(0, codes, (1, tokens), device=device)
    weight = torch.randn(codes, width, device=device).mul_(0.02).requires_grad_()
    bits = codes.bit_length() - 1
    bytes_head, logistics = BytesHead(width, bits).to(device), LogisticsHead(width, bits, 10).to(device)

    def naive() -> torch.Tensor:
        return functional.cross_entropy(functional.linear(hidden[0], weight), target[0])

    def mixture() -> torch.Tensor:
        from codes.models.forecast import plain_forecast

        return logistics.nats(hidden, target, plain_forecast(target)).mean()

    losses: dict[str, Callable[[], torch.Tensor]] = {
        "naive": naive,
        "lean": lambda: lean_nats([(hidden[0], weight)], target[0], codes).mean(),
        "bytes": lambda: bytes_head.nats(hidden, target).mean(),
        "mixture of 10 logistics": mixture,
    }
    if device.type == "cuda":
        try:
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]
        except ImportError:
            pass
        else:
            fused = LigerFusedLinearCrossEntropyLoss()
            losses["Liger's kernel"] = lambda: fused(weight, hidden[0], target[0])

    def timed(loss: Callable[[], torch.Tensor]) -> Callable[[], int]:
        def go() -> int:
            hidden.grad = weight.grad = None
            loss().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return 1

        return go

    return {name: timed(loss) for name, loss in losses.items()}


def _peak(name: str, sizes: tuple[int, int, int], answer: Any) -> None:
    """In a process of its own: what a pass adds to the peak of memory, in bytes."""
    torch.set_num_threads(1)
    passes = loss_passes(*sizes)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        passes[name]()
        answer.put(torch.cuda.max_memory_allocated() - before)
        return
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    passes[name]()
    answer.put(resident_bytes("VmHWM") - before)


def bench_loss(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of the losses over many codes."""
    sizes = (arguments.tokens or 2048, arguments.width, arguments.codes)
    passes = loss_passes(*sizes)
    found: dict[str, Any] = _ratios(in_turns({n: Run(go=go) for n, go in passes.items()}, arguments.rounds), "naive")
    _print_table(f"loss over {sizes[2]} codes, {sizes[0]} tokens, width {sizes[1]}, {_device()}", found, "pass")
    context = multiprocessing.get_context("spawn")
    for name in passes if torch.cuda.is_available() or sys.platform == "linux" else ():
        answer = context.Queue()
        process = context.Process(target=_peak, args=(name, sizes, answer))
        process.start()
        found[name]["peak_bytes"] = answer.get(timeout=300)
        process.join()
        share = found[name]["peak_bytes"] / found["naive"]["peak_bytes"]
        print(f"  {name:<34} peak {found[name]['peak_bytes'] / 2**20:8.1f} MiB   x {share:.3f}")
    return {"tokens": sizes[0], "width": sizes[1], "codes": sizes[2], "rounds": arguments.rounds, "losses": found}


def bench_sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens one after the other: with both caches, without one, and by transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from codes.models.gpt import Gpt

    device, tokens, width = _device(), arguments.tokens or 256, arguments.width
    torch.manual_seed(0)
    network = Gpt(vocabulary=256, num_channels=1, layers=4, model_dim=width, heads=4, max_length=tokens).to(device)
    config = GPT2Config(
        vocab_size=256, n_positions=tokens + 1, n_embd=width, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=None
    )
    other: Any = GPT2LMHeadModel(config).to(device).eval()  # type: ignore[arg-type]
    start = torch.zeros(1, 1, dtype=torch.long, device=device)

    def cached(static: bool) -> int:
        free = torch.full((1, tokens - 1), -1, device=device)
        network.generate(torch.cat([start, free], 1), static_cache=static)
        return tokens

    @torch.inference_mode()
    def whole() -> int:
        ids = start
        for _ in range(tokens - 1):
            padded = torch.cat([ids, start], 1)
            hidden = network.transformer(network.embed(padded, 0, None))
            likely = network.head.log_probabilities(hidden[:, -1]).exp()
            ids = torch.cat([ids, torch.multinomial(likely, 1)], 1)
        return tokens

    def transformers() -> int:
        other.generate(
            start, max_new_tokens=tokens - 1, do_sample=True, pad_token_id=0, attention_mask=torch.ones_like(start)
        )
        return tokens

    network.eval()
    runs = {
        "no cache": Run(go=whole),
        "generate, cache by views": Run(go=lambda: cached(False)),
        f"generate, fixed shapes{', graph' if device.type == 'cuda' else ''}": Run(go=lambda: cached(True)),
        "transformers' generate": Run(go=transformers),
    }
    found = _ratios(in_turns(runs, arguments.rounds), "no cache")
    _print_table(f"sampling {tokens} tokens, 4 layers of {width}, {device}", found, "token")
    return {"tokens": tokens, "width": width, "rounds": arguments.rounds, "sampling": found}


def bench_compress(arguments: argparse.Namespace) -> dict[str, Any]:
    """The codec that needs no model beside FLAC by libsndfile: time to code ten seconds, and bytes."""
    import io

    import soundfile

    from codes.compression.linear_codec import LinearCodec

    rate = 44_100
    if arguments.path is not None:
        files = sorted(arguments.path.glob("*.wav"))
        if not files:
            raise SystemExit(f"there is no .wav file in {arguments.path}")
        pcm = soundfile.read(files[0], frames=10 * rate, dtype="int16", always_2d=True)[0].T
    else:
        pcm = _tones(rate)
    wide, codec, sizes = np.ascontiguousarray(pcm.astype(np.int32)), LinearCodec(), {}

    def flac() -> int:
        buffer = io.BytesIO()
        soundfile.write(buffer, pcm.T, rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
        sizes["FLAC (libsndfile, level 8)"] = buffer.getbuffer().nbytes
        return 1

    def linear() -> int:
        data = codec.encode(wide, 16, rate)
        sizes["linear"] = len(data)
        return 1

    coded = codec.encode(wide, 16, rate)
    exact = np.array_equal(codec.decode(coded, wide.shape[0], wide.shape[1], 16, rate), wide)
    runs = {"FLAC (libsndfile, level 8)": Run(go=flac), "linear": Run(go=linear)}
    found = _ratios(in_turns(runs, arguments.rounds), "FLAC (libsndfile, level 8)")
    _print_table(
        f"coding {pcm.shape[1] / rate:.1f} s of {pcm.shape[0]} channels, decoded exactly: {exact}", found, "run"
    )
    for name, size in sizes.items():
        print(f"  {name:<34} {size:,} bytes   x {size / sizes['FLAC (libsndfile, level 8)']:.4f}")
    return {"rounds": arguments.rounds, "coding": found, "bytes": sizes, "exact": exact}


def _tones(rate: int) -> np.ndarray:
    """Ten seconds of decaying chords with a little noise: (2, T) int16."""
    rng = np.random.default_rng(0)
    time = np.arange(10 * rate) / rate
    envelope = np.exp(-2 * (time % 0.5))
    tones = np.sin(2 * np.pi * time[:, None] * rng.uniform(80, 1200, 6)) @ rng.uniform(0.02, 0.1, (6, 2))
    return np.round((tones * envelope[:, None] + rng.normal(0, 5e-4, tones.shape)) * 32767).astype(np.int16).T


if __name__ == "__main__":
    print("bench_model.py is a part of bench.py: run python scripts/bench.py loss", file=sys.stderr)
    sys.exit(2)
