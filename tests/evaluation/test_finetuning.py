"""The recovery that trains: its loss, its batches, and how trained weights travel with states."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from torch import nn
from torch.nn import functional as F

from pruning_env.evaluation import evaluator
from pruning_env.evaluation.evaluator import measure
from pruning_env.evaluation.recovery.finetuning import (
    FineTuner,
    FineTuning,
    augment,
    distillation_loss,
)
from pruning_env.process import budgets
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.storage import load_pruned, save_pruned
from tests.helpers.small import (
    count_calls,
    small_dynamics,
    small_evaluator,
    small_model,
    small_splits,
)

FEW = FineTuning(steps=3, lr=0.05, batch_size=16)
GROUPS = 3
ZERO = np.zeros(GROUPS)


def trainer(settings=FEW, model=None, **changes):
    splits: Splits = dataclasses.replace(small_splits(), **changes)
    return FineTuner(model or small_model(), splits, settings, torch.float32)


def bits(model):
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def dynamics_with_training(**options):
    return small_dynamics(
        small_evaluator(recovery="finetune", finetuning=FEW, **options),
        {"params": 0.2},
        channels_per_step=0.15,
    )


# Loss


def test_the_loss_is_the_two_terms_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(5, 4, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 3, 0])
    p, q = (taught / 2).softmax(1), (logits / 2).softmax(1)
    soft = (p * (p / q).log()).sum(1).mean()
    hard = -logits.softmax(1)[range(5), labels].log().mean()
    loss = distillation_loss(logits, taught, labels, 2.0, 0.75)
    assert loss.item() == pytest.approx(0.75 * 4 * soft.item() + 0.25 * hard.item(), rel=1e-5)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    loss = distillation_loss(logits, logits, torch.zeros(5, dtype=torch.int64), 3.0, 1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


# Augmentation


def shifted(image, up, left, shift):
    return F.pad(image, (shift,) * 4)[:, up : up + image.shape[1], left : left + image.shape[2]]


def test_each_image_is_shifted_by_whole_pixels_on_its_own_and_half_are_mirrored():
    images = torch.arange(1, 101, dtype=torch.uint8).repeat(40, 1).reshape(40, 2, 5, 10)
    result = augment(images, 2, True, torch.Generator().manual_seed(0))
    seen = set()
    for before, after in zip(images, result, strict=True):
        found = {
            (flip, up, left)
            for flip in (False, True)
            for up in range(5)
            for left in range(5)
            if torch.equal(shifted(before.flip(2) if flip else before, up, left, 2), after)
        }
        assert len(found) == 1
        seen |= found
    assert len(seen) > 20 and {flip for flip, _, _ in seen} == {False, True}
    assert {up for _, up, _ in seen} == {left for _, _, left in seen} == set(range(5))
    assert result.dtype == images.dtype
    assert torch.equal(result, augment(images, 2, True, torch.Generator().manual_seed(0)))


def test_without_augmentation_images_stay_as_they_are():
    images = torch.rand(3, 1, 4, 4)
    assert augment(images, 0, False, torch.Generator()) is images


def test_training_sees_the_augmentation_of_its_data():
    plain, moved, mirrored = (small_model() for _ in range(3))
    trainer().train(plain, 0)
    trainer(shift=2).train(moved, 0)
    trainer(flip=True).train(mirrored, 0)
    assert not equal(bits(plain), bits(moved)) and not equal(bits(plain), bits(mirrored))


# Training


def test_training_lowers_the_loss_on_its_images_and_moves_the_batch_norm_statistics():
    torch_model, splits = small_model(), small_splits()
    images, labels = splits.normalised(splits.search_train), splits.search_train.labels
    before = measure(torch_model, images, labels, 64)
    statistics = torch_model.get_buffer("stem.1.running_mean").clone()
    trainer(FineTuning(steps=60, lr=0.05, batch_size=32)).train(torch_model, 0)
    after = measure(torch_model, images, labels, 64)
    assert after.loss < before.loss - 0.01
    assert not torch.equal(torch_model.get_buffer("stem.1.running_mean"), statistics)
    assert not any(module.training for module in torch_model.modules())
    assert all(parameter.grad is None for parameter in torch_model.parameters())


def test_a_seed_decides_the_bits_and_the_global_generator_is_neither_read_nor_moved():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_model()

        def forward(self, x):
            return self.net(F.dropout(x, 0.5, self.training))

    results = []
    for seed, elsewhere in ((1, 5), (1, 6), (2, 5)):
        model = Dropping()
        with torch.random.fork_rng():
            torch.manual_seed(elsewhere)
            state = torch.get_rng_state()
            trainer(model=Dropping().eval()).train(model, seed)
            assert torch.equal(torch.get_rng_state(), state)
        results.append(bits(model))
    assert equal(results[0], results[1]) and not equal(results[0], results[2])


def trained(model, seed, **changes):
    trainer(**changes).train(model, seed)
    return bits(model)


def test_the_seed_decides_which_images_a_step_sees():
    once, again, other = (trained(small_model(), seed) for seed in (1, 1, 2))
    assert equal(once, again) and not equal(once, other)


def test_the_seed_decides_what_dropout_drops():
    alike = Split(torch.ones(32, 1, 8, 8), torch.zeros(32, dtype=torch.int64))  # in any order
    plain, same = (trained(small_model(), seed, search_train=alike) for seed in (1, 2))
    assert equal(plain, same)
    once, again, other = (
        trained(nn.Sequential(nn.Dropout(), small_model()), seed, search_train=alike)
        for seed in (1, 1, 2)
    )
    assert equal(once, again) and not equal(once, other)


def test_every_network_is_trained_with_a_seed_of_its_own_the_same_in_every_run(monkeypatch):
    seeds = []
    for _ in range(2):
        judge = small_evaluator(recovery="finetune", finetuning=FineTuning(steps=1))
        assert judge._tuner is not None
        train = judge._tuner.train

        def noting(model, seed, train=train, **keywords):
            seeds.append(seed)
            train(model, seed, **keywords)

        monkeypatch.setattr(judge._tuner, "train", noting)
        for seed in (0, 1):
            judge.evaluate(judge.graph.random_keep(0.5, np.random.default_rng(seed)))
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_records_no_gradients_gets_the_same_training(mode):
    free, enclosed = small_model(), small_model()
    trainer().train(free, 0)
    tuner = trainer()
    with mode():
        tuner.train(enclosed, 0)
    assert equal(bits(free), bits(enclosed))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_environment_steps_alike_where_no_gradients_are_recorded(mode):
    free, enclosed = dynamics_with_training(), dynamics_with_training()
    start = free.initial()
    root = free.transition(start, ZERO).state
    with mode():
        assert enclosed.transition(start, ZERO).state == root
        branch = enclosed.transition(root, ZERO)
    assert branch == free.transition(root, ZERO)


def test_the_teacher_is_left_alone():
    teacher = small_model()
    before = bits(teacher)
    trainer(model=teacher).train(small_model(), 0)
    assert equal(bits(teacher), before) and not teacher.training


def test_a_batch_larger_than_the_data_takes_all_of_it():
    model = small_model()
    trainer(FineTuning(steps=2, batch_size=10_000)).train(model, 0)
    assert not equal(bits(model), bits(small_model()))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": 0}, "finetune_steps=0"),
        ({"steps": 1.5}, r"finetune_steps=1\.5"),
        ({"lr": -1.0}, "finetune_lr="),
        ({"batch_size": 1}, "batch_size=1"),
        ({"temperature": 0.0}, "temperature="),
        ({"distillation": 1.5}, "distillation="),
        ({"start": "dense"}, "start='dense'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, reason):
    with pytest.raises(ValueError, match=reason):
        FineTuning(**settings)


# Weights travel with states


def test_each_step_continues_from_the_weights_of_the_state_before():
    dynamics = dynamics_with_training()
    judge = dynamics.evaluator
    first = dynamics.transition(dynamics.initial(), ZERO).state
    second = dynamics.transition(first, ZERO).state
    fresh = small_evaluator(recovery="finetune", finetuning=FEW)
    step = fresh.recover_many([first.keep], [None])[0]
    assert (first.metrics, first.weights) == (step.metrics, step.weights)
    step = fresh.recover_many([second.keep], [step.weights])[0]
    assert (second.metrics, second.weights) == (step.metrics, step.weights)
    from_dense = fresh.recover_many([second.keep], [None])[0]
    assert from_dense.weights != second.weights
    model = judge.pruned_model(second.keep, second.weights)
    images, labels = judge.images("search-val")
    assert measure(model, images, labels, judge.batch_size) == second.metrics


def test_the_start_and_recoveries_without_training_carry_no_weights():
    assert dynamics_with_training().initial().weights is None
    for recovery in ("none", "bn"):
        dynamics = small_dynamics(small_evaluator(recovery=recovery))
        assert not dynamics.evaluator.trains
        assert dynamics.transition(dynamics.initial(), ZERO).state.weights is None


def test_branches_from_one_state_do_not_disturb_one_another():
    dynamics = dynamics_with_training()
    root = dynamics.transition(dynamics.initial(), ZERO).state
    kept = pickle.dumps(root)
    branches = [dynamics.transition(root, action) for action in np.eye(GROUPS)]
    assert dynamics.transition(root, np.eye(GROUPS)[0]) == branches[0]
    assert pickle.loads(kept) == root
    alone = dynamics_with_training()
    assert alone.transition(pickle.loads(kept), np.eye(GROUPS)[2]) == branches[2]


def test_one_mask_reached_on_two_ways_is_two_networks_and_each_is_remembered():
    dynamics = dynamics_with_training()
    judge, start = dynamics.evaluator, dynamics.initial()
    ways = [np.eye(GROUPS)[:2], np.eye(GROUPS)[1::-1]]
    ends = []
    for way in ways:
        state = start
        for action in way:
            state = dynamics.apply(dynamics.judge(state), action)
        ends.append(state)
    keep = ends[0].keep & ends[1].keep
    answers = judge.recover_many([keep] * 2, [end.weights for end in ends])
    assert answers[0].weights != answers[1].weights and answers[0].metrics != answers[1].metrics
    before = judge.evaluations
    assert judge.recover_many([keep] * 2, [end.weights for end in ends]) == answers
    assert judge.evaluations == before


def test_many_transitions_with_training_equal_single_ones_bit_for_bit(monkeypatch):
    dynamics = dynamics_with_training()
    root = dynamics.transition(dynamics.initial(), ZERO).state
    states, actions = [root, root, dynamics.initial()], np.eye(GROUPS)
    calls = count_calls(monkeypatch, dynamics.evaluator)
    together = dynamics.transition_many(states, actions)
    alone = dynamics_with_training()
    assert together == [alone.transition(s, a) for s, a in zip(states, actions, strict=True)]
    assert calls == []


def test_trained_networks_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(evaluator, "TRAINED_CACHE", 2)
    judge = small_evaluator(recovery="finetune", finetuning=FineTuning(steps=1, batch_size=2))
    rng = np.random.default_rng(0)
    masks = [judge.graph.random_keep(0.5, rng) for _ in range(3)]
    for mask in (masks[0], masks[1], masks[0], masks[2], masks[0], masks[1]):
        judge.evaluate(mask)
    assert (judge.evaluations, judge.cache_hits) == (4, 2)


def test_a_measured_budget_sees_the_trained_network_which_is_trained_once(monkeypatch):
    seen = []

    def size(model):
        seen.append(bits(model))
        return float(sum(p.numel() for p in model.parameters()))

    monkeypatch.setitem(budgets._MEASURED, "size", size)
    judge = small_evaluator(recovery="finetune", finetuning=FEW)
    dynamics = small_dynamics(judge, {"size": 0.2}, channels_per_step=0.15)
    state = dynamics.initial()
    for step in (1, 2):
        state = dynamics.transition(state, ZERO).state
        assert judge.evaluations == step
        assert equal(seen[-1], bits(judge.pruned_model(state.keep, state.weights)))


def test_states_whose_weights_do_not_fit_are_refused():
    dynamics = dynamics_with_training()
    first = dynamics.transition(dynamics.initial(), ZERO).state
    second = dynamics.transition(first, ZERO).state
    assert dynamics.check(second) is second
    assert dynamics.check(dynamics.apply(first, ZERO)) == second

    def refused(state, reason, process=dynamics):
        with pytest.raises(ValueError, match=reason):
            process.check(state)

    refused(dataclasses.replace(second, weights=None), r"state\.weights is None")
    refused(dataclasses.replace(second, weights=first.weights), "other channels")
    refused(dataclasses.replace(first, weights=second.weights, metrics=None), "other channels")
    other = small_dynamics(small_evaluator(), {"params": 0.2}, channels_per_step=0.15)
    refused(first, "trains none", other)
    with pytest.raises(ValueError, match="trains no weights"):
        other.evaluator.recover_many([first.keep], [first.weights])
    assert dataclasses.replace(second, weights=first.weights) != second


# The environment


@pytest.fixture(scope="module")
def env() -> Any:
    return gym.make(
        "CNNPrune-v0", recovery="finetune", finetune_steps=4, channels_per_step=0.2
    ).unwrapped


def finish(env):
    env.reset(seed=0)
    while not env.step(np.zeros(6, np.float32))[2]:
        pass
    return env.state()


def test_the_environments_checker_is_silent_with_training():
    arguments: dict[str, Any] = {
        "recovery": "finetune",
        "finetune_steps": 1,
        "channels_per_step": 0.4,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("CNNPrune-v0", **arguments).unwrapped, skip_render_check=True)


def test_training_recovers_more_than_statistics_alone(env):
    plain: Any = gym.make("CNNPrune-v0", channels_per_step=0.2).unwrapped
    longer: Any = gym.make(
        "CNNPrune-v0",
        recovery="finetune",
        finetune_steps=30,
        finetune_lr=0.02,
        channels_per_step=0.2,
    ).unwrapped
    assert finish(longer).metrics.accuracy > finish(plain).metrics.accuracy + 0.1


def test_the_model_the_report_and_the_saved_folder_have_the_states_weights(env, tmp_path):
    state = finish(env)
    judge, model = env.evaluator, env.pruned_model()
    images, labels = judge.images("search-val")
    assert measure(model, images, labels, judge.batch_size) == state.metrics
    report = env.report()
    assert report.val_accuracy == state.metrics.accuracy
    restarted = judge.certify(state.keep)
    assert (report.accuracy, report.loss) != (restarted.accuracy, restarted.loss)
    folder = save_pruned(
        tmp_path / "pruned", model, env.graph, state.keep, architecture="digits-resnet8"
    )
    with torch.no_grad():
        assert torch.equal(load_pruned(folder).eval()(images), model(images))


def test_forks_restores_and_pickles_continue_from_the_same_weights(env):
    env.reset(seed=0)
    zero = np.zeros(6, np.float32)
    env.step(zero)
    checkpoint, fork, twin = env.state(), env.fork(), copy.deepcopy(env)
    after = env.step(zero)
    for other in (fork, twin):
        assert other.state() == checkpoint
        assert data_equivalence(other.step(zero), after, exact=True)
        assert other.state().weights == env.state().weights
    env.restore(checkpoint)
    assert data_equivalence(env.step(zero), after, exact=True)


@pytest.mark.parametrize(("start", "recovery"), [("cut", "none"), ("reconstruct", "reconstruct")])
def test_training_begins_with_the_weights_that_its_start_says(start, recovery):
    still = dataclasses.replace(FEW, steps=1, lr=1e-12, start=start)
    trained, wanted = (
        small_evaluator(recovery="finetune", finetuning=still),
        small_evaluator(recovery=recovery),
    )
    keep = trained.graph.random_keep(0.5, np.random.default_rng(0))
    torch.testing.assert_close(
        list(trained.pruned_model(keep).parameters()),
        list(wanted.pruned_model(keep).parameters()),
    )
    wanted.evaluate(keep)
    assert trained.image_passes == wanted.image_passes + FEW.batch_size


def test_watching_a_training_changes_nothing_and_sees_every_so_many_steps():
    model, splits = small_model(), small_splits()
    settings = FineTuning(steps=7, lr=0.01, batch_size=16)
    tuner = FineTuner(small_model(), splits, settings, torch.float32)
    alone, watched = copy.deepcopy(model), copy.deepcopy(model)
    tuner.train(alone, 5)
    seen = []

    def watch(step):
        assert not watched.training
        seen.append(step)

    tuner.train(watched, 5, every=3, watch=watch)
    assert seen == [3, 6]
    pairs = zip(alone.state_dict().values(), watched.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_rises_through_warm_up_and_falls_towards_zero():
    settings = FineTuning(steps=10, lr=1.0, warmup=4)
    rates = [settings.rate(step) for step in range(10)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[-1] < 0.1
    plain = FineTuning(steps=10, lr=1.0)
    assert [plain.rate(step) for step in (0, 5)] == pytest.approx([1.0, 0.5])
    with pytest.raises(ValueError, match="warmup=10 is not allowed"):
        FineTuning(steps=10, warmup=10)


# Settings


def test_epochs_are_steps_over_the_images_there_are():
    settings = FineTuning(epochs=3, warmup=1, batch_size=16)
    assert settings.of_images(65) == FineTuning(steps=12, warmup=4, batch_size=16)
    assert settings.of_images(5).steps == 3  # all of them in each
    assert FineTuning(steps=7).of_images(65).steps == 7
    tuner = trainer(settings)
    assert tuner._settings.steps == 3 * 4


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", [0.5, 1.0, 0.8535534, 0.5, 0.1464466]),
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_after_warm_up_the_rate_falls_as_the_schedule_says(schedule, rates):
    settings = FineTuning(steps=5, lr=1.0, warmup=1, schedule=schedule)
    assert [settings.rate(step) for step in range(5)] == pytest.approx(rates)


def test_settings_by_name_are_those_that_have_no_argument_of_their_own():
    changed = FineTuning(steps=3, lr=0.5).changed({"temperature": 4.0, "epochs": 2})
    assert changed == FineTuning(steps=3, lr=0.5, temperature=4.0, epochs=2)
    for wrong in ({"lr": 1.0}, {"steps": 2}, {"speed": 1}, [("epochs", 2)]):
        with pytest.raises(ValueError, match="finetune_arguments="):
            FineTuning().changed(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"warmup=2 is not allowed.*2 epochs"):
        FineTuning().changed({"epochs": 2, "warmup": 2})
