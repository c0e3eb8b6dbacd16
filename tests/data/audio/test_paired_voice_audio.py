"""paired_voice_audio: keys and shapes, every form of metadata, conditioning, what is left out, and bad input."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codes.data.audio import preview
from codes.data.audio.paired_voice_audio import PairedVoiceAudioDataset
from codes.data.audio.reader import AudioReadError
from codes.data.audio.transcripts.rows import TranscriptError
from codes.data.dataset import SKIPPED
from codes.data.loader import Loader
from codes.data.text.tokenizer import BpeTokenizer
from tests.data.audio import speech_corpora as corpora

COMMON: dict[str, Any] = {"sample_rate": corpora.RATE_HZ, "max_wav_length": 9000, "max_text_length": 60}
CONDITIONED = {**COMMON, "load_conditioning": True, "num_conditioning_candidates": 2, "conditioning_length": 3000}


def paired(path: Any, **options: Any) -> PairedVoiceAudioDataset:
    return PairedVoiceAudioDataset(path=path, **{**COMMON, **options})


def item(data: PairedVoiceAudioDataset, index: int, seed: int = 0) -> dict[str, Any]:
    return data.item(index, np.random.default_rng(seed))


def texts(data: PairedVoiceAudioDataset) -> list[str]:
    return [item(data, index)["real_text"] for index in range(len(data))]


@pytest.mark.parametrize("name", ["", "metadata.csv"])
def test_lj_speech_as_downloaded(tmp_path: Path, name: str):
    pcm = corpora.lj(tmp_path)
    corpora.write(tmp_path / "wavs" / "LJ009-0001.wav")
    data = paired(tmp_path / name, **CONDITIONED)
    assert len(data) == 4
    assert texts(data) == list(corpora.TEXTS)
    made = item(data, 1)
    assert set(made) == set(PairedVoiceAudioDataset.provided_keys(CONDITIONED))
    expected = pcm["LJ001-0001.wav"].astype(np.float32) / 32768
    assert made["wav"].shape == (1, 9000)
    assert made["wav"].dtype == np.float32
    np.testing.assert_array_equal(made["wav"][:, : made["wav_lengths"]], expected)
    assert not made["wav"][:, made["wav_lengths"] :].any()
    tokens = BpeTokenizer().encode(made["real_text"])
    assert made["padded_text"].tolist() == tokens + [0] * (60 - len(tokens))
    assert made["text_lengths"] == len(tokens)
    assert made["filenames"].endswith("LJ001-0001.wav")
    assert made["conditioning"].shape == (2, 1, 3000)
    assert "recordings without text: 1 (LJ009-0001.wav)" in data.report()
    note = "conditioning clips come from the same of 1 speakers, or folders where the metadata names none"
    assert note in data.report()


def test_lj_speech_in_another_format(tmp_path: Path):
    corpora.lj(tmp_path, ("so.", "on."))
    for path in sorted((tmp_path / "wavs").iterdir()):
        corpora.write(path.with_suffix(".flac"))
        path.unlink()
    assert [Path(item(paired(tmp_path), index)["filenames"]).suffix for index in range(2)] == [".flac"] * 2


def test_batches_have_the_shapes_of_dlas(tmp_path: Path):
    corpora.lj(tmp_path)
    loader = Loader(paired(tmp_path, **CONDITIONED), 4, seed=0, endless=True)
    batch = loader.next()
    shapes = {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert shapes["wav"] == (4, 1, 9000)
    assert shapes["padded_text"] == (4, 60)
    assert shapes["conditioning"] == (4, 2, 1, 3000)
    assert shapes["wav_lengths"] == shapes["text_lengths"] == shapes["conditioning_contains_self"] == (4,)
    assert shapes["conditioning_lengths"] == (4, 2)
    assert isinstance(batch["filenames"], list)
    assert batch["padded_text"].dtype == batch["wav_lengths"].dtype == torch.int64


def test_an_item_follows_from_the_generator_alone(tmp_path: Path):
    corpora.lj(tmp_path)
    data = paired(tmp_path, **CONDITIONED)
    again = pickle.loads(pickle.dumps(data))
    for key, value in item(data, 2, seed=7).items():
        np.testing.assert_array_equal(value, item(again, 2, seed=7)[key])
    assert any((item(data, 2, seed=7)["conditioning"] != item(data, 2, seed=n)["conditioning"]).any() for n in range(5))


def forms(root: Path) -> dict[str, Any]:
    """Mode -> the path of a small corpus in that form, with texts "text 0." and so on."""
    corpora.write(root / "list" / "clips" / "a.wav", seed=1)
    corpora.write(root / "list" / "clips" / "b.wav", seed=2)
    made = {
        "lj": corpora.listed(root / "list", ["clips/a.wav|text one.", "clips\\b.wav|text two.|x"]),
        "tsv": corpora.listed(
            root / "list", ["text one.\tclips/a.wav\t[1, 2]", "text two.\tclips/b.wav\t3 4"], "a.tsv"
        ),
        "jsonl": corpora.json_lines(
            root / "list",
            [{"audio": "clips/a.wav", "text": "text one."}, {"audio_filepath": "clips/b.wav", "text": "text two."}],
        ),
    }
    for number, word in enumerate(("one", "two")):
        name = f"19_198_00000{number}_000000"
        corpora.write(root / "LibriTTS/train-clean-100/19/198" / f"{name}.wav", seed=number)
        (root / "LibriTTS/train-clean-100/19/198" / f"{name}.normalized.txt").write_text(f"text {word}.")
    corpora.write(root / "LibriTTS/train-clean-100/19/198/19_198_000009_000000.wav")
    made["libritts"] = root / "LibriTTS"
    for number in range(2):
        corpora.write(root / "cv" / "clips" / f"cv_{number}.mp3", seed=number)
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes"
    rows = ["abc\tcv_0.mp3\t1\ttext one.\t2", "abc\tcv_1\t2\ttext two.\t2"]
    corpora.listed(root / "cv", [header, *rows], "train.tsv")
    corpora.listed(root / "cv", [header, rows[0].replace("one", "of dev")], "dev.tsv")
    made["mozilla_cv"] = root / "cv"
    corpora.write(root / "vp" / "2009" / "20090112-0900-en.ogg")
    corpora.write(root / "vp" / "2010" / "20100112-0900-en.ogg.wav")
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender"
    rows = ["20090112-0900-en\t\ttext one.\t7\ttrain\tmale", "20100112-0900-en\ttext two.\tx\t7\ttrain\tmale"]
    corpora.listed(root / "vp", [header, *rows], "asr_train.tsv")
    made["voxpopuli"] = root / "vp"
    return made


def test_every_form_of_metadata(tmp_path: Path):
    for mode, path in forms(tmp_path).items():
        data = paired(path, fetcher_mode=mode)
        assert sorted(texts(data)) == ["text one.", "text two."], mode
        assert all(item(data, index)["wav"].any() for index in range(2))
    assert texts(paired(tmp_path / "cv", fetcher_mode="mozilla_cv", phase="val")) == ["text of dev."]
    assert paired(tmp_path / "vp", fetcher_mode="voxpopuli").row(0).speaker == "7"
    report = paired(tmp_path / "LibriTTS", fetcher_mode="libritts").report()
    assert "recordings without text: 1 (19_198_000009_000000.wav)" in report


def test_several_paths_and_modes(tmp_path: Path):
    made = forms(tmp_path)
    data = paired([made["libritts"], made["voxpopuli"]], fetcher_mode=["libritts", "voxpopuli"], types=[3, 5])
    assert sorted(item(data, index)["type"] for index in range(4)) == [3, 3, 5, 5]
    with pytest.raises(TranscriptError, match="2 modes for 1 paths: give one, or one for each"):
        paired([made["lj"]], fetcher_mode=["lj", "tsv"])
    with pytest.raises(ValueError, match="types has 1 numbers for 2 paths"):
        paired([made["lj"], made["lj"]], types=[1])


def test_aligned_codes(tmp_path: Path):
    data = paired(forms(tmp_path)["tsv"], fetcher_mode="tsv", load_aligned_codes=True, aligned_codes_ratio=1000)
    assert [item(data, index)["aligned_codes"].tolist() for index in range(2)] == [[1, 2] + [0] * 7, [3, 4] + [0] * 7]
    keys = PairedVoiceAudioDataset.provided_keys({"load_aligned_codes": True})
    assert set(item(data, 0)) == set(keys)
    with pytest.raises(ValueError, match=r"none of the 2 recordings can be taken; left out: 2 without codes, or with"):
        paired(forms(tmp_path)["lj"], load_aligned_codes=True)


def test_conditioning_is_another_clip_of_the_speaker(tmp_path: Path):
    records = []
    for number in range(6):
        records.append({"audio": f"{number}.wav", "text": "so.", "speaker": f"s{number % 2}"})
        constant = np.full((1, 6000), (number + 1) * 1000, np.int16)
        corpora.write(tmp_path / f"{number}.wav")
        import soundfile

        soundfile.write(tmp_path / f"{number}.wav", constant.T, corpora.RATE_HZ)
    path = corpora.json_lines(tmp_path, records)
    data = paired(path, fetcher_mode="jsonl", **CONDITIONED)
    for index in range(6):
        for seed in range(8):
            made = item(data, index, seed)
            heard = {round(float(value) * 32768 / 1000) - 1 for value in made["conditioning"][:, 0, 0]}
            own = int(Path(made["filenames"]).stem)
            assert heard == {number for number in range(6) if number % 2 == own % 2 and number != own}
            assert made["conditioning_contains_self"] is False
    asked = paired(path, fetcher_mode="jsonl", **CONDITIONED, conditioning_self=True)
    assert any(item(asked, 0, seed)["conditioning_contains_self"] for seed in range(8))


def test_similarities_decide_where_they_are(tmp_path: Path):
    corpora.lj(tmp_path)
    torch.save({"LJ001-0000.wav": ["LJ001-0003.wav", "elsewhere.wav"]}, tmp_path / "wavs" / "similarities.pth")
    data = paired(tmp_path, **CONDITIONED)
    other = item(data, 3)["wav"][0]
    clips = item(data, 0)["conditioning"][:, 0]
    assert all(any((other[at : at + 3000] == clip).all() for at in range(6500)) for clip in clips)
    torch.save([1], tmp_path / "wavs" / "similarities.pth")
    with pytest.raises(ValueError, match=r"similarities.pth must map file names to lists of file names"):
        paired(tmp_path, **CONDITIONED)


def test_a_speaker_of_one_clip_is_left_out_unless_it_may_stand_for_itself(tmp_path: Path):
    for name in ("a", "b", "c"):
        corpora.write(tmp_path / f"{name}.wav")
    records = [{"audio": f"{name}.wav", "text": "so.", "speaker": s} for name, s in (("a", 1), ("b", 1), ("c", 2))]
    path = corpora.json_lines(tmp_path, records)
    data = paired(path, fetcher_mode="jsonl", **CONDITIONED)
    assert len(data) == 2
    assert any("without another clip of the speaker" in line and "c.wav" in line for line in data.report())
    itself = paired(path, fetcher_mode="jsonl", **CONDITIONED, conditioning_self=True)
    assert item(itself, 2)["conditioning_contains_self"] is True
    alone = corpora.json_lines(tmp_path, records[2:], "alone.jsonl")
    with pytest.raises(
        ValueError, match=r"all 1 clips are without another clip of the speaker .conditioning_self: true"
    ):
        paired(alone, fetcher_mode="jsonl", **CONDITIONED)


def test_what_is_left_out_is_counted_by_reason_with_file_and_row(tmp_path: Path):
    spoken = ("good.", "café <b>", "", "word " * 40, "long.", "short.", "good too.")
    lengths = (8000, 8000, 8000, 8000, 9001, 4000, 9000)
    corpora.lj(tmp_path, spoken, lengths)
    (tmp_path / "metadata.csv").write_text(
        (tmp_path / "metadata.csv").read_text().replace("|raw |", "||").replace("raw caf", "caf"), encoding="utf-8"
    )
    data = paired(tmp_path)
    assert texts(data) == ["good.", "good too."]
    assert data.left_out.counts == {
        "with characters that the tokenizer does not know": 1,
        "with an empty text": 1,
        "with a text of more than 60 tokens": 1,
        "longer than 9000 samples, 1.12 seconds": 1,
        "shorter than 0.6 seconds": 1,
    }
    report = "\n".join(data.report())
    assert f"left out: 1 with an empty text ({tmp_path / 'metadata.csv'}:3)" in report
    assert f"left out: 1 longer than 9000 samples, 1.12 seconds ({tmp_path / 'metadata.csv'}:5)" in report
    unknown = "left out: 1 with characters that the tokenizer does not know"
    assert f"{unknown} ({tmp_path / 'metadata.csv'}:2)" in report
    assert "characters that the tokenizer does not know, with their number: '<' 1, '>' 1" in report


def test_stretches_of_long_files(tmp_path: Path):
    """NeMo's offset and duration: several clips of one file, each with its own text, at the dataset's rate."""
    pcm = corpora.write(tmp_path / "long.wav", 24_000)
    records = [
        {"audio_filepath": "long.wav", "text": "one.", "offset": 0.0, "duration": 1.0, "speaker": "a"},
        {"audio_filepath": "long.wav", "text": "two.", "offset": 1.25, "duration": 0.75, "speaker": "b"},
        {"audio_filepath": "long.wav", "text": "rest.", "offset": 2.25, "speaker": "a"},
        {"audio_filepath": "long.wav", "text": "short.", "offset": 2.0, "duration": 0.1, "speaker": "a"},
        {"audio_filepath": "long.wav", "text": "again.", "offset": 1.25, "duration": 0.5, "speaker": "a"},
    ]
    path = corpora.json_lines(tmp_path, records)
    data = paired(path, fetcher_mode="jsonl")
    assert texts(data) == ["one.", "two.", "rest."]
    for index, (start, stop) in enumerate(((0, 8000), (10_000, 16_000), (18_000, 24_000))):
        made = item(data, index)
        assert made["wav_lengths"] == stop - start
        np.testing.assert_array_equal(made["wav"][0, : stop - start] * 32768, pcm[0, start:stop])
        assert not made["wav"][0, stop - start :].any()
    assert [data.row(index).speaker for index in range(3)] == ["a", "b", "a"]
    assert f"left out: 1 shorter than 0.6 seconds ({path}:4)" in data.report()
    assert f"left out: 1 whose recording an earlier row has ({path}:5)" in data.report()
    moved = corpora.json_lines(tmp_path / "moved", [record | {"audio_filepath": "../long.wav"} for record in records])
    same = paired(moved, fetcher_mode="jsonl").fingerprint()["text"]
    assert same == data.fingerprint()["text"]
    records[2]["offset"] = 2.0
    changed = corpora.json_lines(tmp_path, records, "changed.jsonl")
    assert paired(changed, fetcher_mode="jsonl").fingerprint()["text"] != same
    twice = paired(path, fetcher_mode="jsonl", sample_rate=16_000, max_wav_length=20_000)
    assert [item(twice, index)["wav_lengths"] for index in range(3)] == [16_000, 12_000, 12_000]
    with_voice = paired(path, fetcher_mode="jsonl", load_conditioning=True, conditioning_length=6000)
    assert texts(with_voice) == ["one.", "rest."]  # of speaker a; of b there is one clip only
    voice = item(with_voice, 0)["conditioning"][0, 0] * 32768
    np.testing.assert_array_equal(voice, pcm[0, 18_000:24_000])


def test_voxpopuli_as_the_hub_has_it(tmp_path: Path):
    """data/LANGUAGE/asr_SPLIT.tsv, and the recordings in SPLIT/SPLIT_part_N.tar.gz, unpacked there."""
    folder = tmp_path / "data" / "en"
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent"
    for split, name in (("train", "20180613-0900-PLENARY-15-en_1"), ("dev", "20180613-0900-PLENARY-15-en_2")):
        row = f"{name}\tRaw {split}.\traw {split}\t96725\t{split}\tmale\tTrue\tNone"
        corpora.listed(folder, [header, row], f"asr_{split}.tsv")
    corpora.listed(folder / "train", ["an archive"], "train_part_0.tar.gz")
    with pytest.raises(TranscriptError, match=r"no recording is unpacked; unpack .*train_part_0.tar.gz and the others"):
        paired(tmp_path, fetcher_mode="voxpopuli")
    corpora.write(folder / "train" / "train_part_0" / "20180613-0900-PLENARY-15-en_1.wav")
    corpora.write(folder / "dev" / "dev_part_0" / "20180613-0900-PLENARY-15-en_2.wav", seed=1)
    for path in (tmp_path, folder, folder / "asr_train.tsv"):
        data = paired(path, fetcher_mode="voxpopuli")
        assert texts(data) == ["Raw train."]
        assert data.row(0).speaker == "96725"
    assert texts(paired(tmp_path, fetcher_mode="voxpopuli", phase="val")) == ["Raw dev."]
    corpora.listed(tmp_path / "data" / "de", [header], "asr_train.tsv")
    with pytest.raises(TranscriptError, match=r"several languages: give .*data/ and one of de, en"):
        paired(tmp_path, fetcher_mode="voxpopuli")


def test_nothing_left_says_why(tmp_path: Path):
    corpora.lj(tmp_path, ("a.", "b."), (9001, 9500))
    with pytest.raises(
        ValueError, match=r"none of the 2 recordings can be taken; left out: 2 longer than 9000 samples"
    ):
        paired(tmp_path)


@pytest.mark.parametrize(
    ("mode", "line", "message"),
    [
        ("lj", "clips/a.wav", r"train.txt:2: has 1 column\(s\) between |, needs path|text or id|text|text"),
        ("lj", "clips/no.wav|text", r"train.txt:2: .*no.wav does not exist, of 2; on_error: skip leaves such rows"),
        ("tsv", "text\ttrain.txt", "train.txt:2: .*train.txt is no audio file by its name, of 2"),
        ("tsv", "text", "train.txt:2: has 1 column between tabs, needs text and path"),
        ("jsonl", '{"audio": "clips/a.wav"', "train.txt:2: is not JSON"),
        ("jsonl", '{"audio": "clips/a.wav"}', "train.txt:2: has no text: needs one of text, sentence"),
        ("jsonl", '{"text": "a"}', "train.txt:2: has no audio: needs one of audio, audio_filepath"),
        ("jsonl", '{"audio": 3, "text": "a"}', "train.txt:2: audio and text must be text, got 3 and 'a'"),
        ("jsonl", '{"audio": "a", "text": "a", "codes": [-1]}', "train.txt:2: codes must be a list of whole numbers"),
        (
            "jsonl",
            '{"audio": "clips/a.wav", "text": "a", "offset": 2}',
            "train.txt:2: ends at 2 s, but .*a.wav has 1.0",
        ),
        (
            "jsonl",
            '{"audio": "clips/a.wav", "text": "a", "offset": 0.5, "duration": 0.7}',
            "train.txt:2: ends at 1.2 s, but .*a.wav has 1.00 s, of 2",
        ),
        ("jsonl", '{"audio": "a", "text": "a", "offset": -1}', "train.txt:2: offset must be a number of seconds, 0 or"),
        (
            "jsonl",
            '{"audio": "a", "text": "a", "offset": "1"}',
            "train.txt:2: offset must be a number of seconds, 0 or",
        ),
        (
            "jsonl",
            '{"audio": "a", "text": "a", "offset": 0, "duration": 0}',
            "train.txt:2: duration must be a number of seconds, above 0, got 0",
        ),
        ("jsonl", "[1]", "train.txt:2: is a JSON list, needs an object"),
    ],
)
def test_bad_rows_are_errors_or_counted(tmp_path: Path, mode: Any, line: str, message: str):
    first = {"lj": "clips/a.wav|so.", "tsv": "so.\tclips/a.wav", "jsonl": '{"audio": "clips/a.wav", "text": "so."}'}
    corpora.write(tmp_path / "clips" / "a.wav")
    path = corpora.listed(tmp_path, [first[mode], line])
    with pytest.raises(TranscriptError, match=message):
        paired(path, fetcher_mode=mode)
    data = paired(path, fetcher_mode=mode, on_error="skip")
    assert len(data) == data.num_errors == 1
    assert any("train.txt:2" in line and line.startswith("left out: ") for line in data.report())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "none.csv"}, "path: none.csv does not exist: give a metadata file or a folder"),
        ({"path": "."}, "is a folder without metadata.csv or LJSpeech-1.1/metadata.csv .fetcher_mode lj"),
        ({"path": "a.jsonl"}, "has no recording with text .fetcher_mode lj.*by its name it is fetcher_mode: jsonl"),
        ({"path": "bad.csv"}, "bad.csv:2: is not UTF-8: invalid start byte at byte 1"),
        (
            {"path": "cv.tsv", "fetcher_mode": "mozilla_cv"},
            "cv.tsv:1: has no column sentence: the first line names path",
        ),
        ({"path": "empty.tsv", "fetcher_mode": "mozilla_cv"}, "empty.tsv is empty"),
        ({"split": "interval"}, "split: interval would cut recordings, which are items"),
        ({"tokenizer_vocab": Path("none.json")}, "tokenizer_vocab: none.json cannot be read: No such file"),
        ({"tokenizer_vocab": Path("a.jsonl")}, "tokenizer_vocab: a.jsonl is not a tokenizer of the tokenizers library"),
        ({"tokenizer_vocab": Path("a.jsonl"), "use_bpe_tokenizer": False}, "its characters have no file"),
    ],
)
def test_bad_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str):
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"audio": "a.wav", "text": "so."}\n')
    Path("bad.csv").write_bytes(b"a|b\na\xff|b\n")
    Path("cv.tsv").write_text("path\tage\n")
    Path("empty.tsv").write_text("\n")
    with pytest.raises(ValueError, match=message):
        paired(**{"path": "a.jsonl", **options})


def test_divided_by_file_and_by_speaker(tmp_path: Path):
    corpora.lj(tmp_path, tuple(f"text {word}." for word in ("one", "two", "three", "four", "five", "six")))
    sides = [texts(paired(tmp_path, val_fraction=0.3, phase=phase)) for phase in ("train", "val")]
    assert len(sides[0]) + len(sides[1]) == 6
    assert not set(sides[0]) & set(sides[1])
    assert len(texts(paired(tmp_path, phase="val"))) == 6
    records = [{"audio": f"wavs/LJ001-000{n}.wav", "text": f"{'abcdef'[n]}.", "speaker": n // 2} for n in range(6)]
    path = corpora.json_lines(tmp_path, records)
    how: dict[str, Any] = {"fetcher_mode": "jsonl", "split": "folder", "val_fraction": 0.3}
    train, val = (paired(path, **how, phase=phase) for phase in ("train", "val"))
    speakers = [{data.row(number).speaker for number in range(len(data))} for data in (train, val)]
    assert speakers[0] | speakers[1] == {"0", "1", "2"}
    assert not speakers[0] & speakers[1]


def test_validation_on_so_much_audio(tmp_path: Path):
    corpora.lj(tmp_path)
    data = paired(tmp_path, phase="val", val_seconds=2.1)
    assert texts(data) == [corpora.TEXTS[0], corpora.TEXTS[3]]
    assert "validates on 2 of 4 clips, as val_seconds says" in data.report()
    assert len(paired(tmp_path, phase="val", val_seconds=99.0)) == len(paired(tmp_path, val_seconds=2.1)) == 4


def test_a_file_that_breaks_later_is_skipped_in_training_if_asked(tmp_path: Path):
    corpora.lj(tmp_path)
    data = paired(tmp_path, on_error="skip")
    (tmp_path / "wavs" / "LJ001-0002.wav").write_bytes(b"gone")
    made = item(data, 2)
    assert not made["filenames"].endswith("LJ001-0002.wav")
    assert "LJ001-0002.wav" in made[SKIPPED][0][0]
    assert item(data, 1)[SKIPPED] == []
    failing = paired(tmp_path.joinpath("metadata.csv"), on_error="skip", phase="val")
    assert len(failing) == 3
    strict = pickle.loads(pickle.dumps(data))
    strict.on_error = "fail"
    with pytest.raises(AudioReadError, match="LJ001-0002"):
        item(strict, 2)
    with pytest.raises(IndexError):
        item(data, 4)
    for path in (tmp_path / "wavs").iterdir():
        path.write_bytes(b"gone")
    with pytest.raises(AudioReadError, match="21 items in a row could not be read; the last: "):
        item(data, 0)


def test_other_rates_channels_and_floats(tmp_path: Path):
    import soundfile

    tone = np.sin(np.arange(16_000) * 0.05)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1) * 0.5, 16_000, subtype="FLOAT")
    data = paired(corpora.listed(tmp_path, ["a.wav|so."]))
    made = item(data, 0)
    assert made["wav_lengths"] == 8000
    np.testing.assert_allclose(made["wav"][0, 200:7800], tone[400:15600:2] * 0.5, atol=1e-3)


def test_the_data_is_known_again_by_text_and_tokenizer(tmp_path: Path):
    corpora.lj(tmp_path)
    first = paired(tmp_path).fingerprint()
    assert paired(tmp_path).fingerprint() == first
    characters = paired(tmp_path, use_bpe_tokenizer=False).fingerprint()
    assert characters != first
    assert paired(tmp_path, use_bpe_tokenizer=False, text_cleaners="none").fingerprint() != characters
    (tmp_path / "metadata.csv").write_text((tmp_path / "metadata.csv").read_text().replace("so on", "so far"))
    assert paired(tmp_path).fingerprint() != first


def test_as_a_module(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.02)
    corpora.lj(tmp_path)
    out = tmp_path / "picture.png"
    options = ["--sample-rate", "8000", "--max-wav-length", "9000", "--load-conditioning", "--fetcher-mode", "[lj]"]
    preview.main("paired_voice_audio", ["--path", str(tmp_path), *options, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "conditioning                (1, 1, 44100)  float32" in printed
    assert "wav                         (1, 9000)      float32" in printed
    assert out.exists()
