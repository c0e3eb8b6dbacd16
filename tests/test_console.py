"""What is written for other programs."""

import os
import sys

import pytest

from codes.console import write_out


def test_a_reader_may_leave_early(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        write_out("line\n" * 1000)
        write_out("and more")


def test_lines_end(capsys: pytest.CaptureFixture[str]) -> None:
    write_out("a\nb")
    write_out("c\n")
    assert capsys.readouterr().out == "a\nb\nc\n"
