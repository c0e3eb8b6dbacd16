"""The page of runs: what is on it, that it needs nothing else, and that it never costs a run."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from codes.trainer.environment import environment, record_environment, recorded_environments
from codes.trainer.model_card import model_card
from codes.trainer.report import charts, curves, options, page, record, sounds
from scripts import report as command

EVIL = "<script>alert('x')</script>&\"'"
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
VOID = {"meta", "img", "link", "br", "path"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path: Path, write_wav: Callable[..., None]) -> Callable[..., Path]:
    """A run's folder as the trainer leaves it: `make_run(name, bits=..., **options)`."""

    def make(name: str = "first", bits: float = 7.0, **options: Any) -> Path:
        folder = tmp_path / name
        values = {"name": name, "train": {"niter": 40}, "samples": {"prompt_frames": 300, "given_channel": None}}
        folder.mkdir(parents=True)
        (folder / "options.yml").write_text(yaml.safe_dump(values | options))
        lines: list[dict[str, Any]] = []
        for step in (10, 20, 30, 40):
            both = {"loss": 100 / step, "code_length": 100 / step}
            lines.append({"step": step, "split": "train", **both, "bits_per_sample": 16 - step / 5, "lr.net": 0.1,
                          "tokens_per_second": 1000.0 * step, "memory_bytes": 2**30})  # fmt: skip
            curve = [8.0, 7.0, None, 6.5]
            lines.append({"step": step, "split": "val", **both, "bits_per_sample": bits + 4 / step,
                          "code_length.bits_by_position": curve, "codec.codebook_usage": [0.5, 0.25]})  # fmt: skip
        write_lines(folder, lines)
        figures = {
            "flac_bits_per_sample": 7.55,
            "order0_bits_per_sample": 23.8,
            "num_samples": 1000,
            "flac_label": "FLAC",
        }
        (folder / "baselines.json").write_text(json.dumps({"data": {}, "figures": figures}))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "marks.json").write_text(
            json.dumps({"best": {"value": bits + 0.1, "step": 40}, "final": 40})
        )
        (folder / "log.txt").write_text("finished\n")
        for step, seed in ((20, 1), (40, 2)):
            for title, chosen in (("real", 0), ("model", seed)):
                noise = np.random.default_rng(chosen).integers(-3000, 3000, (900, 2))
                write_wav(folder / "samples" / f"step_{step:08d}" / f"0_{title}.wav", noise.astype(np.int32))
        return folder

    return make


def written(*runs: Path, **more: int) -> str:
    out = runs[0].parent / "page.html"
    assert page.write_report(list(runs), out, **more) == []
    return out.read_text(encoding="utf-8")


