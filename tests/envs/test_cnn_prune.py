"""`CNNPrune-v0` as a user meets it: made by id, stepped, forked, pickled, misused."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import math
import pickle
import re
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import pruning_env
from pruning_env.envs.cnn_prune import CNNPruneEnv, Report
from pruning_env.process import budgets
from pruning_env.process.actions import action_names
from pruning_env.process.constraints import constraint_names
from pruning_env.process.observations import GLOBAL_FEATURES, GROUP_FEATURES
from pruning_env.process.rewards import reward_names
from pruning_env.tasks.registry import get_task
from tests.helpers.processes import run_python
from tests.helpers.rollout import trajectory

DOCS = (inspect.getdoc(CNNPruneEnv) or "").splitlines()
IDS = [id_ for id_, spec in gym.registry.items() if str(spec.entry_point).startswith("pruning_env")]
INFO_KEYS = [
    "accuracy",
    "loss",
    "params",
    "macs",
    "cost",
    "budget_excess",
    "requested",
    "removed",
    "exhausted",
    "is_success",
    "usage",
    "reward_terms",
]


def same(first, second):
    return data_equivalence(first, second, exact=True)


def finish(env, action):
    """Step with one action to the end of the episode; the last step's return value."""
    while True:
        result = env.step(action)
        if result[2]:
            return result


@pytest.fixture(scope="module")
def original():
    """Built once; tests step forks of it."""
    env = gym.make("CNNPrune-v0").unwrapped
    env.reset(seed=0)
    return env


@pytest.fixture
def env(original):
    return original.fork()


@pytest.fixture
def zero(env):
    return np.zeros(env.action_space.shape, np.float32)


