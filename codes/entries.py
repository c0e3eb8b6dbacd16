"""The named entries of an experiment: datasets, networks, steps, injectors and losses.

The ``...Flags`` are what every entry of a kind takes from the YAML besides the options of the class that it names; the
``...Entry`` are the results of reading one. Key names and meanings are DL-Art-School's.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codes.convert import Component
from codes.options import AtLeastZero, Count, ExperimentOptions, NotNegative, Positive, Share
from codes.yaml_source import Mark

Optimizer = Literal["adamw", "adamw_zero", "adamw8bit", "sgd", "lion"]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """When an entry takes part; steps count from 1.

    Args:
        after: first step at which it takes part
        before: last step at which it takes part
        every: only at steps that are a multiple of this
    """

    after: AtLeastZero = 0
    before: AtLeastZero | None = None
    every: Count = 1

    def due(self, step: int) -> bool:
        """Whether it takes part at this step."""
        return self.after <= step and (self.before is None or step <= self.before) and step % self.every == 0


@dataclass(frozen=True, kw_only=True)
class InjectorFlags(Conditions):
    """What every injector takes besides its own options.

    Args:
        type: name of the injector (see --list injectors)
        in: key or keys of the state that it reads, in the order of its forward()
        out: key or keys that it writes
        train: true: only in training
        eval: true: only in validation
        no_grad: true: no gradient flows through it
        no_accum: true: only for the first micro-batch of a batch
        after: first step at which it runs
        before: last step at which it runs
        every: only at steps that are a multiple of this
    """

    type: str
    in_: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    train: bool = False
    eval: bool = False
    no_grad: bool = False
    no_accum: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightSchedule:
    """A loss weight that moves linearly from one value to another.

    Args:
        from: weight up to start_step
        to: weight from end_step on
        start_step: where it begins to move
        end_step: where it has arrived
    """

    from_: float
    to: float
    start_step: AtLeastZero
    end_step: Count

    def __post_init__(self) -> None:
        if self.end_step <= self.start_step:
            raise ValueError(f"end_step ({self.end_step}) must be above start_step ({self.start_step})")

    def at(self, step: int) -> float:
        """The weight at a step."""
        part = (step - self.start_step) / (self.end_step - self.start_step)
        return self.from_ + (self.to - self.from_) * min(max(part, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class LossFlags(Conditions):
    """What every loss takes besides its own options; its inputs are given as `in` or by the names of its forward().

    Args:
        type: name of the loss (see --list losses)
        weight: factor in the step's total, a number or a schedule {from, to, start_step, end_step}
        in: key or keys of the state that it reads, in the order of its forward()
        after: first step at which it counts
        before: last step at which it counts
        every: only at steps that are a multiple of this
    """

    type: str
    weight: float | WeightSchedule = 1.0
    in_: list[str] | None = None

    def weight_at(self, step: int) -> float:
        """The weight at a step."""
        return self.weight.at(step) if isinstance(self.weight, WeightSchedule) else self.weight


@dataclass(frozen=True, kw_only=True)
class EvaluatorFlags:
    """What every evaluator takes besides its options; its inputs are given as `in` or by the names of its forward().

    Args:
        type: name of the evaluator (see --list evaluators)
        in: key or keys of the state that it reads, in the order of its forward()
    """

    type: str
    in_: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Options of some parameters of the trained network that differ from the others'.

    Args:
        match: parameters whose name begins with one of these (default: the group's name)
        lr: their learning rate (default: the optimizer's)
        weight_decay: their weight decay (default: the optimizer's)
    """

    match: list[str] | None = None
    lr: NotNegative | None = None
    weight_decay: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerParams:
    """Options of the optimizer. Norms, biases and embeddings are never decayed.

    Args:
        lr: learning rate
        weight_decay: decoupled weight decay
        beta1: decay of the first moment (adamw, adamw8bit, lion)
        beta2: decay of the second moment (adamw, adamw8bit); for lion, decay of its momentum
        eps: added to the denominator (adamw)
        momentum: momentum of sgd
        param_groups: groups of parameters with options of their own, by name
    """

    lr: Positive = 1e-4
    weight_decay: NotNegative = 0.01
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8
    momentum: Share = 0.9
    param_groups: dict[str, ParameterGroup] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepFlags(Conditions):
    """One named training step: injectors, then losses, then an update of the networks that it trains.

    Args:
        training: network or networks that it trains, each with its own optimizer
        optimizer: adamw, adamw_zero (sharded over processes where there are several), adamw8bit (moments in a
            quarter of the memory), sgd or lion
        optimizer_params: options of the optimizer
        clip_grad_eps: largest global gradient norm of a network; larger gradients are scaled down to it
        loss_log_buffer: the logged training loss is the mean of at most this many last steps
        step_outputs: only these outputs are seen by later steps (default: all)
        requires: it runs only where the batch, or an earlier step of this iteration, has all of these keys
        injectors: what is computed, in order, by name
        losses: what is minimised, by name
        after: first step (iteration) at which it runs
        before: last iteration at which it runs
        every: only at iterations that are a multiple of this
    """

    training: list[str]
    optimizer: Optimizer = "adamw"
    optimizer_params: OptimizerParams = OptimizerParams()
    clip_grad_eps: Positive | None = None
    loss_log_buffer: Count = 50
    step_outputs: list[str] | None = None
    requires: list[str] = field(default_factory=list)
    injectors: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.training or len(set(self.training)) < len(self.training):
            raise ValueError("training must name one network or several different ones")

    def met_by(self, keys: Container[str]) -> bool:
        """Whether these keys of the state are all that it requires."""
        return all(key in keys for key in self.requires)


