"""`lstm_seq2seq`: a stacked LSTM reads what was (prev), another continues it (next): the network of "Deep LoFi Beats".

Both stand in one sequence, prev before the border and next behind it, as `prev_next` and `past_future` give it under
``wav``. The decoder starts from the encoder's state, reads the last value of prev first, and predicts next value by
value. In training it reads the real values (teacher forcing, all steps in one fused pass) or, where ``forced`` says so,
its own (scheduled sampling, Bengio et al., 2015; step by step).
"""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from codes.models.heads import Choice
from codes.models.lstm import LstmStack, States, detached
from codes.models.lstm_outputs import CodesOutput, FloatOutput, LogisticsOutput, Output
from codes.models.network import Network

Progress = Callable[[int, int], None]
PROGRESS_STEPS = 256


class LstmSeq2seq(Network):
    """Continuation of a sequence: values (B, prev + next) -> code lengths or predictions of next (B, next).

    Args:
        next_steps: values of next; all before them are prev.
        output: what is read and predicted. float: samples in [-1, 1) or vectors, returned as predictions for a loss of
            yours; logistics: integer samples as a mixture of logistics, returned as nats; codes: a softmax, as nats.
        bits: logistics: bit depth of the samples; codes: V = 2^bits.
        width: float: numbers in a value; 1 for samples, the auto-encoder's latent_dim for its vectors.
        layers: LSTM layers of the encoder, and of the decoder.
        dim: width of the layers.
        dropout: probability of dropping between layers, in training.
        mixtures: components of the logistics.
        truncate_steps: gradients flow back over so many steps at most; 0: over all. The encoder runs without gradients
            before them, and with checkpointing_enabled the decoder keeps the activations of one such stretch only.
        feedback_temperature: how scheduled sampling chooses its own values: 0 the likeliest (greedy), 1 as learned.
        noise_scale: float: standard deviation of the noise that sampling at temperature 1 adds to each value.
    """

    style_dim = 0  # of what conditions each step besides; see `variational`

    def __init__(
        self, *, next_steps: int, output: Literal["float", "logistics", "codes"] = "logistics", bits: int = 16,
        width: int = 1, layers: int = 2, dim: int = 128, dropout: float = 0.0, mixtures: int = 6,
        truncate_steps: int = 0, feedback_temperature: float = 0.0, noise_scale: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, size in {"next_steps": next_steps, "width": width, "layers": layers, "dim": dim}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be 1 or more")
        if output != "float" and width != 1:
            raise ValueError(f"width is {width}: only output: float takes vectors")
        if truncate_steps < 0 or feedback_temperature < 0 or noise_scale < 0:
            raise ValueError("truncate_steps, feedback_temperature and noise_scale must be 0 or more")
        self.next_steps, self.truncate_steps = next_steps, truncate_steps
        self.output = _make_output(output, dim, bits, width, mixtures, noise_scale)
        self.vectors = output == "float" and width > 1
        self.encoder = LstmStack(self.output.input_dim, dim, layers, dropout)
        self.decoder = LstmStack(self.output.input_dim + self.style_dim, dim, layers, dropout)
        self.feedback = Choice(feedback_temperature)

    def forward(self, sequence: Tensor, prev_length: Tensor | None = None, forced: Tensor | None = None) -> Tensor:
        """What next is worth, given prev.

        Args:
            sequence: (B, T) or (B, 1, T) integers or floats (vectors: (B, T, width)), T > next_steps. Prev ends at the
                border and may have anything before it begins.
            prev_length: (B,) values of prev, 1 or more; None: all before the border.
            forced: (B, next_steps) bool, true where the next step reads the real value, false where its own; with no
                column, as without it and always in evaluation, every step reads the real one.

        Returns:
            nats (B, next_steps) float32; of output: float, predictions (B, next_steps[, width]).
        """
        values, valid = self.prepare(sequence, prev_length)
        border = values.shape[1] - self.next_steps
        scale = self.output.scale(values[:, :border], valid)
        states = self.encode(values[:, :border], valid, scale)
        return self._finish(self._decode(values, states, scale, forced, None))

    def prepare(self, sequence: Tensor, prev_length: Tensor | None) -> tuple[Tensor, Tensor]:
        """The values (B, T[, width]) with silence before prev, and where prev is valid: (B, prev) bool.

        Raises:
            ValueError: the shape or the type does not fit.
        """
        one_channel = sequence.dim() == 3 and sequence.shape[1] == 1 and not self.vectors
        values = sequence.squeeze(1) if one_channel else sequence
        wanted = f"(B, T, {self.output.width})" if isinstance(self.output, FloatOutput) and self.vectors else "(B, T)"
        fits = values.dim() == 2 + self.vectors and (not self.vectors or values.shape[2] == self.output.width)
        if not fits or values.shape[1] <= self.next_steps:
            raise ValueError(
                f"expected {wanted} with T > next_steps = {self.next_steps}, as prev takes one value at least, "
                f"got {tuple(sequence.shape)}"
            )
        self._check_kind(values)
        values = values.float() if self.output.is_float else values.long()
        if isinstance(self.output, FloatOutput) and not self.vectors:
            values = values[..., None]
        border = values.shape[1] - self.next_steps
        place = torch.arange(border, device=values.device)
        if prev_length is None:
            return values, torch.ones(len(values), border, dtype=torch.bool, device=values.device)
        valid = place >= border - prev_length[:, None]
        silent = ~torch.cat([valid, valid.new_ones(len(values), self.next_steps)], 1)
        return values.masked_fill(silent[..., None] if values.dim() == 3 else silent, self.output.silence), valid

    def _check_kind(self, values: Tensor) -> None:
        if values.is_floating_point() != self.output.is_float:
            kind = "float values" if self.output.is_float else "integer codes"
            raise ValueError(f"expected {kind}, got {str(values.dtype).removeprefix('torch.')}")

    def windows(self, values: Tensor, first: int) -> Tensor:
        """values (B, T[, width]) -> the values before each from number ``first`` on: (B, T - first, reach[, width])."""
        reach = self.output.reach
        before = values[:, :1].new_full((len(values), reach, *values.shape[2:]), self.output.silence)
        lagged = torch.cat([before, values], 1).unfold(1, reach, 1)[:, first : values.shape[1]]
        return lagged.movedim(-1, 2)

    def encode(self, prev: Tensor, valid: Tensor, scale: Tensor) -> States:
        """prev (B, P[, width]), valid (B, P), scale (B, 1) -> states after all of prev but its last value."""
        states = self.encoder.start(len(prev), prev.device)
        if prev.shape[1] == 1:
            return states
        x = self.output.inputs(self.windows(prev, 1), scale)
        reset = ~valid[:, :-1]
        early = max(x.shape[1] - self.truncate_steps, 0) if self.truncate_steps else 0
        if early:
            with torch.no_grad():
                _, states = self.encoder(x[:, :early], states, reset[:, :early])
        return self.encoder(x[:, early:], states, reset[:, early:])[1]

    def _decode(
        self, values: Tensor, states: States, scale: Tensor, forced: Tensor | None, style: Tensor | None
    ) -> Tensor:
        """values (B, T), states, style (B, style_dim) -> nats (B, next_steps) or predictions (B, next_steps, width)."""
        if forced is not None and forced.shape[-1] not in (0, self.next_steps):
            raise ValueError(f"expected forced (B, {self.next_steps}) or (B, 0), got {tuple(forced.shape)}")
        if forced is not None and forced.shape[-1] and self.training:
            return self._by_steps(values, states, scale, forced, style)
        border = values.shape[1] - self.next_steps
        windows = self.windows(values, border)
        x = self._with_style(self.output.inputs(windows, scale), style)
        hidden = self._through_decoder(x, states)
        return self._score(hidden, windows, values[:, border:], scale)

    def _through_decoder(self, x: Tensor, states: States) -> Tensor:
        """x (B, N, D) -> hidden (B, N, H), in stretches through whose edges no gradient flows."""
        parts = []
        for stretch in x.split(self.truncate_steps or x.shape[1], 1):
            if self.truncate_steps and self.gradient_checkpointing and self.training:
                hidden, states = cast(
                    "tuple[Tensor, States]", checkpoint(self.decoder, stretch, states, use_reentrant=False)
                )
            else:
                hidden, states = self.decoder(stretch, states)
            parts.append(hidden)
            states = detached(states) if self.truncate_steps else states
        return torch.cat(parts, 1)

    def _by_steps(self, values: Tensor, states: States, scale: Tensor, forced: Tensor, style: Tensor | None) -> Tensor:
        """As `_decode`, one step after the other; where ``forced`` (B, N) is false a step reads its own value."""
        border = values.shape[1] - self.next_steps
        window = self.windows(values, border)[:, 0]
        all_hidden, all_windows = [], []
        for step in range(self.next_steps):
            if self.truncate_steps and step % self.truncate_steps == 0 and step:
                states = detached(states)
            x = self._with_style(self.output.inputs(window[:, None], scale), style)[:, 0]
            hidden, states = self.decoder.step(x, states)
            all_hidden.append(hidden)
            all_windows.append(window)
            with torch.no_grad():
                own = self.output.sample(hidden, window, scale, self.feedback)
            real = values[:, border + step]
            keep = forced[:, step, None] if real.dim() == 2 else forced[:, step]
            window = torch.cat([window[:, 1:], torch.where(keep, real, own)[:, None]], 1)
        return self._score(torch.stack(all_hidden, 1), torch.stack(all_windows, 1), values[:, border:], scale)

    def _score(self, hidden: Tensor, windows: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return self.output.score(hidden.float(), windows, target, scale)

    def _finish(self, scored: Tensor) -> Tensor:
        """Predictions of samples without the axis of their width."""
        return scored.squeeze(-1) if isinstance(self.output, FloatOutput) and not self.vectors else scored

    def _with_style(self, x: Tensor, style: Tensor | None) -> Tensor:
        """x (B, N, D), style (B, S) or (B, N, S) -> (B, N, D + S)."""
        if style is None:
            return x
        style = style[:, None].expand(-1, x.shape[1], -1) if style.dim() == 2 else style
        return torch.cat([x, style.to(x.dtype)], -1)

    @torch.no_grad()
    def extend(
        self, prev: Tensor, steps: int, choice: Choice, style: Tensor | None = None, given: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """Go on after prev, value by value; a batch of any size.

        Args:
            prev: (B, P) integers or floats, or (B, P, width) vectors; P of 1 or more.
            steps: how many values.
            choice: temperature (0: greedy) and random numbers.
            style: (B, steps, style_dim), where the network has one.
            given: (B, steps) codes, -1 where free.
            progress: called now and then with the values done and their number.

        Returns:
            (B, steps[, width]).
        """
        if steps < 1 or prev.shape[1] < 1:
            raise ValueError(f"expected a prev of 1 value or more and 1 step or more, got {prev.shape[1]} and {steps}")
        self._check_kind(prev)
        prev = prev[..., None] if isinstance(self.output, FloatOutput) and not self.vectors else prev
        valid = torch.ones(prev.shape[:2], dtype=torch.bool, device=prev.device)
        scale = self.output.scale(prev, valid)
        states = self.encode(prev, valid, scale)
        window = self.windows(torch.cat([prev, prev[:, -1:]], 1), prev.shape[1])[:, 0]
        made = []
        for step in range(steps):
            now = None if style is None else style[:, step]
            x = self._with_style(self.output.inputs(window[:, None], scale), now)[:, 0]
            hidden, states = self.decoder.step(x, states)
            value = self.output.sample(hidden, window, scale, choice)
            if given is not None:
                value = torch.where(given[:, step] < 0, value, given[:, step])
            made.append(value)
            window = torch.cat([window[:, 1:], value[:, None]], 1)
            if progress is not None and ((step + 1) % PROGRESS_STEPS == 0 or step + 1 == steps):
                progress(step + 1, steps)
        return self._finish(torch.stack(made, 1))

    def generate(
        self, ids: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
        generator: torch.Generator | None = None, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """Fill in the free positions of a sequence of codes (B, T) or (B, 1, T), -1 where free; see `gpt`.

        Raises:
            ValueError: the values are floats, or the first one is free.
        """
        sequence = ids.squeeze(1) if ids.dim() == 3 else ids
        if self.output.is_float or sequence.is_floating_point():
            raise ValueError("a network of floats has no codes to fill in: scripts/sample.py continues audio with it")
        free = (sequence < 0).any(0).nonzero()
        known = int(free[0]) if len(free) else sequence.shape[1]
        if known == 0:
            raise ValueError("the first value is free: lstm_seq2seq continues a prompt of 1 value or more")
        if known < sequence.shape[1]:
            choice = Choice(temperature, top_k, top_p, generator).meant_for(getattr(self.output, "head", self.output))
            made = self.continuation(sequence[:, :known].long(), sequence[:, known:].long(), choice, progress)
            sequence = torch.cat([sequence[:, :known].long(), made], 1)
        return sequence.view_as(ids)

    def carry_on(
        self, prev: Tensor, steps: int, *, temperature: float, seed: int, style_at: list[int], fade: int
    ) -> Tensor:
        """Go on after prev (B, P), (B, 1, P) or vectors (B, P, width), as scripts/sample.py asks: (B, steps[, width]).

        Raises:
            ValueError: a style is asked for, which this network has not.
        """
        if style_at:
            raise ValueError("--style-at: this network has no style to change, `variational` has")
        generator = torch.Generator(prev.device).manual_seed(seed)
        return self.extend(self._flat(prev), steps, Choice(temperature, generator=generator))

    def _flat(self, prev: Tensor) -> Tensor:
        return prev.squeeze(1) if prev.dim() == 3 and not self.vectors else prev

    def continuation(self, prev: Tensor, given: Tensor, choice: Choice, progress: Progress | None) -> Tensor:
        """What `generate` puts behind prev: (B, N) codes, those of ``given`` that are not -1 kept."""
        with self.evaluating():
            return self.extend(prev, given.shape[1], choice, given=given, progress=progress)


def _make_output(kind: str, dim: int, bits: int, width: int, mixtures: int, noise_scale: float) -> Output:
    if kind == "float":
        return FloatOutput(dim, width, noise_scale)
    allowed = {"logistics": (2, 32), "codes": (1, 16)}[kind]
    if not allowed[0] <= bits <= allowed[1]:
        raise ValueError(f"bits is {bits}: output: {kind} takes {allowed[0]} to {allowed[1]} bits")
    if mixtures < 1:
        raise ValueError(f"mixtures is {mixtures}: it must be 1 or more")
    return CodesOutput(dim, 2**bits) if kind == "codes" else LogisticsOutput(dim, bits, mixtures)
