"""How good is a network once channels are gone: accuracy and loss of keep masks.

The evaluator owns the images (resident on the device, normalised once) and a private copy of the
dense model. A keep mask goes in, accuracy on search-val comes out; repeats are answered from a
bounded cache. How a candidate is executed is up to execution.py, what is done to it before it is
judged is a recovery (recovery.py). Knows nothing of actions, budgets, rewards or agents.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from pruning_env.arguments import check_choice, check_count
from pruning_env.evaluation.execution import STRATEGIES, Execution
from pruning_env.evaluation.importance.gate_gradients import NotFiniteError
from pruning_env.evaluation.importance.scores import importance_scores, taylor_scores
from pruning_env.evaluation.ledger import Ledger
from pruning_env.evaluation.metrics import LOSS_CAP, Metrics, measure
from pruning_env.evaluation.planning import Plan
from pruning_env.evaluation.precision import PRECISIONS, arithmetic
from pruning_env.evaluation.racing import Raced, check_race, run_race
from pruning_env.evaluation.recovery.batch_norm import RECOVERY_NAMES, RECOVERY_TIMES
from pruning_env.evaluation.recovery.finetuning import FineTuner, FineTuning
from pruning_env.evaluation.recovery.reconstruction import Reconstruction
from pruning_env.evaluation.vault import Vault
from pruning_env.evaluation.weights import Weights, spread
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Split, Splits

__all__ = ["LOSS_CAP", "Evaluator", "Metrics", "Recovered", "measure"]

_MEMORY = ("cache_hits", "_cache", "_trained", "_fallen")

TRAINED_CACHE = 64
"""Most trained networks that are remembered with their weights."""

SENSITIVITY_CACHE = 64
"""Most pruned networks whose sensitivity is remembered: 8 bytes per channel of the dense one."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Recovered:
    """A judged network.

    Attributes:
        metrics: On search-val.
        weights: What its recovery trained; None for recoveries that do not train.
    """

    metrics: Metrics
    weights: Weights | None


