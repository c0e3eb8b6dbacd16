"""One page of one or several runs: everything in a single HTML file that is opened from the disk.

    write_report([Path("runs/stereo_lm")], Path("report.html"))

Nothing on it comes from a network: its policy forbids it. Text from the runs is escaped.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template

from codes.trainer.report.charts import bars, number_text
from codes.trainer.report.curves import BITS, charts_of, flac_share, judged_by, place_chart, rivals
from codes.trainer.report.options import differences_table, whole_text
from codes.trainer.report.record import Record, read_run
from codes.trainer.report.sounds import Embedder, Excerpt, Sound, excerpts

MOST_RUNS = 8  # that have a colour of their own
MOST_LOG_LINES = 400
_HERE = Path(__file__).parent
Section = tuple[str, str, str]  # (anchor, title, HTML)


def write_report(folders: Sequence[Path], out: Path, *, most_steps: int = 6, most_excerpts: int = 4) -> list[str]:
    """Write the page of some runs.

    Args:
        folders: the runs' folders.
        out: the HTML file.
        most_steps: with sounds, of each run: the last, the first and some between them.
        most_excerpts: of each run.

    Returns:
        what could not be shown, in lines.

    Raises:
        ReportError: a folder is no run.
        ValueError: there are no runs, or more than have a colour.
        OSError: the page cannot be written.
    """
    if not 1 <= len(folders) <= MOST_RUNS:
        raise ValueError(f"a page shows 1 to {MOST_RUNS} runs, got {len(folders)}")
    runs = [read_run(folder) for folder in folders]
    embedder = Embedder()
    heard = excerpts(runs, embedder, most_steps=most_steps, most_excerpts=most_excerpts)
    text = page(runs, heard)
    aside = out.with_name(f"{out.name}.tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside.write_text(text, encoding="utf-8", errors="replace")
    os.replace(aside, out)
    return embedder.problems


def report_line(folder: Path) -> str:
    """Write the page of a run that has finished; what it says of that. The run is whole, whatever happens here."""
    out = folder / "report.html"
    try:
        problems = write_report([folder], out)
    except Exception as error:  # a page is not worth a run
        return f"no report page: {type(error).__name__}: {' '.join(str(error).split())}"
    return f"report: {out}" + "".join(f"; not shown: {problem}" for problem in problems)


def page(runs: Sequence[Record], heard: Sequence[Excerpt]) -> str:
    """The page as text."""
    sections = [section for section in _sections(runs, heard) if section[2]]
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{html}</section>' for anchor, title, html in sections)
    navigation = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    title = " and ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs"
    return Template(_file("page.html")).substitute(
        title=escape(title), subtitle=escape(_subtitle(runs)), navigation=navigation, sections=body,
        style=_file("style.css"), script=_file("script.js"), footer=f"Written by Waveschool, {escape(now)}",
    )  # fmt: skip


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _subtitle(runs: Sequence[Record]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs side by side"
    run = runs[0]
    done = f"{run.steps:,} of {run.planned_steps:,} steps"
    return f"{run.folder}: {done}"


def _sections(runs: Sequence[Record], heard: Sequence[Excerpt]) -> Iterator[Section]:
    yield "overview", "Overview", f'<div class="cards">{"".join(_card(run, n) for n, run in enumerate(runs))}</div>'
    yield "sounds", "Sounds", _sounds(heard)
    main = charts_of(runs, "main")
    yield "curves", "Bits and loss", _grid(main, large=True)
    yield "losses", "Losses and other figures", _grid(charts_of(runs, "losses"))
    names = list(dict.fromkeys(name for run in runs for name in run.curve_names()))
    books = [name for name in names if any(word in name for word in ("codebook", "usage", "perplexity"))]
    yield "places", "By place", _grid("".join(place_chart(runs, name) for name in names if name not in books))
    usage = charts_of(runs, "codebooks") + "".join(place_chart(runs, name) for name in books)
    yield "codebooks", "Codebooks", _grid(usage)
    yield "updates", "Updates", _grid(charts_of(runs, "updates"))
    yield "speed", "Speed and memory", _grid(charts_of(runs, "speed"))
    yield "table", "Validation, step by step", "".join(_table(run) for run in runs)
    options = differences_table(runs) if len(runs) > 1 else ""
    options += "".join(whole_text(run, [other for other in runs if other is not run]) for run in runs if run.text)
    yield "options", "Options", options
    yield "environment", "Environment", "".join(_environment(run) for run in runs)
    yield "log", "Log", "".join(_log(run) for run in runs)


def _grid(charts: str, large: bool = False) -> str:
    return f'<div class="grid{" large" if large else ""}">{charts}</div>' if charts else ""


def _card(run: Record, number: int) -> str:
    """What came out of a run, at a glance."""
    facts = _facts(run)
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return (
        f'<article class="card"><h3><i class="swatch run-{number}"></i>{escape(run.name)}</h3>'
        f'<div class="folder">{escape(str(run.folder))}</div><div class="body"><div>{_headline(run, number)}</div>'
        f'<dl class="facts">{listed}</dl></div></article>'
    )


def _headline(run: Record, number: int) -> str:
    """The best validation, and the bars of what it is compared with."""
    if run.best is None:
        return '<p class="headline"><small>not validated yet</small></p>'
    value, step = run.best["value"], int(run.best["step"])
    judge = judged_by(run)
    unit = "bits per sample" if judge == BITS else f"validation {judge.replace('_', ' ')}"
    text = f'<p class="headline">{value:.3f} <small>{escape(unit)}, at step {step:,}</small></p>'
    if judge != BITS:
        return text
    share = flac_share(run)
    if share:
        text += f"<p>{share} on the same samples</p>"
    found = rivals(run)
    rows = [(run.name, value, f"run-{number}"), *((name, bits, "") for name, bits in found)]
    return text + (bars(rows, "bits per sample") if found else "")


def _facts(run: Record) -> list[tuple[str, str]]:
    facts = [("steps", f"{run.steps:,} of {run.planned_steps:,}")]
    facts += [(f"network {name}", f"{count:,} parameters") for name, count in run.parameters.items()]
    train = run.option("datasets.train", {})
    if isinstance(train, dict) and train:
        facts.append(("data", f"{train.get('mode')}: {train.get('path', '')}, batches of {train.get('batch_size')}"))
    speeds = sorted(value for _, value in run.series("train", "tokens_per_second"))
    if speeds:
        facts.append(("speed", f"{number_text(speeds[len(speeds) // 2])} tokens a second (median)"))
    samples = run.baselines.get("num_samples")
    if isinstance(samples, int):
        facts.append(("judged on", f"{samples:,} samples; {run.baselines.get('flac_label', 'FLAC')}"))
    return facts


_PLAY = (
    '<svg class="play" viewBox="0 0 12 12"><path d="M2.5 1v10l8-5z"/></svg>'
    '<svg class="pause" viewBox="0 0 12 12"><path d="M2 1h3v10H2zM7 1h3v10H7z"/></svg>'
)


def _sounds(heard: Sequence[Excerpt]) -> str:
    shown = [excerpt for excerpt in heard if excerpt.real or excerpt.made]
    if not shown:
        return ""
    text = "<p class=note>Click a picture to play from there. Left of a dashed line is what the model was given.</p>"
    for number, excerpt in enumerate(shown, 1):
        figures = "".join(_sound(sound) for sound in [*excerpt.real, *excerpt.made])
        text += f'<h3>Excerpt {number}</h3><div class="sounds">{figures}</div>'
    return text


def _sound(sound: Sound) -> str:
    look = "real" if sound.run is None else f"run-{sound.run}"
    prompt = f'<i class="prompt" style="width:{sound.prompt_share:.2%}"></i>' if sound.prompt_share else ""
    label = escape(sound.title)
    button = audio = ""
    if sound.audio:
        button = f'<button type="button" class="{look}" aria-label="play {label}" aria-pressed="false">{_PLAY}</button>'
        audio = f'<audio controls preload="none" src="{sound.audio}"></audio>'
    note = f'<p class="note">{escape(sound.note)}</p>' if sound.note else ""
    return (
        f'<figure class="sound {"real" if sound.run is None else ""}"><figcaption>{button}<b>{label}</b>'
        f'<time>{sound.seconds:.2f} s</time></figcaption><div class="picture"><img alt="spectrogram of {label}" '
        f'src="{sound.picture}">{prompt}<i class="head"></i></div>{audio}{note}</figure>'
    )


def _table(run: Record) -> str:
    """All validation figures that are numbers."""
    names = run.names("val")
    if not names:
        return ""
    columns = {name: dict(run.series("val", name)) for name in names}
    steps = sorted({step for column in columns.values() for step in column})
    head = "".join(f"<th>{escape(name)}</th>" for name in ("step", *names))
    body = ""
    for step in steps:
        cells = [f"{step:,}", *(f"{columns[name][step]:.5g}" if step in columns[name] else "" for name in names)]
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    table = f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
    return f"<details><summary>{escape(run.name)}: {len(steps)} validations</summary>{table}</details>"


def _environment(run: Record) -> str:
    text = ""
    for entry in run.environments:
        rows = "".join(
            f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>"
            for key, value in entry.items()
            if key != "from_step"
        )
        since = entry.get("from_step", 0)
        title = f"{run.name}, from step {since}" if since or len(run.environments) > 1 else run.name
        text += f'<h3>{escape(title)}</h3><div class="scroll"><table>{rows}</table></div>'
    return text


def _log(run: Record) -> str:
    if not run.log:
        return ""
    lines = run.log[-MOST_LOG_LINES:]
    left = len(run.log) - len(lines)
    head = f"... {left:,} lines before\n" if left else ""
    text = escape(head + "\n".join(lines))
    return f"<details><summary>{escape(run.name)}: log.txt</summary><pre>{text}</pre></details>"
