"""Make a dataset of speech from a folder of recordings: cut at pauses, filter, write down, list.

    python scripts/prepare_speech.py FOLDER --out DATASET [--asr openai/whisper-small --language en]

FOLDER is searched through and through; recordings may be hours long and of any format. DATASET gets clips of
--min-seconds to --max-seconds, metadata.csv, and clips.jsonl, which says of every piece where it is from and why it was
left out. The same command goes on after an interruption. Without --asr, clips have text only where NAME.txt lies beside
a recording.

Exit status: 0; 1 where recordings could not be read; 2 for wrong use.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes import registry
from codes.data.speech.preparation import PreparationOptions, Summary, prepare
from codes.data.speech.quality import QualityLimits
from codes.data.speech.splitting import SplitOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    try:
        chosen = PreparationOptions(
            split=_taken(SplitOptions, options), limits=_taken(QualityLimits, options),
            **{name: options[name] for name in ("sample_rate", "speaker", "asr", "language")},
        )  # fmt: skip
        summary = prepare(options["folder"], options["out"], chosen, device=options["device"])
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; the same command goes on", file=sys.stderr)
        return 1
    for line in summary.lines():
        print(line)
    print(_next(summary, options["out"]))
    return 1 if summary.errors else 0


def _next(summary: Summary, out: Path) -> str:
    if summary.num_texts:
        return f"look at it with: python -m codes.data.audio.paired_voice_audio --path {out}"
    return (
        f"no clip has text: --asr MODEL writes it down; without, python -m codes.data.audio.unsupervised_audio --path "
        f"{out / 'wavs'}"
    )


def _taken(cls: Any, options: dict[str, Any]) -> Any:
    """The options that are fields of a dataclass, as one."""
    return cls(**{option.name: options[option.name] for option in dataclasses.fields(cls)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare_speech.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="recordings of any length and format")
    parser.add_argument("--out", type=Path, required=True, metavar="DATASET", help="the folder that is made")
    for cls in (PreparationOptions, SplitOptions, QualityLimits):
        for option in registry.options_of(cls).values():
            if dataclasses.is_dataclass(option.annotation):
                continue
            kind = next(kind for kind in (int, float, str) if isinstance(option.default, kind) or kind is str)
            flag = f"--{option.name.replace('_', '-')}"
            text = option.doc.replace("%", "%%") + ("" if option.default is None else " (default: %(default)s)")
            parser.add_argument(flag, type=kind, default=option.default, metavar="VALUE", help=text)
    parser.add_argument("--device", metavar="DEVICE", help="where the model runs (default: a GPU where there is one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
