"""The language of an experiment: every section of the YAML as a dataclass, its defaults and its meaning.

The key names and meanings are DL-Art-School's. These dataclasses are the schema: the checker, ``--list`` and the JSON
Schema read their fields, types, defaults and "Args:" texts. `codes/experiment.py` loads a file into them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codes.convert import Component
from codes.yaml_source import Mark

LearningRateScheme = Literal["constant", "MultiStepLR", "CosineAnnealingLR_Restart", "inverse_sqrt"]
Optimizer = Literal["adamw", "adamw_zero", "sgd", "lion"]


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """When an entry takes part; steps count from 1.

    Args:
        after: first step at which it takes part
        before: last step at which it takes part
        every: only at steps that are a multiple of this
    """

    after: int = 0
    before: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        _positive(every=self.every)

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
    in_: list[str]
    out: list[str]
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
    start_step: int
    end_step: int

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
class ParameterGroup:
    """Options of some parameters of the trained network that differ from the others'.

    Args:
        match: parameters whose name begins with one of these (default: the group's name)
        lr: their learning rate (default: the optimizer's)
        weight_decay: their weight decay (default: the optimizer's)
    """

    match: list[str] | None = None
    lr: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerParams:
    """Options of the optimizer. Norms, biases and embeddings are never decayed.

    Args:
        lr: learning rate
        weight_decay: decoupled weight decay
        beta1: decay of the first moment (adamw, lion)
        beta2: decay of the second moment (adamw); for lion, decay of its momentum
        eps: added to the denominator (adamw)
        momentum: momentum of sgd
        param_groups: groups of parameters with options of their own, by name
    """

    lr: float = 1e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    param_groups: dict[str, ParameterGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _positive(lr=self.lr, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class StepFlags(Conditions):
    """One named training step: injectors, then losses, then an update of the networks that it trains.

    Args:
        training: network or networks that it trains, each with its own optimizer
        optimizer: adamw, adamw_zero (sharded over processes where there are several), sgd or lion
        optimizer_params: options of the optimizer
        clip_grad_eps: largest global gradient norm of a network; larger gradients are scaled down to it
        loss_log_buffer: the logged training loss is the mean of at most this many last steps
        step_outputs: only these outputs are seen by later steps (default: all)
        injectors: what is computed, in order, by name
        losses: what is minimised, by name
        after: first step (iteration) at which it runs
        before: last iteration at which it runs
        every: only at iterations that are a multiple of this
    """

    training: list[str]
    optimizer: Optimizer = "adamw"
    optimizer_params: OptimizerParams = OptimizerParams()
    clip_grad_eps: float | None = None
    loss_log_buffer: int = 50
    step_outputs: list[str] | None = None
    injectors: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(clip_grad_eps=self.clip_grad_eps, loss_log_buffer=self.loss_log_buffer)


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
    batch_size: int
    n_workers: int = 0
    pin_memory: bool | None = None

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size)
        if self.n_workers < 0:
            raise ValueError(f"n_workers must be 0 or more, got {self.n_workers}")


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """One network.

    Args:
        type: generator or discriminator
        which_model: name of the network (see --list networks); which_model_G and which_model_D are its old names
        kwargs: the network's own options
        trainable: false: never trained, always in evaluation mode
        after: frozen until this step
    """

    type: Literal["generator", "discriminator"] = "generator"
    which_model: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    trainable: bool = True
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Where things are. A relative path is looked for beside the YAML, beside its folder, then where you are.

    Args:
        root: folder of all runs; this one is root/name
        pretrain_model: weights to start from, by network: written `pretrain_model_NETWORK: file.safetensors`
        strict_load: pretrained weights must fit the network exactly
        resume_state: a checkpoint folder to continue from, instead of the newest one of this run
        optimizer_reset: continue with fresh optimizers
    """

    root: Path = Path("runs")
    pretrain_model: dict[str, Path] = field(default_factory=dict)
    strict_load: bool = True
    resume_state: Path | None = None
    optimizer_reset: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The loop and the learning rate.

    Args:
        niter: number of training steps
        warmup_iter: steps over which the learning rate rises from 0 to its full value; -1 for none
        mega_batch_factor: a batch is split into this many micro-batches whose gradients add up to the same update
        val_freq: steps between validations (default: only after the last step)
        default_lr_scheme: how the learning rate moves after warm-up
        gen_lr_steps: MultiStepLR: steps at which it is multiplied by lr_gamma
        lr_gamma: MultiStepLR: the factor
        restarts: CosineAnnealingLR_Restart: steps at which the cosine starts anew
        restart_weights: CosineAnnealingLR_Restart: factor of the learning rate after each restart
        T_period: CosineAnnealingLR_Restart: length of each cosine (default: until the next restart or the end)
        eta_min: CosineAnnealingLR_Restart: lowest learning rate
        ema_enabled: keep an exponential moving average of the weights, and validate and sample with it
        ema_rate: decay of that average per step
        manual_seed: seed of everything random
        max_nonfinite_steps: stop after so many steps in a row whose gradients were not finite
    """

    niter: int
    warmup_iter: int = -1
    mega_batch_factor: int = 1
    val_freq: int | None = None
    default_lr_scheme: LearningRateScheme = "constant"
    gen_lr_steps: list[int] = field(default_factory=list)
    lr_gamma: float = 0.5
    restarts: list[int] = field(default_factory=list)
    restart_weights: list[float] = field(default_factory=list)
    T_period: list[int] = field(default_factory=list)
    eta_min: float = 0.0
    ema_enabled: bool = False
    ema_rate: float = 0.999
    manual_seed: int = 0
    max_nonfinite_steps: int = 20

    def __post_init__(self) -> None:
        _positive(niter=self.niter, mega_batch_factor=self.mega_batch_factor, val_freq=self.val_freq)
        _positive(max_nonfinite_steps=self.max_nonfinite_steps)
        if not 0 <= self.ema_rate < 1:
            raise ValueError(f"ema_rate must be in [0, 1), got {self.ema_rate}")
        if self.restart_weights and len(self.restart_weights) != len(self.restarts):
            raise ValueError("restart_weights needs one factor for each of restarts")


@dataclass(frozen=True, kw_only=True)
class LoggerOptions:
    """What is written, and when.

    Args:
        print_freq: steps between lines of training figures
        save_checkpoint_freq: steps between checkpoints (default: only after the last step)
        num_checkpoints: how many of the newest checkpoints are kept, besides the best and the final one
    """

    print_freq: int = 100
    save_checkpoint_freq: int | None = None
    num_checkpoints: int = 2

    def __post_init__(self) -> None:
        _positive(print_freq=self.print_freq, save_checkpoint_freq=self.save_checkpoint_freq)
        _positive(num_checkpoints=self.num_checkpoints)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Validation.

    Args:
        max_batches: validate on this many batches, spread evenly over the set (default: all of it)
        baselines: compare with FLAC and with the entropy of single samples on the same audio
    """

    max_batches: int | None = None
    baselines: bool = True

    def __post_init__(self) -> None:
        _positive(max_batches=self.max_batches)


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Audio that the model makes during training, from prompts of the validation set.

    Args:
        network: the network whose generate() continues its input
        every: steps between samples (default: only after the last step)
        num: how many at once
        prompt_frames: frames of real audio that the model continues
        new_frames: frames that it adds
        given_channel: this channel stays the real one and the others are predicted (default: all are predicted)
        temperature: below 1 safer, above 1 wilder
        top_k: draw from the k likeliest values only; 0 for all
        top_p: draw from the likeliest values that make up this probability; 1 for all
        seed: seed of the draws
    """

    network: str
    every: int | None = None
    num: int = 2
    prompt_frames: int
    new_frames: int
    given_channel: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(every=self.every, num=self.num, new_frames=self.new_frames, temperature=self.temperature)
        if self.prompt_frames < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("prompt_frames and top_k must be 0 or more, top_p in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """The whole experiment.

    Args:
        name: name of the run and of its folder
        model: accepted for DLAS's sake; there is one trainer
        scale: accepted for DLAS's sake; unused
        plugins: Python files with your own injectors, losses, datasets and networks
        gpu_ids: CUDA device to train on; [] for the CPU
        start_step: -1 begins at step 0, or where the newest checkpoint stands
        checkpointing_enabled: recompute activations in the backward pass to save memory
        fp16: train in float16 with loss scaling (bfloat16 on a CPU)
        bf16: train in bfloat16
        anomaly_detection: find the operation that made a gradient NaN (slow)
        cuda_benchmarking_enabled: let cuDNN choose its algorithms by trial
        use_tb_logger: write TensorBoard files
        datasets: train, and val where there is one
        networks: the networks by name
        steps: the training steps by name, in order
        path: where things are
        train: the loop and the learning rate
        eval: validation
        logger: what is written, and when
        samples: audio made during training
    """

    name: str
    model: str = "extensibletrainer"
    scale: int = 1
    plugins: list[str] = field(default_factory=list)
    gpu_ids: list[int] = field(default_factory=lambda: [0])
    start_step: int = -1
    checkpointing_enabled: bool = False
    fp16: bool = False
    bf16: bool = False
    anomaly_detection: bool = False
    cuda_benchmarking_enabled: bool = False
    use_tb_logger: bool = True
    datasets: dict[str, Any]
    networks: dict[str, Any]
    steps: dict[str, Any]
    path: PathOptions = PathOptions()
    train: TrainOptions
    eval: EvalOptions = EvalOptions()
    logger: LoggerOptions = LoggerOptions()
    samples: SampleOptions | None = None

    def __post_init__(self) -> None:
        if self.fp16 and self.bf16:
            raise ValueError("fp16 and bf16 cannot both be true")
        if not self.name or any(character in self.name for character in '/\\:*?"<>|') or self.name.strip(". ") == "":
            raise ValueError(f"name must be usable as a folder's name, got {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A named entry of the YAML: its flags, and the class and options that it names (None where those are wrong)."""

    name: str
    mark: Mark
    flags: Any
    component: Component | None

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
    resolved: dict[str, Any]  # the YAML's plain values, overrides applied
    warnings: list[str]
    overrides: list[str]
