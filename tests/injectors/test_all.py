"""What holds for every injector of the package: documented options, no device sync, no module state touched."""

import copy
import inspect
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codes import registry
from codes.models.lucidrains_dvae import LucidrainsDvae
from codes.models.rvq_codec import RvqCodec
from codes.models.speech_features import SpeechFeatures
from codes.models.strided_autoencoder import StridedAutoencoder
from codes.trainer.injector import Injector
from codes.trainer.injectors import (
    augment,
    augment_filter,
    augment_time,
    channels,
    code_patterns,
    codes,
    control,
    crops,
    diffusion,
    latent,
    linear_prediction,
    network,
    pcm,
    semantic,
    signal,
    speech,
    speech_codes,
    values,
)
from tests.codecs import OWN
from tests.speech_networks import voice_latent_injector

FORBIDDEN = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select", "aten::equal")
PCM = torch.randint(-32768, 32768, (4, 2, 8), dtype=torch.int16)
FLOATS = torch.randn(4, 2, 8)
CODES = torch.randint(65536, (4, 8))
CODEC = RvqCodec(**OWN).eval()
MEL = torch.randn(2, 80, 8)
DVAE = LucidrainsDvae(num_tokens=8, codebook_dim=4, hidden_dim=4, num_layers=2).eval()
COMBINED = torch.ones(2, 5, dtype=torch.int64), torch.tensor([8, 4]), torch.tensor([5, 2])
TEXT = torch.ones(2, 5, dtype=torch.int64), torch.tensor([5, 4]), torch.tensor([2048, 1500])


def stats_file() -> Path:
    """Shifts and scales of bands in a file."""
    path = Path(tempfile.mkdtemp()) / "stats.pth"
    torch.save((torch.zeros(80), torch.ones(80)), path)
    return path


