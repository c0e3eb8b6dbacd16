"""Downloads from a server on localhost: whole, continued, refused, cut, changed, too large for the disk."""

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codes.data.byte_progress import ByteProgress
from codes.data.download import DownloadError, Remote, download
from tests.data.local_server import Site, serving

ROOT = Path(__file__).resolve().parents[2]
CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/corpus.zip"] = CONTENT
        yield site


def get(site: Site, folder: Path, *, slept: list[float] | None = None, attempts: int = 3, **remote: Any) -> Path:
    remote = {"url": f"{site.url}/corpus.zip", "sha256": SHA256, **remote}
    sleep = (slept if slept is not None else []).append
    return download(Remote(**remote), folder, attempts=attempts, timeout_s=5.0, sleep=sleep)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_and_then_found_there(site: Site, tmp_path: Path):
    path = get(site, tmp_path / "new" / "folder", md5=MD5, num_bytes=len(CONTENT))
    assert path == tmp_path / "new" / "folder" / "corpus.zip"
    assert path.read_bytes() == CONTENT
    assert contents(path.parent) == ["corpus.zip"]
    assert get(site, path.parent) == path
    assert site.asked == [("/corpus.zip", None)]


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_cut_connection_is_continued(site: Site, tmp_path: Path, etag: str | None):
    site.etag = etag
    site.cuts = [100_000, 1_200_000]
    slept: list[float] = []
    assert get(site, tmp_path, slept=slept).read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == [None, "bytes=100000-", "bytes=1300000-"]
    assert slept == [1.0, 1.0], "an attempt that brought a mebibyte does not count"


def test_a_later_call_continues(site: Site, tmp_path: Path):
    site.cuts = [1000, 1000, 1000]
    message = r"failed 3 times in a row, the last time with: the connection was cut at 3,000 of 3,000,000 bytes; 3,000"
    slept: list[float] = []
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path, slept=slept)
    assert slept == [1.0, 2.0]
    assert contents(tmp_path) == ["corpus.zip.part", "corpus.zip.part.json"]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked[-1] == ("/corpus.zip", "bytes=3000-")
    assert contents(tmp_path) == ["corpus.zip"]


def test_a_part_that_is_whole_is_not_fetched_again(site: Site, tmp_path: Path):
    (tmp_path / "corpus.zip.part").write_bytes(CONTENT)
    said = {"url": f"{site.url}/corpus.zip", "length": len(CONTENT), "etag": '"one"'}
    (tmp_path / "corpus.zip.part.json").write_text(json.dumps(said))
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == []


@pytest.mark.parametrize(
    "case", ["ignores ranges", "another version", "another range", "part too long", "unknown part"]
)
def test_what_cannot_be_continued_is_begun_anew(site: Site, tmp_path: Path, case: str):
    part, said = b"old" * 1000, {"url": f"{site.url}/corpus.zip", "length": len(CONTENT), "etag": '"one"'}
    if case == "ignores ranges":
        site.ranges = False
    elif case == "another version":
        site.etag = '"two"'
    elif case == "another range":
        site.wrong_range = True
    elif case == "part too long":
        part = bytes(len(CONTENT) + 1)
    else:
        said = {"url": "http://elsewhere/corpus.zip"}
    (tmp_path / "corpus.zip.part").write_bytes(part)
    (tmp_path / "corpus.zip.part.json").write_text(json.dumps(said))
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert contents(tmp_path) == ["corpus.zip"]
    assert site.asked[0][1] == (None if case == "unknown part" else f"bytes={len(part)}-")


@pytest.mark.parametrize("notes", ["{", "[]", None])
def test_notes_that_cannot_be_read_are_none(site: Site, tmp_path: Path, notes: str | None):
    (tmp_path / "corpus.zip.part").write_bytes(b"old")
    if notes is not None:
        (tmp_path / "corpus.zip.part.json").write_text(notes)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [("/corpus.zip", None)]


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        ({"sha256": "0" * 64}, f"its sha256 is {SHA256}, it should be {'0' * 64}; it is taken away: try again"),
        ({"sha256": None, "md5": "0" * 32}, f"its md5 is {MD5}, it should be {'0' * 32}"),
        ({"num_bytes": 5}, "has 3,000,000 bytes, it should have 5"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(site: Site, tmp_path: Path, remote: Any, message: str):
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path, **remote)
    assert contents(tmp_path) == []
    (tmp_path / "corpus.zip").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="it is left as it is: move it away to download it anew"):
        get(site, tmp_path, **remote)
    assert (tmp_path / "corpus.zip").read_bytes() == CONTENT


