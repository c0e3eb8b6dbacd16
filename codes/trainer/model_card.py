"""The README of an exported folder: what the model is, what it reaches, how it is loaded."""

from codes.trainer.report.curves import BITS, flac_share, judged_by, rivals
from codes.trainer.report.record import Record

_USE = """## Use

In a checkout of Waveschool (`FOLDER` is this folder):

```python
from pathlib import Path
from codes.trainer.export import load_networks
networks = load_networks(Path("FOLDER"))
```
"""
_SAMPLE = """
```bash
python scripts/sample.py --run FOLDER --prompt song.wav --seconds 5 --out heard
```
"""
_CODE = """
```bash
python scripts/compress.py encode song.wav song.wsl --run FOLDER
```
"""


def model_card(exported: Record, run: Record | None, step: int) -> str:
    """The card as Markdown with the head that model hubs read.

    Args:
        exported: the folder, for its options and parameters.
        run: the run that it comes from, for its figures; None: they are of another checkpoint.
        step: of the checkpoint.
    """
    name = exported.name.replace("\n", " ")
    lines = ["---", "library_name: waveschool", "tags: [audio]", "---", "", f"# {name}", ""]
    lines += [
        f"A model of audio, trained with Waveschool for {step:,} steps. `options.yml` is its whole experiment.",
        "",
    ]
    lines += ["| | |", "|---|---|"]
    lines += [f"| network `{network}` | {_which(exported, network)}, {count:,} parameters |"
              for network, count in exported.parameters.items()]  # fmt: skip
    train = exported.option("datasets.train", {})
    lines.append(f"| trained on | `{train.get('mode')}` of `{train.get('path', '')}` |")
    if run is not None:
        lines += _figures(run)
    use = _USE
    if exported.option("samples") is not None:
        use += _SAMPLE
    if any(_which(exported, network) in ("gpt", "llama", "residual_lm") for network in exported.parameters):
        use += _CODE
    return "\n".join([*lines, "", use])


def _which(record: Record, network: str) -> str:
    return str(record.option(f"networks.{network}.which_model", "network"))


def _figures(run: Record) -> list[str]:
    """Rows of the best validation and of what it is compared with."""
    if run.best is None:
        return []
    judge = judged_by(run)
    share = flac_share(run)
    words = f" ({share})" if share else ""
    rows = [f"| validation | {run.best['value']:.4f} {judge.replace('_', ' ')}{words} |"]
    if judge == BITS:
        rows += [f"| {title} on the validation audio | {bits:.4f} bits per sample |" for title, bits in rivals(run)]
    return rows
