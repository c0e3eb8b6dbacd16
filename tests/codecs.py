"""Small codecs on disk for tests: our own, exported, and those of transformers, with weights that nobody trained."""

from pathlib import Path
from typing import Any

import torch

from codes.models.codec_files import export_codec
from codes.models.rvq_codec import RvqCodec

OWN: dict[str, Any] = {
    "sample_rate_hz": 8000, "filters": 2, "ratios": [4, 4], "dim": 8, "lstm_layers": 0, "num_codebooks": 4,
    "codebook_size": 16,
}  # fmt: skip
ENCODEC: dict[str, Any] = {
    "num_filters": 2, "upsampling_ratios": [8, 5, 4, 2], "hidden_size": 8, "codebook_size": 64, "num_lstm_layers": 1,
}  # fmt: skip
STEREO: dict[str, Any] = {
    **ENCODEC, "sampling_rate": 48000, "audio_channels": 2, "use_causal_conv": False, "norm_type": "time_group_norm",
    "normalize": True, "chunk_length_s": 1.0, "overlap": 0.01, "target_bandwidths": [7.2],
}  # fmt: skip
DAC: dict[str, Any] = {
    "encoder_hidden_size": 4, "downsampling_ratios": [2, 5], "decoder_hidden_size": 16, "n_codebooks": 3,
    "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
MIMI: dict[str, Any] = {
    "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 2], "num_quantizers": 4, "codebook_size": 32,
    "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_hidden_layers": 1, "intermediate_size": 16,
    "num_attention_heads": 2, "num_key_value_heads": 2, "upsample_groups": 16, "sampling_rate": 16000,
}  # fmt: skip


def own_codec(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """An exported rvq_codec: mono, 8 kHz, hop 16, 4 codebooks of 16 codes."""
    torch.manual_seed(seed)
    options = {**OWN, **changes}
    codec = RvqCodec(**options)
    with torch.no_grad():
        codec.quantizer.codebooks.normal_()
    export_codec(codec, options, folder)
    return folder


def library_codec(folder: Path, family: str, **options: Any) -> Path:
    """A model of transformers (encodec, dac or mimi) as its library saves it."""
    import transformers

    config, model = {
        "encodec": (transformers.EncodecConfig, transformers.EncodecModel),
        "dac": (transformers.DacConfig, transformers.DacModel),
        "mimi": (transformers.MimiConfig, transformers.MimiModel),
    }[family]
    torch.manual_seed(0)
    made = model(config(**options))
    for name, buffer in made.named_buffers():
        if name.endswith((".embed", "embed_sum")):
            buffer.normal_()
    made.save_pretrained(folder)
    return folder


def coded_audio(experiment: str, root: Path) -> list[str]:
    """A codec, and audio that it coded, for an experiment over codes: the overrides that name them."""
    import numpy as np

    from scripts import encode_audio
    from tests.conftest import write_wav

    rate = 24000 if experiment == "encodec_gpt" else 16000
    codec, audio, codes = root / "small_codec", root / "audio", root / "coded"
    if not codes.exists():
        if experiment == "encodec_gpt":
            library_codec(codec, "encodec", **{**ENCODEC, "codebook_size": 1024, "target_bandwidths": [3.0]})
        else:
            own_codec(codec, sample_rate_hz=rate, ratios=[8, 5, 4, 2], codebook_size=256)
        for number in range(2):
            noise = np.random.default_rng(number).normal(0, 3000, (4 * rate, 1))
            write_wav(audio / f"{number}.wav", noise.round().astype(np.int32), rate)
        assert encode_audio.main([str(audio), "--codec", str(codec), "--codebooks", "4", "--out", str(codes)]) == 0
    return [
        f"datasets.train.path={codes}", f"networks.codec.kwargs.path={codec}", "datasets.train.frames=8",
        "samples.prompt_frames=1280", "samples.new_frames=640", "samples.num=1", "eval.train_batches=1",
        "networks.lm.kwargs.layers=1",
    ]  # fmt: skip