def test_upper_case_checksums_and_no_length(site: Site, tmp_path: Path):
    site.lengths = False
    assert get(site, tmp_path, sha256=SHA256.upper()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "HTTP 404 Not Found: there is no such file: the corpus may have moved"),
        (403, "HTTP 403 Forbidden: the server refuses it, perhaps to those without an account"),
        (401, "HTTP 401 Unauthorized: the server asks for an account"),
        (410, "HTTP 410 Gone: the file was taken away"),
        (418, "HTTP 418 I'm a Teapot: the server refuses it"),
    ],
)
def test_refusals_are_not_tried_again(site: Site, tmp_path: Path, status: int, message: str):
    site.statuses = [status]
    with pytest.raises(DownloadError, match=f"{site.url}/corpus.zip: {message}"):
        get(site, tmp_path)
    assert len(site.asked) == 1
    assert contents(tmp_path) == []


def test_a_server_in_trouble_is_tried_again(site: Site, tmp_path: Path):
    site.statuses = [503, 429]
    assert get(site, tmp_path).read_bytes() == CONTENT
    (tmp_path / "corpus.zip").unlink()
    site.statuses = [500, 502, 504]
    with pytest.raises(
        DownloadError, match="failed 3 times in a row, the last time with: HTTP 504 Gateway Timeout; 0 b"
    ):
        get(site, tmp_path)


def test_a_server_that_is_silent_or_not_there(tmp_path: Path):
    with serving() as site:
        site.files["/corpus.zip"] = CONTENT
        site.silent_s = 0.3
        with pytest.raises(DownloadError, match=r"failed 1 times in a row, the last time with: .*timed out"):
            download(Remote(url=f"{site.url}/corpus.zip"), tmp_path, attempts=1, timeout_s=0.05)
        url = site.url
    with pytest.raises(DownloadError, match=r"failed 2 times in a row, the last time with: .*refused"):
        download(Remote(url=f"{url}/corpus.zip"), tmp_path, attempts=2, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/hostname", "an address must begin with http:// or https:// and name a server"),
        ("ftp://host/file", "must begin with http"),
        ("http:///file", "must begin with http"),
        ("http://host/", "names no file"),
        ("http://host/%2e%2e", "names no file"),
        ("http://host/..%2Fa", None),
        ("http://host/a%5Cb", "names no file"),
    ],
)
def test_addresses(url: str, message: str | None):
    if message is None:
        assert Remote(url=url).file_name == "a", "only what follows the last stroke"
        return
    with pytest.raises(DownloadError, match=message):
        assert Remote(url=url).file_name


def test_folders_that_cannot_be_made(site: Site, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="file cannot be made: "):
        get(site, tmp_path / "file")
    (tmp_path / "corpus.zip.part").mkdir()
    with pytest.raises(DownloadError, match=r"corpus\.zip\.part cannot be written"):
        get(site, tmp_path)


def test_a_disk_without_room(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2_000_000}))
    with pytest.raises(DownloadError, match="3,000,000 bytes are still to come, and the disk has 2,000,000 free"):
        get(site, tmp_path)


def test_a_disk_that_fills_up_keeps_what_has_come(site: Site, tmp_path: Path):
    """A real limit, of the size of files, in a process of its own."""
    program = (
        "import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from pathlib import Path; from codes.data.download import DownloadError, Remote, download\n"
        "try: download(Remote(url=sys.argv[1]), Path(sys.argv[2]))\n"
        "except DownloadError as error: print(error)"
    )
    assert resource.RLIMIT_FSIZE
    command = [sys.executable, "-c", program, f"{site.url}/corpus.zip", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "corpus.zip.part cannot be written: File too large; make room, and the same command goes on" in told
    assert (tmp_path / "corpus.zip.part").stat().st_size == 1_000_000
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked[-1] == ("/corpus.zip", "bytes=1000000-")


def test_progress_in_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("codes.data.audio.listing.file_progress._SECONDS_BETWEEN_LINES", 0.0)
    for shown, total in ((True, 4_000_000), (True, None), (False, None)):
        with ByteProgress("downloading x", shown=shown) as bar:
            bar.begin(1_000_000, total)
            bar.advance(2_000_000)
    lines = ["downloading x: 3 of 4 MB", "downloading x: 3 MB"]  # each now and then, and once at the end
    assert capsys.readouterr().err.splitlines() == [line for line in lines for _ in range(2)]
