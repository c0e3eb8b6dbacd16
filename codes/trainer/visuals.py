"""Values of the validation batches as pictures and sound: what ``logger.visuals`` and ``eval.output_state`` name."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codes.data.audio.picture import colours, save_png
from codes.trainer.item_sampling import Sound
from codes.trainer.metrics import MetricsFile

MOST_ITEMS = 2
MOST_CHANNELS = 8  # more are the bands of a spectrogram


class Visuals:
    """Writes the first items of a batch into runs/NAME/visuals/step_N, and to TensorBoard.

    Args:
        folder: runs/NAME/visuals.
        keys: of the state.
        rate: only at steps that are a multiple of this; None: always.
        all_mels: three dimensions are always a spectrogram; otherwise only those with more bands than sound has
            channels.
        sample_rate_hz: of sound.
        write_sound: writes a sound under a path.
    """

    def __init__(
        self, folder: Path, keys: list[str], rate: int | None, all_mels: bool, sample_rate_hz: int,
        write_sound: Callable[[Path, Sound, int], None],
    ) -> None:  # fmt: skip
        self.folder, self.keys, self.rate, self.all_mels = folder, keys, rate, all_mels
        self.sample_rate_hz, self.write_sound = sample_rate_hz, write_sound

    def due(self, step: int) -> bool:
        """Whether there is something to show at this step."""
        return bool(self.keys) and (self.rate is None or step % self.rate == 0)

    def show(self, state: Mapping[str, Any], step: int, metrics: MetricsFile) -> list[str]:
        """Write what can be shown; returns the keys that hold neither pictures nor sound."""
        folder = self.folder / f"step_{step:08d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        left = []
        for key in self.keys:
            value = state.get(key)
            if not isinstance(value, Tensor) or value.dim() not in (2, 3) or value.dtype in (torch.int64, torch.bool):
                left.append(key)
                continue
            for number, item in enumerate(value[:MOST_ITEMS]):
                self._show(folder / f"{key}_{number}", item.cpu(), step, metrics)
        return left

    def _show(self, path: Path, item: Tensor, step: int, metrics: MetricsFile) -> None:
        is_mel = item.dim() == 2 and item.is_floating_point() and (len(item) > MOST_CHANNELS or self.all_mels)
        if not is_mel or len(item) == 1:
            bits = 16 if item.is_floating_point() else torch.iinfo(item.dtype).bits
            return self.write_sound(path.with_suffix(".wav"), Sound(item.view(-1, item.shape[-1]), bits,
                                                                    self.sample_rate_hz), step)  # fmt: skip
        picture = mel_image(item.float().numpy())
        save_png(path.with_suffix(".png"), picture)
        if metrics.tensorboard is not None:
            metrics.tensorboard.add_image(f"visuals/{path.stem}", picture, step, dataformats="HWC")
        if metrics.wandb is not None:
            metrics.wandb.picture(f"visuals/{path.stem}", path.with_suffix(".png"), step)
        return None


def mel_image(mel: np.ndarray) -> np.ndarray:
    """(bands, F) as uint8 (H, W, 3), low bands below, from the least value (dark) to the greatest."""
    low, high = float(np.nanmin(mel)), float(np.nanmax(mel))
    shades = (mel - low) / max(high - low, 1e-9)
    return np.repeat(np.repeat(colours(np.nan_to_num(shades[::-1])), 3, 0), 2, 1)
