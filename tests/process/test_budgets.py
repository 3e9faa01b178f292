"""A budget is a named ratio to the dense network, closed-form or measured on the pruned model."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.evaluation.runtimes import Runtime
from pruning_env.process import budgets, usage
from pruning_env.process.budgets import Budget, parse_budget, register_budget
from pruning_env.process.latency_budget import LatencySettings
from tests.helpers.small import small_dynamics, small_evaluator, small_model


@pytest.fixture(scope="module")
def evaluator():
    return small_evaluator()


@pytest.fixture
def register(monkeypatch):
    """`register_budget`, undone after the test."""
    monkeypatch.setattr(budgets, "_MEASURED", dict(budgets._MEASURED))
    return register_budget


def weights_of(model):
    return float(sum(p.numel() for p in model.parameters()))


def no_model():
    raise AssertionError("a closed-form budget built a model")


def test_none_means_a_quarter_of_the_parameters():
    assert parse_budget(None) == (Budget("params", 0.25),)


def test_several_budgets_keep_their_order():
    assert parse_budget({"macs": 1, "params": 0.5}) == (Budget("macs", 1.0), Budget("params", 0.5))


@pytest.mark.parametrize("limit", [0, -0.1, 1.0001, np.nan, np.inf, -np.inf, "0.5", None, True])
def test_a_limit_outside_0_to_1_is_refused_with_its_key(limit):
    with pytest.raises(ValueError, match=r"budget\['params'\]=.*\(0, 1\]"):
        parse_budget({"params": limit})


@pytest.mark.parametrize("budget", [{}, 0.25, "params", ["params"], ("params", 0.25)])
def test_anything_but_a_filled_dict_is_refused(budget):
    with pytest.raises(ValueError, match=r"budget=.*filters, latency, macs, params"):
        parse_budget(budget)


@pytest.mark.parametrize("key", ["flops", "", 3, None, "Params"])
def test_an_unknown_key_is_refused_with_the_known_ones(key):
    with pytest.raises(ValueError, match=r"budget key=.*allowed: filters, latency, macs, params"):
        parse_budget({key: 0.5})


@pytest.mark.parametrize("name", ["params", "macs"])
def test_closed_form_budgets_equal_the_graph_and_build_no_model(evaluator, name):
    graph = evaluator.graph
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    amount = Budget(name, 0.5).measure(graph, keep, no_model)
    assert amount == getattr(graph, name)(keep) < getattr(graph, name)(graph.full())


def test_filters_are_what_the_pruned_layers_have_rows_of(evaluator):
    """A layer's rows, summed over the layers that lose some: by the pruned network itself."""
    graph = evaluator.graph
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned, dense = graph.prune(small_model(), keep), small_model()

    def rows(model):
        layers = [model.stem[0], model.inner[0], model.outer[0], model.down[0]]  # the head is kept
        return sum(len(layer.weight) for layer in layers)

    assert Budget("filters", 0.5).measure(graph, graph.full(), no_model) == rows(dense) == 30
    assert Budget("filters", 0.5).measure(graph, keep, no_model) == rows(pruned) < 30
    assert graph.num_channels == 24  # the stem and the skip connection's layer are one group


def test_excess_is_what_is_above_the_limit_and_never_negative():
    budget = Budget("params", 0.25)
    assert budget.excess(0.75) == 0.5
    assert budget.excess(0.25) == budget.excess(0.1) == 0.0


def test_a_registered_function_of_the_pruned_model_is_a_budget(evaluator, register):
    register("weights", weights_of)
    dynamics = small_dynamics(evaluator, {"weights": 0.3, "params": 0.3})
    state = dynamics.initial()
    assert state.usage == (1.0, 1.0)
    state = dynamics.transition(state, np.zeros(3)).state
    assert state.usage[0] == state.usage[1] == state.params < 1


