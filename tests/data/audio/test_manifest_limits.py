"""Long lists of files are read in one pass, and small ones that unpack to much are refused."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from codes.data.audio.listing import manifests
from codes.data.audio.listing.manifest_record import ManifestError
from codes.data.audio.listing.manifests import ManifestItem, read_manifest
from codes.data.audio.listing.walk import Walk, _add_item


class CountingKey(str):
    """A text that counts how often it is hashed, which each look into a dictionary does."""

    num_hashed = 0

    def __hash__(self) -> int:
        CountingKey.num_hashed += 1
        return super().__hash__()


def test_a_key_twice_is_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingKey, "num_hashed", 0)
    pairs: list[tuple[str, Any]] = [(CountingKey(f"{number}.wav"), 5) for number in range(300)]
    with pytest.raises(ValueError, match=r"the key '299\.wav' stands in it twice"):
        manifests._unique([*pairs, (CountingKey("299.wav"), 5)])
    assert CountingKey.num_hashed <= 1000


def test_parts_of_one_file_are_added_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    found = Walk()
    items = [ManifestItem(path=tmp_path / "a.wav", where=f"line {number}") for number in range(3)]
    _add_item(found, items[0], set())
    (first,) = found.candidates.values()
    claims = first.claims
    for item in items[1:]:
        _add_item(found, item, set())
    (last,) = found.candidates.values()
    assert last.claims is claims
    assert list(claims) == items


def test_gzip_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.json.gz"
    packed = gzip.compress(b'{"a.wav": 1}' + b" " * (70 << 20), compresslevel=6)
    path.write_bytes(packed)
    message = rf"list\.json\.gz: its {len(packed):,} bytes unpack to more than the 67,108,864 that are allowed; .*plain"
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)
    monkeypatch.setattr(manifests, "_LEAST_LIMIT_BYTES", 12)
    path.write_bytes(gzip.compress(b'{"a.wav": 1}'))
    assert len(read_manifest(path).items) == 1
    monkeypatch.setattr(manifests, "_MOST_LIMIT_BYTES", 11)
    with pytest.raises(ManifestError, match="more than the 11 that are allowed"):
        read_manifest(path)
