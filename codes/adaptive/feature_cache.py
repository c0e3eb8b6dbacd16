"""Described audio kept in files, by content: a recording is predicted once, not once an epoch.

An entry is a folder named by a hash of the samples, the options and the version of the features; it holds one .npy file
for each array, which is mapped into memory when it is read. Entries are written aside and renamed, so several processes
may make the same one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.adaptive.features import FEATURE_VERSION, Described, describe_pcm


class FeatureCache:
    """Entries under a folder.

    Args:
        root: the folder; made where it does not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self, pcm: np.ndarray, options: AdaptiveOptions) -> Described:
        """What `describe_pcm` gives, from the cache where it is there.

        Args:
            pcm: (C, T) integers.
        """
        folder = self.root / self._key(pcm, options)
        if not folder.is_dir():
            self._make(folder, describe_pcm(pcm, options))
        return Described(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Described._fields))

    def _key(self, pcm: np.ndarray, options: AdaptiveOptions) -> str:
        text = json.dumps([options.as_dict(), pcm.shape, FEATURE_VERSION])
        digest = hashlib.sha256(text.encode())
        digest.update(np.ascontiguousarray(pcm, "<i4").tobytes())
        return digest.hexdigest()[:32]

    def _make(self, folder: Path, described: Described) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self.root, prefix=".making"))
        try:
            for name, array in described._asdict().items():
                np.save(aside / f"{name}.npy", array)
            os.replace(aside, folder)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            if not folder.is_dir():  # another process was faster
                raise
