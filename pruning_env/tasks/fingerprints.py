"""Hashes that say whether two results were made from the same network and the same images."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from pruning_env.tasks.data import Splits

__all__ = ["splits_hash", "weights_hash"]


def splits_hash(splits: Splits) -> str:
    """SHA-256 of images and labels of the three splits, in hexadecimal."""
    digest = hashlib.sha256()
    for split in (splits.search_train, splits.search_val, splits.test):
        digest.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of names, shapes, types and bytes of a `state_dict`, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
