"""Which clips go together: others of the same speaker, for conditioning.

Clips of one group (a speaker, a folder) are companions; where a folder has DL-Art-School's ``similarities.pth``, a
mapping of file names to the names of similar files, its lists are taken instead.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SIMILARITIES = "similarities.pth"


class Companions:
    """Draws companions of clips that are known by number.

    Args:
        groups: the group of each clip.
        listed: for some clips, the numbers of those that are similar, instead of the group.
        with_self: a clip may be its own companion.
    """

    def __init__(
        self, groups: Sequence[str], listed: dict[int, list[int]] | None = None, with_self: bool = False
    ) -> None:
        self._with_self = with_self
        self._groups = groups
        self._members: dict[str, list[int]] = {}
        self._place = [0] * len(groups)  # of a clip within its group
        for number, group in enumerate(groups):
            members = self._members.setdefault(group, [])
            self._place[number] = len(members)
            members.append(number)
        self._listed = {
            number: [other for other in others if with_self or other != number]
            for number, others in (listed or {}).items()
        }

    def count(self, number: int) -> int:
        """How many companions a clip has."""
        if self._listed.get(number):
            return len(self._listed[number])
        return len(self._members[self._groups[number]]) - (0 if self._with_self else 1)

    def draw(self, number: int, count: int, rng: np.random.Generator) -> list[int]:
        """So many companions of a clip at random, different ones where there are enough.

        Raises:
            ValueError: it has none.
        """
        available = self.count(number)
        if available < 1:
            raise ValueError(f"clip {number} has no companion")
        chosen = rng.choice(available, count, replace=available < count)
        if self._listed.get(number):
            return [self._listed[number][choice] for choice in chosen]
        members, place = self._members[self._groups[number]], self._place[number]
        skip = len(members) if self._with_self else place
        return [members[choice + (choice >= skip)] for choice in chosen]


def similar_files(paths: Sequence[Path]) -> dict[int, list[int]]:
    """What the ``similarities.pth`` beside these files say: number of a file -> numbers of its similar ones.

    Similar files that are not among ``paths`` are passed over.

    Raises:
        ValueError: such a file is no mapping of names to lists of names.
    """
    import torch

    numbers = {path: number for number, path in enumerate(paths)}
    found: dict[int, list[int]] = {}
    for folder in sorted({path.parent for path in paths}):
        file = folder / SIMILARITIES
        if not file.is_file():
            continue
        try:
            similar = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its unpickler meets
            raise ValueError(f"path: {file} cannot be read as names of similar files: {error}") from error
        if not isinstance(similar, dict) or not all(isinstance(names, (list, tuple)) for names in similar.values()):
            raise ValueError(f"path: {file} must map file names to lists of file names")
        for name, names in similar.items():
            number = numbers.get(folder / str(name))
            others = [numbers[folder / str(other)] for other in names if folder / str(other) in numbers]
            if number is not None and others:
                found[number] = others
    return found
