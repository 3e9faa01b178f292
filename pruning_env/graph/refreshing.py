"""Numbers of channels in the attributes of modules, brought in line with tensors that were cut.

Knows nothing of groups and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


def refresh(module: nn.Module) -> None:
    """Bring a module's numbers of channels in line with its tensors."""
    for kind, tell in _REFRESH.items():
        if isinstance(module, kind):
            tell(module)
            return
    if any(kind.__module__ == _DEFORMABLE for kind in type(module).__mro__):
        _refresh_conv(module)
        return
    tensors = (module._parameters.get(name, module._buffers.get(name)) for name in _WIDE)
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            resize(module, tuple(tensor.shape))
            return


# Named, since importing torchvision for its one layer takes a second.
_DEFORMABLE = "torchvision.ops.deform_conv"
_WIDE = ("weight", "bias", "running_mean")


def _weight(module: nn.Module) -> Tensor:
    """The weight of a layer; where it is computed, the parameter that it is computed from.

    Of several that is the largest: next to it there are norms, scales and masks of one shape.
    """
    if (stored := module._parameters.get("weight")) is not None:
        return stored
    return max(module.parameters(), key=lambda p: (p.dim(), p.numel()))


def resize(module: Any, shape: tuple[int, ...]) -> None:
    """Tell a norm the number of its channels, or the shape it normalises."""
    width = shape[0]
    if isinstance(module, nn.GroupNorm):
        if module.num_groups == module.num_channels:
            module.num_groups = width
        module.num_channels = width
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = width
    elif len(getattr(module, "normalized_shape", ())) == len(shape):  # nn.LayerNorm, and its like
        module.normalized_shape = shape


def _refresh_conv(module: Any) -> None:
    rows, columns = _weight(module).shape[:2]
    transposed = getattr(module, "transposed", False)
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        multiplier = module.out_channels // module.in_channels
        module.groups = rows if transposed else rows // multiplier
    if transposed:
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        module.in_channels, module.out_channels = columns * module.groups, rows


def _refresh_linear(module: Any) -> None:
    module.out_features, module.in_features = _weight(module).shape


def _refresh_embedding(module: Any) -> None:
    module.embedding_dim = module.weight.shape[1]


def _refresh_prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


def _refresh_recurrent(module: Any) -> None:
    first, second = (module._parameters[f"weight_{way}_l0"] for way in ("ih", "hh"))
    module.input_size = first.shape[1]
    if not module.proj_size:  # with a projection, only inputs go
        module.hidden_size = second.shape[1]


def _refresh_cell(module: Any) -> None:
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def _refresh_attention(module: Any) -> None:
    """Heads go as a whole: the width of the others is in the scale."""
    packed = module.in_proj_weight
    widths = [
        (packed if packed is not None else getattr(module, f"{name}_proj_weight")).shape[1]
        for name in "qkv"
    ]
    module.embed_dim, module.kdim, module.vdim = widths
    module.num_heads = module.embed_dim // module.head_dim


_REFRESH: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.modules.conv._ConvNd: _refresh_conv,
    nn.Linear: _refresh_linear,
    nn.PReLU: _refresh_prelu,
    nn.Embedding: _refresh_embedding,
    nn.MultiheadAttention: _refresh_attention,
    nn.RNNBase: _refresh_recurrent,
    nn.RNNCellBase: _refresh_cell,
}


def rewritten(value: object, numbers: Sequence[tuple[int | None, int]]) -> object:
    """An attribute's value with these numbers in the place of its own, by index."""
    if isinstance(value, (list, tuple)):
        changed = list(value)
        for index, number in numbers:
            if index is not None:
                changed[index] = number
        return type(value)(changed)
    return numbers[0][1]
