"""What stands for which: modules of torch.nn, functions and methods of tensors, as layers of a study.

Each reader takes a module, or a call in a graph of `torch.fx`, and gives a layer, FLAT, SAME or END.
Raises everywhere: MisuseError: it has no counterpart, and what to write instead; `sdk.networks.own_network` says
where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Layer, Norm, Pool
from flute.errors import MisuseError
from flute.sdk.networks.own_pieces import END, FLAT, SAME

OF_NUMBERS: Final = ("Linear", "LayerNorm")
"""Modules that run along an image's last side, as no layer here does."""
EPS: Final = 1e-5
"""Of PyTorch's norms, and of ours."""


def of_module(module: Any) -> Layer | str:
    kind = type(module).__name__
    reader = _MODULES.get(kind)
    if reader is None:
        raise MisuseError(instead_of(kind))
    return reader(module)


def of_call(node: Any, name: str) -> Layer | str:
    """name: of the function or method that the node calls."""
    for names, reader in _CALLS:
        if name in names:
            return reader(node, name)
    raise MisuseError(_INSTEAD.get(name, f"{name} has no counterpart among the layers of a study"))


def instead_of(name: str) -> str:
    """What to write in the place of a module or function that has no counterpart."""
    return _INSTEAD.get(name, _NO_COUNTERPART)