class Denoiser(nn.Module):
    """Twice the channels, and a value besides. x, other: (B, 2, T), t: (B,)."""

    def forward(self, x: Tensor, t: Tensor, other: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        return torch.cat([x, other * strength], 1), t


def denoising(kind: Any, **options: Any) -> Injector:
    """gaussian_diffusion with that network."""
    arguments = diffusion.DiffusionArgs(model_var_type=kind, rescale_timesteps=True)
    inputs = {"other": "wav", "strength": 0.5}
    return diffusion.GaussianDiffusionInjector(
        generator=Denoiser(), diffusion_args=arguments, model_input_keys=inputs, **options
    )


def centroids_file() -> Path:
    """Centroids of 80 bands in a file."""
    path = Path(tempfile.mkdtemp()) / "centroids.pth"
    torch.save((torch.zeros(1), torch.randn(5, 80)), path)
    return path


def voice_latents() -> Injector:
    """gpt_voice_latent with small networks of another experiment."""
    return voice_latent_injector(Path(tempfile.mkdtemp()))


def semantic_codes() -> Injector:
    """semantic_codes of cepstra, with clusters in a file."""
    features, path = SpeechFeatures(features="mfcc"), Path(tempfile.mkdtemp()) / "clusters.safetensors"
    semantic.write_clusters(path, torch.randn(3, features.dim), features.described)
    return semantic.SemanticCodesInjector(features=features, clusters=path, audio_rate_hz=16_000, remove_repeats=True)


CASES: list[tuple[Injector, tuple[Any, ...]]] = [
    (semantic_codes(), (PCM[:, :1],)),
    (semantic.JoinTokensInjector(vocabularies=[65536, 65536]), (CODES, CODES)),
    (pcm.PcmQuantizeInjector(bits=16), (PCM,)),
    (pcm.PcmQuantizeInjector(bits=8), (FLOATS,)),
    (pcm.MuLawInjector(), (PCM,)),
    (pcm.MuLawInjector(), (FLOATS,)),
    (pcm.ByteSplitInjector(distinct=True), (CODES,)),
    (channels.ChannelSplitInjector(), (PCM,)),
    (channels.ChannelSplitInjector(direction="random", with_direction=True), (PCM,)),
    (channels.InterleaveChannelsInjector(), (PCM,)),
    (channels.DeinterleaveChannelsInjector(), (CODES,)),
    (channels.SelectChannelsInjector(channels=[1]), (PCM,)),
    (codes.EncodecCodesInjector(codec=CODEC, each_channel=True, audio_rate_hz=8000), (PCM,)),
    (codes.CachedCodesInjector(codec=CODEC), (CODES[:, None] % 16,)),
    (code_patterns.ArrangeCodesInjector(pattern="delay", num_codebooks=2), (PCM,)),
    (code_patterns.RestoreCodesInjector(num_codebooks=2), (CODES,)),
    (linear_prediction.LinearPredictionInjector(cache_items=0), (PCM,)),
    (speech.TorchMelSpectrogramInjector(true_normalization=True), (torch.randn(2, 1, 2048),)),
    (speech.NormalizeMelInjector(), (MEL,)),
    (speech.FrequencyBinNormalizeInjector(stats_file=stats_file()), (MEL,)),
    (speech.MelMaskInjector(), (MEL,)),
    (speech.ChannelClipInjector(channel_low=1, channel_high=2), (PCM,)),
    (speech.AudioResampleInjector(input_sample_rate=2, output_sample_rate=1), (FLOATS,)),
    (speech.MelSpectrogramInjector(do_normalization=True), (torch.randn(2, 1, 2048),)),
    (crops.RandomAudioCropInjector(crop_size=3), (FLOATS,)),
    (crops.RandomAudioCropInjector(min_crop_size=2, max_crop_size=4, crop_start_key="x"), (FLOATS, torch.arange(4))),
    (crops.RandomScaleInjector(min_samples=3), (FLOATS,)),
    (crops.AudioClipInjector(clip_size=4, ctc_codes_key="c", ctc_out_key="o"), (FLOATS, CODES)),
    (crops.CombineMelInjector(output_audio_lengths_key="m", output_text_lengths_key="t"), (MEL, *COMBINED)),
    (values.ScheduledScalarInjector(scheduler=values.ScalarSchedule(type="fixed", weight=2.0)), ()),
    (values.ConstantInjector(constant_type="ones"), (FLOATS,)),
    (values.IndicesExtractorInjector(), (FLOATS,)),
    (values.DecomposeDimensionInjector(dim=1), (FLOATS,)),
    (values.RecomposeDimensionInjector(), (FLOATS.flatten(0, 1), [2, 4, 8], [1, 0, 2])),
    (semantic.KmeansQuantizerInjector(centroids=centroids_file()), (MEL,)),
    (speech_codes.DiscreteTokenInjector(dvae=DVAE), (MEL,)),
    (voice_latents(), (*(torch.randn(2, 1, 2048), torch.randn(2, 2, 1, 2048)), *TEXT)),
    (denoising("learned_range", out_key_vb_loss="b", out_key_x_start="x"), (FLOATS, FLOATS)),
    (network.GeneratorInjector(generator=nn.Linear(8, 3)), (FLOATS,)),
    (network.DiscriminatorInjector(discriminator=nn.Linear(8, 1)), (FLOATS,)),
    (control.ForEachInjector(subtype=pcm.ByteSplitInjector()), (CODES[:, None],)),
    (control.DirectInjector(), (FLOATS,)),
    (control.ConcatenateInjector(sizes=[8, 8]), (FLOATS, FLOATS)),
    (control.StackInjector(), (FLOATS, FLOATS)),
    (control.NarrowInjector(start=-3), (PCM,)),
    (control.PadInjector(left=1, right=2), (PCM,)),
    (control.SqueezeInjector(), (FLOATS[:, :1],)),
    (control.UnsqueezeInjector(), (FLOATS,)),
    (signal.NormalizeInjector(scale=32768.0), (PCM,)),
    (signal.DenormalizeInjector(scale=32768.0), (FLOATS,)),
    (signal.AddNoiseInjector(scale=0.1), (FLOATS,)),
    (signal.AddNoiseInjector(snr_db=20.0), (FLOATS,)),
    (signal.AddNoiseInjector(snr_db=(0.0, 20.0), colour="pink", probability=0.5), (PCM,)),
    (latent.TeacherForcingInjector(num_steps=6, ratio=0.5), (PCM,)),
    (latent.NoiseInjector(shape=[3]), (PCM,)),
    (latent.DrawNoiseInjector(size=3), (PCM,)),
    (latent.EncodeLatentsInjector(autoencoder=StridedAutoencoder(strides=[2, 2], latent_dim=3)), (FLOATS[:, :1],)),
    (latent.DecodeLatentsInjector(autoencoder=StridedAutoencoder(strides=[2], latent_dim=8)), (FLOATS,)),
    (latent.GradientPenaltyInjector(discriminator=nn.Linear(8, 1)), (FLOATS,)),
    (augment.RandomGainInjector(probability=0.5), (PCM,)),
    (augment.RandomPolarityInjector(), (PCM,)),
    (augment.RandomChannelSwapInjector(), (PCM,)),
    (augment.MuLawRoughenInjector(), (PCM,)),
    (augment_time.TimeStretchInjector(window_frames=16, probability=0.5), (FLOATS,)),
    (augment_time.PitchShiftInjector(window_frames=16), (PCM,)),
    (augment_filter.RandomFilterInjector(response="peak", cutoff_hz=(100.0, 4000.0), sample_rate_hz=16000), (FLOATS,)),
    (augment_filter.ReverbInjector(rt60_seconds=0.01, sample_rate_hz=16000), (PCM,)),
]
IDS = [f"{type(injector).__name__}-{number}" for number, (injector, _) in enumerate(CASES)]


class NoSync(TorchDispatchMode):
    """Fails on operations that wait for the device or whose result's shape depends on the data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in FORBIDDEN, f"{func.name()} waits for the device"
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("injector", "values"), CASES, ids=IDS)
def test_forward_and_inverse_never_wait_for_the_device(injector: Injector, values: tuple[Any, ...]) -> None:
    with NoSync():
        results = injector(*values)
        checks = isinstance(injector, codes.CodecInjector)  # a codec checks codes, which only sampling decodes
        if type(injector).inverse is not Injector.inverse and not checks:
            injector.inverse(*(results if isinstance(results, tuple) else (results,)))


def test_no_sync_notices_a_sync() -> None:
    for wait in (Tensor.item, Tensor.nonzero, bool):
        with pytest.raises(AssertionError, match="waits for the device"), NoSync():
            wait(torch.ones(1))


@pytest.mark.parametrize(("injector", "values"), CASES, ids=IDS)
def test_inputs_are_left_as_they_were(injector: Injector, values: tuple[Any, ...]) -> None:
    before = copy.deepcopy(values)
    injector(*values)
    for value, was in zip(values, before, strict=True):
        assert torch.equal(value, was) if isinstance(value, Tensor) else value == was


def builtin_injectors() -> list[type]:
    return [cls for cls in registry.classes("injector").values() if cls.__module__.startswith("codes.")]


def test_every_injector_has_a_case_here() -> None:
    assert {type(injector) for injector, _ in CASES} == set(builtin_injectors())


@pytest.mark.parametrize("cls", builtin_injectors(), ids=lambda cls: cls.__name__)
def test_options_are_keyword_only_typed_and_documented(cls: type) -> None:
    assert registry.summary(cls)
    for option in registry.options_of(cls).values():
        assert option.doc, f"{cls.__name__}: {option.name} is not documented"
        parameter = inspect.signature(cls).parameters[option.name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.annotation is not parameter.empty
