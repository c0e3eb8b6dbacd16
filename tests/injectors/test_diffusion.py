"""Diffusion: the noise that is added, what a perfect guess costs, the variational bound, wiring in a YAML."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codes.trainer.injectors.diffusion import BetaSchedule, DiffusionArgs, GaussianDiffusionInjector, _tables

VALUES = torch.rand(500, 2, 16, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
STEPS = 50


class Perfect(nn.Module):
    """Knows the values, hence the noise. spread: what it says of the variance, None for nothing."""

    def __init__(self, values: Tensor, betas: Tensor, start: bool = False, spread: float | None = None) -> None:
        super().__init__()
        self.values, self.start, self.spread = values, start, spread
        self.kept = (1 - betas).cumprod(0).float()
        self.seen: Any = None

    def forward(self, noisy: Tensor, t: Tensor, **inputs: Any) -> Any:
        self.seen = noisy, t, inputs
        kept = self.kept[t.long()][:, None, None]
        guess = self.values if self.start else (noisy - kept.sqrt() * self.values) / (1 - kept).sqrt()
        if self.spread is None:
            return guess
        return torch.cat([guess, torch.full_like(guess, self.spread)], 1), t * 2


def make(schedule: Any = "linear", mean: Any = "epsilon", variance: Any = "fixed_small", **options: Any) -> Any:
    """The injector with a perfect network; seeded."""
    betas = BetaSchedule(schedule_name=schedule, num_diffusion_timesteps=STEPS)
    arguments = DiffusionArgs(model_mean_type=mean, model_var_type=variance, **options.pop("args", {}))
    spread = options.pop("spread", None)
    network = Perfect(VALUES, betas.betas(), mean == "start_x", spread)
    injector = GaussianDiffusionInjector(generator=network, beta_schedule=betas, diffusion_args=arguments, **options)
    injector.seed_items(torch.arange(len(VALUES)), 7)
    return injector


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 50, 1000, 4000])
def test_schedules(schedule: Any, steps: int) -> None:
    """Ho et al. (1e-4 to 0.02 in 1000 steps) and Nichol and Dhariwal, equation 17; nothing is left at the end."""
    betas = BetaSchedule(schedule_name=schedule, num_diffusion_timesteps=steps).betas()
    assert betas.shape == (steps,)
    assert bool(((betas > 0) & (betas <= 0.999)).all())
    if steps == 1000 and schedule == "linear":
        assert betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])
    if steps >= 1000:
        assert float((1 - betas).cumprod(0)[-1]) < 1e-4
    assert all(table.isfinite().all() for table in _tables(betas).values())


@pytest.mark.parametrize("mean", ["epsilon", "start_x"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_perfect_guess_costs_nothing(schedule: str, mean: str) -> None:
    injector = make(schedule, mean, out_key_x_start="start")
    errors, start = injector(VALUES)
    assert errors.shape == (500,)
    assert float(errors.max()) < 1e-6
    torch.testing.assert_close(start, VALUES, rtol=0, atol=2e-2 if schedule == "cosine" and mean == "epsilon" else 1e-3)
    noisy, steps, _ = injector.network.seen
    assert set(steps.tolist()) == set(range(STEPS))
    kept = injector.network.kept[steps][:, None, None]
    noise = (noisy - kept.sqrt() * VALUES) / (1 - kept).sqrt()
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_what_an_item_gets_is_its_own() -> None:
    injector = make()
    injector(VALUES)
    whole, steps, _ = injector.network.seen
    injector.network.values = VALUES[100:140]
    injector.seed_items(torch.arange(100, 140), 7)
    injector(VALUES[100:140])
    assert torch.equal(injector.network.seen[0], whole[100:140])
    assert torch.equal(injector.network.seen[1], steps[100:140])


def test_the_bound_of_a_perfect_guess() -> None:
    """With the true mean and the true variance no bits are lost, but for the last step's code length."""
    injector = make(variance="learned_range", spread=-1.0, out_key_vb_loss="bound")
    _, bound = injector(VALUES)
    last = injector.network.seen[1] == 0
    assert last.any()
    assert float(bound[~last].abs().max()) < 1e-2
    assert bool((bound[last] > 0).all())
    wide = make(variance="learned_range", spread=1.0, out_key_vb_loss="bound")
    _, more = wide(VALUES)
    assert float(more[~last].mean()) > float(bound[~last].mean()) + 1e-3
    assert not torch.equal(more[last], bound[last])  # of step 0 the variance can be moved as well
    scaled = make(variance="learned_range", spread=1.0, out_key_vb_loss="bound", args={"loss_type": "rescaled_mse"})
    torch.testing.assert_close(scaled(VALUES)[1], more * STEPS / 1000)


def test_the_bound_of_a_step_by_hand() -> None:
    """The divergence of two Gaussians by torch.distributions."""
    betas = BetaSchedule(schedule_name="linear", num_diffusion_timesteps=STEPS).betas()
    injector = make(variance="learned", spread=-1.5, out_key_vb_loss="bound", out_key_x_start="start")
    injector.network.values = VALUES * 0.5  # an imperfect guess
    _, bound, start = injector(VALUES)
    noisy, steps, _ = injector.network.seen
    item = int((steps > 5).nonzero()[0])
    t = int(steps[item])
    kept = (1 - betas).cumprod(0)
    variance = betas[t] * (1 - kept[t - 1]) / (1 - kept[t])
    means = [
        kept[t - 1].sqrt() * betas[t] / (1 - kept[t]) * x
        + (1 - betas[t]).sqrt() * (1 - kept[t - 1]) / (1 - kept[t]) * y
        for x, y in ((VALUES[item], noisy[item]), (start[item], noisy[item]))
    ]
    true = torch.distributions.Normal(means[0], variance.sqrt())
    model = torch.distributions.Normal(means[1], torch.tensor(math.exp(-0.75)))
    expected = torch.distributions.kl_divergence(true, model).mean() / math.log(2)
    assert float(bound[item]) == pytest.approx(float(expected), rel=1e-3)


def test_other_inputs_and_outputs() -> None:
    options = {
        "model_input_keys": {"mel": "mel", "again": "mel", "strength": 0.5},
        "extra_model_output_keys": ["twice"],
    }
    injector = make(variance="learned_range", spread=0.0, args={"rescale_timesteps": True}, **options)
    mel = torch.randn(500, 3)
    injector.network.kept = torch.ones(1001) * 0.5
    _, twice = injector(VALUES, mel)
    _, steps, inputs = injector.network.seen
    assert inputs["mel"] is inputs["again"] is mel
    assert inputs["strength"] == 0.5
    assert torch.equal(twice, steps * 2)
    assert float(steps.max()) == pytest.approx(1000 * 49 / 50)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="out_key_vb_loss is the loss of a learned variance"):
        make(out_key_vb_loss="bound")
    with pytest.raises(
        ValueError, match=re.escape("the network must return (500, 4, 16) (learned_range), got (500, 2")
    ):
        make(variance="learned_range")(VALUES)
    with pytest.raises(ValueError, match="names 1 other keys than `in`, got 0 values"):
        make(model_input_keys={"mel": "mel"})(VALUES)
    with pytest.raises(ValueError, match="extra_model_output_keys names 1 values, the network returns 0 more"):
        make(extra_model_output_keys=["more"])(VALUES)
    with pytest.raises(ValueError, match=r"expected floats in -1 \.\. 1, got torch\.int64"):
        make()(VALUES.long())
