"""Losses of codecs: values computed otherwise, what they are blind to, and their errors."""

import pytest
import torch
from torch import Tensor, nn

from codes.models.rvq_codec import RvqCodec
from codes.trainer.losses import Figure
from codes.trainer.losses_codec import (
    CommitmentLoss,
    DistillationLoss,
    FeatureMatchingLoss,
    MelDistanceLoss,
    WaveformLoss,
    si_sdr,
)
from codes.trainer.metrics import FigureSum


def test_si_sdr() -> None:
    real = torch.randn(3, 20_000)
    noise = torch.randn(3, 20_000)
    found = si_sdr(real, 0.3 * (real + 0.1 * noise) + 0.5)
    torch.testing.assert_close(found, torch.full((3,), 20.0), atol=0.3, rtol=0)
    assert (si_sdr(real, noise) < -20).all()


def test_waveform_distance_and_its_figure() -> None:
    real, fake = torch.randn(2, 2, 100), torch.randn(2, 2, 100)
    total, count = WaveformLoss(criterion="l2")(real, fake)
    torch.testing.assert_close(total / count, (real - fake).square().mean())
    figure = FigureSum(WaveformLoss().figures(real, fake)["si_sdr_db"])
    assert figure.read() == pytest.approx(float(si_sdr(real.flatten(1), fake.flatten(1)).mean()), rel=1e-5)


def test_mel_distance_is_in_decades_and_blind_to_phase() -> None:
    loss = MelDistanceLoss(sample_rate_hz=16_000, windows=[512, 64])
    noise = torch.randn(2, 1, 8000)
    assert _mean(loss(noise, noise)) == 0
    assert _mean(loss(noise, noise * 10**0.5)) == pytest.approx(1.0, rel=1e-3)
    assert _mean(loss(noise, -noise)) == pytest.approx(0.0, abs=1e-6)
    assert _mean(loss(noise, torch.randn(2, 1, 8000))) > 0.1
    fake = torch.zeros(2, 1, 8000, requires_grad=True)
    total, _ = loss(noise, fake)
    assert isinstance(total, Tensor)
    total.backward()
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()


def test_feature_matching() -> None:
    real, fake = [torch.randn(2, 3, 5), torch.randn(2, 7)], [torch.randn(2, 3, 5), torch.randn(2, 7)]
    real[0].requires_grad_()
    fake[0].requires_grad_()
    expected = sum((a - b).abs().mean() / a.abs().mean() for a, b in zip(real, fake, strict=True)) / 2
    total, count = FeatureMatchingLoss()(real, fake)
    assert count == 2
    torch.testing.assert_close(total / count, expected)
    total.backward()
    assert real[0].grad is None
    assert fake[0].grad is not None
    with pytest.raises(ValueError, match="feature_matching: 2 and 1 features, or their shapes, differ"):
        FeatureMatchingLoss()(real, fake[:1])


def test_what_is_reported_of_the_codes() -> None:
    codec = RvqCodec(sample_rate_hz=800, filters=2, ratios=[4, 2], dim=4, lstm_layers=0, num_codebooks=2,
                     codebook_size=4).eval()  # fmt: skip
    codes = torch.tensor([[[0, 1, 2, 3], [1, 1, 1, 1]]])
    wav = torch.randn(1, 1, 30)
    loss = CommitmentLoss(codec=codec)
    assert _mean(loss(torch.tensor([1.0, 3.0]))) == 2
    assert loss.figures(torch.zeros(1)) == {}
    assert loss.figures(torch.zeros(1), codes).keys() == {
        "bits_per_second", "codes_used", "perplexity_by_codebook", "use_by_codebook"
    }  # fmt: skip
    sums = {name: FigureSum(figure) for name, figure in loss.figures(torch.zeros(1), codes, wav).items()}
    for name, figure in loss.figures(torch.zeros(1), codes, wav).items():
        sums[name].add(figure)
    read = {name: figure.read() for name, figure in sums.items()}
    assert read["bits_per_second"] == 400  # 100 frames of 2 codes of 2 bits
    assert read["codes_used"] == 5 / 8
    assert read["perplexity_by_codebook"] == pytest.approx([4, 1])
    assert read["use_by_codebook"] == [1, 0.25]
    made = codec.decode(codes[:, :1])[..., :30]
    for name, expected in {
        "si_sdr_db_by_codebooks": float(si_sdr(wav.flatten(1), made.flatten(1))),
        "mel_distance_by_codebooks": float(MelDistanceLoss(sample_rate_hz=800).distances(wav, made)),
    }.items():
        curve = read[name]
        assert isinstance(curve, list)
        assert len(curve) == 2
        assert curve[0] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="codec must be one of audio: Linear is not"):
        CommitmentLoss(codec=nn.Linear(1, 1))


def test_perplexity_of_a_single_histogram() -> None:
    assert FigureSum(Figure(torch.tensor([2.0, 2.0, 0.0, 0.0]), kind="perplexity")).read() == pytest.approx(2)


def test_distillation() -> None:
    features = torch.randn(2, 10, 6)
    same, other = features.clone(), torch.randn(2, 10, 6)
    for axis in ("time", "features"):
        loss = DistillationLoss(axis=axis)
        assert _mean(loss(same, features)) == pytest.approx(0.313262, rel=1e-4)  # -log sigmoid(1)
        assert _mean(loss(other, features)) > 0.5
        assert FigureSum(loss.figures(same, features)["cosine"]).read() == pytest.approx(1, rel=1e-5)
    scaled = features * torch.rand(6) * 5  # each number by itself: nothing to the course over time
    assert _mean(DistillationLoss(axis="time")(scaled, features)) == pytest.approx(0.313262, rel=1e-4)
    assert _mean(DistillationLoss(axis="features")(scaled, features)) > 0.32
    slow = torch.linspace(0, 1, 40)[None, :, None].expand(1, 40, 6)
    assert _mean(DistillationLoss()(slow[:, ::2], slow)) < 0.32  # at another frame rate
    with pytest.raises(ValueError, match=r"expected told \(B, F, D\) and features \(B, N, D\), got \(2, 10, 5\)"):
        DistillationLoss()(features[..., :5], features)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="windows must be multiples of 4, 16 or more, got"):
        MelDistanceLoss(sample_rate_hz=8000, windows=[30])
    with pytest.raises(ValueError, match="sample_rate_hz must be 1 or more, got 0"):
        MelDistanceLoss(sample_rate_hz=0)
    with pytest.raises(ValueError, match=r"mel_distance: real .* differ in shape"):
        MelDistanceLoss(sample_rate_hz=8000)(torch.zeros(1, 1, 10), torch.zeros(1, 1, 11))


def _mean(value: Tensor | tuple[Tensor, Tensor | float]) -> float:
    assert isinstance(value, tuple)
    return float(value[0] / value[1])
