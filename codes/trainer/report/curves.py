"""The charts of a report: which figures there are, which belong together, and what they are compared with."""

from collections.abc import Callable, Iterable, Sequence

from codes.trainer.report.charts import Level, Line, chart
from codes.trainer.report.record import Record

BITS = "bits_per_sample"
_SPEED = ("tokens_per_second", "data_wait_share", "memory_bytes", "mfu", "seconds", "skipped_reads", "flops")
_UPDATES = ("grad_norm", "lr", "skipped_updates")
_CODEBOOKS = ("codebook", "usage", "perplexity")
_SCALES = {"memory_bytes": (2.0**-30, "GiB"), "data_wait_share": (100.0, "% of the time"), "mfu": (100.0, "%")}
_NOTES = {
    BITS: "lower is better; dashed: what it is compared with", "loss": "weighted sum of all losses",
    "tokens_per_second": "with validation left out", "grad_norm": "before clipping", "lr": "learning rate",
}  # fmt: skip


def kind_of(name: str) -> str:
    """The part of the page that a figure belongs to: main, speed, updates, codebooks or losses."""
    if name in (BITS, "loss"):
        return "main"
    if name.startswith(_SPEED):
        return "speed"
    if name.split(".")[0] in _UPDATES:
        return "updates"
    if any(word in name for word in _CODEBOOKS):
        return "codebooks"
    return "losses"


def names_of(runs: Sequence[Record], kind: str) -> list[str]:
    """The figures of a kind that any of the runs has, in order; without those that only repeat the loss."""
    names = [name for run in runs for split in ("train", "val") for name in run.names(split)]
    found = [name for name in dict.fromkeys(names) if kind_of(name) == kind and not _repeats_loss(runs, name)]
    order = (BITS, "loss")
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def _repeats_loss(runs: Iterable[Record], name: str) -> bool:
    """Whether a figure is the total loss under another name: that of the only loss that there is."""
    if name == "loss":
        return False
    return all(run.series(split, name) == run.series(split, "loss") for run in runs for split in ("train", "val"))


def figure_chart(runs: Sequence[Record], name: str) -> str:
    """One figure of all runs over the steps, in training and in validation."""
    scale, unit = _SCALES.get(name, (1.0, ""))
    lines = []
    for number, run in enumerate(runs):
        for split in ("train", "val"):
            points = [(float(step), value * scale) for step, value in run.series(split, name)]
            title = f"{run.name}, {split}" if len(runs) > 1 else split
            lines.append(Line(name=title, points=points, run=number, look=split))
    note = unit or _NOTES.get(name.split(".")[0] if name not in _NOTES else name, "")
    return chart(_title(name), lines, levels(runs) if name == BITS else (), note=note)


def _title(name: str) -> str:
    return name.replace("_", " ").replace(".", ": ", 1)


def levels(runs: Sequence[Record]) -> list[Level]:
    """What bits per sample are compared with; what is the same for all runs stands once."""
    found: list[Level] = []
    for title, value_of, wanted in _RIVALS:
        values = [value_of(run) for run in runs]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values) and len({f"{value:.4f}" for value in known}) == 1:
            found.append(Level(name=title, value=known[0], wanted=wanted))
            continue
        for number, (run, value) in enumerate(zip(runs, values, strict=True)):
            if value is not None:
                found.append(Level(name=f"{title} ({run.name})", value=value, run=number, wanted=wanted))
    return found


def _baseline(key: str) -> Callable[[Record], float | None]:
    def value(run: Record) -> float | None:
        found = run.baselines.get(key)
        return float(found) if isinstance(found, int | float) else None

    return value


def marginal_entropy(run: Record) -> float | None:
    """The marginal entropy of the codes that the model predicts, from its last validation; None where not reported."""
    names = [name for name in run.names("val") if name.endswith("marginal_entropy")]
    return run.series("val", names[0])[-1][1] if len(names) == 1 else None


flac_bits = _baseline("flac_bits_per_sample")
_RIVALS: tuple[tuple[str, Callable[[Record], float | None], bool], ...] = (
    ("FLAC", flac_bits, True),
    ("marginal entropy", marginal_entropy, False),
    ("entropy of single samples", _baseline("order0_bits_per_sample"), False),
)


def flac_share(run: Record) -> str | None:
    """The best validation as a share of FLAC's size; None where they were not of the same samples."""
    flac = flac_bits(run)
    if run.best is None or not flac or judged_by(run) != BITS or run.option("eval.max_batches") is not None:
        return None
    return f"{100 * run.best['value'] / flac:.1f} % of FLAC"


def judged_by(run: Record) -> str:
    """The validation figure whose least value marks the run's best checkpoint."""
    return run.option("eval.best_by") or (BITS if BITS in run.names("val") else "loss")


def rivals(run: Record) -> list[tuple[str, float]]:
    """What a run's bits per sample are compared with: (name, bits per sample)."""
    found = [(title, value_of(run)) for title, value_of, _ in _RIVALS]
    return [(title, value) for title, value in found if value is not None]


def place_chart(runs: Sequence[Record], name: str) -> str:
    """A figure by place (position in the window, codebook, ...): each run's first and last validation."""
    lines = []
    for number, run in enumerate(runs):
        measured = run.curves(name)
        chosen = measured[-1:] if len(measured) < 2 else [measured[0], measured[-1]]
        for step, values in chosen:
            points = [(float(place), value) for place, value in enumerate(values) if value is not None]
            look = "val" if step == measured[-1][0] and len(values) <= 64 else "train"
            look = "faint" if step != measured[-1][0] else look
            title = f"{run.name}, step {step}" if len(runs) > 1 else f"step {step}"
            lines.append(Line(name=title, points=points, run=number, look=look))
    note = "from the window's beginning to its end" if "position" in name else ""
    return chart(_title(name), lines, note=note, x_name="place")


def charts_of(runs: Sequence[Record], kind: str) -> str:
    """All charts of a kind, one after the other."""
    return "".join(figure_chart(runs, name) for name in names_of(runs, kind))
