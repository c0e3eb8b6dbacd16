"""The codec of our own: shapes, causality, EnCodec's own weights in it, what its codebooks do, and that it learns."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codes.models.rvq import ResidualQuantizer
from codes.models.rvq_codec import RvqCodec

SMALL: dict[str, Any] = {
    "sample_rate_hz": 8000, "filters": 4, "ratios": [4, 2], "dim": 8, "lstm_layers": 1, "num_codebooks": 3,
    "codebook_size": 16,
}  # fmt: skip


def tones(items: int, frames: int, channels: int = 1) -> Tensor:
    pitch = torch.rand(items, 1, 1) * 0.25 + 0.02
    time = torch.arange(frames) + 100 * torch.rand(items, channels, 1)
    return (
        0.4 * torch.sin(time * pitch) + 0.2 * torch.sin(time * 2 * pitch) + 0.01 * torch.randn(items, channels, frames)
    )


@pytest.mark.parametrize(
    ("causal", "channels", "norm"), [(True, 1, "weight"), (False, 2, "weight"), (False, 2, "group")]
)
def test_shapes(causal: bool, channels: int, norm: Any) -> None:
    net = RvqCodec(**SMALL, causal=causal, num_channels=channels, norm=norm)
    assert (net.hop_samples, net.frame_rate_hz, net.bits_per_second()) == (8, 1000, 12_000)
    assert net.bits_per_second(1) == 4000
    wav = tones(2, 83, channels)
    made, codes, commitment = net(wav)
    assert (made.shape, codes.shape, commitment.shape) == (wav.shape, (2, 3, 11), (2,))
    assert codes.dtype == torch.int64
    net.eval()
    codes = net.encode(wav)
    assert codes.shape == (2, 3, 11)
    assert net.encode(wav, num_codebooks=2).equal(codes[:, :2])
    decoded = net.decode(codes)
    assert decoded.shape == (2, channels, 88)
    torch.testing.assert_close(decoded[..., :83], net(wav)[0])
    assert net.decode(codes[:, :1]).shape == (2, channels, 88)
    assert net.encode(wav[..., :1]).shape == (2, 3, 1)


def test_a_causal_one_does_not_know_the_future() -> None:
    net = RvqCodec(**SMALL).eval()
    wav = tones(1, 160)
    other = wav.clone()
    other[..., 80:] = 0.5
    assert net.encode(wav)[..., :10].equal(net.encode(other)[..., :10])
    codes = net.encode(wav)
    spoilt = codes.clone()
    spoilt[..., 10:] = (codes[..., 10:] + 1) % 16
    torch.testing.assert_close(net.decode(spoilt)[..., :80], net.decode(codes)[..., :80])
    both = RvqCodec(**SMALL, causal=False).eval()
    assert not both.encoder(wav)[..., :10].equal(both.encoder(other)[..., :10])


@pytest.mark.parametrize("causal", [True, False])
def test_encodec_of_transformers_is_the_same_network(causal: bool) -> None:
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        audio_channels=2, num_filters=4, upsampling_ratios=[5, 4, 2], hidden_size=6, codebook_size=16, codebook_dim=6,
        use_causal_conv=causal, pad_mode="constant", num_lstm_layers=1, target_bandwidths=[3.0],
    )  # fmt: skip
    other = EncodecModel(config).eval()
    net = RvqCodec(num_channels=2, filters=4, ratios=[5, 4, 2], dim=6, codebook_size=16, causal=causal, lstm_layers=1)
    net.eval()
    for ours, theirs in ((net.encoder, other.encoder), (net.decoder, other.decoder)):
        pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
        for own, given in pairs:
            own.data.copy_(given)
    wav = tones(2, 120, 2)
    vectors = other.encoder(wav)
    torch.testing.assert_close(net.encoder(wav), vectors)
    torch.testing.assert_close(net.decoder(vectors), other.decoder(vectors))


def test_the_published_size() -> None:
    net = RvqCodec()
    learned = sum(parameter.numel() for parameter in net.parameters())
    assert round(learned / 1e6, 2) == 14.85
    assert (net.hop_samples, net.frame_rate_hz, net.bits_per_second(4)) == (320, 75, 3000)


def test_codebooks_begin_at_the_first_batch_and_follow_it() -> None:
    quantizer = ResidualQuantizer(2, 8, 4, dropout=0.0)
    before = quantizer.codebooks.clone()
    vectors = torch.randn(2, 4, 50) * 3
    error = (quantizer.eval()(vectors).vectors - vectors).square().mean()
    assert quantizer.codebooks.equal(before)
    begun = (quantizer.train()(vectors).vectors - vectors).square().mean()
    assert begun < 0.3 * error
    moved = vectors + 5
    error = (quantizer.eval()(moved).vectors - moved).square().mean()
    quantizer.train()
    for _ in range(100):
        quantizer(moved)
    assert (quantizer.eval()(moved).vectors - moved).square().mean() < 0.5 * error


def test_a_dead_code_starts_again_and_only_where_asked() -> None:
    vectors = torch.randn(4, 4, 64)
    for share, alive in ((0.1, True), (0.0, False)):
        quantizer = ResidualQuantizer(1, 8, 4, dropout=0.0, restart_share=share)
        quantizer(vectors)
        quantizer.codebooks[0, 3] = 1000.0
        quantizer.sums[0, 3], quantizer.counts[0, 3] = 1.0, 1e-3
        quantizer(vectors)
        assert (float(quantizer.codebooks[0, 3].abs().max()) < 5) is alive


def test_items_drop_their_last_codebooks() -> None:
    quantizer = ResidualQuantizer(4, 8, 4, dropout=1.0, restart_share=0.0)
    vectors = torch.randn(256, 4, 1)
    quantizer(vectors)
    before = quantizer.codebooks.clone()
    found = quantizer(vectors)
    after = quantizer.codebooks.clone()
    quantizer.codebooks.copy_(before)
    sums = torch.stack([quantizer.decode(found.codes[:, :number]) for number in range(1, 5)])
    used = (found.vectors - sums).abs().amax((2, 3)).argmin(0)
    shares = torch.bincount(used, minlength=4) / 256
    assert (shares - 0.25).abs().max() < 0.1
    nearest = (vectors - sums[0]).square().mean((1, 2))[used == 0]  # those with one codebook answer for it alone
    torch.testing.assert_close(found.commitment[used == 0], nearest)
    assert not after[3].equal(before[3])
    quantizer.eval()
    torch.testing.assert_close(quantizer(vectors).vectors, quantizer.decode(quantizer.encode(vectors, 4)))


def _two_processes_quantizer() -> tuple[ResidualQuantizer, Tensor]:
    torch.manual_seed(3)
    return ResidualQuantizer(2, 4, 3, dropout=0.0, restart_share=0.0), torch.randn(4, 4, 3, 25)


def _one_of_two(rank: int, folder: str) -> None:
    """A process that sees half of each batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    quantizer, batches = _two_processes_quantizer()
    torch.manual_seed(rank)
    for batch in batches:
        quantizer(batch[rank::2])
    found = [quantizer.codebooks.clone(), quantizer.counts.clone()]
    quantizer.restart_share = 0.9  # many codes restart, at vectors of the first process
    quantizer(batches[0][rank::2])
    torch.save([*found, quantizer.codebooks, quantizer.counts], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_keep_the_codebooks_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))
    alone, batches = _two_processes_quantizer()
    torch.manual_seed(0)
    alone._begin(batches[0][::2].transpose(1, 2))  # k-means is of the first process's half
    for batch in batches:
        alone(batch)
    torch.testing.assert_close(alone.codebooks, first[0])
    torch.testing.assert_close(alone.counts, first[1])
    assert not first[2].equal(first[0])


