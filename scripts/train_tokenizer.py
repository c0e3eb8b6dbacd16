"""Make a tokenizer for speech from text of any language, and say what it knows.

    python scripts/train_tokenizer.py TEXT [TEXT ...] --out tokenizer.json [--cleaner basic --num-tokens 255]

TEXT is a text file (each line a text) or, with --fetcher-mode, the transcripts of a data set as `paired_voice_audio`
reads them. The result is byte pair encoding in DL-Art-School's form: datasets take it as ``tokenizer_vocab`` together
with ``text_cleaners``. Exit status: 0; 1 where --report finds unknown characters; 2 for wrong use.

    python scripts/train_tokenizer.py TEXT --report tokenizer.json      which characters of TEXT it does not know
"""

import argparse
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.audio.transcripts.fetchers import FetcherMode, read_transcripts
from codes.data.audio.transcripts.rows import TranscriptError
from codes.data.text.cleaners import Cleaner
from codes.data.text.tokenizer import BpeTokenizer, TokenizerError, unknown_report
from codes.data.text.tokenizer_training import train_tokenizer

MOST_NAMED = 4  # rows that cannot be understood; the others are counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.report is None):
        parser.error("give --out FILE to make a tokenizer, or --report FILE to try one")
    try:
        texts = [text for path in options.texts for text in _texts(path, options.fetcher_mode)]
        if options.report is not None:
            return _report(BpeTokenizer(options.report, options.cleaner), texts)
        tokenizer = train_tokenizer(
            texts, num_tokens=options.num_tokens, cleaner=options.cleaner, characters=options.characters
        )
        options.out.write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    except (TokenizerError, TranscriptError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    made = BpeTokenizer(options.out, options.cleaner)
    print(f"wrote {options.out}: {made.num_tokens} tokens of {len(texts)} lines, cleaner {options.cleaner}")
    _report(made, texts)
    return 0


def _texts(path: Path, mode: FetcherMode | None) -> Iterator[str]:
    """The lines of a text file, or the texts of a data set."""
    if mode is not None:
        found = read_transcripts(path, mode)
        for problem in found.problems[:MOST_NAMED]:
            print(f"left out: {problem}")
        if found.problems:
            print(f"left out: {len(found.problems)} of {len(found.rows) + len(found.problems)} rows of {path}")
        yield from (row.text for row in found.rows)
        return
    try:
        yield from path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from error


def _report(tokenizer: BpeTokenizer, texts: list[str]) -> int:
    """Say how well it fits the texts; 1 where there are unknown characters."""
    ids = [number for text in texts for number in tokenizer.encode(text)]
    characters = sum(len(tokenizer.decode(tokenizer.encode(text))) for text in texts)
    print(f"{tokenizer.file}: {len(ids)} tokens for {characters} characters, {characters / max(1, len(ids)):.2f} each")
    unknown = unknown_report(tokenizer, texts)
    for line in unknown:
        print(f"unknown: {line}")
    print(f"{len(unknown)} unknown characters")
    return 1 if unknown else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_tokenizer.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="text files, or data sets with transcripts")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the tokenizer's JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="make none: say what this one does not know")
    parser.add_argument("--fetcher-mode", choices=typing.get_args(FetcherMode), help="TEXT are data sets of that form")
    parser.add_argument(
        "--cleaner", choices=typing.get_args(Cleaner), default="english", help="for other languages: basic"
    )
    parser.add_argument("--num-tokens", type=int, default=255, help="with the special ones (default: %(default)s)")
    parser.add_argument("--characters", metavar="LETTERS", help="the only characters that become tokens")
    return parser


if __name__ == "__main__":
    sys.exit(main())
