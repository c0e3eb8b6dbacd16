"""Measure the LSTM sequence to sequence: fused (teacher-forced) against step by step.

    python scripts/bench_lstm.py [--output logistics] [--steps 512] [--batch 16] [--dim 128] [--rounds 5]

Both train the same network on the same values, forward and backward: the decoder reads the real value at every step,
once in one pass, once step by step as in scheduled sampling, where each step draws its own value as well. The two take
turns, and the fused one again, whose ratio to itself (A/A) says what a difference must exceed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from bench_rounds import AGAIN, Run, in_turns, quartiles
from torch import Tensor

from codes.models.lstm_seq2seq import LstmSeq2seq

PREV_STEPS = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench_lstm.py", description=(__doc__ or "").split("\n")[0])
    for name, default in (("steps", 512), ("batch", 16), ("dim", 128), ("layers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--output", choices=("float", "logistics", "codes"), default="logistics")
    options = parser.parse_args(arguments)
    print("\n".join(measure(**vars(options))))
    return 0


def measure(*, output: Any, steps: int, batch: int, dim: int, layers: int, rounds: int) -> list[str]:
    """Lines: milliseconds a training pass, and how many times as long the stepwise one takes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = LstmSeq2seq(next_steps=steps, output=output, bits=8, dim=dim, layers=layers).to(device)
    with torch.no_grad():  # as after some training: at its start the output layer ignores what it reads
        for p in network.output.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    codes = torch.randint(0, 256, (batch, PREV_STEPS + steps), device=device)
    sequence = codes / 128 - 1 if output == "float" else codes
    forced = torch.ones(batch, steps, dtype=torch.bool, device=device)

    def train(coins: Tensor | None) -> int:
        network(sequence, None, coins).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1

    difference = float((network(sequence) - network(sequence, None, forced)).detach().abs().max())
    seconds = in_turns({"fused": Run(go=lambda: train(None)), "stepwise": Run(go=lambda: train(forced))}, rounds)
    lines = [f"lstm_seq2seq, {output}, {layers} layers of {dim}, {steps} steps, batch {batch}, {device}, "
             f"{torch.get_num_threads()} thread(s); largest difference of the outputs {difference:.1e}"]  # fmt: skip
    for name, taken in seconds.items():
        ratios = quartiles([own / base for own, base in zip(taken, seconds["fused"], strict=True)])
        low, middle, high = (f"{ratio:.2f}" for ratio in ratios)
        middle_ms = 1000 * quartiles(taken)[1]
        label = name.replace(AGAIN, ", again (A/A)")
        lines.append(f"  {label:<22} {middle_ms:8.1f} ms   x {middle} of fused ({low} to {high})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
