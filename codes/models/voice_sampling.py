"""Codes of speech one after the other, from a voice and a text, with the key-value cache of the trunk."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from codes.models.heads import Choice


def sample_codes(
    network: Any, voice: Tensor, text: Tensor, num: int, max_codes: int, choice: Choice,
    repetition_penalty: float, progress: Callable[[int, int], None] | None,
) -> list[Tensor]:  # fmt: skip
    """Several readings of one text by one voice.

    Args:
        network: a `unified_voice2`.
        voice: (1, n, dim), as network.voice() gives it.
        text: (T,) integers.
        num: readings.
        max_codes: longest reading; one that has not ended then is cut.
        choice: how to draw.
        repetition_penalty: codes that a reading holds already get so many times less likely (Keskar et al. 2019).
        progress: called with the codes done and the most there can be.

    Returns:
        the codes of each reading, (N,) int64, without its stop.
    """
    words = functional.pad(functional.pad(text[None].long(), (1, 0), value=network.start_text_token), (0, 1),
                           value=network.stop_text_token)  # fmt: skip
    prefix = torch.cat([voice, network.text_embedding(words) + network.text_pos_embedding(words.shape[1])], 1)
    caches = network.gpt.caches(num, prefix.shape[1] + max_codes + 1, prefix.device)
    network.gpt.extend(prefix.expand(num, -1, -1), caches, 0)
    codes = torch.full((num, max_codes), network.stop_mel_token, device=prefix.device)
    last = torch.full((num,), network.start_mel_token, device=prefix.device)
    ended = torch.zeros(num, dtype=torch.bool, device=prefix.device)
    said = torch.zeros(num, network.number_mel_codes, dtype=torch.bool, device=prefix.device)
    for place in range(max_codes):
        x = network.mel_embedding(last)[:, None] + network.mel_pos_embedding(1, place)
        hidden = network.gpt.extend(x, caches, prefix.shape[1] + place)[:, 0]
        logits = network.mel_head(network.final_norm(hidden)).float()
        penalised = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
        logits = torch.where(said, penalised, logits)
        logits[:, network.start_mel_token] = -torch.inf
        last = torch.where(ended, network.stop_mel_token, choice.draw(logits))
        codes[:, place] = last
        said[torch.arange(num), last] = True
        ended |= last == network.stop_mel_token
        if progress is not None:
            progress(place + 1, max_codes)
        if bool(ended.all()):
            break
    lengths = (codes != network.stop_mel_token).sum(1).tolist()
    return [reading[:length] for reading, length in zip(codes, lengths, strict=True)]
