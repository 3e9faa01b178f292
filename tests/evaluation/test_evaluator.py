"""The evaluator: what it judges, what it remembers, and what it keeps sealed."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pruning_env.evaluation.evaluator import LOSS_CAP, Evaluator, Metrics, measure
from pruning_env.evaluation.importance.scores import taylor_scores
from pruning_env.evaluation.recovery.batch_norm import recalibrate_batch_norm
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Split, Splits
from tests.helpers.networks import jitter
from tests.helpers.small import small_evaluator, small_model, small_splits


def keeps_of(graph: ChannelGraph, number: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [graph.random_keep(0.5, rng) for _ in range(number)]


def digest(model: nn.Module) -> str:
    state = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        state.update(name.encode() + tensor.numpy().tobytes())
    state.update(
        str(
            [(m.training, p.requires_grad) for m in model.modules() for p in m.parameters()]
        ).encode()
    )
    return state.hexdigest()


def by_hand(model: nn.Module, split: Split) -> Metrics:
    with torch.no_grad():
        logits = model(split.images)
    accuracy = (logits.argmax(1) == split.labels).float().mean()
    return Metrics(float(accuracy), float(F.cross_entropy(logits, split.labels)))


def close(first: Metrics, second: Metrics) -> bool:
    same = first.accuracy == pytest.approx(second.accuracy)
    return same and first.loss == pytest.approx(second.loss, rel=1e-5)


# What is judged


def test_without_recovery_a_mask_gets_the_metrics_of_the_masked_model() -> None:
    evaluator = small_evaluator(recovery="none")
    for keep in keeps_of(evaluator.graph, 5):
        masked = evaluator.graph.mask(small_model(), keep)
        assert close(evaluator.evaluate(keep), by_hand(masked, small_splits().search_val))


def test_with_bn_recovery_a_mask_gets_the_metrics_of_the_recalibrated_pruned_model() -> None:
    evaluator = small_evaluator(recovery="bn")
    for keep in keeps_of(evaluator.graph, 5):
        pruned = evaluator.graph.prune(small_model(), keep)
        recalibrate_batch_norm(pruned, small_splits().search_train.images)
        assert close(evaluator.evaluate(keep), by_hand(pruned, small_splits().search_val))


def test_recovery_changes_the_metrics() -> None:
    keep = keeps_of(small_evaluator().graph, 1)[0]
    losses = {small_evaluator(recovery=r).evaluate(keep).loss for r in ("none", "bn")}
    assert len(losses) == 2


def test_dense_is_the_model_as_it_came_and_is_not_counted() -> None:
    evaluator = small_evaluator(recovery="bn")
    assert close(evaluator.dense, by_hand(small_model(), small_splits().search_val))
    assert evaluator.evaluations == 0


def test_certify_judges_the_test_split_recovered_from_search_train() -> None:
    evaluator = small_evaluator(recovery="bn")
    keep = keeps_of(evaluator.graph, 1)[0]
    pruned = evaluator.graph.prune(small_model(), keep)
    recalibrate_batch_norm(pruned, small_splits().search_train.images)
    assert close(evaluator.certify(keep), by_hand(pruned, small_splits().test))


def test_evaluate_many_gives_in_order_what_evaluate_gives_one_by_one() -> None:
    together, alone = small_evaluator(), small_evaluator()
    keeps = keeps_of(together.graph, 6)
    assert together.evaluate_many(keeps) == [alone.evaluate(keep) for keep in keeps]
    assert together.evaluate_many(np.stack(keeps)) == [alone.evaluate(keep) for keep in keeps]
    assert together.evaluate_many([]) == []


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    keep = keeps_of(small_evaluator().graph, 1)[0]
    assert close(
        small_evaluator(batch_size=batch_size).evaluate(keep), small_evaluator().evaluate(keep)
    )


def test_a_double_precision_model_is_judged_in_double_precision() -> None:
    model = small_model().double()
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    evaluator = Evaluator(model, graph, small_splits())
    assert evaluator.images("search-val")[0].dtype == torch.float64
    assert close(evaluator.evaluate(graph.full()), small_evaluator().evaluate(graph.full()))


def test_calibration_images_are_spread_over_search_train() -> None:
    # Stored class by class; the first 8 images would be of one class only.
    splits = small_splits()
    order = splits.search_train.labels.argsort()
    ordered = Split(splits.search_train.images[order], splits.search_train.labels[order])
    model, graph = small_model(), small_evaluator().graph
    evaluator = Evaluator(model, graph, replace(splits, search_train=ordered), recovery_images=8)
    pruned = evaluator.pruned_model(graph.full())
    expected = small_model()
    recalibrate_batch_norm(expected, ordered.images[::8])
    assert torch.allclose(
        pruned.get_buffer("down.1.running_mean"), expected.get_buffer("down.1.running_mean")
    )


def test_importance_looks_at_its_own_images_and_recovery_at_others() -> None:
    splits, full = small_splits(), small_evaluator().graph.full()
    seen = splits.search_train.evenly_spaced(16)
    judged = small_evaluator(recovery_images=8, importance_images=16)
    expected = taylor_scores(judged.graph, small_model().eval(), seen.images, seen.labels)
    np.testing.assert_allclose(judged.scores("taylor"), expected, rtol=1e-5)
    np.testing.assert_allclose(judged.sensitivity(full), expected, rtol=1e-5)
    assert judged.evaluate(full) == small_evaluator(recovery_images=8).evaluate(full)


# Outputs that are not numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_with_an_output_that_is_not_finite_is_wrong_and_costs_the_cap(
    value: float,
) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [value, 0.0], [9.0, value]])
            return logits[: len(x)]

    metrics = measure(Fixed(), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 4)
    assert metrics.accuracy == 0.5
    assert metrics.loss == pytest.approx(LOSS_CAP / 2, rel=1e-3)


def test_a_loss_beyond_the_cap_counts_as_the_cap() -> None:
    class Sure(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1e30, -1e30]]).expand(len(x), 2)

    labels = torch.ones(3, dtype=torch.int64)
    assert measure(Sure(), torch.zeros(3, 1), labels, 3) == Metrics(0.0, LOSS_CAP)


@pytest.mark.parametrize("recovery", ["none", "bn"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_broken_weight_gives_metrics_that_are_numbers(recovery: str, value: float) -> None:
    model = small_model()
    with torch.no_grad():
        model.get_parameter("inner.0.weight").fill_(value)
    evaluator = Evaluator(model, small_evaluator().graph, small_splits(), recovery=recovery)
    for metrics in (evaluator.evaluate(evaluator.graph.full()), evaluator.dense):
        assert np.isfinite([metrics.accuracy, metrics.loss]).all()
        assert 0 <= metrics.accuracy <= 1
        assert 0 <= metrics.loss <= LOSS_CAP


# What is remembered


def test_a_mask_seen_before_is_answered_from_the_cache() -> None:
    evaluator = small_evaluator()
    first, second = keeps_of(evaluator.graph, 2)
    metrics = evaluator.evaluate(first)
    evaluator.evaluate(second)
    assert evaluator.evaluate(first.copy()) == metrics
    assert (evaluator.evaluations, evaluator.cache_hits) == (2, 1)


def test_a_mask_that_occurs_twice_in_one_call_is_run_once() -> None:
    evaluator = small_evaluator()
    first, second = keeps_of(evaluator.graph, 2)
    metrics = evaluator.evaluate_many([first, second, first])
    assert metrics[0] == metrics[2]
    assert (evaluator.evaluations, evaluator.cache_hits) == (2, 1)


def test_the_least_recently_used_mask_is_forgotten_first() -> None:
    evaluator = small_evaluator(cache_size=2)
    a, b, c = keeps_of(evaluator.graph, 3)
    evaluator.evaluate_many([a, b])
    evaluator.evaluate(a)
    evaluator.evaluate(c)  # forgets b
    evaluations = evaluator.evaluations
    evaluator.evaluate(a)
    assert evaluator.evaluations == evaluations
    evaluator.evaluate(b)
    assert evaluator.evaluations == evaluations + 1


@pytest.mark.parametrize("cache_size", [0, 1, 3])
def test_the_cache_stays_within_its_bound(cache_size: int) -> None:
    evaluator = small_evaluator(cache_size=cache_size)
    keeps = keeps_of(evaluator.graph, 5)
    assert len(set(map(bytes, keeps))) == 5
    assert len(evaluator.evaluate_many(keeps)) == 5
    assert len(evaluator._cache) == cache_size


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_evaluations_and_hits_count_every_request_and_answers_never_depend_on_the_cache(
    requests: list[int], cache_size: int
) -> None:
    evaluator = _CACHED
    evaluator._cache.clear()
    evaluator._cache_size = cache_size
    start = evaluator.evaluations + evaluator.cache_hits
    answers = [evaluator.evaluate(_KEEPS[index]) for index in requests]
    assert answers == [_ANSWERS[index] for index in requests]
    assert evaluator.evaluations + evaluator.cache_hits - start == len(requests)


_CACHED = small_evaluator()
_KEEPS = keeps_of(_CACHED.graph, 6)
_ANSWERS = small_evaluator().evaluate_many(_KEEPS)


@pytest.mark.parametrize("recovery", ["none", "finetune"])
def test_an_evaluator_that_recalls_a_memory_goes_on_from_there(recovery: str) -> None:
    first, second = (small_evaluator(recovery=recovery) for _ in range(2))
    known, later = keeps_of(first.graph, 3), keeps_of(first.graph, 1, seed=1)
    answers = first.evaluate_many([*known, known[0]])
    memory = pickle.loads(pickle.dumps(first.memory()))
    first.evaluate_many(later)  # a memory is of its time
    second.recall(memory)
    assert (second.evaluations, second.cache_hits) == (3, 1)
    assert second.evaluate_many(known) == answers[:3]
    assert (second.evaluations, second.cache_hits) == (3, 4)
    second.evaluate_many(later)
    assert second.evaluations == 4 and memory["evaluations"] == 3
    third = small_evaluator(recovery=recovery)
    third.recall(memory)  # nor did recalling it tie it to anybody
    third.evaluate_many(later)
    assert third.evaluations == 4


def test_a_mask_changed_after_the_call_does_not_change_what_is_remembered() -> None:
    evaluator = small_evaluator()
    keep = evaluator.graph.full()
    full = evaluator.evaluate(keep)
    keep[:5] = False
    evaluator.evaluate(keep)
    assert evaluator.evaluate(evaluator.graph.full()) == full
    assert evaluator.evaluations == 2


# What is sealed


def test_the_test_split_is_refused() -> None:
    evaluator = small_evaluator()
    with pytest.raises(ValueError, match="sealed"):
        evaluator.images("test")
    assert evaluator.test_openings == 0


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"split='train' .*search-train, search-val"):
        small_evaluator().images("train")


def test_every_opening_of_the_test_split_is_counted_and_nothing_else_opens_it() -> None:
    evaluator = small_evaluator()
    keep = evaluator.graph.full()
    evaluator.evaluate(keep)
    evaluator.scores("taylor")
    evaluator.images("search-train")
    _ = evaluator.dense
    assert evaluator.test_openings == 0
    evaluator.certify(keep)
    evaluator.certify(keep)
    assert evaluator.test_openings == 2
    assert evaluator.evaluations == 1


def test_an_invalid_mask_does_not_open_the_test_split() -> None:
    evaluator = small_evaluator()
    with pytest.raises(ValueError, match="keep"):
        evaluator.certify(np.zeros(3, dtype=bool))
    assert evaluator.test_openings == 0


def test_no_public_attribute_leads_to_a_test_image() -> None:
    evaluator = small_evaluator()
    test = small_splits().test.images
    seen: set[int] = set()

    def search(value: Any, path: str) -> None:
        if id(value) in seen or len(path) > 200:
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found = value.shape[1:] == test.shape[1:] and any(
                torch.equal(image, test[0]) for image in value
            )
            assert not found, path
        elif isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                search(item, f"{path}[{index}]")
        elif isinstance(value, (Evaluator, Split, Splits)):
            for name in dir(value):
                if not name.startswith("_"):
                    search(getattr(value, name), f"{path}.{name}")

    search(evaluator, "evaluator")
    search([evaluator.images(name) for name in ("search-train", "search-val")], "images")


def test_only_the_seal_holds_test_images() -> None:
    evaluator = small_evaluator()
    others = {k: v for k, v in vars(evaluator).items() if k != "_sealed"}
    assert others["_splits"].test.images.untyped_storage().nbytes() == 0
    assert len(evaluator._sealed.open().test.labels) == len(small_splits().test.labels)


def test_images_are_normalised_and_labelled() -> None:
    splits = replace(small_splits(), mean=(0.5,), std=(2.0,))
    evaluator = Evaluator(small_model(), small_evaluator().graph, splits)
    for name, split in (("search-train", splits.search_train), ("search-val", splits.search_val)):
        images, labels = evaluator.images(name)
        assert torch.allclose(images, (split.images - 0.5) / 2)
        assert torch.equal(labels, split.labels)


# What does not change


def test_the_model_passed_in_is_never_changed() -> None:
    model = small_model()
    jitter(model)
    model.train()
    model.get_parameter("head.bias").requires_grad_(False)
    before = digest(model)
    evaluator = Evaluator(model, small_evaluator().graph, small_splits())
    for keep in (*keeps_of(evaluator.graph, 3), evaluator.graph.full()):
        evaluator.evaluate(keep)
        evaluator.certify(keep)
        pruned = evaluator.pruned_model(keep).train()
        pruned(torch.randn(4, 1, 8, 8)).sum().backward()
        with torch.no_grad():
            for parameter in pruned.parameters():
                parameter.zero_()
    evaluator.scores("taylor")
    _ = evaluator.dense
    assert digest(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_later_changes_to_the_model_do_not_reach_the_evaluator() -> None:
    model = small_model()
    evaluator = Evaluator(model, small_evaluator().graph, small_splits())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    keep = keeps_of(evaluator.graph, 1)[0]
    assert evaluator.evaluate(keep) == small_evaluator().evaluate(keep)


def test_the_pruned_model_is_what_was_judged_and_belongs_to_the_caller() -> None:
    evaluator = small_evaluator()
    keep = keeps_of(evaluator.graph, 1)[0]
    pruned = evaluator.pruned_model(keep)
    assert not pruned.training
    assert close(by_hand(pruned, small_splits().search_val), evaluator.evaluate(keep))
    assert sum(p.numel() for p in pruned.parameters()) == evaluator.graph.params(keep)
    with torch.no_grad():
        for tensor in pruned.state_dict().values():
            tensor.zero_()
    assert close(evaluator.dense, small_evaluator().dense)
    assert evaluator.scores("l1").all()


def test_two_evaluators_give_the_same_bits() -> None:
    keeps = keeps_of(small_evaluator().graph, 4)
    first, second = small_evaluator(), small_evaluator()
    assert first.evaluate_many(keeps) == second.evaluate_many(keeps[::-1])[::-1]
    assert np.array_equal(first.scores("taylor"), second.scores("taylor"))


def test_the_global_random_stream_is_not_touched() -> None:
    before = torch.get_rng_state()
    evaluator = small_evaluator()
    after_building = torch.get_rng_state()
    evaluator.evaluate_many(keeps_of(evaluator.graph, 2))
    evaluator.scores("random", np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), after_building)
    assert torch.equal(before, after_building)


# What is refused


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (np.ones(24), "dtype float64"),
        (np.ones(24, dtype=np.int64), "dtype int64"),
        (np.ones(23, dtype=bool), r"shape \(23,\)"),
        (np.ones((1, 24), dtype=bool), r"shape \(1, 24\)"),
        (np.zeros(24, dtype=bool), r"3 of 3 groups .*stem\.0, inner\.0, down\.0"),
        (np.arange(24) >= 6, r"1 of 3 groups .*\(stem\.0\)"),
    ],
)
def test_a_mask_that_is_not_valid_is_refused(keep: np.ndarray, message: str) -> None:
    evaluator = small_evaluator()
    for call in (evaluator.evaluate, evaluator.pruned_model, evaluator.certify):
        with pytest.raises(ValueError, match=message):
            call(keep)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate_many([evaluator.graph.full(), keep])
    assert evaluator.evaluations == 0


@pytest.mark.parametrize(
    "option",
    [
        {"recovery": "magic"},
        {"recovery": None},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"recovery_images": 1},
        {"recovery_images": True},
        {"importance_images": 0},
        {"cache_size": -1},
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))}="):
        small_evaluator(**option)


EMPTY = Split(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("search_train", replace(small_splits(), search_train=EMPTY)),
        ("search_val", replace(small_splits(), search_val=EMPTY)),
    ],
)
def test_an_empty_split_is_refused_by_name(name: str, splits: Splits) -> None:
    with pytest.raises(ValueError, match=f"splits.{name}"):
        Evaluator(small_model(), small_evaluator().graph, splits)


def test_a_model_with_fewer_outputs_than_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model returns \(1, 4\)"):
        Evaluator(small_model(), small_evaluator().graph, replace(small_splits(), num_classes=5))


def test_a_graph_of_another_model_is_refused() -> None:
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4)).eval()
    graph = ChannelGraph.trace(other, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="graph"):
        Evaluator(small_model(), graph, small_splits())
