"""Test data are in one place: whoever looks for them elsewhere finds nothing, and looks count."""

from __future__ import annotations

import copy
import gc
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from pruning_agents.search.judge import judge_dense
from pruning_agents.search.registry import get_agent
from pruning_agents.search.training import begin, train
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.ledger import Ledger, Meter
from pruning_env.evaluation.vault import Vault
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.table import load_table
from pruning_env.tasks.data import load_digits8
from pruning_env.tasks.fingerprints import splits_hash, weights_hash
from tests.helpers.small import small_evaluator, small_model, small_splits

TABLE = load_table()


def secrets() -> list[bytes]:
    """What must not be found: labels, images as stored and as normalised, entries of the table."""
    splits = load_digits8()
    results = TABLE.results["bn"]
    return [
        splits.test.labels.numpy().tobytes(),
        splits.test.images[5].numpy().tobytes(),
        splits.normalised(splits.test)[5].numpy().tobytes(),
        results.test_correct[1000:1100].tobytes(),
        results.test_loss[1000:1100].tobytes(),
    ]


SECRETS = secrets()


def reachable(root: Any, opened: bool = False) -> Iterator[Any]:
    """All objects that can be got at from `root`, vaults closed unless `opened`.

    Not through modules, classes and the globals of functions, from where everything can be.
    """
    seen, waiting = {id(root)}, [root]
    while waiting:
        thing = waiting.pop()
        yield thing
        if isinstance(thing, Vault) and not opened:
            continue
        parts: list[Any]
        if isinstance(thing, types.FunctionType):
            parts = [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
        else:
            parts = gc.get_referents(thing)
            if isinstance(thing, np.ndarray):
                parts.append(thing.base)
        for part in parts:
            if id(part) not in seen and not isinstance(part, (types.ModuleType, type)):
                seen.add(id(part))
                waiting.append(part)


def leaks(root: Any, opened: bool = False) -> set[int]:
    """Which of the secrets lie in the memory of a reachable tensor or array."""
    found, stores = set(), set()
    # What is walked is kept: a freed object's address would be taken for seen.
    for thing in list(reachable(root, opened)):
        if isinstance(thing, torch.Tensor):
            store = thing.untyped_storage()
            if store.data_ptr() in stores or not store.nbytes():
                continue
            stores.add(store.data_ptr())
            content = torch.empty(0, dtype=torch.uint8).set_(store).numpy().tobytes()
        elif isinstance(thing, np.ndarray):
            content = thing.tobytes()
        elif isinstance(thing, (bytes, bytearray)):
            content = bytes(thing)
        else:
            continue
        found |= {number for number, secret in enumerate(SECRETS) if secret in content}
    return found


def trained_agent() -> Any:
    learner = get_agent("rl-pruner").learner
    assert learner is not None
    start = begin(learner, gym.make("CNNPrune-v0"), 0)
    train(start, 3)
    return start.agent


ROOTS: dict[str, Callable[[], Any]] = {
    "environment": lambda: gym.make("CNNPrune-v0"),
    "vector environment": lambda: gym.make_vec("CNNPrune-v0", num_envs=2),
    "copy": lambda: copy.deepcopy(CNNPruneEnv()),
    "copied evaluator": lambda: copy.deepcopy(CNNPruneEnv().evaluator),
    "table": lambda: gym.make("CNNPruneTabular-v0"),
    "vector table": lambda: gym.make_vec("CNNPruneTabular-v0", num_envs=2),
    "agent": trained_agent,
}


@pytest.mark.parametrize("name", ROOTS)
def test_no_test_data_are_reachable_but_in_the_vault(name: str) -> None:
    root = ROOTS[name]()
    assert leaks(root) == set()
    # Or the walk would say nothing: it does find them behind the vault's door.
    assert leaks(root, opened=True) == ({3, 4} if "table" in name else {0, 1})


def test_pickles_hold_no_test_data_and_a_vault_has_none() -> None:
    for env in (CNNPruneEnv(), CNNPruneTabularEnv()):
        env.reset()
        data = pickle.dumps(env)
        assert not any(secret in data for secret in SECRETS)
        empty = pickle.loads(pickle.dumps(env.evaluator._sealed))
        with pytest.raises(RuntimeError, match="stay in the process"):
            empty.open()
    copied = pickle.loads(pickle.dumps(small_evaluator()))
    with pytest.raises(RuntimeError, match="stay in the process"):
        copied.certify(copied.graph.full())
    assert copied.test_openings == 0


def test_openings_are_counted_whoever_looks() -> None:
    evaluator = small_evaluator()
    keep = evaluator.graph.full()
    others = [copy.deepcopy(evaluator), copy.copy(evaluator)]
    with Meter() as meter:
        evaluator.certify(keep)
        evaluator.certify_dense()
        for other in others:
            other.certify(keep)
        small_evaluator().certify(keep)  # whose is this?
    assert [each.test_openings for each in (evaluator, *others)] == [4, 4, 4]
    assert meter.test_openings == 5 and meter.evaluations == 0


def test_the_dense_networks_test_accuracy_is_looked_up_in_the_vault() -> None:
    env = CNNPruneEnv()
    dense = judge_dense(env, {"task": "digits-resnet8"}, open_test=True)
    assert env.evaluator.test_openings == 1 and dense.test_accuracy is not None
    judge_dense(env, {"task": "digits-resnet8"}, open_test=False)
    assert env.evaluator.test_openings == 1
    splits = load_digits8()
    with torch.inference_mode():
        classes = dense.model(splits.normalised(splits.test)).argmax(1)
    right = float((classes == splits.test.labels).double().mean())
    assert dense.test_accuracy == pytest.approx(right)


@pytest.mark.parametrize("kind", [CNNPruneEnv, CNNPruneTabularEnv])
def test_copies_spend_what_their_original_does(kind: Any) -> None:
    env = kind()
    env.reset()
    twins = [copy.deepcopy(env), copy.copy(env), pickle.loads(pickle.dumps(env)), env.fork()]
    action = np.ones(6, np.float32)
    for spent, each in enumerate(twins[:3], start=1):
        each.step(action)  # each has a cache of its own, and pays
        assert {twin.evaluations for twin in (env, *twins)} == {spent}
    for each in (twins[3], env):  # the fork has the original's
        each.step(action)
        assert env.evaluations == 4
    twins[0].report()
    assert env.report().test_openings == 2


def test_a_pickled_vector_table_counts_with_its_original() -> None:
    envs: Any = gym.make_vec("CNNPruneTabular-v0", num_envs=2)
    twin = pickle.loads(pickle.dumps(envs))
    twin.reset()
    twin.step(np.eye(2, 6, dtype=np.float32))
    assert envs.evaluator.evaluations == twin.evaluator.evaluations == 2


def test_a_ledger_of_another_process_goes_on_from_its_counts() -> None:
    ledger = Ledger()
    ledger.judged([0.5, 0.25])
    ledger.opened()
    data = pickle.dumps(ledger)
    assert pickle.loads(data) is ledger is copy.copy(ledger) is copy.deepcopy(ledger)
    del ledger
    gc.collect()
    other = pickle.loads(data)
    other.judged([0.75])
    assert (other.evaluations, other.test_openings) == (3, 1)


def test_what_was_counted_stays_counted() -> None:
    evaluator: Any = small_evaluator()
    nothing = evaluator.memory()
    evaluator.evaluate(evaluator.graph.full())
    evaluator.recall(nothing)
    assert evaluator.evaluations == 1
    evaluator.evaluate(evaluator.graph.full())  # forgotten, so it is judged again
    assert evaluator.evaluations == 2
    for name in ("evaluations", "test_openings"):
        with pytest.raises(AttributeError):
            setattr(evaluator, name, 0)


def test_a_meter_knows_when_an_accuracy_was_first_seen() -> None:
    ledger = Ledger()
    ledger.judged([0.1])
    with Meter() as meter:
        ledger.judged([0.2])
        ledger.judged([0.3, 0.4])
    ledger.judged([0.5])
    assert meter.evaluations == 3
    assert meter.seen(0.2, 1) and meter.seen(0.3, 2) and meter.seen(0.4, 3)
    assert not meter.seen(0.4, 2) and not meter.seen(0.1, 3) and not meter.seen(0.5, 9)


def test_hashes_tell_weights_and_images_apart() -> None:
    splits, model = small_splits(), small_model()
    before = splits_hash(splits), weights_hash(model)
    assert before == (splits_hash(small_splits()), weights_hash(small_model()))
    splits.test.labels[0] += 1
    next(model.parameters()).data[0] += 1
    assert splits_hash(splits) != before[0] and weights_hash(model) != before[1]
    assert TABLE.provenance["data_sha256"] == splits_hash(load_digits8())
