"""A device that is not there: tensors that say they are on CUDA, compute on the CPU and refuse to mix with what is not.

It catches what otherwise only a machine with a GPU would: a tensor made in the wrong place. Farness is a mark on the Python
object, given to whatever comes of far operands or is asked to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from cryospin.kernels import cpu

FAR = torch.device("cuda", 0)

_TO_NUMPY = {"numpy", "__array__"}
_TO_DEVICE = {"to", "cpu"}
_COPYING = {"copy_", "__set__", "__get__", "_has_compatible_shallow_copy_type"}


def is_far(x: Any) -> bool:
    return getattr(x, "_far", False)


def far(x: Any) -> Any:
    """Mark what is a tensor."""
    if isinstance(x, Tensor):
        x._far = True
    return x


class _FarMode(TorchFunctionMode):
    """Sees every call of PyTorch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.__name__, dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        among = any(map(is_far, tensors))
        if name == "__get__" and among and func.__self__ in (Tensor.device, Tensor.is_cuda):
            return FAR if func.__self__ is Tensor.device else True
        if name in _TO_NUMPY and among:
            raise TypeError("a tensor on a device cannot become an array; copy it to the CPU first")
        if name in _TO_DEVICE and isinstance(args[0], Tensor):
            return _moved(func, args, kwargs)
        if name not in _COPYING:
            _refuse_mixture(func, args, tensors)
        asked = kwargs.get("device")
        if asked is not None:
            among = torch.device(asked).type == "cuda"
            kwargs["device"] = "cpu"
        out = func(*args, **kwargs)
        if name == "__set__" and func.__self__ is Tensor.data:
            args[0]._far = is_far(args[1])
        return tree_map(far, out) if among else out


def _moved(func: Callable[..., Tensor], args: Any, kwargs: dict[str, Any]) -> Tensor:
    """`x.to(...)` and `x.cpu()`."""
    x, *rest = args
    options = [*rest, *kwargs.values()]
    devices = [d for d in options if isinstance(d, torch.device | str)]
    there = devices[0] == FAR if devices else is_far(x) and func.__name__ != "cpu"
    dtypes = [d for d in options if isinstance(d, torch.dtype)]
    out = x.to(*dtypes) if dtypes else x
    if there == is_far(x):
        return far(out) if there else out
    out = out.clone() if out is x else out
    out._far = there
    return out


def _refuse_mixture(func: Callable[..., Any], args: Any, tensors: list[Tensor]) -> None:
    """Operands must be in one place, but for single numbers, and for far data read at near indices."""
    if func.__name__ in ("__getitem__", "__setitem__") and is_far(args[0]):
        tensors = [x for x in tree_leaves(args[2:]) if isinstance(x, Tensor)] + [args[0]]
    if any(map(is_far, tensors)) and any(not is_far(x) and x.dim() for x in tensors):
        places = ", ".join(f"{'far' if is_far(x) else 'near'} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"{func.__name__}: expected all tensors on one device, got {places}")


def _far_kernel(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def on_far(first: Tensor, *rest: Any) -> Any:
        for x in tree_leaves((first, *rest)):
            parts = (x.kx, x.ky, x.shell) if hasattr(x, "kx") else (x,)
            if not all(is_far(p) or p.dim() == 0 for p in parts if isinstance(p, Tensor)):
                raise RuntimeError(f"{kernel.__name__}: a tensor is not on the device")
        with torch._C.DisableTorchFunction():
            return tree_map(far, kernel(first, *rest))

    return on_far


FAR_KERNELS = SimpleNamespace(**{name: _far_kernel(getattr(cpu, name)) for name in cpu.__all__})
"""The CPU's kernels, for far tensors only."""


class FarUpload:
    """What `transfer.Upload` does, without streams."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def put(self, rows: Tensor, values: Tensor) -> None:
        self.target[rows] = values.to(getattr(self.target, "device", "cpu"))

    def finish(self) -> Any:
        return self.target


@contextmanager
def far_device() -> Iterator[torch.device]:
    """The device, for as long as it is there."""
    with _FarMode():
        yield FAR