def argument(node: Any, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def require(holds: bool, why: str) -> None:
    """Raises: MisuseError: it does not hold."""
    if not holds:
        raise MisuseError(why)


def _each(sizes: Any) -> set[Any]:
    return set(sizes) if isinstance(sizes, tuple | list) else {sizes}


def _one(sizes: Any, what: str) -> int:
    found = _each(sizes)
    require(len(found) == 1, f"its {what} is of one size along all sides here")
    return int(found.pop())


# --- modules ---------------------------------------------------------------------------------------------


def _linear(module: Any) -> Layer:
    require(module.bias is not None, "a linear layer has a bias here; leave bias=False away")
    return Dense(module.out_features)


def _conv(module: Any) -> Layer:
    kernel, stride = _one(module.kernel_size, "kernel"), _one(module.stride, "stride")
    same = module.padding == "same" or _each(module.padding) == {kernel // 2}
    require(kernel % 2 == 1 and same, f"write an odd kernel, with padding={kernel // 2}")
    require(module.bias is not None, "a convolution has a bias here; leave bias=False away")
    plain = module.groups == 1 and _each(module.dilation) == {1} and module.padding_mode == "zeros"
    require(plain, "groups, dilation and other padding than zeros have no counterpart")
    return Conv(module.out_channels, kernel, stride)


def _norm(module: Any) -> Layer:
    """Layer normalisation of numbers is group normalisation in one group; instance normalisation of an image, in as
    many groups as channels."""
    kind = type(module).__name__
    scaled = module.elementwise_affine if kind == "LayerNorm" else module.affine
    require(scaled and module.bias is not None, "a norm has weights and a bias here; write affine=True")
    require(module.eps == EPS, f"a norm has eps={EPS:g} here")
    if kind == "GroupNorm":
        return Norm(module.num_groups)
    if kind == "LayerNorm":
        require(len(module.normalized_shape) == 1, "write nn.GroupNorm(1, channels) for images")
        return Norm(1)
    require(not module.track_running_stats, "leave track_running_stats away")
    return Norm(module.num_features)


def _pool(module: Any) -> Layer:
    size = _one(module.kernel_size, "box")
    _require_pool(size, module.stride, module.padding, module.ceil_mode, getattr(module, "dilation", 1))
    return Pool(size, "max" if "Max" in type(module).__name__ else "mean")


def _require_pool(size: int, stride: Any, padding: Any, ceil: Any, dilation: Any) -> None:
    plain = _each(stride) == {size} and _each(padding) == {0} and not ceil and _each(dilation) == {1}
    require(plain, "the boxes of a pool lie side by side, without padding, and none is filled up")


def _global_mean(module: Any) -> Layer:
    return _adaptive(module.output_size)


def _adaptive(size: Any) -> Layer:
    require(_each(size) == {1}, "of adaptive pools only the one to size 1 has a counterpart")
    return GlobalMean()


def _flatten(module: Any) -> str:
    return _flat(module.start_dim, module.end_dim)


def _flat(start: Any, end: Any) -> str:
    """From 0 on, patients and their one number are laid out, which only a network's end may do."""
    require(start in (0, 1) and end == -1, "write flatten(1)")
    return FLAT if start == 1 else END


def _activation(kind: Any) -> Callable[[Any], Layer]:
    def read(module: Any) -> Layer:
        usual = getattr(module, "alpha", 1.0) == 1.0 and getattr(module, "approximate", "none") == "none"
        require(usual, f"{kind} comes as PyTorch has it by default")
        return Activation(kind)

    return read


def _dropout(module: Any) -> Layer:
    return Dropout(float(module.p))


def _nothing(module: Any) -> str:
    return SAME


_MODULES: Final[Mapping[str, Callable[[Any], Layer | str]]] = {
    "Linear": _linear, "Conv2d": _conv, "Conv3d": _conv,
    "GroupNorm": _norm, "LayerNorm": _norm, "InstanceNorm2d": _norm, "InstanceNorm3d": _norm,
    "MaxPool2d": _pool, "MaxPool3d": _pool, "AvgPool2d": _pool, "AvgPool3d": _pool,
    "AdaptiveAvgPool2d": _global_mean, "AdaptiveAvgPool3d": _global_mean,
    "Flatten": _flatten, "Identity": _nothing, "Dropout": _dropout,
    "ReLU": _activation("relu"), "Tanh": _activation("tanh"), "GELU": _activation("gelu"), "ELU": _activation("elu"),
}  # fmt: skip


# --- calls -----------------------------------------------------------------------------------------------


def _call_activation(node: Any, name: str) -> Layer:
    kind: Any = name.rstrip("_")
    usual = argument(node, 1, "alpha", 1.0) == 1.0 if kind == "elu" else "approximate" not in node.kwargs
    require(usual, f"{kind} comes as PyTorch has it by default")
    return Activation(kind)


def _call_dropout(node: Any, name: str) -> Layer:
    return Dropout(float(argument(node, 1, "p", 0.5)))


def _call_pool(node: Any, name: str) -> Layer:
    require(len(node.args) < 4, "say what a pool does by the names of its arguments")
    size = _one(argument(node, 1, "kernel_size", 0), "box")
    more = node.kwargs
    stride = argument(node, 2, "stride", None) or size
    _require_pool(size, stride, more.get("padding", 0), more.get("ceil_mode", False), more.get("dilation", 1))
    return Pool(size, "max" if name.startswith("max") else "mean")


def _call_adaptive(node: Any, name: str) -> Layer:
    return _adaptive(argument(node, 1, "output_size", None))


def _call_mean(node: Any, name: str) -> Layer:
    over = argument(node, 1, "dim", None)
    sides = sorted(over) if isinstance(over, tuple | list) else []
    whole = sides in ([2, 3], [-2, -1], [2, 3, 4], [-3, -2, -1]) and not node.kwargs.get("keepdim")
    require(whole, "only the mean over all sides of an image has a counterpart: mean(dim=(-2, -1))")
    return GlobalMean()


def _call_flatten(node: Any, name: str) -> str:
    return _flat(argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))


def _call_view(node: Any, name: str) -> str:
    sizes = node.args[1:]
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else tuple(sizes)
    if sizes == (-1,):
        return END
    require(len(sizes) == 2 and sizes[1] == -1, f"write flatten(1); other uses of {name} have no counterpart")
    return FLAT


def _call_squeeze(node: Any, name: str) -> str:
    require(argument(node, 1, "dim", None) in (1, -1), "write squeeze(-1), at the end")
    return END


def _call_item(node: Any, name: str) -> str:
    require(node.args[1] in ((slice(None), 0), (Ellipsis, 0)), "write [:, 0], at the end")
    return END


_CALLS: Final[Sequence[tuple[frozenset[str], Callable[[Any, str], Layer | str]]]] = (
    (frozenset({"relu", "relu_", "tanh", "tanh_", "gelu", "elu", "elu_"}), _call_activation),
    (frozenset({"dropout"}), _call_dropout),
    (frozenset({"max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d"}), _call_pool),
    (frozenset({"adaptive_avg_pool2d", "adaptive_avg_pool3d"}), _call_adaptive),
    (frozenset({"mean"}), _call_mean),
    (frozenset({"flatten"}), _call_flatten),
    (frozenset({"view", "reshape"}), _call_view),
    (frozenset({"squeeze"}), _call_squeeze),
    (frozenset({"getitem"}), _call_item),
)


# --- what to write instead -------------------------------------------------------------------------------

_NO_COUNTERPART: Final = "it has no counterpart among the layers of a study"
_BATCH: Final = (
    "batch normalisation looks at several patients at once, so that nobody's part could be bounded; write "
    "nn.GroupNorm(groups, channels)"
)
_LOG_ODDS: Final = "a network ends in nn.Linear(…, 1), the log odds; leave away what makes a chance of them"
_OTHER_CURVES: Final = "write one of ReLU, Tanh, GELU and ELU"
_NO_SEQUENCES: Final = "images have 2 or 3 sides here, and predictors are numbers; there are no sequences"
_INSTEAD: Final[Mapping[str, str]] = {
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "batch_norm"), _BATCH),
    **dict.fromkeys(("Sigmoid", "Softmax", "LogSoftmax", "sigmoid", "softmax", "log_softmax"), _LOG_ODDS),
    **dict.fromkeys(("Dropout2d", "Dropout3d", "AlphaDropout", "dropout2d", "dropout3d"), "write nn.Dropout(p)"),
    **dict.fromkeys(("LeakyReLU", "SiLU", "Mish", "SELU", "PReLU", "leaky_relu", "silu", "selu"), _OTHER_CURVES),
    **dict.fromkeys(("Conv1d", "MaxPool1d", "LSTM", "GRU", "RNN", "MultiheadAttention"), _NO_SEQUENCES),
    "ConvTranspose2d": "images only become smaller here",
    "ConvTranspose3d": "images only become smaller here",
}