def test_a_registered_budget_ends_the_episode_like_any_other(evaluator, register):
    register("weights", weights_of)
    dynamics = small_dynamics(evaluator, {"weights": 0.5})
    state = dynamics.initial()
    while not dynamics.terminal(state):
        state = dynamics.transition(state, np.zeros(3)).state
    assert dynamics.feasible(state) and state.usage[0] <= 0.5


@pytest.mark.parametrize("amount", [np.nan, np.inf, -1.0])
def test_a_function_that_returns_no_amount_is_named(evaluator, register, amount):
    register("broken", lambda model: amount)
    with pytest.raises(ValueError, match="budget function 'broken' returned"):
        small_dynamics(evaluator, {"broken": 0.5})


def test_a_function_that_is_zero_for_the_dense_network_has_no_ratio(evaluator, register):
    register("zero", lambda model: 0.0)
    with pytest.raises(ValueError, match=r"'zero' measures 0\.0 on the dense network"):
        small_dynamics(evaluator, {"zero": 0.5})


@pytest.mark.parametrize("name", ["params", "macs", "", None])
def test_a_taken_or_empty_name_cannot_be_registered(name):
    with pytest.raises(ValueError, match="name="):
        register_budget(name, weights_of)


def test_what_cannot_be_called_cannot_be_registered():
    with pytest.raises(ValueError, match=r"function=0\.5"):
        register_budget("number", 0.5)  # type: ignore[call-overload]


def test_latency_is_a_built_in_name_that_cannot_be_taken():
    assert parse_budget({"latency": 0.5})[0].compared
    assert not parse_budget({"params": 0.5})[0].compared
    with pytest.raises(ValueError, match="name='latency'"):
        register_budget("latency", weights_of)


