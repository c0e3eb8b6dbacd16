"""`variational`: the LSTM of `lstm_seq2seq` with a latent, so that one past has many futures, and styles to switch.

z is drawn from q(z | prev, next) in training and from p(z | prev) when there is no next, both normal with a diagonal
covariance, and read by the decoder at every step beside the last value. What is minimised is the code length given z
plus KL(q, p): an upper bound of the code length (Kingma and Welling, 2014; with a learned prior: Sohn et al., 2015).
As z is read at every step, it may change in mid-sequence: what came before stays as it was.
"""

import torch
from torch import Tensor, nn

from codes.models.heads import Choice
from codes.models.lstm import LstmStack, States
from codes.models.lstm_seq2seq import LstmSeq2seq, Progress

LOG_SCALE_LIMIT = 6.0  # log standard deviations stay within


class Variational(LstmSeq2seq):
    """Continuation of a sequence with a latent: values (B, prev + next) -> (B, next) as `lstm_seq2seq`, and KL.

    Args:
        latent_dim: numbers in z.
    """

    def __init__(self, *, latent_dim: int = 16, **lstm: object) -> None:
        if latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim}: it must be 1 or more")
        self.style_dim = latent_dim
        super().__init__(**lstm)  # type: ignore[arg-type]
        dim = self.encoder.dim
        self.reader = LstmStack(self.output.input_dim, dim, 1, 0.0)  # of next, backwards
        self.prior = nn.Linear(dim, 2 * latent_dim)
        self.posterior = nn.Linear(2 * dim, 2 * latent_dim)
        for layer in (self.prior, self.posterior):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, sequence: Tensor, noise: Tensor, prev_length: Tensor | None = None, next_length: Tensor | None = None,
        forced: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What next is worth, given prev and a draw of z that has seen both.

        Args:
            sequence, prev_length, forced: see `lstm_seq2seq`.
            noise: (B, latent_dim) standard normal, of which z is made.
            next_length: (B,) values of next, 1 or more, which begins at the border; None: all behind it.

        Returns:
            nats or predictions (B, next_steps), KL of each number of z in nats (B, latent_dim).
        """
        values, valid = self.prepare(sequence, prev_length)
        border = values.shape[1] - self.next_steps
        scale = self.output.scale(values[:, :border], valid)
        states = self.encode(values[:, :border], valid, scale)
        prior = self._normal(self.prior(states[-1][0]))
        posterior = self._normal(self.posterior(self._read(values, next_length, scale, states)))
        z = posterior[0] + posterior[1].exp() * noise
        return self._finish(self._decode(values, states, scale, forced, z)), kl_of_normals(*posterior, *prior)

    def _read(self, values: Tensor, next_length: Tensor | None, scale: Tensor, states: States) -> Tensor:
        """What the posterior knows: the encoder's output, and that of an LSTM over next, its last value first."""
        border = values.shape[1] - self.next_steps
        after = torch.cat([values, values[:, -1:]], 1)  # the window behind the last value ends with it
        x = self.output.inputs(self.windows(after, border + 1), scale).flip(1)
        reset = None
        if next_length is not None:
            place = torch.arange(self.next_steps, device=values.device)
            reset = (place >= next_length[:, None]).flip(1)
        _, read = self.reader(x, self.reader.start(len(values), values.device), reset)
        return torch.cat([states[-1][0], read[0][0]], -1)

    @staticmethod
    def _normal(parameters: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 D) -> mean (B, D), log standard deviation (B, D)."""
        mean, log_scale = parameters.float().chunk(2, -1)
        return mean, LOG_SCALE_LIMIT * torch.tanh(log_scale / LOG_SCALE_LIMIT)

    @torch.no_grad()
    def draw_style(self, prev: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        """z from the prior. prev: (B, P[, width]) values -> (B, latent_dim); temperature 0 gives its mean."""
        values = prev if self.vectors or not self.output.is_float else prev[..., None]
        valid = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        states = self.encode(values, valid, self.output.scale(values, valid))
        mean, log_scale = self._normal(self.prior(states[-1][0]))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + log_scale.exp() * noise * temperature

    def carry_on(
        self, prev: Tensor, steps: int, *, temperature: float, seed: int, style_at: list[int], fade: int
    ) -> Tensor:
        """Go on after prev with one z, or with another from each of the steps ``style_at`` on.

        What is drawn for a style takes nothing from the random numbers of the values: before a change all is as
        without it.

        Args:
            prev: (B, P), (B, 1, P) or vectors (B, P, width).
            steps: how many values.
            temperature: of the values and of z; 0: greedy, with the mean of the prior.
            seed: of all draws.
            style_at: steps at which another z sets in, rising.
            fade: steps of each transition; 0 switches at once.

        Raises:
            ValueError: the steps of the changes do not rise within 0 .. steps.
        """
        if sorted(set(style_at)) != style_at or any(not 0 <= at < steps for at in style_at):
            raise ValueError(f"--style-at must rise within what is made ({steps} values), got {style_at}")
        prev = self._flat(prev)
        device = prev.device
        styles = []
        for number in range(len(style_at) + 1):
            draws = torch.Generator(device).manual_seed(seed + number)
            styles.append(self.draw_style(prev, max(temperature, float(number > 0)), draws))
        path = style_path(styles[0], styles[0], steps, 0, 0)
        for style, at in zip(styles[1:], style_at, strict=True):
            path = torch.cat([path[:, :at], style_path(path[:, at], style, steps - at, 0, fade)], 1)
        generator = torch.Generator(device).manual_seed(seed)
        return self.extend(prev, steps, Choice(temperature, generator=generator), style=path)

    def continuation(self, prev: Tensor, given: Tensor, choice: Choice, progress: Progress | None) -> Tensor:
        """As in `lstm_seq2seq`, with one z for the whole continuation, drawn from the prior."""
        with self.evaluating():
            style = self.draw_style(prev, choice.temperature, choice.generator)
            path = style_path(style, style, given.shape[1], 0, 0)
            return self.extend(prev, given.shape[1], choice, style=path, given=given, progress=progress)


def kl_of_normals(mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_log_scale: Tensor) -> Tensor:
    """KL(q, p) in nats of normals, number by number; all (B, D).

    log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2.
    """
    precision = (-2 * prior_log_scale).exp()
    square = (2 * log_scale).exp() + (mean - prior_mean).square()
    return prior_log_scale - log_scale + 0.5 * square * precision - 0.5


def style_path(first: Tensor, second: Tensor, steps: int, at: int, fade: int) -> Tensor:
    """z for each step: ``first`` before step ``at``, then along a line to ``second``: (B, steps, D).

    Args:
        first, second: (B, D).
        steps: in all.
        at: the first step that differs.
        fade: steps of the transition; 0 switches at once.
    """
    place = torch.arange(steps, device=first.device)
    part = ((place - at + 1) / max(fade, 1)).clamp(0, 1)[:, None]  # (steps, 1)
    return first[:, None] + (second - first)[:, None] * part