# What both checkers say


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_is_silent(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_stable_baselines_checker_is_silent(env_id, render_mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(env_id, render_mode=render_mode), warn=True, skip_render_check=False)


def test_the_ids_are_those_promised():
    assert sorted(IDS) == ["CNNPrune-v0", "CNNPruneTabular-v0", "CNNPruneWorlds-v0"]


def test_wrapped_by_gym_make_an_episode_raises_no_warning():
    env = gym.make("CNNPrune-v0", render_mode="ansi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trajectory(env, 12)
        assert isinstance(env.render(), str)
        env.close()


# Determinism


def test_two_environments_with_one_seed_agree_bit_for_bit_over_50_steps():
    rows, others = (trajectory(gym.make("CNNPrune-v0"), 50) for _ in range(2))
    assert len(rows) == len(others) > 51
    for row, other in zip(rows, others, strict=True):
        assert same(row, other)


@pytest.fixture(scope="module")
def elsewhere():
    """What a fresh interpreter makes of an episode with another number of threads, and draws."""
    threads = 2 if torch.get_num_threads() == 1 else 1
    script = (
        "import json, sys, gymnasium as gym\n"
        "env = gym.make('pruning_env:CNNPrune-v0', render_mode='rgb_array')\n"
        "import torch\n"
        "from tests.helpers.rollout import trajectory\n"
        f"torch.set_num_threads({threads})\n"
        "rows = [[o.tolist(), r, t, i] for o, r, t, i in trajectory(env, 30)]\n"
        "frame, modules = env.render().shape, list(sys.modules)\n"
        "print(json.dumps({'rows': rows, 'frame': frame, 'modules': modules}))\n"
    )
    # PASSIVE: on a busy machine, two threads that spin while they wait are 50 times slower.
    printed = run_python(script, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
    return json.loads(printed)


def test_another_process_with_another_thread_count_agrees_to_a_millionth(elsewhere):
    rows = trajectory(gym.make("CNNPrune-v0"), 30)
    assert sum(terminated for _, _, terminated, _ in rows) >= 1
    for (observation, reward, terminated, info), other in zip(rows, elsewhere["rows"], strict=True):
        assert observation == pytest.approx(np.array(other[0]), abs=1e-6)
        assert reward == pytest.approx(other[1], abs=1e-6) and terminated == other[2]
        terms, other_terms = info.pop("reward_terms"), other[3].pop("reward_terms")
        usage, other_usage = info.pop("usage"), other[3].pop("usage")
        assert info == pytest.approx(other[3], abs=1e-6)
        assert usage == pytest.approx(other_usage, abs=1e-6)
        assert terms == pytest.approx(other_terms, abs=1e-6)


def test_the_seed_moves_the_generator_and_nothing_else(env):
    first, second = env.reset(seed=1), env.reset(seed=2)
    assert same(first, second)


# What comes back


def test_info_has_the_documented_keys_and_plain_types_at_reset_and_step(env, zero):
    _, info = env.reset()
    for record in (info, env.step(zero)[4]):
        assert list(record) == INFO_KEYS
        assert list(record["reward_terms"]) == ["accuracy_change", "unmet"]
        assert record["usage"] == {"params": record["params"]}
        for key in INFO_KEYS[:6]:
            assert type(record[key]) is float and math.isfinite(record[key])
        assert type(record["requested"]) is type(record["removed"]) is int
        assert type(record["exhausted"]) is type(record["is_success"]) is bool


def test_reward_is_a_python_float_and_the_flags_are_python_bools(env, zero):
    _, reward, terminated, truncated, info = env.step(zero)
    assert type(reward) is float and type(terminated) is bool and truncated is False
    assert reward == sum(info["reward_terms"].values())


def test_each_step_removes_what_it_announced_until_the_budget_is_met(env):
    before = env.state().counts.sum()
    rows = trajectory(env, 1)
    while not rows[-1][2]:
        state = env.state()
        assert rows[-1][3]["removed"] == before - state.counts.sum()
        before = state.counts.sum()
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        assert info["removed"] == info["requested"] == 11  # 5 % of 224
        rows.append((observation, reward, terminated, info))
    assert info["is_success"] and info["params"] <= 0.25
    assert info["cost"] == info["budget_excess"] == 0.0


def test_an_unreachable_budget_ends_exhausted_with_a_cost():
    env = gym.make("CNNPrune-v0", budget={"params": 1e-6}, channels_per_step=0.4)
    env.reset(seed=0)
    _, _, terminated, truncated, info = finish(env, np.zeros(6, np.float32))
    assert terminated and not truncated and info["exhausted"] and not info["is_success"]
    assert info["removed"] < info["requested"]
    assert info["cost"] == info["budget_excess"] == info["params"] - 1e-6 > 0


def test_the_observation_is_named_entry_by_entry(env):
    observation, _ = env.reset()
    assert len(env.observation_names) == observation.size == 10 * 6 + 5 + 1
    assert observation[env.observation_names.index("accuracy")] == np.float32(
        env.state().metrics.accuracy
    )


def test_the_environment_never_opens_the_test_split_but_the_report_does(env, zero):
    opened = env.evaluator.test_openings
    env.render_mode = "rgb_array"
    finish(env, zero)
    env.render()
    env.pruned_model()
    assert env.evaluator.test_openings == opened
    report = env.report()
    assert isinstance(report, Report) and report.test_openings == opened + 1
    assert env.report() == replace(report, test_openings=opened + 2)


def test_the_report_is_that_of_the_pruned_model_on_test_images(env, zero):
    finish(env, zero)
    report, state = env.report(), env.state()
    splits = get_task("digits-resnet8").load_data(None)
    with torch.no_grad():
        logits = env.pruned_model()(splits.normalised(splits.test))
    accuracy = float((logits.argmax(1) == splits.test.labels).float().mean())
    assert report.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert report.counts == tuple(state.counts) and report.feasible
    assert (report.params, report.macs) == (state.params, state.macs)
    assert report.val_accuracy == state.metrics.accuracy


def test_the_pruned_model_really_has_the_reported_parameters(env, zero):
    def count(model):
        return sum(p.numel() for p in model.parameters())

    dense = count(env.pruned_model())
    info = finish(env, zero)[4]
    assert count(env.pruned_model()) / dense == info["params"] <= 0.25


# The docs page


def table(header):
    """The rows of the docs page's table whose first header cell is `header`."""
    start = next(i for i, line in enumerate(DOCS) if re.match(rf"\| {header} +\|", line))
    rows = itertools.takewhile(lambda line: line.startswith("|"), DOCS[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_docs_page_has_faramas_headings():
    headings = [line[3:] for line in DOCS if line[:3] == "## "]
    assert headings == [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Information",
        "Arguments",
        "Vectorized environment",
        "Version History",
    ]


def test_the_docs_information_table_lists_exactly_the_infos_keys():
    assert [row[0].strip("`") for row in table("Key")] == INFO_KEYS


@pytest.mark.parametrize(
    ("header", "features"), [("Group feature", GROUP_FEATURES), ("Global feature", GLOBAL_FEATURES)]
)
def test_the_docs_observation_tables_are_the_feature_tables(header, features):
    rows = [(r[0].strip("`"), float(r[1]), float(r[2]), r[3]) for r in table(header)]
    assert rows == [(f.name, f.low, f.high, f.meaning) for f in features]


def test_the_docs_argument_table_is_the_constructors_signature():
    parameters = list(inspect.signature(CNNPruneEnv.__init__).parameters.values())[1:]
    documented = {row[0].strip("`"): row[2].strip("`") for row in table("Parameter")}
    assert list(documented) == [p.name for p in parameters]
    for parameter in parameters:
        default = parameter.default
        if parameter.name == "budget":
            default = budgets.DEFAULT_BUDGET
        assert documented[parameter.name].replace('"', "'") == repr(default)


@pytest.mark.parametrize(
    ("argument", "names"),
    [("reward", reward_names()), ("action", action_names()), ("constraint", constraint_names())],
)
def test_the_docs_tables_of_kinds_list_the_built_in_ones(argument, names):
    assert [row[0].strip("`") for row in table(f"`{argument}`")] == list(names)


# Bad actions


def test_actions_beyond_the_box_and_infinite_ones_are_clipped(env):
    twin = env.fork()
    wild = np.array([np.inf, -np.inf, 3, -1.5, 0.5, 0], np.float32)
    assert same(env.step(wild), twin.step(np.clip(wild, -1, 1)))


@pytest.mark.parametrize(
    "action",
    [
        np.full(6, np.nan, np.float32),
        np.array([0, 0, np.nan, 0, 0, 0], np.float32),
        np.zeros(5, np.float32),
        np.zeros((1, 6), np.float32),
        np.array(["a"] * 6),
        None,
    ],
)
def test_a_bad_action_raises_by_name_and_the_episode_goes_on_untouched(env, zero, action):
    twin, before = env.fork(), env.state()
    for _ in range(2):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
    assert env.state() is before
    assert same(env.step(zero), twin.step(zero))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_any_real_dtype_of_the_same_numbers_gives_the_same_step(env, dtype):
    twin = env.fork()
    action = np.array([1, 0, -1, 0, 1, 0])
    assert same(env.step(action.astype(dtype)), twin.step(action.astype(np.float32)))


def test_a_kept_observation_info_or_action_cannot_reach_the_environment(env, zero):
    twin = env.fork()
    action = zero.copy()
    observation, _, _, _, info = env.step(action)
    twin.step(zero)
    observation[:] = -7
    action[:] = 1
    info["reward_terms"].clear()
    info.clear()
    assert same(env.step(zero), twin.step(zero))


# Order of calls


def test_step_and_render_before_reset_raise(zero):
    env = gym.make("CNNPrune-v0", render_mode="ansi")
    for call in (lambda: env.step(zero), env.render):
        with pytest.raises(ResetNeeded):
            call()
    for method in ("render", "state", "report", "pruned_model"):
        with pytest.raises(ResetNeeded, match="reset"):
            getattr(env.unwrapped, method)()
    with pytest.raises(ResetNeeded, match="reset"):
        env.unwrapped.step(zero)


def test_a_step_after_the_end_raises_until_reset(env, zero):
    finish(env, zero)
    last = env.state()
    with pytest.raises(ResetNeeded, match=r"episode is over.*reset"):
        env.step(zero)
    assert env.state() is last
    env.reset()
    assert env.step(zero)[4]["removed"] == 11


def test_rendering_without_a_mode_warns_and_draws_nothing(env):
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None


# Fork, restore, options, pickle


def walk(env, steps, seed=5):
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


def test_a_fork_continues_alike_and_neither_disturbs_the_other(env):
    walk(env, 3)
    twin = env.fork()
    assert twin.state() is env.state() and twin.graph is env.graph
    assert twin.evaluator is env.evaluator
    before = env.state()
    ahead = walk(twin, 3)
    assert env.state() is before
    assert all(same(a, b) for a, b in zip(walk(env, 3), ahead, strict=True))
    twin.reset(seed=9)
    assert env.state().step == 6


def test_a_forks_spaces_and_generator_are_its_own(env):
    env.reset(seed=3)
    env.action_space.seed(3)
    twin = env.fork()
    assert twin.np_random.random() == env.np_random.random()
    twin.action_space.seed(0)
    expected = env.fork().action_space.sample()
    assert np.array_equal(env.action_space.sample(), expected)


def test_restoring_a_state_replays_what_followed_it(env):
    walk(env, 2)
    checkpoint = env.state()
    first = walk(env, 3)
    env.restore(checkpoint)
    assert env.state() == checkpoint
    assert all(same(a, b) for a, b in zip(walk(env, 3), first, strict=True))


def test_a_state_moves_to_another_environment_of_the_same_kind(env):
    walk(env, 2)
    other = CNNPruneEnv()
    other.restore(pickle.loads(pickle.dumps(env.state())))
    assert all(same(a, b) for a, b in zip(walk(env, 3), walk(other, 3), strict=True))


def test_reset_with_a_state_starts_there_and_observes_it(env):
    walk(env, 2)
    checkpoint = env.state()
    observation, info = env.fork().reset(seed=1, options={"state": checkpoint})
    assert np.array_equal(observation, env.observe(checkpoint))
    assert info["params"] == checkpoint.params and not any(info["reward_terms"].values())


def test_an_unjudged_state_is_judged_when_it_is_restored(env, zero):
    state = env.dynamics.apply(env.state(), zero)
    env.restore(state)
    assert env.state().metrics == env.evaluator.evaluate(state.keep)


def test_restoring_an_ended_episode_stays_ended(env, zero):
    finish(env, zero)
    twin = env.fork()
    twin.reset(options={"state": env.state()})
    with pytest.raises(ResetNeeded, match="over"):
        twin.step(zero)


def test_transition_tells_what_step_would_do_and_moves_nothing(env, zero):
    before = env.state()
    ahead = env.transition(before, zero)
    assert env.state() is before
    observation, reward, terminated, _, info = env.step(zero)
    assert env.state() == ahead.state
    assert (reward, terminated, info["cost"]) == (ahead.reward, ahead.terminated, ahead.cost)
    assert info["reward_terms"] == ahead.reward_terms
    assert np.array_equal(observation, env.observe(ahead.state))


def test_advancing_along_a_known_transition_is_a_step_without_an_evaluation(env, zero):
    twin = env.fork()
    transition = env.transition(env.state(), zero)
    before = env.evaluator.evaluations, env.evaluator.cache_hits
    advanced = env.advance(transition)
    assert (env.evaluator.evaluations, env.evaluator.cache_hits) == before
    assert same(advanced, twin.step(zero)) and env.state() == twin.state()


@pytest.mark.parametrize(
    "options",
    [
        {"stat": 1},
        {"state": None},
        {"state": {}},
        {"state": 1, "seed": 2},
        {1: 2},
        ["state"],
        "state",
    ],
)
def test_unknown_or_wrong_options_raise_and_change_nothing(env, options):
    walk(env, 1)
    before = env.state()
    with pytest.raises(ValueError, match=r"options=|state="):
        env.reset(seed=1, options=options)
    assert env.state() is before


def test_no_options_and_empty_options_are_the_same(env):
    assert same(env.reset(options=None), env.reset(options={}))


def test_a_state_of_another_budget_or_ranking_is_refused(env):
    other = CNNPruneEnv(importance="l1", budget={"macs": 0.5})
    other.reset()
    walk(other, 2)
    for use in (env.restore, env.observe, lambda state: env.transition(state, np.zeros(6))):
        with pytest.raises(ValueError, match="state"):
            use(other.state())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_pickle_or_deep_copy_taken_mid_episode_continues_alike(clone):
    env = gym.make("CNNPrune-v0", channels_per_step=0.08, render_mode="ansi")
    env.reset(seed=4)
    env.step(env.action_space.sample())
    twin = clone(env)
    assert twin.get_wrapper_attr("state")() == env.get_wrapper_attr("state")()
    assert twin.render() == env.render()
    assert same(env.step(env.action_space.sample()), twin.step(twin.action_space.sample()))
    assert env.unwrapped.np_random.random() == twin.unwrapped.np_random.random()
    assert twin.spec == env.spec


def test_a_pickle_holds_no_images_and_no_network(env):
    assert len(pickle.dumps(env)) < 20_000


# Arguments


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("task", "digits", "digits-resnet8"),
        ("task", None, "digits-resnet8"),
        ("task", ["digits-resnet8"], "digits-resnet8"),
        ("budget", {"flops": 0.5}, "macs, params"),
        ("budget", {"params": -0.1}, r"\(0, 1\]"),
        ("budget", {"params": 0}, r"\(0, 1\]"),
        ("budget", {"params": 1.5}, r"\(0, 1\]"),
        ("budget", {"params": float("nan")}, r"\(0, 1\]"),
        ("budget", {"params": "a lot"}, r"\(0, 1\]"),
        ("budget", {}, "macs, params"),
        ("budget", 0.25, "macs, params"),
        ("reward", "acc", "accuracy_change"),
        ("action", "layers", "counts, distribution, layerwise, ratio"),
        ("observation", "table", "dict, flat"),
        ("importance", "magnitude", "taylor"),
        ("importance_images", 0, "at least 1"),
        ("recovery", "retrain", "bn, finetune, none"),
        ("recovery_images", 1, "at least 2"),
        ("sensitivity_every", 0, "at least 1"),
        ("sensitivity_every", 1.5, "at least 1"),
        ("finetune_steps", 0, "at least 1"),
        ("finetune_steps", 2.5, "at least 1"),
        ("val_images", 0, "at least 1"),
        ("finetune_lr", 0.0, "above 0"),
        ("finetune_lr", float("inf"), "above 0"),
        ("constraint", "walls", "cost, project, terminate, wall"),
        ("max_steps", 0, "at least 1"),
        ("max_steps", 2.0, "at least 1"),
        ("device", "gpu", "cpu"),
        ("device", None, "cpu"),
        ("strategy", "cut", "auto, batched, compiled, masked, sliced"),
        ("precision", "half", "bfloat16, float32"),
        ("render_mode", "video", "ansi, human, rgb_array"),
        ("channels_per_step", 0.0, r"\(0, 1\]"),
        ("logit_scale", float("nan"), "above 0"),
        ("reward_scale", -1, "above 0"),
    ],
)
def test_a_bad_argument_raises_naming_it_and_what_is_allowed(argument, value, allowed):
    with pytest.raises(ValueError, match=rf"(?s){argument}.*{allowed}") as caught:
        CNNPruneEnv(**{argument: value})
    given = [*value, *value.values()] if isinstance(value, dict) else [value]
    assert not given or any(str(part) in str(caught.value) for part in given)


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CNNPruneEnv(weights=str(tmp_path / "nowhere.safetensors"))


def test_missing_data_is_named(tmp_path):
    checkpoint = tmp_path / "absent.th"
    with pytest.raises(FileNotFoundError, match=r"absent\.th|data"):
        CNNPruneEnv(task="cifar10-resnet20", weights=str(checkpoint), data_root=str(tmp_path))


def test_the_callers_budget_dict_is_read_once(env):
    budget = {"params": 0.5}
    made = CNNPruneEnv(budget=budget)
    budget["params"] = 0.9
    assert made.dynamics.budgets[0].limit == 0.5
    assert pickle.loads(pickle.dumps(made)).dynamics.budgets[0].limit == 0.5


# Registration


def test_a_spec_survives_json_and_makes_the_same_environment():
    env = gym.make("CNNPrune-v0", budget={"macs": 0.5}, channels_per_step=0.2, reward="amc")
    assert env.spec is not None
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec.kwargs == {"budget": {"macs": 0.5}, "channels_per_step": 0.2, "reward": "amc"}
    again = gym.make(spec)
    for row, other in zip(trajectory(env, 6), trajectory(again, 6), strict=True):
        assert same(row, other)


def test_importing_twice_registers_once_and_silently():
    spec = gym.registry["CNNPrune-v0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruning_env._register_environments()
    assert gym.registry["CNNPrune-v0"] is spec


def test_importing_the_package_registers_and_loads_nothing_heavy():
    script = (
        "import sys, pruning_env, gymnasium as gym\n"
        "assert 'CNNPrune-v0' in gym.registry\n"
        "print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])\n"
    )
    assert run_python(script).strip() == "[]"


def test_the_module_prefix_makes_the_environment_without_an_import(elsewhere):
    assert len(elsewhere["rows"]) > 30


@pytest.mark.parametrize("name", pruning_env.__all__)
def test_every_exported_name_exists_and_is_listed(name):
    assert getattr(getattr(pruning_env, name), "__name__", name) == name  # a mapping has none
    assert name in dir(pruning_env)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        _ = pruning_env.Pruner


# Rendering


def test_text_names_every_group_and_changes_with_a_step(original, zero):
    env = original.fork()
    env.render_mode = "ansi"
    first = env.render()
    assert all(group.name in first for group in env.graph.groups)
    env.step(zero)
    assert env.render() != first


def test_pixels_are_constant_in_shape_and_change_with_a_step(original, zero):
    env = original.fork()
    env.render_mode = "rgb_array"
    first = env.render()
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
    env.step(zero)
    second = env.render()
    assert second.shape == first.shape and not np.array_equal(first, second)


def test_drawing_touches_no_figure_manager_and_no_backend(elsewhere):
    # In a process of its own: other tests may have imported pyplot.
    assert len(elsewhere["frame"]) == 3 and "matplotlib.figure" in elsewhere["modules"]
    assert "matplotlib.pyplot" not in elsewhere["modules"]


def test_the_picture_of_an_episode_starts_anew_at_reset(original, zero):
    env = original.fork()
    env.render_mode = "rgb_array"
    first = env.render()
    env.step(zero)
    env.reset()
    assert np.array_equal(env.render(), first)


def test_importance_and_recovery_look_at_as_many_images_as_each_is_told() -> None:
    usual = CNNPruneEnv()
    ranked = CNNPruneEnv(importance_images=64)
    recovered = CNNPruneEnv(recovery_images=64)
    keep = usual.graph.random_keep(0.5, np.random.default_rng(0))
    metrics = [env.evaluator.evaluate(keep) for env in (usual, ranked, recovered)]
    assert metrics[0] == metrics[1] != metrics[2]
    scores = [env.dynamics.scores for env in (usual, ranked, recovered)]
    assert np.array_equal(scores[0], scores[2]) and not np.array_equal(scores[0], scores[1])


def test_few_images_of_search_val_judge_in_place_of_all() -> None:
    few, full = (CNNPruneEnv(val_images=count) for count in (50, None))
    images, labels = few.evaluator.images("search-val")
    everything, _ = full.evaluator.images("search-val")
    assert len(images) == len(labels) == 50 < len(everything)
    assert (images[0] == everything[0]).all()
    keep = few.graph.random_keep(0.5, np.random.default_rng(0))
    correct = 50 * few.evaluator.evaluate(keep).accuracy
    assert correct == pytest.approx(round(correct))
    assert few.evaluator.certify(keep) == full.evaluator.certify(keep), "test stays whole"


def test_with_another_budget_an_environment_does_what_a_new_one_does() -> None:
    arguments = {"constraint": "project", "max_steps": 1, "val_images": 20, "recovery": "none"}
    first = CNNPruneEnv(budget={"params": 0.9}, **arguments)  # type: ignore[arg-type]
    first.reset(seed=0)
    twin = first.with_budget({"macs": 0.4})
    new = CNNPruneEnv(budget={"macs": 0.4}, **arguments)  # type: ignore[arg-type]
    action = np.linspace(-1, 1, len(new.graph.groups), dtype=np.float32)
    for env in (twin, new):
        env.reset(seed=0)
    assert data_equivalence(twin.step(action), new.step(action))
    assert twin.observation_names == new.observation_names
    assert twin.evaluator is first.evaluator
    assert first.state().step == 0 and first.dynamics.budgets[0].name == "params"
    with pytest.raises(ValueError, match="budget key='wishes' is unknown"):
        first.with_budget({"wishes": 0.5})