class Worker(nn.Module):
    """Computes for a while, and keeps the sizes of its batches."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.batches = seconds, []

    def forward(self, images):
        self.batches.append(len(images))
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass


@pytest.mark.parametrize("batch", [1, 32])
def test_latency_is_the_ratio_of_times_for_one_batch_of_images(batch):
    dense, pruned = Worker(0.004), Worker(0.001)
    ratio = budgets.latency(dense, pruned, torch.zeros(100, 1), runtime=Runtime(batch=batch))
    assert 0.2 < ratio < 0.6
    assert set(dense.batches + pruned.batches) == {batch}


def noisy(monkeypatch, reading):
    """`latency` that says what `reading` makes of the true ratio; the pruned networks it saw."""
    seen = []

    def latency(dense, pruned, images, limit, runtime):
        true = weights_of(pruned) / weights_of(dense)
        seen.append(true)
        return reading(true, len(seen))

    monkeypatch.setitem(budgets._COMPARED, "latency", latency)
    return seen


def test_a_latency_that_everything_removed_does_not_meet_is_refused(evaluator, monkeypatch):
    noisy(monkeypatch, lambda true, call: 0.63)
    with pytest.raises(ValueError, match=r"'latency'\]=0.5 cannot be met.*at most 0.63"):
        small_dynamics(evaluator, {"latency": 0.5})


def test_one_busy_moment_refuses_no_limit(evaluator, monkeypatch):
    seen = noisy(monkeypatch, lambda true, call: 0.63 if call < 3 else true)
    small_dynamics(evaluator, {"latency": 0.5})
    assert len(seen) == 3


@pytest.mark.parametrize("constraint", ["project", "wall"])
def test_noise_strips_no_network_and_is_no_success(evaluator, monkeypatch, constraint):
    """All measurements but the first, of the smallest network, say far too much."""
    noisy(monkeypatch, lambda true, call: true if call == 1 else 3.0)
    dynamics = small_dynamics(evaluator, {"latency": 0.5}, constraint=constraint, max_steps=1)
    with pytest.warns(RuntimeWarning, match=r"latency 3 \(limit 0.5\), measured on a network too"):
        state = dynamics.apply(dynamics.initial(), np.zeros(3))
    assert not dynamics.feasible(state) and not dynamics.exhausted(state)
    assert state.macs > 0.05


def test_a_limit_that_the_smallest_network_meets_is_met_by_it_ever_after(evaluator, monkeypatch):
    seen = noisy(monkeypatch, lambda true, call: true if call == 1 else 3.0)
    dynamics = small_dynamics(evaluator, {"latency": 0.5})
    smallest = evaluator.graph.keep_top(dynamics.rank, dynamics.units.floors)
    assert dynamics.usage_meter.ratio(0, smallest) == seen[0] and len(seen) == 1


def test_the_dense_network_has_latency_one_and_others_are_compared_with_it(evaluator, monkeypatch):
    compared = []

    def weights_ratio(dense, pruned, images, limit, runtime):
        compared.append((images.shape, runtime))
        return weights_of(pruned) / weights_of(dense)

    monkeypatch.setitem(budgets._COMPARED, "latency", weights_ratio)
    dynamics = small_dynamics(evaluator, {"latency": 0.5, "params": 0.5})
    assert dynamics.initial().usage == (1.0, 1.0)
    compared.clear()  # whether the limit can be met at all has been measured
    state = dynamics.apply(dynamics.initial(), np.zeros(3))
    assert state.usage[0] == state.params < 1 and compared == [((50, 1, 8, 8), Runtime())]


def table_of(monkeypatch, graph, predicted):
    """A latency table that predicts what `predicted` makes of counts (L,), for whoever asks."""
    asked = []

    class Table:
        def at_most(self, counts):
            asked.append(tuple(counts))
            return predicted(counts)

    monkeypatch.setattr(usage, "latency_table", lambda *_, **__: Table())
    return asked


SETTINGS = LatencySettings(table="some.jsonl")


def test_with_a_table_steps_time_nothing_and_usage_is_what_it_predicts(evaluator, monkeypatch):
    timed = noisy(monkeypatch, lambda true, call: true)
    asked = table_of(monkeypatch, evaluator.graph, lambda counts: float(counts.sum() / 24))
    dynamics = small_dynamics(evaluator, {"latency": 0.5}, latency=SETTINGS)
    timed.clear()  # whether the limit can be met was timed
    state = dynamics.apply(dynamics.initial(), np.zeros(3))
    assert state.usage[0] == state.counts.sum() / 24 and asked[-1] == tuple(state.counts)
    assert not timed


def test_a_limit_that_the_clock_or_the_table_puts_out_of_reach_is_refused(evaluator, monkeypatch):
    for clock, table in ((0.6, 0.1), (0.1, 0.6)):
        noisy(monkeypatch, lambda true, call, clock=clock: clock)
        table_of(monkeypatch, evaluator.graph, lambda counts, table=table: table)
        with pytest.raises(ValueError, match=r"'latency'\]=0.5 cannot be met.*at most 0.6"):
            small_dynamics(evaluator, {"latency": 0.5}, latency=SETTINGS)


def test_a_table_without_the_budget_it_is_for_is_refused(evaluator):
    with pytest.raises(ValueError, match=r"table='some.jsonl' is not allowed without the budget"):
        small_dynamics(evaluator, {"params": 0.5}, latency=SETTINGS)


def test_latency_arguments_are_settings_of_a_runtime_and_a_table():
    assert LatencySettings.of(None) == LatencySettings(Runtime("eager", 1, None), None)
    given = {"runtime": "compiled", "batch": 4, "threads": 2, "table": Path("a.jsonl")}
    assert LatencySettings.of(given) == LatencySettings(Runtime("compiled", 4, 2), "a.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speed": 1}, r"latency_arguments=.*runtime, batch, threads, table"),
        ("eager", r"latency_arguments='eager'"),
        ({"runtime": "tvm"}, "runtime='tvm' is unknown"),
        ({"batch": 0}, "batch=0"),
        ({"threads": -1}, "threads=-1"),
        ({"table": 3}, "table=3 is not allowed; give the name of a file"),
    ],
)
def test_bad_latency_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        LatencySettings.of(arguments)
