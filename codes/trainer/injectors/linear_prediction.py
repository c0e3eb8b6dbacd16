"""Adaptive linear prediction as an injector: what is known of every sample before it, for a network to learn from."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.adaptive.features import Described, describe_pcm
from codes.trainer.injector import Injector

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class LinearPredictionInjector(Injector):
    """Cascades of least squares and LMS. wav: (B, C, T) integers -> features, offsets, residual, unit of all samples.

    features (B, C, T, F), offsets (B, C, T, K), residual and unit (B, C, T), float32, as `codes.adaptive.features`
    describes them: predictions, the history of residuals and running scales, each made of earlier samples alone. The
    prediction starts anew with every item: give it frames of context to adapt to. What was computed for an item is kept
    by its content, so that validation items are predicted once. The dataset `residual_chunk` gives the same of whole
    recordings, predicted from their start and kept on disk.

    Args:
        adaptive: the adaptive prediction; null is its default.
        context: leading samples that are left out of what is given.
        flatten: channels become items of their own: (B C, T, F) and so on, as `residual_lm` takes them.
        cache_items: how many items are kept at most; 0 for none.
    """

    def __init__(
        self,
        *,
        adaptive: AdaptiveOptions | None = None,
        context: int = 0,
        flatten: bool = False,
        cache_items: int = 1024,
    ) -> None:
        if context < 0:
            raise ValueError(f"context is {context}: it must be 0 or more")
        if cache_items < 0:
            raise ValueError(f"cache_items is {cache_items}: it must be 0 or more")
        self.adaptive = adaptive or AdaptiveOptions()
        self.context, self.flatten, self.cache_items = context, flatten, cache_items
        self._kept: OrderedDict[bytes, Described] = OrderedDict()

    def forward(self, wav: Tensor) -> Outputs:
        """wav (B, C, T) -> features, offsets, residual, unit."""
        if wav.ndim != 3 or wav.is_floating_point():
            raise ValueError(f"expected integer audio (B, C, T), got {wav.dtype} of shape {tuple(wav.shape)}")
        if wav.shape[2] <= self.context:
            raise ValueError(f"context is {self.context}: audio of {wav.shape[2]} frames has nothing after it")
        described = [self._describe(item) for item in wav.cpu().numpy()]
        stacked = [np.stack(arrays)[:, :, self.context :] for arrays in zip(*described, strict=True)]
        made = [torch.from_numpy(array.astype(np.float32)).to(wav.device) for array in stacked]
        if self.flatten:
            made = [tensor.flatten(0, 1) for tensor in made]
        features, offsets, residual, unit = made
        return features, offsets, residual, unit

    def _describe(self, pcm: np.ndarray) -> Described:
        key = hashlib.sha256(repr((pcm.shape, pcm.dtype)).encode() + pcm.tobytes()).digest()
        described = self._kept.pop(key, None) or describe_pcm(pcm, self.adaptive)
        self._kept[key] = described
        while len(self._kept) > self.cache_items:
            self._kept.popitem(last=False)
        return described
