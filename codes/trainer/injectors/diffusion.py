"""The training of a denoising diffusion model (Ho et al. 2020; Nichol and Dhariwal 2021): noise, a guess, its errors.

What a batch pays for is one call of the network and a few multiplications: all numbers that follow from the step t of
the diffusion lie in tables (T,), made once in float64.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from codes.registry import Range, StateKey
from codes.trainer.injector import Injector
from codes.trainer.injectors.crops import KeyWritten


@dataclass(frozen=True, kw_only=True)
class BetaSchedule:
    """How much noise each step of the diffusion adds.

    Args:
        schedule_name: linear (Ho et al. 2020), or cosine (Nichol and Dhariwal 2021)
        num_diffusion_timesteps: steps
    """

    schedule_name: Literal["linear", "cosine"] = "linear"
    num_diffusion_timesteps: Annotated[int, Range(least=1)] = 4000

    def betas(self) -> Tensor:
        """The variance that each step adds: (T,) float64 in 0 .. 1."""
        number = self.num_diffusion_timesteps
        if self.schedule_name == "linear":
            return torch.linspace(0.1 / number, 20 / number, number, dtype=torch.float64).clamp(max=0.999)
        places = torch.arange(number + 1, dtype=torch.float64) / number
        kept = torch.cos((places + 0.008) / 1.008 * math.pi / 2).square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


@dataclass(frozen=True, kw_only=True)
class DiffusionArgs:
    """What the network guesses.

    Args:
        model_mean_type: epsilon: the noise; start_x: the value without noise
        model_var_type: learned_range: the network gives twice the channels, and the second half says where the variance
            of a step lies between its bounds; learned: its logarithm; fixed_small, fixed_large: one of the bounds
        loss_type: rescaled_mse scales the bound to a thousandth of all steps' sum; mse leaves it that of one step
        rescale_timesteps: the network gets t as 0 .. 1000 whatever the number of steps
    """

    model_mean_type: Literal["epsilon", "start_x"] = "epsilon"
    model_var_type: Literal["learned_range", "learned", "fixed_small", "fixed_large"] = "learned_range"
    loss_type: Literal["mse", "rescaled_mse"] = "mse"
    rescale_timesteps: bool = False

    @property
    def learns_variance(self) -> bool:
        """Whether the network gives twice the channels."""
        return self.model_var_type in ("learned_range", "learned")


class GaussianDiffusionInjector(Injector):
    """Noise added to values, and how well a network guesses it. values: (B, C, ...) in -1 .. 1 -> errors (B,).

    The network is called as network(noisy, t, **inputs), t (B,) whole numbers from 0 (least noise); where it returns a
    tuple, what comes after the guess is written under extra_model_output_keys. Steps and noise are the items' own, so a
    validation gives the same figures twice.

    Args:
        generator: name of the network under `networks`.
        beta_schedule: how much noise each step adds.
        diffusion_args: what the network guesses.
        model_input_keys: its other inputs: name of the argument -> key of the state, or a number.
        out_key_vb_loss: key of the variational bound (B,) in bits a dimension; only with a learned variance, whose loss
            it is: no gradient of it reaches the guess of the mean.
        out_key_x_start: key of the value without noise that the guess amounts to.
        extra_model_output_keys: keys of what else the network returns.
        sampler_type: how steps are drawn: uniform.
        deterministic_timesteps_every: no effect: validation draws the same steps every time as it is.
        deterministic_sampler_expected_batch_size: no effect, as the one above.
    """

    def __init__(
        self, *, generator: nn.Module, beta_schedule: BetaSchedule = BetaSchedule(),
        diffusion_args: DiffusionArgs = DiffusionArgs(),
        model_input_keys: Annotated[dict[str, Any] | None, StateKey()] = None, out_key_vb_loss: KeyWritten = None,
        out_key_x_start: KeyWritten = None,
        extra_model_output_keys: Annotated[list[str] | None, StateKey(written=True)] = None,
        sampler_type: Literal["uniform"] = "uniform", deterministic_timesteps_every: int = 0,
        deterministic_sampler_expected_batch_size: int = 2048,
    ) -> None:  # fmt: skip
        if out_key_vb_loss is not None and not diffusion_args.learns_variance:
            raise ValueError("out_key_vb_loss is the loss of a learned variance: set model_var_type: learned_range")
        self.network, self.args = generator, diffusion_args
        self.inputs = dict(model_input_keys or {})
        self.wanted = (out_key_vb_loss is not None, out_key_x_start is not None, len(extra_model_output_keys or []))
        self.num_steps = beta_schedule.num_diffusion_timesteps
        self.tables = _tables(beta_schedule.betas())

    def forward(self, values: Tensor, *inputs: Any) -> Any:
        """values: (B, C, ...); inputs: those of model_input_keys -> errors (B,), then what keys are given for.

        Raises:
            ValueError: integers, another number of inputs, or a network that returns something else.
        """
        if not values.is_floating_point():
            raise ValueError(f"expected floats in -1 .. 1, got {values.dtype}")
        values = values.float()
        steps = self.draw_integers(values, 0, self.num_steps)
        noise = self.draw_normal(values, *values.shape[1:])
        noisy = self._at("kept", steps, values) * values + self._at("added", steps, values) * noise
        shown = steps * (1000.0 / self.num_steps) if self.args.rescale_timesteps else steps
        returned = self.network(noisy, shown, **self._named(inputs))
        guess, *extra = returned if isinstance(returned, tuple) else (returned,)
        guess, spread = self._split(guess.float(), values)
        start = guess if self.args.model_mean_type == "start_x" else self._start(guess, noisy, steps)
        target = values if self.args.model_mean_type == "start_x" else noise
        found: list[Any] = [(target - guess).square().flatten(1).mean(1)]
        with_bound, with_start, num_extra = self.wanted
        if with_bound:
            assert spread is not None
            found.append(self._bound(values, noisy, steps, start.detach(), spread))
        found += [start] if with_start else []
        if num_extra > len(extra):
            raise ValueError(f"extra_model_output_keys names {num_extra} values, the network returns {len(extra)} more")
        found += extra[:num_extra]
        return found[0] if len(found) == 1 else tuple(found)

    def _named(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        keys = list(dict.fromkeys(key for key in self.inputs.values() if isinstance(key, str)))
        if len(inputs) != len(keys):
            raise ValueError(f"model_input_keys names {len(keys)} other keys than `in`, got {len(inputs)} values")
        values = dict(zip(keys, inputs, strict=True))
        return {name: values[key] if isinstance(key, str) else key for name, key in self.inputs.items()}

    def _split(self, guess: Tensor, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """The guess, and what the network says of the variance."""
        channels = values.shape[1] * (2 if self.args.learns_variance else 1)
        if guess.shape != (len(values), channels, *values.shape[2:]):
            wanted = (len(values), channels, *values.shape[2:])
            raise ValueError(f"the network must return {wanted} ({self.args.model_var_type}), got {tuple(guess.shape)}")
        return (
            (guess[:, : values.shape[1]], guess[:, values.shape[1] :]) if self.args.learns_variance else (guess, None)
        )

    def _at(self, name: str, steps: Tensor, like: Tensor) -> Tensor:
        """A table's numbers for each item: (B, 1, ...)."""
        self.tables[name] = table = self.tables[name].to(steps.device)
        return table[steps].view(-1, *[1] * (like.ndim - 1))

    def _start(self, noise: Tensor, noisy: Tensor, steps: Tensor) -> Tensor:
        """What lies under that noise."""
        return (noisy - self._at("added", steps, noisy) * noise) / self._at("kept", steps, noisy)

    def _bound(self, values: Tensor, noisy: Tensor, steps: Tensor, start: Tensor, spread: Tensor) -> Tensor:
        """The step's part of the variational bound in bits a dimension: (B,).

        The divergence of the network's Gaussian from the true one of the step before; of step 0 the code length of the
        values themselves in 256 levels.
        """
        low, high = self._at("log_variance", steps, values), self._at("log_beta", steps, values)
        share = (spread + 1) / 2
        log_variance = spread if self.args.model_var_type == "learned" else share * high + (1 - share) * low
        of_start, of_noisy = self._at("mean_of_start", steps, values), self._at("mean_of_noisy", steps, values)
        true_mean, mean = of_start * values + of_noisy * noisy, of_start * start + of_noisy * noisy
        nats = 0.5 * (log_variance - low - 1 + (low - log_variance).exp()
                      + (true_mean - mean).square() * (-log_variance).exp())  # fmt: skip
        first = -_log_level(values, mean, 0.5 * log_variance)
        bits = torch.where(steps.view(-1, *[1] * (values.ndim - 1)) == 0, first, nats).flatten(1).mean(1) / math.log(2)
        return bits * (self.num_steps / 1000) if self.args.loss_type == "rescaled_mse" else bits


def _tables(betas: Tensor) -> dict[str, Tensor]:
    """What follows from each step: (T,) float32 each."""
    alphas = 1 - betas
    kept = alphas.cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    variance = torch.cat([variance[1:2] if len(betas) > 1 else betas, variance[1:]])  # that of step 0 is 0
    found = {
        "kept": kept.sqrt(),
        "added": (1 - kept).sqrt(),
        "log_beta": betas.log(),
        "log_variance": variance.log(),
        "mean_of_start": betas * before.sqrt() / (1 - kept),
        "mean_of_noisy": (1 - before) * alphas.sqrt() / (1 - kept),
    }
    return {name: table.float() for name, table in found.items()}


def _log_level(values: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Logarithm of what a Gaussian gives the level of each value, of 256 from -1 to 1; the outermost are open."""
    scale = (-log_scale).exp()
    above, below = (values - mean + 1 / 255) * scale, (values - mean - 1 / 255) * scale
    inner = (torch.special.ndtr(above) - torch.special.ndtr(below)).clamp(min=1e-12).log()
    lowest, highest = torch.special.log_ndtr(above), torch.special.log_ndtr(-below)
    return torch.where(values < -0.999, lowest, torch.where(values > 0.999, highest, inner))
