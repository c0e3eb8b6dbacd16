"""Code the recordings of an experiment beforehand: its injectors once over its data, for training without audio.

    python scripts/prepare_codes.py EXPERIMENT.yml --key paired_mel_codes --out CODES [path.pretrain_model_dvae=FILE]

EXPERIMENT is one that makes codes on its way (mel, then a discrete auto-encoder). Its injectors run as in validation up
to the key that holds the codes, over datasets.train and datasets.val: over one recording at a time, without the silence
that it is filled up with, so that the codes, and how many there are, are the network's own. CODES/train.jsonl and
val.jsonl get the file, the text and the codes of each item: `gpt_tts` reads them (fetcher_mode: jsonl, path: CODES).
Exit status: 0; 2 for wrong use.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from codes.data.audio.listing.file_progress import FileProgress
from codes.data.loader import Loader
from codes.experiment import load_experiment
from codes.trainer.build import Parts, build
from codes.trainer.state import State, move
from codes.trainer.step import batch_seed
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    try:
        experiment = load_experiment(options.experiment, options.overrides)
        parts = build(experiment)
        options.out.mkdir(parents=True, exist_ok=True)
        for phase, dataset in parts.datasets.items():
            flags = experiment.datasets[phase].flags
            loader = Loader(
                dataset, flags.batch_size, seed=experiment.options.train.manual_seed, endless=False,
                num_workers=flags.n_workers, plugins=experiment.plugins,
            )  # fmt: skip
            count = _write(options.out / f"{phase}.jsonl", _coded(parts, loader, options), len(dataset))
            print(f"wrote {options.out / f'{phase}.jsonl'}: {count} recordings")
    except (OptionError, ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"look at it with: python -m codes.data.audio.gpt_tts --fetcher-mode jsonl --path {options.out}")
    return 0


def _coded(parts: Parts, loader: Loader, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines of a dataset's items."""
    for network in parts.networks.values():
        network.eval()
    for number in range(len(loader)):
        batch = loader.next()
        for name in (options.file_key, options.text_key, options.length_key, options.audio_key):
            if name not in batch:
                raise ValueError(f"the items have no {name!r}: they have {', '.join(batch)}")
        for index, (file, text) in enumerate(zip(batch[options.file_key], batch[options.text_key], strict=True)):
            item = {key: value[index : index + 1] for key, value in batch.items()}
            item[options.audio_key] = item[options.audio_key][..., : int(item[options.length_key][0])]
            codes = _codes(parts, item, options.key, number)
            yield {"audio": str(file), "text": text, "codes": codes[0].tolist()}


@torch.inference_mode()
def _codes(parts: Parts, batch: dict[str, Any], key: str, number: int) -> torch.Tensor:
    """The codes (B, n) of a batch, here of one item.

    Raises:
        ValueError: no injector writes that key, or it holds something else.
    """
    part = move(batch, parts.device)
    for step in parts.steps:
        state = State(part)
        for injector in step.injectors:
            if key not in state and injector.runs("val", 0, 0):
                with parts.precision.autocast():
                    injector.run(state, batch_seed(0, number))
        if key in state:
            codes = state[key]
            if not isinstance(codes, torch.Tensor) or codes.is_floating_point() or codes.ndim != 2:
                shape = tuple(codes.shape) if isinstance(codes, torch.Tensor) else type(codes).__name__
                raise ValueError(f"--key {key} holds {shape}, needs whole numbers (items, codes)")
            return codes
        part |= step.outputs(state, set(part))
    raise ValueError(f"--key {key}: no injector writes it; they write {', '.join(part)}")


def _write(path: Path, records: Iterator[dict[str, Any]], total: int) -> int:
    """Write the lines, whole or not at all; how many there were."""
    count, aside = 0, path.with_suffix(".partial")
    bar = FileProgress(f"coding {path.stem}", total, unit="recordings")
    with aside.open("w", encoding="utf-8") as file, bar:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            bar.advance(1)
            count += 1
    aside.replace(path)
    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare_codes.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="the YAML whose injectors make codes")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of it that are set otherwise")
    parser.add_argument("--key", required=True, help="the key that holds the codes, (items, codes)")
    parser.add_argument("--out", type=Path, required=True, metavar="CODES", help="the folder that is made")
    parser.add_argument("--audio-key", default="wav", help="the sound of each item (default: %(default)s)")
    parser.add_argument("--length-key", default="wav_lengths", help="samples of each item (default: %(default)s)")
    parser.add_argument("--text-key", default="real_text", help="the text of each item (default: %(default)s)")
    parser.add_argument("--file-key", default="filenames", help="the file of each item (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