def test_values_that_are_not_finite_leave_the_codebooks_alone() -> None:
    quantizer = ResidualQuantizer(2, 8, 4)
    quantizer(torch.randn(2, 4, 50))
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(torch.full((2, 4, 50), torch.nan))
    assert all(value.equal(before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_first_batch_that_is_not_finite_spoils_nothing(bad: float) -> None:
    quantizer, vectors = ResidualQuantizer(2, 8, 4, dropout=0.0), torch.randn(2, 4, 50)
    quantizer(vectors * bad)
    for _ in range(100):
        quantizer(vectors)
    assert (quantizer.eval()(vectors).vectors - vectors).square().mean() < 0.4 * vectors.square().mean()


def test_whether_the_codebooks_have_begun_is_saved() -> None:
    first = RvqCodec(**SMALL)
    first(tones(2, 400))
    second = RvqCodec(**SMALL)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    expected = first(tones(2, 400))[0]
    torch.manual_seed(1)
    assert second(tones(2, 400))[0].equal(expected)
    assert all(value.equal(first.state_dict()[name]) for name, value in second.state_dict().items())


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"), func.name()
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device() -> None:
    net = RvqCodec(**SMALL)
    wav = tones(2, 400)
    with NoWaiting():
        for _ in range(2):  # the first one begins the codebooks
            made, _, commitment = net(wav)
            ((made - wav).square().mean() + commitment.mean()).backward()


def test_error_falls_with_every_codebook_after_training() -> None:
    net = RvqCodec(**{**SMALL, "num_codebooks": 4, "filters": 8, "dim": 16})
    optimizer = torch.optim.Adam(net.parameters(), 3e-3, betas=(0.5, 0.9))
    for _ in range(150):
        wav = tones(8, 400)
        made, _, commitment = net(wav)
        loss = (made - wav).abs().mean() + 0.25 * commitment.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    wav = tones(16, 400)
    codes = net.encode(wav)
    errors = [float((net.decode(codes[:, :number]) - wav).square().mean()) for number in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.7 * float(wav.square().mean())
    assert errors[-1] < 0.7 * errors[0]
    usage = [len(codes[:, number].unique()) for number in range(4)]
    assert min(usage) >= 8


def test_distilled_features() -> None:
    net = RvqCodec(**SMALL, distilled_dim=5)
    told = net(tones(2, 83))[3]
    assert told.shape == (2, 11, 5)
    told.sum().backward()
    assert isinstance(net.telling, nn.Linear)
    assert next(net.encoder.parameters()).grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": [1]}, "ratios must be whole numbers of 2 or more"),
        ({"norm": "group"}, "norm: group looks at the whole excerpt: causal: true needs norm: weight"),
        ({"filters": 3}, "filters must be even"),
        ({"codebook_size": 0}, "codebook_size is 0: it must be 1 or more"),
        ({"decay": 1.0}, "decay is 1.0: it must be 0 or more and below 1"),
        ({"quantizer_dropout": 2.0}, "quantizer_dropout is 2.0: it must be 0 to 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RvqCodec(**(SMALL | options))


def test_bad_input() -> None:
    net = RvqCodec(**SMALL).eval()
    message = r"expected float audio \(B, 1, T\) at 8000 Hz in \[-1, 1\], got "
    for wav in (torch.zeros(2, 2, 80), torch.zeros(2, 80), torch.zeros(2, 1, 80, dtype=torch.int16)):
        with pytest.raises(ValueError, match=message):
            net.encode(wav)
    with pytest.raises(ValueError, match="there is nothing to encode"):
        net.encode(torch.zeros(2, 1, 0))
    with pytest.raises(ValueError, match="num_codebooks is 4: this codec has 1 to 3"):
        net.encode(torch.zeros(2, 1, 80), num_codebooks=4)
    with pytest.raises(ValueError, match=r"codes must lie in 0 .. 15, got 0 .. 16"):
        net.decode(torch.tensor([[[0, 16]]]))
    with pytest.raises(ValueError, match=r"expected integer codes \(B, K, F\), got torch.float32 \(1, 1, 2\)"):
        net.decode(torch.full((1, 1, 2), torch.nan))
    with pytest.raises(ValueError, match="num_codebooks is 4: this codec has 1 to 3"):
        net.decode(torch.zeros(1, 4, 2, dtype=torch.int64))