def test_a_page_is_whole_and_needs_nothing_else(make_run: Callable[..., Path]) -> None:
    text = written(make_run())
    parsed = Page(text)
    assert parsed.open == []
    anchors = {attrs["id"] for _, attrs in parsed.found if "id" in attrs}
    assert anchors >= {
        "overview",
        "sounds",
        "curves",
        "places",
        "codebooks",
        "updates",
        "speed",
        "table",
        "options",
        "log",
    }
    for tag, attrs in parsed.found:
        address = attrs.get("src") or attrs.get("href")
        assert address is None or address.startswith("data:") or address[1:] in anchors, tag
        assert not any(name.startswith("on") for name in attrs)
    policy = next(
        attrs["content"] for tag, attrs in parsed.found if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text


def test_the_headline_is_the_best_validation_beside_flac(make_run: Callable[..., Path]) -> None:
    run = make_run(bits=7.0)
    text = written(run)
    assert "94.0 % of FLAC" in model_card(record.read_run(run), record.read_run(run), 40)
    assert "7.100 <small>bits per sample, at step 40" in text
    assert "94.0 % of FLAC on the same samples" in text
    assert "FLAC 7.55" in text
    assert "entropy of single samples 23.8 ↑" in text  # named, but not squeezing the curves
    assert "40 of 40 steps" in text


def test_parts_of_the_validation_audio_are_not_compared(make_run: Callable[..., Path]) -> None:
    run = make_run(bits=7.0, eval={"max_batches": 2})
    assert "% of FLAC" not in written(run)
    assert "% of FLAC" not in model_card(record.read_run(run), record.read_run(run), 40)


def test_the_headline_is_of_what_marks_the_best(make_run: Callable[..., Path]) -> None:
    run = make_run(eval={"best_by": "code_length"})
    text = written(run)
    assert "7.100 <small>validation code length, at step 40" in text
    assert "% of FLAC" not in text
    assert "% of FLAC" not in model_card(record.read_run(run), record.read_run(run), 40)


def test_what_a_run_is_called_is_text(make_run: Callable[..., Path]) -> None:
    run = make_run("evil", plugins=[EVIL], note=EVIL)
    (run / "log.txt").write_text(EVIL)
    (run / "options.yml").write_text(yaml.safe_dump({"name": EVIL, "train": {"niter": EVIL}}))
    write_lines(run, [{"step": 1, "split": "train", EVIL: 1.0}, {"step": 2, "split": "val", EVIL: [1.0]}])
    record_environment(run, 0)
    (run / "environment.json").write_text(json.dumps([{"from_step": EVIL, EVIL: EVIL}]))
    text = written(run)
    assert "<script>alert" not in text
    assert [tag for tag, _ in Page(text).found].count("script") == 1
    assert EVIL in "".join(Page(text).text)


def test_several_runs_stand_side_by_side(make_run: Callable[..., Path]) -> None:
    one, other = make_run("one", seed=1, both=2), make_run("other", seed=2, both=2, more=True)
    rows = options.differing([record.read_run(one), record.read_run(other)])
    assert rows == [("seed", ["1", "2"]), ("more", ["not set", "true"])]
    text = written(one, other)
    assert "2 runs side by side" in text
    assert "<mark>seed: 2</mark>" in text
    assert "<mark>both: 2</mark>" not in text
    assert text.count(">real<") == 1  # the same audio stands once
    assert "one step 40, best" in text
    assert "other step 20" in text
    same = written(one, one)
    assert "have the same options" in same


def test_embedded_audio_is_the_very_samples(make_run: Callable[..., Path]) -> None:
    run = make_run()
    text = written(run)
    found = re.findall(r"data:audio/flac;base64,([^\"]+)", text)
    assert len(found) == 3  # real, and two steps
    pcm, rate = soundfile.read(io.BytesIO(base64.b64decode(found[0])), dtype="int16")
    real, real_rate = soundfile.read(run / "samples" / "step_00000040" / "0_real.wav", dtype="int16")
    assert rate == real_rate
    assert np.array_equal(pcm, real)
    assert 'class="prompt" style="width:33.33%"' in text
    assert text.count("data:image/webp") == 3


def test_long_sounds_are_mp3_and_too_long_ones_are_left_out(
    make_run: Callable[..., Path], write_wav: Callable[..., None]
) -> None:
    run = make_run()
    noise = np.random.default_rng(0).integers(-9000, 9000, (150_000, 2)).astype(np.int32)
    write_wav(run / "samples" / "step_00000040" / "0_model.wav", noise)
    assert "MP3 here; exact in" in written(run)
    nothing = sounds.Embedder(most_bytes=100)
    heard = sounds.excerpts([record.read_run(run)], nothing, most_steps=2, most_excerpts=1)
    assert all(sound.audio == "" and "too long for this page" in sound.note for sound in heard[0].made)
    assert all(sound.picture for sound in heard[0].made)


def test_a_broken_sound_is_named_and_the_rest_is_shown(make_run: Callable[..., Path]) -> None:
    run = make_run()
    broken = run / "samples" / "step_00000040" / "0_model.wav"
    broken.write_bytes(b"RIFF")
    problems = page.write_report([run], run / "report.html")
    assert len(problems) == 1
    assert str(broken) in problems[0]
    assert (run / "report.html").read_text().count("data:audio") == 2


def test_steps_are_spread_and_excerpts_limited(make_run: Callable[..., Path]) -> None:
    assert sounds.chosen_steps(list(range(0, 100, 10)), 4) == [0, 30, 60, 90]
    assert sounds.chosen_steps([5, 7], 4) == [5, 7]
    assert sounds.chosen_steps([5, 7], 1) == [7]
    assert "data:audio" not in written(make_run(), most_excerpts=0)


@pytest.mark.parametrize("broken", ["options.yml", "baselines.json", "checkpoints/marks.json", "environment.json"])
def test_what_is_broken_is_left_out(make_run: Callable[..., Path], broken: str) -> None:
    run = make_run()
    for content in (b"[", b"\xff\xfe\x00", b"[1]", b""):
        (run / broken).write_bytes(content)
        assert "bits per sample" in written(run)
    (run / broken).unlink()
    assert "bits per sample" in written(run)


def test_no_figures_yet(make_run: Callable[..., Path]) -> None:
    run = make_run()
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints" / "marks.json").unlink()
    assert "not validated yet" in written(run)


def test_parameters_are_counted_from_the_files(make_run: Callable[..., Path]) -> None:
    import torch

    from codes.trainer.checkpoint import save_checkpoint

    run = make_run()
    net = {"a": torch.zeros(3, 4), "b": torch.zeros(())}
    save_checkpoint(run / "checkpoints", 40, {"net": net, "net_ema": net}, {})
    assert record.read_run(run).parameters == {"net": 13}
    (run / "checkpoints" / "step_00000040" / "net.safetensors").write_bytes(b"\xff" * 64)  # a header of 2^64 bytes
    assert record.read_run(run).parameters == {}


def test_figures_are_sorted_by_what_they_tell(make_run: Callable[..., Path]) -> None:
    runs = [record.read_run(make_run())]
    assert curves.names_of(runs, "main") == ["bits_per_sample", "loss"]
    assert curves.names_of(runs, "losses") == []  # the only loss repeats the total
    assert curves.names_of(runs, "speed") == ["tokens_per_second", "memory_bytes"]
    assert curves.names_of(runs, "updates") == ["lr.net"]
    assert curves.kind_of("codec.codebook_perplexity") == "codebooks"
    assert curves.kind_of("code_length.bits_left_to_right") == "losses"


def test_ticks_are_round() -> None:
    assert charts.ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert charts.ticks(0.13, 0.17) == pytest.approx([0.13, 0.14, 0.15, 0.16, 0.17])
    assert charts.ticks(5, 5) == [5]
    assert len(charts.ticks(-3e-9, 7e12)) <= 6


def test_thinning_keeps_the_extremes() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[5000], points[7000] = (5000.0, 9.0), (7000.0, float("nan"))
    kept = charts.thinned(points)
    assert len(kept) <= charts.MOST_POINTS
    assert (5000.0, 9.0) in kept
    assert kept == sorted(kept)


def test_the_beginning_may_leave_the_picture() -> None:
    points = [(float(x), 100.0 if x < 5 else 2.0 + x / 100) for x in range(100)]
    text = charts.chart(
        "a", [charts.Line(name="a", points=points)], [charts.Level(name="flac", value=1.5, wanted=True)]
    )
    assert "begins at 100, above the picture" in text
    assert ">flac<" in text
    assert charts.chart("a", [charts.Line(name="a", points=[])]) == ""


def test_a_short_line_is_shown_whole() -> None:
    points = [(40.0, 7.8), (80.0, 7.334), (120.0, 7.331)]
    assert "above the picture" not in charts.chart("a", [charts.Line(name="a", points=points)])


@pytest.mark.parametrize("points", [[(1.0, 0.0)], [(1.0, 5.0), (2.0, 5.0)], [(1.0, -1e300), (2.0, 1e300)]])
def test_any_range_can_be_drawn(points: list[tuple[float, float]]) -> None:
    text = charts.chart("a", [charts.Line(name="a", points=points)])
    assert "nan" not in text
    assert "inf" not in text


def test_the_environment_is_recorded_once_until_it_changes(tmp_path: Path) -> None:
    record_environment(tmp_path, 0)
    record_environment(tmp_path, 10)
    assert [entry["from_step"] for entry in recorded_environments(tmp_path)] == [0]
    assert {"python", "package torch", "processor", "cores"} <= environment().keys()
    changed = recorded_environments(tmp_path)
    changed[0]["python"] = "2.7"
    (tmp_path / "environment.json").write_text(json.dumps(changed))
    record_environment(tmp_path, 10)
    assert [entry["from_step"] for entry in recorded_environments(tmp_path)] == [0, 10]


def test_the_command(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = make_run()
    assert command.main([str(run)]) == 0
    assert (run / "report.html").is_file()
    assert "report.html" in capsys.readouterr().out
    assert command.main([str(run), str(make_run("second"))]) == 0
    assert (tmp_path / "report.html").is_file()
    assert command.main([str(tmp_path / "nowhere")]) == 2
    assert "is no run: it has no options.yml and no metrics.jsonl" in capsys.readouterr().err
    assert command.main([str(run)] * 9) == 2
    assert "1 to 8 runs, got 9" in capsys.readouterr().err
    assert command.main([str(run), "--steps", "0"]) == 2


def test_a_page_never_costs_a_run(make_run: Callable[..., Path]) -> None:
    run = make_run()
    assert page.report_line(run) == f"report: {run / 'report.html'}"
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    assert page.report_line(run).startswith("no report page: ")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_script_runs_in_a_browser(make_run: Callable[..., Path], tmp_path: Path) -> None:
    written(make_run())
    address = (tmp_path / "page.html").as_uri()
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [str(BROWSER), *flags, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True
    )
    assert 'data-scripted="yes"' in done.stdout
    assert "CONSOLE" not in done.stderr


def test_a_finished_run_has_its_page(new_toy: Any, tmp_path: Path) -> None:
    trainer = new_toy(tmp_path).train()
    text = (trainer.folder.path / "report.html").read_text()
    assert "6 of 6 steps" in text
    assert "package torch" in text
    assert "report: " in (trainer.folder.path / "log.txt").read_text().splitlines()[-1]