@dataclass(frozen=True, kw_only=True)
class DatasetFlags:
    """What every dataset takes besides its mode's own options. `val` takes from `train` what it does not set itself.

    Args:
        mode: name of the dataset (see --list datasets)
        name: a name for people
        batch_size: items in a batch, over all processes and micro-batches together
        n_workers: processes that prepare batches; 0 prepares them in the training process
        pin_memory: copy batches through page-locked memory (default: on a GPU)
    """

    mode: str
    name: str = ""
    batch_size: Count
    n_workers: AtLeastZero = 0
    pin_memory: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters (Hu et al. 2021) through peft: the network is frozen, and only they are trained.

    A layer of weight W becomes W + alpha / r B A, with A of r rows and B of r columns. Merged weights are written by
    scripts/export_lora.py.

    Args:
        r: rank
        alpha: strength; the adapters' part is multiplied by alpha / r
        dropout: probability of dropping the adapters' inputs, in training
        targets: layers that get one, by name or by the end of it (q is every layer that ends in .q): linear layers,
            embeddings and convolutions
    """

    r: Count = 8
    alpha: Positive = 16.0
    dropout: Share = 0.0
    targets: list[str]

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("targets must name one layer or more")


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """One network.

    Args:
        type: generator or discriminator
        which_model: name of the network (see --list networks); which_model_G and which_model_D are its old names
        kwargs: the network's own options
        trainable: false: never trained, always in evaluation mode
        after: frozen until this step
        lora: train low-rank adapters in place of the network's own weights
    """

    type: Literal["generator", "discriminator"] = "generator"
    which_model: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    trainable: bool = True
    after: AtLeastZero = 0
    lora: LoraOptions | None = None

    def __post_init__(self) -> None:
        if self.lora is not None and not self.trainable:
            raise ValueError("lora adds what is trained: trainable cannot be false")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A named entry of the YAML: its flags, and the class and options that it names (None where those are wrong)."""

    name: str
    mark: Mark
    flags: Any
    component: Component | None
    marks: Mapping[str, Mark] = field(default_factory=dict)  # where the value of each key stands

    @property
    def built_from(self) -> Component:
        """The component of a checked experiment."""
        assert self.component is not None
        return self.component


@dataclass(frozen=True, kw_only=True)
class LossEntry(Entry):
    """A loss with the state keys that its forward() reads, by parameter name."""

    reads: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class StepEntry:
    """A training step with its injectors and losses in YAML order."""

    name: str
    mark: Mark
    flags: StepFlags
    injectors: list[Entry]
    losses: list[LossEntry]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A loaded and checked experiment file."""

    file: Path
    options: ExperimentOptions
    datasets: dict[str, Entry]
    networks: dict[str, Entry]
    steps: list[StepEntry]
    values: dict[str, Any]  # the YAML's plain values, overrides applied
    warnings: list[str]
    overrides: list[str]
    plugins: list[Path]
    eval_injectors: list[Entry] = field(default_factory=list)  # run in validation after those of the steps
    evaluators: list[LossEntry] = field(default_factory=list)
    visuals: list[str] = field(default_factory=list)  # keys of validation that are shown