class Evaluator:
    """Judges keep masks on search-val; opens the test split only to certify a final result.

    The three splits have one purpose each: search-train feeds importance scores and recovery,
    search-val gives the metrics a search may look at, test is sealed (`certify`).

    Args:
        model: The dense model. It is copied once, so that later changes to it do not reach the
            evaluator and the evaluator never changes it.
        graph: Its channel graph.
        splits: Data; labels must lie in [0, number of outputs).
        recovery: "none": judged as cut; "bn": batch-norm statistics re-estimated from search-train;
            "reconstruct": layers fitted to the dense network's there, in closed form, see
            `Reconstruction`; "finetune": trained there, see finetuning.py.
        recover_when: "candidate": every network that is judged is recovered; "commit": networks are
            judged as cut, with the weights they come with, and trained by `train` only. The latter
            for "finetune" only.
        device: Where images, model and candidates live.
        strategy: "sliced" (a smaller module for each candidate), "masked" (one full-size module
            whose removed channels are zeroed), "batched" (that for several candidates in one
            forward pass), "compiled" (one masked module, compiled by `torch.compile`, on CUDA with
            CUDA graphs; the first evaluation compiles, tens of seconds), or "auto": the fastest of
            the first three that gives the same results, where there are many candidates also
            several at once. On a CPU that is "sliced": masking computes what was removed, and
            rounds otherwise. Networks with norms over channels are always sliced, and so is
            everything with `recovery="finetune"`.
        precision: "float32": the model's own; "bfloat16": candidates run under autocast.
        batch_size: Images per forward pass, counted once for each of its candidates; None: 128 on a
            CPU, elsewhere the fastest of a few, measured at the first evaluation, among those that
            change no class of the trial candidates' images.
        recovery_images: So many images, evenly spaced through search-train (which may be stored
            class by class), are what recovery without training looks at, in every evaluation; all
            of them when there are fewer.
        importance_images: So many, found likewise, are what importance and sensitivity look at; it
            need not be the number for recovery.
        cache_size: Keep masks whose metrics are remembered, least recently used dropped first; 0
            for none. Of trained networks at most `TRAINED_CACHE`.
        finetuning: How "finetune" trains; None for the defaults.
        race: Share of search-val that `race_many` compares candidates on first, in (0, 1); None:
            all are judged on all of it.

    Attributes:
        graph: As given.
        device: As a `torch.device`.
        recovery: As given.
        recover_when: As given.
        precision: As given.
        race: As given.
        execution: What runs candidates.
        ledger: What counts evaluations and openings of the test split; copies share it.
        cache_hits: Answers from the cache so far.

    Raises:
        ValueError: An argument is out of range, or the graph is not the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        splits: Splits,
        *,
        recovery: str = "bn",
        recover_when: str = "candidate",
        device: torch.device | str = "cpu",
        strategy: str = "auto",
        precision: str = "float32",
        batch_size: int | None = None,
        recovery_images: int = 512,
        importance_images: int = 512,
        cache_size: int = 4096,
        finetuning: FineTuning | None = None,
        race: float | None = None,
    ) -> None:
        check_choice("recovery", recovery, RECOVERY_NAMES)
        check_choice("recover_when", recover_when, RECOVERY_TIMES)
        if recover_when == "commit" and recovery != "finetune":
            raise ValueError(
                f"recover_when='commit' is not allowed with recovery={recovery!r}; give 'finetune'"
            )
        check_choice("strategy", strategy, STRATEGIES)
        check_choice("precision", precision, PRECISIONS)
        # A batch-norm layer cannot take statistics over one value.
        check_count("recovery_images", recovery_images, 2)
        check_count("importance_images", importance_images)
        check_count("cache_size", cache_size, 0)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        check_race(race, recovery)
        for name, split in (
            ("search_train", splits.search_train),
            ("search_val", splits.search_val),
        ):
            if len(split.labels) < 2:
                raise ValueError(
                    f"splits.{name} has {len(split.labels)} images; at least 2 are needed"
                )

        self.graph = graph
        self.device = torch.device(device)
        self.recovery = recovery
        self.recover_when = recover_when
        self.precision = precision
        self.race = race
        self.ledger = Ledger()
        self.cache_hits = 0

        self._model = copy.deepcopy(model).to(self.device).eval()
        self._dtype = next(
            (p.dtype for p in self._model.parameters() if p.dtype.is_floating_point), torch.float32
        )
        nothing = _nothing(splits.test)
        only_test = replace(splits, search_train=nothing, search_val=nothing)
        self._sealed: Vault[Splits] = Vault(only_test, self.ledger)
        self._splits = replace(splits, test=_nothing(splits.test))
        self._val = self._resident(self._splits, splits.search_val)
        self._calibration = self._resident(
            self._splits, splits.search_train.evenly_spaced(recovery_images)
        )
        self._evidence = self._calibration
        if importance_images != recovery_images:
            evidence = splits.search_train.evenly_spaced(importance_images)
            self._evidence = self._resident(self._splits, evidence)
        self._check_graph()
        self._check_outputs(splits.num_classes)
        self.execution = Execution(
            graph,
            self._model,
            self._val[0],
            self._calibration[0],
            recovery=recovery,
            strategy=strategy,
            precision=precision,
            batch_size=batch_size,
        )
        self._cache: OrderedDict[bytes, Metrics] = OrderedDict()
        self._fallen: OrderedDict[bytes, Metrics] = OrderedDict()  # judged on a first part only
        self._cache_size = cache_size
        self._tuner: FineTuner | None = None
        self._refit: Reconstruction | None = None
        if recovery == "finetune":
            settings = FineTuning() if finetuning is None else finetuning
            self._tuner = FineTuner(self._model, self._splits, settings, self._dtype)
            if settings.start == "reconstruct":
                self._refit = Reconstruction(graph, self._model, self._calibration[0])
        self._trained: OrderedDict[bytes, Recovered] = OrderedDict()
        self._sensitivities: OrderedDict[bytes, NDArray[np.float64]] = OrderedDict()

    @property
    def trains(self) -> bool:
        """Whether judging a network trains weights, which then travel with the state."""
        return self._tuner is not None and self.recover_when == "candidate"

    @property
    def trains_commits(self) -> bool:
        """Whether only `train` trains weights; then, too, they travel with the state."""
        return self._tuner is not None and self.recover_when == "commit"

    @property
    def plan(self) -> Plan:
        """How candidates are run, and the figures behind it; measured at the first use.

        The trials use search-val images and fixed masks; they count as no evaluation.
        """
        return self.execution.plan

    @property
    def batch_size(self) -> int:
        """Images per forward pass: as planned, or fewer once the memory did not suffice."""
        return self.execution.batch_size.images

    @cached_property
    def dense(self) -> Metrics:
        """The dense model on search-val, no recovery; judged at the first call and not counted."""
        return self.execution.measure(self._model, *self._val)

    @property
    def evaluations(self) -> int:
        """Masks judged on search-val so far, by copies too; answers from the cache are free."""
        return self.ledger.evaluations

    @property
    def image_passes(self) -> int:
        """Images that pruned networks were shown so far, of copies too; see `Ledger`."""
        return self.ledger.image_passes

    @property
    def importance_images(self) -> int:
        """Images of search-train that importance, sensitivity and rehearsals look at."""
        return len(self._evidence[1])

    @property
    def test_openings(self) -> int:
        """How often the test split was looked at, by copies too."""
        return self.ledger.test_openings

    def share(self, ledger: Ledger) -> None:
        """Count in `ledger` from now on: what a copy does with its original's."""
        self.ledger = self._sealed.ledger = ledger

    def evaluate(self, keep: ArrayLike) -> Metrics:
        """Judge one keep mask, (C,) bool, on search-val.

        Raises:
            ValueError: The mask has another dtype or shape, or leaves a group without channels.
        """
        return self.evaluate_many([keep])[0]

    def evaluate_many(self, keeps: Sequence[ArrayLike] | NDArray[np.bool_]) -> list[Metrics]:
        """Judge many keep masks, each (C,) bool, on search-val; equal masks are run once.

        Raises:
            ValueError: One of the masks has another dtype or shape, or leaves a group without
                channels; nothing is judged then.
        """
        if self.trains:
            return [answer.metrics for answer in self.recover_many(keeps, [None] * len(keeps))]
        masks = [self._valid(keep) for keep in keeps]
        # Packed, a key has an eighth of the bytes: 4,096 masks of a ResNet-50 are 14 MB, not 110.
        keys = [np.packbits(mask).tobytes() for mask in masks]
        answers = {key: self._cache[key] for key in keys if key in self._cache}
        fresh = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in answers}
        if fresh:
            judged = self.execution.measure_masks(list(fresh.values()), *self._val)
            self._showed(len(fresh), len(self._val[1]))
            answers.update(zip(fresh, judged, strict=True))
            self.ledger.judged([metrics.accuracy for metrics in judged])
        self.cache_hits += len(keys) - len(fresh)
        for key in keys:
            _remember(self._cache, key, answers[key], self._cache_size)
        return [answers[key] for key in keys]

    def recover_many(
        self, keeps: Sequence[ArrayLike] | NDArray[np.bool_], starts: Sequence[Weights | None]
    ) -> list[Recovered]:
        """Judge many keep masks on search-val, and say what their recovery trained.

        Args:
            keeps: Each (C,) bool.
            starts: For each, the weights that training continues from, of a network with at least
                these channels; None starts from the dense network, and is the only choice where
                recovery does not train. Where only commits are trained, it is judged with them.

        Raises:
            ValueError: A mask as in `evaluate_many`, or weights that do not fit.
        """
        if self.trains:
            return [self.train(*pair) for pair in zip(keeps, starts, strict=True)]
        if all(start is None for start in starts):
            return [Recovered(metrics, None) for metrics in self.evaluate_many(keeps)]
        if not self.trains_commits:
            raise ValueError(f"starts: recovery={self.recovery!r} trains no weights; give None")
        masks = [self._valid(keep) for keep in keeps]
        return [self._judged_with(*pair) for pair in zip(masks, starts, strict=True)]

    def _judged_with(self, mask: NDArray[np.bool_], weights: Weights | None) -> Recovered:
        """The network cut out of the one with `weights`, judged as it is."""
        if weights is None:
            return Recovered(self.evaluate(mask), None)
        key = np.packbits(mask).tobytes() + weights.fingerprint
        metrics = self._cache.get(key)
        if metrics is None:
            metrics = self.execution.measure(self._cut(mask, weights), *self._val)
            self.ledger.showed(len(self._val[1]))
            self.ledger.judged([metrics.accuracy])
        else:
            self.cache_hits += 1
        _remember(self._cache, key, metrics, self._cache_size)
        return Recovered(metrics, weights)

    def train(
        self, keep: ArrayLike, start: Weights | None = None, teacher: Weights | None = None
    ) -> Recovered:
        """Train a network and judge it on search-val; one evaluation unless it is remembered.

        Args:
            keep: (C,) bool.
            start: As `recover_many`'s `starts`.
            teacher: Weights of the network that teaches; None: the dense one.

        Raises:
            ValueError: A mask as in `evaluate_many`, weights that do not fit, or a recovery that
                does not train.
        """
        if self._tuner is None:
            raise ValueError(f"recovery={self.recovery!r} trains no weights; give 'finetune'")
        mask = self._valid(keep)
        key = np.packbits(mask).tobytes()
        key += b"".join(b"-" if part is None else part.fingerprint for part in (start, teacher))
        known = self._trained.get(key)
        if known is None:
            # Tensors that are made in a caller's inference mode cannot be trained.
            with torch.inference_mode(False):
                model = self._untrained(mask, start)
                teaching = None if teacher is None else self._cut(teacher.keep, teacher)
            # Of the mask alone: steps of an episode see other batches, every run the same ones.
            digest = hashlib.sha256(np.packbits(mask).tobytes()).digest()
            self._tuner.train(model, int.from_bytes(digest[:6], "big"), teacher=teaching)
            known = Recovered(self.execution.measure(model, *self._val), Weights(model, mask))
            fitted = start is None and self._refit is not None
            self.ledger.showed(len(self._calibration[1]) if fitted else 0)
            self.ledger.showed(self._tuner.images + len(self._val[1]))
            self.ledger.judged([known.metrics.accuracy])
        else:
            self.cache_hits += 1
        _remember(self._trained, key, known, min(self._cache_size, TRAINED_CACHE))
        return known

    def race_many(self, keeps: Sequence[ArrayLike] | NDArray[np.bool_]) -> list[Raced]:
        """Judge keep masks, each (C,) bool, of which only the best matter; see racing.py.

        Every mask that is new counts as one evaluation, whatever became of it: what is saved are
        images. One that fell out before is not judged again. Without `race`, all are judged on all
        images.

        Raises:
            ValueError: One of the masks has another dtype or shape, or leaves a group without
                channels; nothing is judged then.
        """
        masks = [self._valid(keep) for keep in keeps]
        keys = [np.packbits(mask).tobytes() for mask in masks]
        known = self._cache.keys() | self._fallen.keys()
        fresh = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in known}
        if self.race is None or len(fresh) < 2:
            found = [Raced(metrics, True) for metrics in self.evaluate_many(list(fresh.values()))]
        else:
            found = self._run_race(list(fresh.values()), self.race)
        self.cache_hits += len(keys) - len(fresh)
        answers = {
            **{key: Raced(metrics, False) for key, metrics in self._fallen.items()},
            **{key: Raced(metrics, True) for key, metrics in self._cache.items()},
            **dict(zip(fresh, found, strict=True)),
        }
        for key, each in zip(fresh, found, strict=True):
            memory = self._cache if each.complete else self._fallen
            _remember(memory, key, each.metrics, self._cache_size)
        return [answers[key] for key in keys]

    def _run_race(self, masks: Sequence[NDArray[np.bool_]], share: float) -> list[Raced]:
        raced, images = run_race(self.execution, masks, *self._val, share)
        self._showed(len(masks), 0)
        self.ledger.showed(images)
        # Who fell out has no accuracy that counts.
        self.ledger.judged([r.metrics.accuracy if r.complete else math.nan for r in raced])
        return raced

    def _showed(self, networks: int, images: int) -> None:
        """Count what networks were shown that were recovered without training, and judged."""
        calibration = len(self._calibration[1]) if self.recovery in ("bn", "reconstruct") else 0
        self.ledger.showed(networks * (calibration + images))

    def _cut(self, mask: NDArray[np.bool_], weights: Weights | None) -> nn.Module:
        """The pruned network with these weights, or the dense network's, not recovered."""
        model = self.graph.prune(self._model, mask).eval()
        if weights is not None:
            weights.load(self.graph, model, mask)
        return model

    def _untrained(self, mask: NDArray[np.bool_], weights: Weights | None) -> nn.Module:
        """What training begins with."""
        if weights is None and self._refit is not None:
            return self._refit.pruned(mask)
        return self._cut(mask, weights)

    def pruned_model(self, keep: ArrayLike, weights: Weights | None = None) -> nn.Module:
        """The network that `evaluate` judges: pruned and recovered, eval mode, on the device.

        It shares no storage with the evaluator: train it, change it, save it.

        Args:
            keep: (C,) bool.
            weights: What recovery trained, see `recover_many`: the network with these, as they are.
        """
        if weights is not None or self.trains:
            mask = self._valid(keep)
            if weights is None and not mask.all():  # the dense network needs no recovery
                weights = self.recover_many([mask], [None])[0].weights
            return self._cut(mask, weights)
        return self.execution.candidate(self._valid(keep))

    def images(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images and labels on the device.

        Args:
            split: "search-train" or "search-val".

        Returns:
            ((N, C, H, W) in the model's dtype, (N,) int64). Those of search-val are the ones
            `evaluate` reads: do not write to them. All of search-train is normalised anew at each
            call, because only those of recovery and importance stay resident.

        Raises:
            ValueError: "test" (a search may not see it; `certify` does), or no such split.
        """
        if split == "test":
            raise ValueError(
                "split='test' is sealed: no search may look at it. Allowed: search-train, "
                "search-val; certify(keep) judges a final result"
            )
        check_choice("split", split, ("search-train", "search-val"))
        if split == "search-val":
            return self._val
        return self._resident(self._splits, self._splits.search_train)

    def memory(self) -> dict[str, Any]:
        """What was judged so far and what it counted, to be pickled; see `recall`."""
        kept = {name: copy.copy(getattr(self, name)) for name in _MEMORY}
        return {"evaluations": self.evaluations, **kept}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on where an evaluator like this one was when its `memory` was taken.

        What has been counted stays counted: where that is more, the evaluations stay as they are.
        """
        self.ledger.at_least(memory["evaluations"])
        for name in _MEMORY:
            if name in memory:  # an older one has less
                setattr(self, name, copy.copy(memory[name]))

    @torch.inference_mode(False)  # tensors made in that mode cannot be differentiated
    def scores(
        self, kind: str = "taylor", rng: np.random.Generator | None = None
    ) -> NDArray[np.float64]:
        """Raw importance of all channels of the dense model, (C,), from `importance_images`.

        Args:
            kind: A registered kind, see importance.py.
            rng: Needed by "random" only.
        """
        images, labels = self._evidence
        with arithmetic("float32", self.device):
            return importance_scores(
                kind, self.graph, self._model, images=images, labels=labels, rng=rng
            )

    def rehearse_many(self, keeps: Sequence[ArrayLike] | NDArray[np.bool_]) -> list[Metrics]:
        """Judge many keep masks, each (C,) bool, on the `importance_images` of search-train.

        For heuristics that look at many networks before they propose one. No evaluation, since
        search-val stays unseen, although it takes as long; nothing is remembered.

        Raises:
            ValueError: One of the masks has another dtype or shape, or leaves a group without
                channels, or recovery trains.
        """
        if self.trains:
            raise ValueError(
                f"recovery={self.recovery!r} trains each network; rehearse with another"
            )
        masks = [self._valid(keep) for keep in keeps]
        self._showed(len(masks), len(self._evidence[1]))
        return self.execution.measure_masks(masks, *self._evidence)

    def sensitivity(self, keep: ArrayLike, weights: Weights | None = None) -> NDArray[np.float64]:
        """How much the channels matter in a pruned network: one Taylor pass over it.

        Of the network that `evaluate` judges, or of the one with `weights`; where recovery trains
        and there are none, of the dense network cut to `keep`, untrained. No evaluation: it looks
        at images of search-train only.

        Args:
            keep: (C,) bool.
            weights: What recovery trained, of a network with at least these channels.

        Returns:
            (C,) float64 >= 0, read-only, see `importance.taylor`; 0 for channels that are gone,
            and for all where a gradient is not finite.

        Raises:
            ValueError: A mask as in `evaluate`, or weights that do not fit.
        """
        return self.scores_of("taylor", keep, weights)

    def scores_of(
        self, kind: str, keep: ArrayLike, weights: Weights | None = None
    ) -> NDArray[np.float64]:
        """Raw importance of the channels of a pruned network; see `sensitivity` for which one.

        Kinds other than "taylor" see the network at full size, with what was removed masked: it
        computes the same.

        Args:
            kind: A registered kind. "random" is one fixed random ranking.
            keep: (C,) bool.
            weights: As in `sensitivity`.

        Returns:
            (C,) float64, read-only; those of channels that are gone mean nothing, and all are 0
            where one is not finite.

        Raises:
            ValueError: As `sensitivity`, or as `importance_scores`.
        """
        mask = self._valid(keep)
        key = kind.encode() + np.packbits(mask).tobytes()
        key += b"" if weights is None else weights.fingerprint
        scores = self._sensitivities.get(key)
        if scores is None:
            # Tensors that are made in a caller's inference mode have no gradients.
            with torch.inference_mode(False), arithmetic("float32", self.device):
                if weights is not None or self.trains:
                    model = self._cut(mask, weights)
                else:  # the dense network needs no recovery
                    model = self._model if mask.all() else self.execution.sliced.candidate(mask)
                self._showed(1, len(self._evidence[1]))
                try:
                    scores = self._scores_of(kind, model, mask)
                except NotFiniteError:  # a step must not fail because the network is ruined
                    scores = np.zeros(self.graph.num_channels)
            scores.setflags(write=False)
        _remember(self._sensitivities, key, scores, min(self._cache_size, SENSITIVITY_CACHE))
        return scores

    def _scores_of(
        self, kind: str, pruned: nn.Module, mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        images, labels = self._evidence
        if kind == "taylor":
            return taylor_scores(self.graph, pruned, images, labels, keep=mask)
        full = self.graph.mask(self._model, mask)
        spread(self.graph, pruned, mask, dict([*full.named_parameters(), *full.named_buffers()]))
        rng = np.random.default_rng(0)
        return importance_scores(kind, self.graph, full, images=images, labels=labels, rng=rng)

    def probe(
        self, keeps: Sequence[ArrayLike] | NDArray[np.bool_], weights: Weights | None = None
    ) -> list[Metrics]:
        """Judge keep masks on the images for importance, which are of search-train: no evaluation.

        Args:
            keeps: Each (C,) bool.
            weights: As in `sensitivity`.

        Raises:
            ValueError: As `sensitivity`.
        """
        masks = [self._valid(keep) for keep in keeps]
        if weights is None and not self.trains:
            return self.execution.measure_masks(masks, *self._evidence)
        return [self.execution.measure(self._cut(mask, weights), *self._evidence) for mask in masks]

    def certify(self, keep: ArrayLike, weights: Weights | None = None) -> Metrics:
        """Judge one keep mask on the test split. For final results: each call is counted.

        Recovery still uses search-train only; `weights` as in `pruned_model`.
        """
        if weights is not None or self.trains:
            return self.execution.measure(self.pruned_model(keep, weights), *self._opened())
        return self.execution.measure_masks([self._valid(keep)], *self._opened())[0]

    def certify_dense(self) -> Metrics:
        """Judge the dense network, without recovery, on the test split; counted as `certify` is."""
        return self.execution.measure(self._model, *self._opened())

    def _opened(self) -> tuple[torch.Tensor, torch.Tensor]:
        splits = self._sealed.open()
        return self._resident(splits, splits.test)

    def _resident(self, splits: Splits, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        """`split` on the device, normalised; 4-D images in channels-last order."""
        images = splits.normalised(split, device=self.device, dtype=self._dtype)
        if images.ndim == 4:
            # CIFAR ResNet-20 on 2 cores: 1.8 times faster at full width, no difference at half. The
            # weights may stay contiguous.
            images = images.contiguous(memory_format=torch.channels_last)
        return images, split.labels.to(self.device)

    def _valid(self, keep: ArrayLike) -> NDArray[np.bool_]:
        """The mask as an array of this evaluator's own, or the reason why it is none."""
        mask = np.array(keep)
        if mask.dtype != np.bool_ or mask.shape != (self.graph.num_channels,):
            raise ValueError(
                f"keep has dtype {mask.dtype} and shape {mask.shape}; "
                f"allowed: bool, ({self.graph.num_channels},), one entry per channel of the graph"
            )
        empty = np.flatnonzero(self.graph.counts(mask) == 0)
        if empty.size:
            names = ", ".join(self.graph.groups[index].name for index in empty[:5])
            raise ValueError(
                f"keep leaves {empty.size} of {len(self.graph.groups)} groups without a channel "
                f"({names}{', ...' if empty.size > 5 else ''}); each needs at least one"
            )
        return mask

    def _check_graph(self) -> None:
        named = (*self._model.named_parameters(), *self._model.named_buffers())
        shapes = {name: tuple(tensor.shape) for name, tensor in named}
        if shapes != self.graph.shapes:
            odd = sorted(dict(shapes.items() ^ self.graph.shapes.items()))
            raise ValueError(f"graph is not the model's: they differ in {', '.join(odd[:5])}")

    def _check_outputs(self, num_classes: int) -> None:
        """One image through the dense model: a misfit is an error here, not mid-search."""
        with torch.inference_mode():
            logits = self._model(self._calibration[0][:1])
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] < num_classes:
            raise ValueError(
                f"model returns {shape} for one image; needed: a (1, classes) tensor with at least "
                f"{num_classes} classes"
            )


def _remember(memory: OrderedDict[bytes, _Answer], key: bytes, answer: _Answer, size: int) -> None:
    """Keep an answer, and forget those least recently kept beyond `size`."""
    memory[key] = answer
    memory.move_to_end(key)
    while len(memory) > size:
        memory.popitem(last=False)


def _nothing(split: Split) -> Split:
    """The split without its images (a copy, as a view would keep them all alive)."""
    return Split(split.images[:0].clone(), split.labels[:0].clone())
