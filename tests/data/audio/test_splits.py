"""Train and validation: by file, folder, list or interval; nothing on both sides, nothing reshuffled by a new file."""

from pathlib import Path
from typing import Any

import pytest

from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.reader import AudioInfo
from codes.data.audio.splits import Split


def found(relative: str, seconds: int = 10) -> IndexEntry:
    info = AudioInfo(num_frames=8000 * seconds, sample_rate_hz=8000, bits=16, num_channels=2, format="WAV PCM_16")
    return IndexEntry(path=Path("/music") / relative, relative=relative, info=info)


FILES = [found(f"artist{number % 5}/track{number}.wav", 1 + number % 7) for number in range(40)]


def names(files: list[IndexEntry]) -> list[str]:
    return [file.relative for file in files]


@pytest.mark.parametrize("by", ["file", "folder"])
def test_sides_are_whole_and_near_the_share(by: Any):
    train, val = Split(by=by, val_fraction=0.25).files(FILES)
    assert sorted(names(train) + names(val)) == sorted(names(FILES))
    total = sum(file.seconds for file in FILES)
    assert abs(sum(file.seconds for file in val) / total - 0.25) < (0.03 if by == "file" else 0.15)
    if by == "folder":
        assert not {name.split("/")[0] for name in names(train)} & {name.split("/")[0] for name in names(val)}


@pytest.mark.parametrize("by", ["file", "folder"])
def test_a_new_file_reshuffles_nothing(by: Any):
    before = set(names(Split(by=by, val_fraction=0.3).files(FILES)[1]))
    after = set(names(Split(by=by, val_fraction=0.3).files([*FILES, found("new/one.wav")])[1]))
    assert len(before ^ after) <= (3 if by == "file" else 9), "at most what lies at the border changes sides"


def test_the_seed_decides_which():
    sides = {tuple(names(Split(seed=seed).files(FILES)[1])) for seed in range(5)}
    assert len(sides) > 1
    assert Split(seed=3).files(FILES) == Split(seed=3).files(FILES)


def test_files_in_no_folder_are_folders_of_their_own():
    files = [found("a.wav"), found("b.wav"), found("c/1.wav"), found("c/2.wav")]
    train, val = Split(by="folder", val_fraction=0.5).files(files)
    assert {"c/1.wav", "c/2.wav"} <= set(names(train)) or {"c/1.wav", "c/2.wav"} <= set(names(val))


def test_list_names_files_and_patterns(tmp_path: Path):
    listed = tmp_path / "val.txt"
    listed.write_text("# held out\nartist1/track1.wav\n\nartist2/*\n")
    train, val = Split(by="list", val_list=listed).files(FILES)
    assert set(names(val)) == {"artist1/track1.wav", *(name for name in names(FILES) if name.startswith("artist2/"))}
    assert set(names(train)) == set(names(FILES)) - set(names(val))
    listed.write_text("artist1/track1.wav\nartist9/*\n")
    with pytest.raises(ValueError, match=r"val\.txt:2: 'artist9/\*' is none of the 40 files found"):
        Split(by="list", val_list=listed).files(FILES)
    with pytest.raises(ValueError, match=r"val_list: .*none\.txt does not exist$"):
        Split(by="list", val_list=tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"val_list: .* is no file$"):
        Split(by="list", val_list=tmp_path)
    listed.write_bytes(b"\xff\xfe not text")
    with pytest.raises(ValueError, match=r"val_list: .*val\.txt cannot be read: .*utf-8"):
        Split(by="list", val_list=listed).files(FILES)


def test_names_with_brackets_and_hashes_are_taken_as_they_are(tmp_path: Path):
    listed = tmp_path / "val.txt"
    listed.write_text("a [live] #1.wav\n")
    files = [found("a [live] #1.wav"), found("b.wav")]
    assert names(Split(by="list", val_list=listed).files(files)[1]) == ["a [live] #1.wav"]


@pytest.mark.parametrize(("position", "expected"), [(0.5, (45, 10)), (0.0, (0, 10)), (1.0, (90, 10))])
def test_intervals_lie_where_they_are_asked_for(position: float, expected: tuple[int, int]):
    split = Split(by="interval", val_fraction=0.1, val_position=position)
    assert split.files(FILES) == (FILES, FILES)
    assert split.intervals(100, "val") == [expected]
    start, held = expected
    assert split.intervals(100, "train") == [(0, start), (start + held, 100 - start - held)]


@pytest.mark.parametrize("num_frames", [1, 7, 99, 100_003])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 1.0])
def test_intervals_share_no_frame_and_lose_none(num_frames: int, position: float):
    split = Split(by="interval", val_fraction=0.2, val_position=position)
    parts = split.intervals(num_frames, "train") + split.intervals(num_frames, "val")
    frames = [frame for start, count in parts for frame in range(start, start + count)]
    assert sorted(frames) == list(range(num_frames))


def test_all_or_nothing():
    assert Split(val_fraction=0.0).files(FILES) == (FILES, [])
    assert Split(val_fraction=1.0).files(FILES) == ([], FILES)
    assert Split(by="interval", val_fraction=0.0).files(FILES) == (FILES, [])
    assert Split(by="interval", val_fraction=0.0).intervals(9, "train") == [(0, 9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.5}, "val_fraction is 1.5, allowed are 0 to 1"),
        ({"val_position": -0.1}, "val_position is -0.1, allowed are 0"),
        ({"by": "list"}, "val_list: split: list needs val_list"),
        ({"val_list": Path("x")}, "val_list: split: file does not take val_list"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Split(**options)


def test_one_file_or_one_folder_cannot_be_divided():
    with pytest.raises(ValueError, match=r"split: one file cannot be divided .*a\.wav.*split: interval"):
        Split().files([found("a.wav")])
    with pytest.raises(ValueError, match=r"split: one folder \(c\) cannot be divided"):
        Split(by="folder").files([found("c/1.wav"), found("c/2.wav")])


@pytest.mark.parametrize("seed", range(5))
def test_sides_share_no_file_and_come_near_the_fraction(seed: int):
    files = [found(f"{number}.wav", 5 + number % 7) for number in range(200)]
    train, val = Split(seed=seed).files(files)
    assert not {file.path for file in train} & {file.path for file in val}
    assert sorted((*train, *val), key=files.index) == files
    share = sum(file.seconds for file in val) / sum(file.seconds for file in files)
    assert abs(share - 0.1) < 0.01


def test_of_few_files_one_is_on_each_side():
    long_and_short = [found("a.wav", 100), found("b.wav", 1)]
    for fraction in (0.001, 0.5, 0.999):
        for seed in range(4):
            train, val = Split(val_fraction=fraction, seed=seed).files(long_and_short)
            assert len(train) == len(val) == 1
