"""How good is a network once channels are gone: accuracy and loss of keep masks.

The evaluator owns the images (resident on the device, normalised once) and a private copy of the
dense model. A keep mask goes in, accuracy on search-val comes out; repeats are answered from a
bounded cache. How a candidate is executed is a `Strategy`, what is done to it before it is judged
is a recovery (recovery.py). Knows nothing of actions, budgets, rewards or agents.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional as F

from pruning_env.arguments import check_choice
from pruning_env.channels import ChannelGraph
from pruning_env.data import Split, Splits
from pruning_env.importance import importance
from pruning_env.recovery import RECOVERIES

__all__ = ["LOSS_CAP", "Evaluator", "Metrics", "Sliced", "Strategy", "measure"]

LOSS_CAP = 1e4
"""Largest loss of one image, in nats. Images with a non-finite output count with this loss."""

# Measured on CIFAR ResNet-20, 2 cores: 128 to 256 images are 2 to 4 times faster than 1,024, whose
# activations fit no cache. A GPU wants large batches.
CPU_BATCH = 128
ACCELERATOR_BATCH = 1024


@dataclass(frozen=True)
class Metrics:
    """What an evaluation yields; never NaN.

    Attributes:
        accuracy: Top-1, in [0, 1]. An image for which any output is NaN or infinite is counted as
            wrong.
        loss: Mean cross-entropy in nats, each image capped at `LOSS_CAP`.
    """

    accuracy: float
    loss: float


class Strategy(Protocol):
    """A way of running candidates. All strategies give the same results to numerical tolerance."""

    def measure(
        self, keeps: Sequence[NDArray[np.bool_]], images: torch.Tensor, labels: torch.Tensor
    ) -> list[Metrics]:
        """Prune to each of the valid masks, recover, and judge on the images; same order."""
        ...


class Sliced:
    """The strategy that cuts: a candidate becomes a really smaller module and costs no more.

    Args:
        graph: Channel graph of `model`.
        model: The dense model on the device; read only.
        recover: Called with (candidate, calibration images) after the cut.
        calibration: (N, ...) images for `recover`.
        batch_size: Images per forward pass.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        recover: Callable[[nn.Module, torch.Tensor], None],
        calibration: torch.Tensor,
        batch_size: int,
    ) -> None:
        self._graph = graph
        self._model = model
        self._recover = recover
        self._calibration = calibration
        self._batch_size = batch_size

    def candidate(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The pruned and recovered module, eval mode, its storage its own."""
        pruned = self._graph.prune(self._model, keep).eval()
        self._recover(pruned, self._calibration)
        return pruned

    def measure(
        self, keeps: Sequence[NDArray[np.bool_]], images: torch.Tensor, labels: torch.Tensor
    ) -> list[Metrics]:
        """See `Strategy.measure`; one candidate lives at a time."""
        return [measure(self.candidate(keep), images, labels, self._batch_size) for keep in keeps]


def measure(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int
) -> Metrics:
    """Judge a module in eval mode on labelled images.

    Args:
        model: Returns (N, classes) logits.
        images: (N, ...) normalised, on the model's device, N >= 1.
        labels: (N,) int64, same device.
        batch_size: Images per forward pass.
    """
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    with torch.inference_mode():
        for batch, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            logits = model(batch)
            finite = logits.isfinite().all(dim=1)
            correct += ((logits.argmax(dim=1) == target) & finite).sum()
            # Half precision would round the loss itself.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            each = F.cross_entropy(logits, target, reduction="none")
            loss += torch.where(finite, each, LOSS_CAP).clamp(max=LOSS_CAP).sum(dtype=torch.float64)
    # The only wait for the device: everything above is queued.
    return Metrics(accuracy=int(correct) / len(labels), loss=float(loss) / len(labels))


class _SealedTest:
    """The one place where the test split is kept; every look goes through `open`, counted."""

    def __init__(self, splits: Splits) -> None:
        self._splits = replace(
            splits, search_train=_nothing(splits.test), search_val=_nothing(splits.test)
        )
        self.openings = 0

    def open(self) -> tuple[Splits, Split]:
        """The split, with what normalises it."""
        self.openings += 1
        return self._splits, self._splits.test


class Evaluator:
    """Judges keep masks on search-val; opens the test split only to certify a final result.

    The three splits have one purpose each: search-train feeds importance scores and recovery,
    search-val gives the metrics a search may look at, test is sealed (`certify`).

    Args:
        model: The dense model. It is copied once, so that later changes to it do not reach the
            evaluator and the evaluator never changes it.
        graph: Its channel graph.
        splits: Data; labels must lie in [0, number of outputs).
        recovery: "none": judged as cut; "bn": batch-norm statistics re-estimated from search-train.
        device: Where images, model and candidates live.
        batch_size: Images per forward pass; None is 128 on a CPU and 1,024 elsewhere. Accuracies do
            not depend on it beyond rounding.
        recovery_images: Calibration set: so many images, evenly spaced through search-train (which
            may be stored class by class), used for recovery and importance; all of them when there
            are fewer.
        cache_size: Keep masks whose metrics are remembered, least recently used dropped first; 0
            for none.

    Attributes:
        graph: As given.
        device: As a `torch.device`.
        recovery: As given.
        batch_size: Images per forward pass.
        evaluations: Masks judged on search-val so far, not counting answers from the cache.
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
        device: torch.device | str = "cpu",
        batch_size: int | None = None,
        recovery_images: int = 512,
        cache_size: int = 4096,
    ) -> None:
        check_choice("recovery", recovery, RECOVERIES)
        # A batch-norm layer cannot take statistics over one value.
        _check_at_least("recovery_images", recovery_images, 2)
        _check_at_least("cache_size", cache_size, 0)
        if batch_size is not None:
            _check_at_least("batch_size", batch_size, 1)
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
        if batch_size is None:
            batch_size = CPU_BATCH if self.device.type == "cpu" else ACCELERATOR_BATCH
        self.batch_size = batch_size
        self.evaluations = 0
        self.cache_hits = 0

        self._model = copy.deepcopy(model).to(self.device).eval()
        self._dtype = next(
            (p.dtype for p in self._model.parameters() if p.dtype.is_floating_point), torch.float32
        )
        self._sealed = _SealedTest(splits)
        self._splits = replace(splits, test=_nothing(splits.test))
        self._val = self._resident(self._splits, splits.search_val)
        self._calibration = self._resident(
            self._splits, _evenly_spaced(splits.search_train, recovery_images)
        )
        self._check_graph()
        self._check_outputs(splits.num_classes)
        self._sliced = Sliced(
            graph, self._model, RECOVERIES[recovery], self._calibration[0], batch_size
        )
        self._strategy: Strategy = self._sliced
        self._cache: OrderedDict[bytes, Metrics] = OrderedDict()
        self._cache_size = cache_size

    @cached_property
    def dense(self) -> Metrics:
        """The dense model on search-val, no recovery; judged at the first call and not counted."""
        return measure(self._model, *self._val, self.batch_size)

    @property
    def test_openings(self) -> int:
        """How often the test split was looked at."""
        return self._sealed.openings

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
        masks = [self._valid(keep) for keep in keeps]
        # Packed, a key has an eighth of the bytes: 4,096 masks of a ResNet-50 are 14 MB, not 110.
        keys = [np.packbits(mask).tobytes() for mask in masks]
        answers = {key: self._cache[key] for key in keys if key in self._cache}
        fresh = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in answers}
        if fresh:
            judged = self._strategy.measure(list(fresh.values()), *self._val)
            answers.update(zip(fresh, judged, strict=True))
        self.evaluations += len(fresh)
        self.cache_hits += len(keys) - len(fresh)
        for key in keys:
            self._cache[key] = answers[key]
            self._cache.move_to_end(key)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [answers[key] for key in keys]

    def pruned_model(self, keep: ArrayLike) -> nn.Module:
        """The network that `evaluate` judges: pruned and recovered, eval mode, on the device.

        It shares no storage with the evaluator: train it, change it, save it.
        """
        return self._sliced.candidate(self._valid(keep))

    def images(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images and labels on the device.

        Args:
            split: "search-train" or "search-val".

        Returns:
            ((N, C, H, W) in the model's dtype, (N,) int64). Those of search-val are the ones
            `evaluate` reads: do not write to them. All of search-train is normalised anew at each
            call, because only the calibration images stay resident.

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

    def scores(
        self, kind: str = "taylor", rng: np.random.Generator | None = None
    ) -> NDArray[np.float64]:
        """Raw importance of all channels of the dense model, (C,), from the calibration images.

        Args:
            kind: A registered kind, see importance.py.
            rng: Needed by "random" only.
        """
        images, labels = self._calibration
        return importance(kind, self.graph, self._model, images=images, labels=labels, rng=rng)

    def certify(self, keep: ArrayLike) -> Metrics:
        """Judge one keep mask on the test split. For final results: each call is counted.

        Recovery still uses search-train only.
        """
        mask = self._valid(keep)
        images, labels = self._resident(*self._sealed.open())
        return self._strategy.measure([mask], images, labels)[0]

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


def _nothing(split: Split) -> Split:
    """The split without its images (a copy, as a view would keep them all alive)."""
    return Split(split.images[:0].clone(), split.labels[:0].clone())


def _evenly_spaced(split: Split, count: int) -> Split:
    """`count` images, or all, at equal distances and in order."""
    total = len(split.labels)
    index = torch.arange(min(count, total)) * total // min(count, total)
    return Split(split.images[index], split.labels[index])


def _check_at_least(argument: str, given: int, least: int) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise ValueError(
            f"{argument}={given!r} is not allowed; give an integer of at least {least}"
        )
