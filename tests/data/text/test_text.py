"""Numbers and cleaners, the tokenizers, and the command that makes one."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from codes.data.text import tokenizer
from codes.data.text.cleaners import clean
from codes.data.text.english_numbers import cardinal, ordinal, spell_numbers
from codes.data.text.tokenizer import BpeTokenizer, CharacterTokenizer, TokenizerError, unknown_report
from codes.data.text.tokenizer_training import train_tokenizer
from scripts import train_tokenizer as command

OWN_TEXT = tokenizer.OWN_TOKENIZER.with_name("english_public_domain.txt")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (90, "ninety"),
        (342, "three hundred forty-two"),
        (1234, "one thousand, two hundred thirty-four"),
        (1_000_001, "one million one"),
        (20_000_300, "twenty million, three hundred"),
        (10**29, "one hundred octillion"),
    ],
)
def test_cardinals(number: int, words: str):
    assert cardinal(number) == words


def test_numbers_without_a_name():
    for number in (-1, 10**30):
        with pytest.raises(ValueError, match="allowed are 0 to 10"):
            cardinal(number)


def test_ordinals():
    words = [ordinal(number) for number in (1, 2, 3, 5, 8, 9, 12, 20, 21, 100, 1001)]
    assert words == [
        *("first", "second", "third", "fifth", "eighth", "ninth", "twelfth", "twentieth", "twenty-first"),
        *("one hundredth", "one thousand first"),
    ]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("in 1905, 2000, 2005 and 2021", "in nineteen oh five, two thousand, two thousand five and twenty twenty-one"),
        ("1100 or 3,000", "eleven hundred or three thousand"),
        ("3.14 and 0.05", "three point one four and zero point zero five"),
        ("the 21st of 2nd", "the twenty-first of second"),
        ("$1 $3.50 $0.01 £2 €1.5", "one dollar three dollars, fifty cents one cent two pounds one euro, fifty cents"),
        ("£1.02 and $0", "one pound, two pence and zero dollars"),
        ("007", "zero zero seven"),
        (f"1{'0' * 30}", " ".join(["one", *["zero"] * 30])),
        ("no figure", "no figure"),
    ],
)
def test_numbers_in_text(text: str, spoken: str):
    assert spell_numbers(text) == spoken


@pytest.mark.parametrize(
    ("text", "english", "basic"),
    [
        ("Dr. Gray &  Mrs. St. John", "doctor gray and missus saint john", "dr. gray & mrs. st. john"),
        ("“Café” — naïve… ß", "cafe - naive... ss", '"café" - naïve... ß'),
        ("50% [of] {it}", "fifty percent (of) (it)", "50% [of] {it}"),
        ("Привет, мир 2", "привет, мир two", "привет, мир 2"),
        ("ﬁne①", "fineone", "fine1"),
        ("cafe\u0301 й ｡ 한", "cafe й ｡ 한", "café й 。 한"),
        ("   ", "", ""),
    ],
)
def test_cleaners(text: str, english: str, basic: str):
    assert clean(text, "english") == clean(text, "english_cleaners") == english
    assert clean(text, "basic") == clean(text, "basic_cleaners") == basic
    assert clean(f" {text} ", "none") == text.strip()


def test_the_own_tokenizer_is_what_its_command_makes():
    made = train_tokenizer(OWN_TEXT.read_text(encoding="utf-8").splitlines())
    assert made.to_str(pretty=False) + "\n" == tokenizer.OWN_TOKENIZER.read_text(encoding="utf-8")


def test_the_own_tokenizer_has_the_numbers_of_dlas():
    own = BpeTokenizer()
    vocabulary = json.loads(own.file.read_text())["model"]["vocab"]
    assert own.num_tokens == len(vocabulary) == 255
    assert [vocabulary[token] for token in ("[STOP]", "[UNK]", "[SPACE]")] == [0, 1, 2]
    text = "the art of printing, in 1905; isn't it - a (good) thing? yes!"
    ids = own.encode(text)
    assert own.decode(ids) == clean(text)
    assert not {0, 1} & set(ids)
    assert own.decode([*ids, 0, 1]) == clean(text)
    assert len(ids) < len(clean(text)) * 0.7
    again = pickle.loads(pickle.dumps(own))
    assert again.encode(text) == ids


def test_files_of_the_form_that_tortoise_has_are_read(tmp_path: Path):
    vocabulary = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2, "t": 3, "h": 4, "e": 5, ".": 6, "th": 7, "the": 8}
    special = [
        {"id": vocabulary[token], "special": True, "content": token, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for token in ("[STOP]", "[UNK]", "[SPACE]")
    ]  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "vocab": vocabulary, "merges": ["t h", "th e"],
    }  # fmt: skip
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None}
    whole |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    made = BpeTokenizer(tmp_path / "tokenizer.json")
    assert made.encode("The the. he") == [8, 2, 8, 6, 2, 4, 5]
    assert made.decode([8, 2, 8, 6, 0]) == "the the."
    assert made.unknown("the 'x") == {"'": 1, "x": 1}


def test_unknown_characters_are_reported():
    own = BpeTokenizer()
    assert not own.unknown("plain text.")
    assert own.unknown("a <b> ж ж") == {"<": 1, ">": 1, "ж": 2}
    assert BpeTokenizer(cleaner="none").unknown("[STOP] it")["[STOP]"] == 1
    assert unknown_report(own, ["ж and ж", "ж", "none"]) == ["'ж' U+0436: 3 times in 2 of 3 texts"]
    assert unknown_report(own, ["none"]) == []


def test_characters_have_tacotrons_numbers():
    characters = CharacterTokenizer()
    assert characters.num_tokens == 64
    assert characters.encode("a-b z") == [38, 1, 39, 11, 63]
    assert characters.decode([38, 1, 39, 11, 63, 0, 0]) == "a-b z"
    assert characters.unknown("a;ж_") == {"ж": 1, "_": 1}


def test_a_tokenizer_for_another_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text, out = tmp_path / "ru.txt", tmp_path / "ru.json"
    text.write_text("Привет, мир!\nПривет всем людям мира.\n", encoding="utf-8")
    assert command.main([str(text), "--out", str(out), "--cleaner", "basic", "--num-tokens", "40"]) == 0
    printed = capsys.readouterr().out
    assert "tokens of 2 lines, cleaner basic" in printed
    assert "0 unknown characters" in printed
    made = BpeTokenizer(out, "basic")
    assert made.decode(made.encode("Привет, мир!")) == "привет, мир!"
    assert command.main([str(text), "--report", str(tokenizer.OWN_TOKENIZER)]) == 1
    assert "unknown: 'и' U+0438: " in capsys.readouterr().out


def test_a_tokenizer_from_transcripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "train.txt").write_text("a.wav|so it is.\nno text\nb.wav|and so on.\nc.wav\n")
    out = tmp_path / "own.json"
    assert command.main([str(tmp_path / "train.txt"), "--fetcher-mode", "lj", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "of 2 lines" in printed
    assert f"left out: {tmp_path / 'train.txt'}:2: has 1 column(s) between |" in printed
    assert f"left out: 2 of 4 rows of {tmp_path / 'train.txt'}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty.txt", "--out", "x.json"], "no text to make a tokenizer of: all lines are empty"),
        (["none.txt", "--out", "x.json"], "none.txt cannot be read: No such file or directory"),
        (["bad.txt", "--out", "x.json"], "bad.txt is not UTF-8 text"),
        (
            ["a.txt", "--out", "x.json", "--num-tokens", "20"],
            "num_tokens is 20, but 37 characters and 3 special tokens",
        ),
        (["a.txt", "--report", "a.txt"], "a.txt is not a tokenizer of the tokenizers library"),
        (
            ["a.txt", "--report", "odd.json"],
            "[STOP] must be token 0, [UNK] and [SPACE] must exist; here [STOP] is None",
        ),
        (["a.txt", "--fetcher-mode", "lj", "--out", "x.json"], "path: a.txt has no recording with text"),
    ],
)
def test_bad_input_of_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text(" \n\n")
    Path("a.txt").write_text("some text\n")
    Path("bad.txt").write_bytes(b"\xff")
    Path("odd.json").write_text(BpeTokenizer().file.read_text().replace("[STOP]", "[END]"))
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_out_or_report_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train_tokenizer.py", "a.txt"])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2


def test_tokenizers_refuse_what_they_cannot_use(tmp_path: Path):
    with pytest.raises(TokenizerError, match="cannot be read: No such file"):
        BpeTokenizer(tmp_path / "none.json")
