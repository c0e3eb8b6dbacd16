"""The sections of an experiment as dataclasses: their keys, defaults and meanings.

The key names and meanings are DL-Art-School's. These dataclasses are the schema: the checker, ``--list`` and the JSON
Schema read their fields, types, defaults and "Args:" texts. `codes/entries.py` has those of the named entries
(datasets, networks, steps, injectors, losses); `codes/experiment.py` loads a file into them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from codes.registry import Output, Range

LearningRateScheme = Literal[
    "constant", "MultiStepLR", "ProgressiveMultiStepLR", "CosineAnnealingLR_Restart", "inverse_sqrt"
]  # fmt: skip


# DLAS keys that are read and checked for nothing yet; a run that sets one says so in a line.
NO_EFFECT = ("keep_optimizer_states_on_cpu", "eval.pure")

Count = Annotated[int, Range(least=1)]
AtLeastZero = Annotated[int, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, below=1)]  # of decays: 1 would keep everything for ever


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Where things are. A relative path is looked for beside the YAML, beside its folder, then where you are.

    One given on the command line is looked for where you are first. `root` is written, hence always where you are.

    Args:
        root: folder of all runs; this one is root/name
        pretrain_model: weights to start from, by network: written `pretrain_model_NETWORK: file.safetensors`
        strict_load: pretrained weights must fit the network exactly
        resume_state: a checkpoint folder to continue from, instead of the newest one of this run
        optimizer_reset: continue with fresh optimizers
    """

    root: Annotated[Path, Output()] = Path("runs")
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
        gen_lr_steps: MultiStepLR, ProgressiveMultiStepLR: steps after which it is multiplied by lr_gamma
        lr_gamma: MultiStepLR, ProgressiveMultiStepLR: the factor
        progressive_starts: ProgressiveMultiStepLR: step from which each parameter group counts gen_lr_steps: that of
            the parameters in no group first, then those of optimizer_params.param_groups
        restarts: MultiStepLR, CosineAnnealingLR_Restart: steps at which it starts anew
        restart_weights: MultiStepLR, CosineAnnealingLR_Restart: factor of the learning rate after each restart
        T_period: CosineAnnealingLR_Restart: length of each cosine (default: until the next restart or the end)
        eta_min: CosineAnnealingLR_Restart: lowest learning rate
        ema_enabled: keep an exponential moving average of the weights, and validate and sample with it
        ema_rate: decay of that average per step
        manual_seed: seed of everything random
        max_nonfinite_steps: stop after so many steps in a row whose gradients were not finite; noticed when figures are
            logged
    """

    niter: Count
    warmup_iter: Annotated[int, Range(least=-1)] = -1
    mega_batch_factor: Count = 1
    val_freq: Count | None = None
    default_lr_scheme: LearningRateScheme = "constant"
    gen_lr_steps: list[Count] = field(default_factory=list)
    lr_gamma: Positive = 0.5
    progressive_starts: list[AtLeastZero] = field(default_factory=list)
    restarts: list[Count] = field(default_factory=list)
    restart_weights: list[NotNegative] = field(default_factory=list)
    T_period: list[Count] = field(default_factory=list)
    eta_min: NotNegative = 0.0
    ema_enabled: bool = False
    ema_rate: Share = 0.999
    manual_seed: AtLeastZero = 0
    max_nonfinite_steps: Count = 20

    def __post_init__(self) -> None:
        if self.restart_weights and len(self.restart_weights) != len(self.restarts):
            raise ValueError("restart_weights needs one factor for each of restarts")


@dataclass(frozen=True, kw_only=True)
class LoggerOptions:
    """What is written, and when.

    Args:
        print_freq: steps between lines of training figures
        save_checkpoint_freq: steps between checkpoints (default: only after the last step)
        num_checkpoints: how many of the newest checkpoints are kept, besides the best and the final one
        visuals: keys of validation that are shown as pictures and sound, in runs/NAME/visuals and TensorBoard
        visual_debug_rate: only at validations whose step is a multiple of this (default: at all of them)
        is_mel_spectrogram: what is shown is mel spectrograms, however few their bands
    """

    print_freq: Count = 100
    save_checkpoint_freq: Count | None = None
    num_checkpoints: Count = 2
    visuals: list[str] = field(default_factory=list)
    visual_debug_rate: Count | None = None
    is_mel_spectrogram: bool = False


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Validation.

    Args:
        max_batches: validate on this many batches, spread evenly over the set (default: all of it)
        train_batches: also measure on this many batches of the training set, always the same, as validation does
        baselines: compare with FLAC and with the entropy of single samples on the same audio
        baseline_minutes: leave that comparison out where there is more validation audio than this
        best_by: the loss whose least value marks the best checkpoint (default: bits per sample, else the weighted sum)
        pure: no effect yet
        output_state: one more key that is shown, besides logger.visuals
        injectors: run after the steps' own, for evaluators and what is shown; what they write replaces the steps'
        evaluators: what is measured besides the losses, by name (--list evaluators)
    """

    max_batches: Count | None = None
    train_batches: AtLeastZero = 0
    baselines: bool = True
    baseline_minutes: NotNegative = 15.0
    best_by: str | None = None
    pure: Any = None
    output_state: str | None = None
    injectors: dict[str, Any] = field(default_factory=dict)
    evaluators: dict[str, Any] = field(default_factory=dict)


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
    every: Count | None = None
    num: Count = 2
    prompt_frames: AtLeastZero
    new_frames: Count
    given_channel: AtLeastZero | None = None
    temperature: Positive = 1.0
    top_k: AtLeastZero = 0
    top_p: Annotated[float, Range(above=0, most=1)] = 1.0
    seed: AtLeastZero = 0


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
        wandb: log to Weights & Biases as well; without a key in runs/NAME/wandb, which `wandb sync` sends
        wandb_project_name: its project there (default: the experiment's name)
        wandb_run_name: its name there (default: the experiment's name)
        keep_optimizer_states_on_cpu: no effect yet
        tf32: float32 matrix products on a GPU with 10 bits of mantissa: faster, too coarse for linear prediction
        compile: compile the networks (torch.compile): faster on a GPU after a minute; needs a C++ compiler
        compile_mode: reduce-overhead takes CUDA graphs, for small networks; max-autotune tries more kernels;
            eager makes graphs and no kernels, to find what cannot be compiled
        parallel: how several processes (torchrun) share the networks: ddp, each holds all of them; fsdp, a part each
        dist_backend: what GPUs talk with (default: nccl); numbers on the CPU go by gloo
        dist_timeout_minutes: end the run where a process has not answered for so long
        ddp_find_unused_parameters: ddp: some parameters take part in some steps only; slower
        ddp_static_graph: ddp: every step uses the same parameters in the same way; a little faster
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
    gpu_ids: list[AtLeastZero] = field(default_factory=lambda: [0])
    start_step: Annotated[int, Range(least=-1)] = -1
    checkpointing_enabled: bool = False
    fp16: bool = False
    bf16: bool = False
    anomaly_detection: bool = False
    cuda_benchmarking_enabled: bool = False
    use_tb_logger: bool = True
    wandb: bool | None = False
    wandb_project_name: str | None = None
    wandb_run_name: str | None = None
    keep_optimizer_states_on_cpu: Any = None
    tf32: bool = False
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "eager"] = "default"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    dist_backend: str | None = None
    dist_timeout_minutes: Positive = 10.0
    ddp_find_unused_parameters: bool = False
    ddp_static_graph: bool = False
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
