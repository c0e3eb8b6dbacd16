"""A stack of LSTM layers in two forms that agree: all steps at once (the fused kernel), and one step at a time.

Sequences of unequal lengths are padded at their beginning. While ``reset`` is true a layer's state is exactly zero, so
that what follows is what an unpadded sequence would give, and no length is ever read back from the device. It costs
one more input: its weights are -10,000 for the input, forget and output gates, whose sigmoids are then 0.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

States = list[tuple[Tensor, Tensor]]  # (hidden, cell), each (B, H), of every layer
RESET = -1e4


class LstmLayer(nn.Module):
    """One layer. Weights are drawn as torch's own; the forget gate begins open (bias 1, Jozefowicz et al., 2015).

    Args:
        input_dim: width of the input.
        dim: width of the state.
    """

    reset_column: Tensor

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        bound = dim**-0.5
        self.weight_input = nn.Parameter(torch.empty(4 * dim, input_dim).uniform_(-bound, bound))
        self.weight_hidden = nn.Parameter(torch.empty(4 * dim, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(4 * dim))  # gates: input, forget, cell, output
        with torch.no_grad():
            self.bias[dim : 2 * dim] = 1.0
        column = torch.full((4 * dim, 1), RESET)
        column[2 * dim : 3 * dim] = 0.0
        self.register_buffer("reset_column", column, persistent=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], reset: Tensor | None) -> tuple[Tensor, tuple]:
        """x (B, T, D), state, reset (B, T) bool or None -> hidden (B, T, H), the state after the last step."""
        weight = self.weight_input
        if reset is not None:
            x = torch.cat([x, reset.to(x.dtype)[..., None]], -1)
            weight = torch.cat([weight, self.reset_column], 1)
        parts = [weight, self.weight_hidden, self.bias, torch.zeros_like(self.bias)]
        # one block of memory, as cuDNN wants it
        block = torch.cat([part.flatten() for part in parts]).split([part.numel() for part in parts])
        weights = [piece.view_as(part) for piece, part in zip(block, parts, strict=True)]
        hidden, cell = (value[None].to(weight.dtype).contiguous() for value in state)
        out, hidden, cell = torch.lstm(x, (hidden, cell), weights, True, 1, 0.0, self.training, False, True)
        return out.float(), (hidden[0].float(), cell[0].float())

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """x (B, D) and the state before -> the state after, whose first part is the output."""
        zeros = torch.zeros_like(self.bias)
        return torch.lstm_cell(x, state, self.weight_input, self.weight_hidden, self.bias, zeros)


class LstmStack(nn.Module):
    """Layers on top of each other, with dropout between them in training.

    Args:
        input_dim: width of the input.
        dim: width of every layer.
        layers: number of layers.
        dropout: probability of dropping.
    """

    def __init__(self, input_dim: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.dropout = dim, dropout
        self.layers = nn.ModuleList([LstmLayer(dim if i else input_dim, dim) for i in range(layers)])

    def start(self, batch: int, device: torch.device) -> States:
        """States of zeros."""
        zeros = torch.zeros(batch, self.dim, device=device)
        return [(zeros, zeros) for _ in self.layers]

    def forward(self, x: Tensor, states: States, reset: Tensor | None = None) -> tuple[Tensor, States]:
        """x (B, T, D), T of 1 or more -> hidden (B, T, H) of the last layer, states of all after the last step."""
        after: States = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(self._drop(x) if after else x, state, reset)
            after.append(state)
        return x, after

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """x (B, D) -> hidden (B, H) of the last layer, states; in float32 whatever the autocast."""
        after: States = []
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for layer, state in zip(self.layers, states, strict=True):
                after.append(layer.step(self._drop(x) if after else x, state))  # type: ignore[operator]
                x = after[-1][0]
        return x, after

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


def detached(states: States) -> States:
    """The same states, through which no gradient flows."""
    return [(hidden.detach(), cell.detach()) for hidden, cell in states]
