"""One named step and several: state, conditions, freezing, alternation, and errors that say where they come from."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from codes.registry import find
from codes.trainer.state import State, batch_size, move
from codes.yaml_source import OptionError

PREDICT = {"type": "generator", "generator": "net", "in": "x", "out": "fake"}
L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}


@pytest.fixture(autouse=True)
def seen() -> dict[str, list[Any]]:
    """What the toys' spies saw in this test."""
    cls = find("injector", "toy_spy")
    found: dict[str, list[Any]] = cls.forward.__globals__["SEEN"] if cls else {}
    found.clear()
    return found


def spies() -> dict[str, list[Any]]:
    return find("injector", "toy_spy").forward.__globals__["SEEN"]  # type: ignore[union-attr]


# --- state


def test_state_is_written_once() -> None:
    state = State({"wav": torch.zeros(2, 3)})
    state.write("codes", 1)
    assert dict(state).keys() == {"wav", "codes"}
    for key in ("wav", "codes"):
        with pytest.raises(KeyError, match=f"state key '{key}' is written already"):
            state.write(key, 2)
    with pytest.raises(KeyError, match="state has no key 'wave'; it has codes, wav"):
        state["wave"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        state["new"] = 1  # type: ignore[index]


def test_state_does_not_alias_its_source() -> None:
    source = {"wav": 1}
    State(source).write("codes", 2)
    assert source == {"wav": 1}


def test_batch_size_and_move() -> None:
    assert batch_size({"scalar": torch.zeros(()), "n": 3, "path": ["a", "b"]}) == 2
    with pytest.raises(ValueError, match="a batch must hold at least one tensor or list"):
        batch_size({"n": 3})
    moved = move({"x": torch.zeros(2), "path": ["a"]}, torch.device("cpu"))
    assert moved["path"] == ["a"]


# --- errors


def notes(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def test_errors_of_an_injector_say_where(toy: Any) -> None:
    trainer = toy.trainer(
        {"steps.fit.injectors": {"breaks": {"type": "toy_fail", "in": "x", "out": "z"}, "predict": PREDICT}}
    )
    with pytest.raises(ValueError, match="no good") as caught:
        trainer.train()
    line = toy.line("type: toy_fail")
    assert re.search(
        rf"in injector breaks, step fit, {re.escape(str(toy.file))}:{line}(:\d+)?$", notes(caught.value), re.M
    )
    assert f"at iteration 1 of {toy.file}" in notes(caught.value)


def test_the_command_line_says_where_without_a_traceback(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = toy.write(
        {"steps.fit.injectors": {"breaks": {"type": "toy_fail", "in": "x", "out": "z"}, "predict": PREDICT}}
    )
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
    assert train.main() == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.fullmatch(rf"{re.escape(str(file))}:\d+:\d+: breaks: ValueError: no good .*\n", said)


def test_errors_of_a_loss_say_where(toy: Any) -> None:
    trainer = toy.trainer({"steps.fit.losses": {"odd": {"type": "toy_vector", "real": "fake"}}})
    with pytest.raises(ValueError, match=r"a loss is a scalar or \(sum, count\), got a tensor of shape \(8, 6\)") as e:
        trainer.train()
    assert re.search(rf"in loss odd, step fit, .*:{toy.line('type: toy_vector')}", notes(e.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num": 3}, "pair returned 3 values for 2 keys under out (a, b)"),
     ({"alone": True}, "pair returned one value for 2 keys under out (a, b)")],
)  # fmt: skip
def test_wrong_number_of_outputs(toy: Any, options: dict[str, Any], message: str) -> None:
    pair = {"type": "toy_pair", "in": "x", "out": ["a", "b"], **options}
    trainer = toy.trainer({"steps.fit.injectors": {"pair": pair, "predict": PREDICT}})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        trainer.train_step()
    assert "in injector pair, step fit" in notes(caught.value)


def test_loss_that_reaches_no_trained_network(toy: Any) -> None:
    trainer = toy.trainer({
        "steps.fit.losses": {"off": {"type": "pix", "real": "y", "fake": "x"}},
        "steps.fit.injectors.spy": {"type": "toy_spy", "in": "fake", "out": "_seen"},
    })  # fmt: skip
    with pytest.raises(ValueError, match="step fit: loss off does not depend on what the step trains"):
        trainer.train_step()


def test_a_key_that_is_not_always_written_is_refused(toy: Any) -> None:
    late = {"type": "toy_doubles", "in": "x", "out": "z", "after": 3}
    with pytest.raises(OptionError, match=r"predict reads 'z', which late does not always write \(after\)"):
        toy.trainer({"steps.fit.injectors": {"late": late, "predict": PREDICT | {"in": "z"}}})


# --- conditions


def runs_at(toy: Any, conditions: dict[str, Any], steps: int = 6, **changes: Any) -> int:
    """How often a spy with these flags ran."""
    spies().clear()
    spy = {"type": "toy_spy", "in": "x", "out": "_seen", **conditions}
    trainer = toy.trainer({"steps.fit.injectors.spy": spy, **changes})
    for _ in range(steps):
        trainer.train_step()
    return len(spies().get("spy", []))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [({}, 6), ({"after": 3}, 4), ({"before": 3}, 3), ({"every": 2}, 3), ({"after": 3, "before": 5, "every": 2}, 1),
     ({"train": True}, 6), ({"eval": True}, 0)],
)  # fmt: skip
def test_conditions_of_an_injector(toy: Any, conditions: dict[str, Any], expected: int) -> None:
    assert runs_at(toy, conditions) == expected


def test_train_and_eval(toy: Any) -> None:
    """A training-only and a validation-only injector."""
    changes = {
        "datasets.val": {"num_items": 4, "batch_size": 4},
        "train.niter": 2,
        "steps.fit.injectors": {
            "predict": PREDICT,
            "a": {"type": "toy_spy", "title": "a", "in": "x", "out": "_a", "train": True},
            "b": {"type": "toy_spy", "title": "b", "in": "x", "out": "_b", "eval": True},
        },
    }
    toy.train(changes)
    assert [len(spies()[title]) for title in "ab"] == [2, 1]


def test_no_accum_runs_for_the_first_micro_batch_only(toy: Any) -> None:
    assert runs_at(toy, {"no_accum": True}, **{"train.mega_batch_factor": 4}) == 6
    assert runs_at(toy, {}, **{"train.mega_batch_factor": 4}) == 24


def test_no_grad_cuts_the_gradient(toy: Any) -> None:
    trainer = toy.trainer({
        "steps.fit.injectors": {
            "predict": PREDICT,
            "frozen": {"type": "generator", "generator": "net", "in": "x", "out": "fixed", "no_grad": True},
            "spy": {"type": "toy_spy", "in": ["fake", "fixed"], "out": ["_a", "_b"]},
        },
    })  # fmt: skip
    trainer.train_step()
    ((_, _, fake_grad, _), (_, _, fixed_grad, _)) = spies()["spy"][0]
    assert (fake_grad, fixed_grad) == (True, False)


def test_conditions_of_a_loss(toy: Any, weights: Any, same: Any) -> None:
    """Only at even steps is there a loss; at the others nothing moves, not even by weight decay."""
    trainer = toy.trainer({"steps.fit.losses": {"error": L2 | {"every": 2}}})
    moved = []
    for _ in range(4):
        before = weights(trainer)
        trainer.train_step()
        moved.append(not same(before, weights(trainer)))
    assert moved == [False, True, False, True]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [({"every": 3}, [3, 6]), ({"after": 4}, [4, 5, 6]), ({"before": 2}, [1, 2]), ({"after": 2, "every": 2}, [2, 4, 6])],
)
def test_conditions_of_a_step(
    toy: Any, weights: Any, same: Any, conditions: dict[str, int], expected: list[int]
) -> None:
    trainer = toy.trainer({f"steps.fit.{key}": value for key, value in conditions.items()})
    moved = []
    for number in range(1, 7):
        before = weights(trainer)
        trainer.train_step()
        if not same(before, weights(trainer)):
            moved.append(number)
    assert moved == expected


def test_weight_schedule(toy: Any) -> None:
    schedule = {"from": 1.0, "to": 3.0, "start_step": 2, "end_step": 4}
    trainer = toy.trainer({"steps.fit.losses.error": L2 | {"weight": schedule}})
    flags = trainer.parts.steps[0].losses[0].flags
    assert [flags.weight_at(step) for step in range(6)] == [1, 1, 1, 2, 3, 3]
    whole = toy.trainer({"steps.fit.losses.error": L2 | {"weight": 2.0}})
    for one, weight in ((trainer, schedule), (whole, 2.0)):
        one.run_batch(one.parts.train_loader.batch(0), 3)
        assert weight
    for a, b in zip(trainer.parts.networks["net"].parameters(), whole.parts.networks["net"].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


# --- freezing


def test_frozen_network_never_moves_and_stays_in_evaluation_mode(toy: Any, weights: Any, same: Any) -> None:
    trainer = toy.trainer({
        "networks.codec": {"which_model": "toy_mlp", "kwargs": {"dropout": 0.5}, "trainable": False},
        "steps.fit.injectors": {
            "encode": {"type": "generator", "generator": "codec", "in": "x", "out": "z"},
            "predict": PREDICT | {"in": "z"},
        },
        "datasets.val": {"num_items": 4, "batch_size": 4},
        "train.val_freq": 1,
    })  # fmt: skip
    before = weights(trainer, "codec")
    trainer.train()
    assert same(before, weights(trainer, "codec"))
    assert not trainer.parts.networks["codec"].training
    assert trainer.parts.networks["net"].training
    assert all(p.grad is None and not p.requires_grad for p in trainer.parts.networks["codec"].parameters())


def test_training_a_frozen_network_is_refused(toy: Any) -> None:
    with pytest.raises(OptionError, match="step fit trains network 'net', which has nothing to train"):
        toy.trainer({"networks.net.trainable": False})


def test_network_frozen_until_a_step(toy: Any, weights: Any, same: Any) -> None:
    trainer = toy.trainer({"networks.net.after": 4})
    moved = []
    for _ in range(6):
        before = weights(trainer)
        trainer.train_step()
        moved.append(not same(before, weights(trainer)))
    assert moved == [False, False, False, True, True, True]


def test_what_a_constructor_froze_stays_frozen(toy: Any, weights: Any) -> None:
    trainer = toy.trainer({"networks.net": {"which_model": "toy_partly_frozen"}})
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert torch.equal(before["base.weight"], after["base.weight"])
    assert torch.equal(before["base.bias"], after["base.bias"])
    assert not torch.equal(before["part.weight"], after["part.weight"])
    assert not trainer.parts.networks["net"].base.weight.requires_grad  # type: ignore[union-attr]


def test_network_without_parameters(toy: Any) -> None:
    """It is saved and continued like any other."""
    changes = {
        "networks.twice": {"which_model": "toy_bare"},
        "steps.fit.injectors": {
            "double": {"type": "generator", "generator": "twice", "in": "x", "out": "z"},
            "predict": PREDICT | {"in": "z"},
        },
    }
    toy.train(changes)
    assert toy.trainer(changes | {"train.niter": 8}).step == 6


# --- two steps

GAN: dict[str, Any] = {
    "networks": {"gen": {"which_model": "toy_mlp"}, "disc": {"type": "discriminator", "which_model": "toy_verdict"}},
    "steps": {
        "generator": {
            "training": "gen",
            "optimizer_params": {"lr": 0.01},
            "injectors": {
                "make": {"type": "generator", "generator": "gen", "in": "x", "out": "fake"},
                "judge": {"type": "discriminator", "discriminator": "disc", "in": "fake", "out": "verdict"},
            },
            "losses": {
                "gan": {"type": "generator_gan", "fake": "verdict"},
                "pix": {"type": "pix", "real": "y", "fake": "fake"},
            },
        },
        "discriminator": {
            "training": "disc",
            "optimizer": "sgd",
            "optimizer_params": {"lr": 0.05},
            "injectors": {
                "spy": {"type": "toy_spy", "title": "disc", "in": "fake", "out": "_spied"},
                "judge_real": {"type": "discriminator", "discriminator": "disc", "in": "y", "out": "verdict_real"},
                "judge_fake": {"type": "discriminator", "discriminator": "disc", "in": "fake", "out": "verdict_fake"},
            },
            "losses": {"gan": {"type": "discriminator_gan", "real": "verdict_real", "fake": "verdict_fake"}},
        },
    },
}


def test_gan_alternates(toy: Any, weights: Any, same: Any) -> None:
    """In each step only its own network moves and gets gradients; the other's outputs come detached."""
    trainer = toy.trainer(GAN)
    gen, disc = trainer.parts.networks["gen"], trainer.parts.networks["disc"]
    first, second = trainer.parts.steps
    options = trainer.options.train
    for number in range(1, 4):
        batch = trainer.parts.train_loader.batch(number)
        disc.zero_grad(set_to_none=True)
        gen.zero_grad(set_to_none=True)
        before = weights(trainer, "gen"), weights(trainer, "disc")
        first.require_grad()
        state = State(batch)
        first.train([state], number, 0, trainer.precision.autocast, options)
        middle = weights(trainer, "gen"), weights(trainer, "disc")
        assert not same(before[0], middle[0])
        assert same(before[1], middle[1])
        assert all(p.grad is None for p in disc.parameters())
        assert all(p.grad is not None for p in gen.parameters())
        gen.zero_grad(set_to_none=True)
        second.require_grad()
        second.train(
            [State({**batch, **first.outputs(state, set(batch))})], number, 0, trainer.precision.autocast, options
        )
        after = weights(trainer, "gen"), weights(trainer, "disc")
        assert same(middle[0], after[0])
        assert not same(middle[1], after[1])
        assert all(p.grad is None for p in gen.parameters())


def test_gan_trains_as_by_hand(toy: Any) -> None:
    """The trainer's alternation equals two optimizers in a plain loop."""
    from torch.nn import functional as F

    trainer, copy = toy.trainer(GAN), toy.trainer(GAN)
    gen, disc = copy.parts.networks["gen"], copy.parts.networks["disc"]
    gen_optimizer = torch.optim.AdamW(
        [{"params": [p for p in gen.parameters() if p.ndim > 1], "weight_decay": 0.01},
         {"params": [p for p in gen.parameters() if p.ndim < 2], "weight_decay": 0.0}], lr=0.01,
    )  # fmt: skip
    disc_optimizer = torch.optim.SGD(
        [{"params": [p for p in disc.parameters() if p.ndim > 1], "weight_decay": 0.01},
         {"params": [p for p in disc.parameters() if p.ndim < 2], "weight_decay": 0.0}], lr=0.05, momentum=0.9,
    )  # fmt: skip
    for number in range(5):
        batch = trainer.parts.train_loader.batch(number)
        trainer.train_step()
        fake = gen(batch["x"])
        gen_optimizer.zero_grad()
        (F.softplus(-disc(fake)).mean() + (fake - batch["y"]).abs().mean()).backward()
        gen_optimizer.step()
        disc_optimizer.zero_grad()
        (F.softplus(-disc(batch["y"])).mean() + F.softplus(disc(fake.detach())).mean()).div(2).backward()
        disc_optimizer.step()
    for name, network in (("gen", gen), ("disc", disc)):
        for a, b in zip(trainer.parts.networks[name].parameters(), network.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_outputs_of_earlier_steps_are_detached(toy: Any) -> None:
    trainer = toy.trainer(GAN)
    trainer.train_step()
    ((_, _, requires_grad, _),) = spies()["disc"][0]
    assert not requires_grad


def test_gan_with_micro_batches_equals_without(toys: Any) -> None:
    one, four = toys().trainer(GAN), toys().trainer(GAN | {"train.mega_batch_factor": 3})
    for _ in range(3):
        one.train_step()
        four.train_step()
    for name in ("gen", "disc"):
        pairs = zip(one.parts.networks[name].parameters(), four.parts.networks[name].parameters(), strict=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_both_optimizers_are_restored(toys: Any, weights: Any, same: Any, lines: Any) -> None:
    whole, parts = toys(), toys()
    expected = whole.train(GAN | {"train.niter": 8})
    parts.train(GAN | {"train.niter": 4})
    resumed = parts.trainer(GAN | {"train.niter": 8})
    for name, updaters in resumed.parts.updaters.items():
        state = updaters[0].optimizer.state_dict()["state"]
        assert state, name
    resumed.train()
    for name in ("gen", "disc"):
        assert same(weights(expected, name), weights(resumed, name))
    assert lines(whole.folder / "runs/toy") == lines(parts.folder / "runs/toy")


def test_step_outputs_hide_the_rest(toy: Any) -> None:
    with pytest.raises(OptionError, match="reads 'fake', which nothing wrote before it"):
        toy.trainer(GAN | {"steps.generator.step_outputs": ["verdict"]})
    trainer = toy.trainer(GAN | {"steps.generator.step_outputs": ["fake"]})
    trainer.train_step()
    assert trainer.parts.steps[0].kept == {"fake"}


def test_a_step_that_trains_two_networks(toy: Any, weights: Any, same: Any) -> None:
    trainer = toy.trainer({
        "networks.second": {"which_model": "toy_mlp"},
        "steps.fit.training": ["net", "second"],
        "steps.fit.injectors.more": {"type": "generator", "generator": "second", "in": "fake", "out": "better"},
        "steps.fit.losses.error": L2 | {"fake": "better"},
    })  # fmt: skip
    before = weights(trainer), weights(trainer, "second")
    trainer.train_step()
    assert not same(before[0], weights(trainer))
    assert not same(before[1], weights(trainer, "second"))


def test_two_steps_may_train_one_network(toy: Any, weights: Any, same: Any) -> None:
    """Each with an optimizer of its own; both are saved and continued."""
    changes = {
        "steps.again": {
            "training": "net", "optimizer": "lion", "every": 2, "optimizer_params": {"lr": 0.001},
            "injectors": {"predict": PREDICT | {"out": "fake2"}},
            "losses": {"error2": {"type": "pix", "real": "y", "fake": "fake2"}},
        },
    }  # fmt: skip
    expected = toy.train(changes)
    toy.train(changes | {"train.niter": 3}, fresh=True)
    assert same(weights(expected), weights(toy.train(changes)))


# --- random injectors


def test_random_injectors_repeat(toys: Any, weights: Any, same: Any) -> None:
    noise = {"noise": {"type": "add_noise", "scale": 0.5, "in": "x", "out": "z"}, "predict": PREDICT | {"in": "z"}}
    one, other = toys().train({"steps.fit.injectors": noise}), toys().train({"steps.fit.injectors": noise})
    assert same(weights(one), weights(other))
    seeded = toys().train({"steps.fit.injectors": noise, "train.manual_seed": 1})
    assert not same(weights(one), weights(seeded))


def test_random_injectors_differ_by_name_step_and_micro_batch(toy: Any) -> None:
    """Two injectors of one type, two steps of training and two micro-batches all draw other numbers."""
    a = {"type": "add_noise", "scale": 1.0, "in": "zeros", "out": "a"}
    trainer = toy.trainer({
        "steps.fit.injectors": {
            "zero": {"type": "normalize", "scale": 1e30, "in": "x", "out": "zeros"},
            "a": a, "b": a | {"out": "b"}, "predict": PREDICT,
        },
    })  # fmt: skip
    step = trainer.parts.steps[0]
    drawn = []
    for number in (1, 2):
        for micro in (0, 1):
            state = State({"x": torch.ones(2, 6)})
            step.inject(state, "train", number, micro, (number << 8) + micro)
            drawn += [state["a"], state["b"]]
    assert all(not torch.equal(one, other) for at, one in enumerate(drawn) for other in drawn[:at])


# --- random numbers of items


def noisy(toy: Any, tmp_path: Any, **changes: Any) -> dict[str, torch.Tensor]:
    """What add_noise made of each item in one epoch and the next, by name and epoch."""
    (tmp_path / "keeps.py").write_text(KEEPS, encoding="utf-8")
    noise = {"type": "add_noise", "scale": 1.0, "in": "x"}
    trainer = toy.trainer({
        "plugins": [str(Path(__file__).with_name("toys.py")), str(tmp_path / "keeps.py")],
        "datasets.val": {},
        "steps.fit.injectors": {
            "predict": PREDICT,
            "noise": {**noise, "out": "noisy"},
            "again": {**noise, "out": "noisier"},
            "keep": {"type": "keeps_values", "in": ["path", "x", "noisy", "noisier"], "out": "_kept"},
        },
        **changes,
    })  # fmt: skip
    kept: dict[str, torch.Tensor] = find("injector", "keeps_values").forward.__globals__["KEPT"]
    kept.clear()
    for _ in range(48 // trainer.experiment.datasets["train"].flags.batch_size):
        trainer.train_step()
    trainer.evaluation.validate(1)
    return dict(kept)


KEEPS = """
from codes.trainer.injector import Injector

KEPT = {}


class KeepsValuesInjector(Injector):
    '''Notes the noise of every item.'''

    def forward(self, path, x, noisy, noisier):
        for name, *values in zip(path, noisy - x, noisier - x):
            KEPT[name, len([key for key in KEPT if key[0] == name])] = values
        return x
"""


def test_draws_follow_the_item_and_not_the_batch(toys: Any, tmp_path: Any) -> None:
    """Two epochs and a validation in batches of other sizes, in micro-batches, and with worker processes."""
    whole = noisy(toys(), tmp_path)
    variants: list[dict[str, Any]] = [
        {"datasets.train.batch_size": 6}, {"train.mega_batch_factor": 2}, {"train.mega_batch_factor": 8},
        {"datasets.train.n_workers": 2, "datasets.train.batch_size": 12, "train.mega_batch_factor": 3},
    ]  # fmt: skip
    assert len(whole) == 3 * 24
    for changes in variants:
        found = noisy(toys(), tmp_path, **changes)
        assert found.keys() == whole.keys()
        assert all(torch.equal(a, b) for key in whole for a, b in zip(found[key], whole[key], strict=True))
    rows = [tuple(round(v, 3) for v in noise.tolist()) for pair in whole.values() for noise in pair]
    assert len(set(rows)) == 4 * 24  # two injectors, two epochs; validation is like epoch 0
    assert noisy(toys(), tmp_path, **{"train.manual_seed": 5}).keys() == whole.keys()
