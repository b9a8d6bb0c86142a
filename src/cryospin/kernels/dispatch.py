"""The kernels for the device that holds the data: numba on the CPU, Triton on CUDA, both as `reference` defines them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import ParamSpec, TypeVar

import torch

from cryospin.kernels import reference

_P = ParamSpec("_P")
_R = TypeVar("_R")


def kernels_for(device: torch.device) -> ModuleType:
    """The module with the kernels for a device; imported when first asked for, since not every machine has Triton."""
    return import_module(f"cryospin.kernels.{'cuda' if device.type == 'cuda' else 'cpu'}")


def _dispatched(definition: Callable[_P, _R]) -> Callable[_P, _R]:
    """A kernel that runs where its first tensor is."""

    @wraps(definition)
    def kernel(*arguments: _P.args, **named: _P.kwargs) -> _R:
        first = arguments[0]
        assert isinstance(first, torch.Tensor), "every kernel begins with a tensor"
        return getattr(kernels_for(first.device), definition.__name__)(*arguments, **named)

    return kernel


slices = _dispatched(reference.slices)
insert = _dispatched(reference.insert)
insert_values = _dispatched(reference.insert_values)
fits = _dispatched(reference.fits)
normal_equations = _dispatched(reference.normal_equations)
grid_scores = _dispatched(reference.grid_scores)
grid_entropies = _dispatched(reference.grid_entropies)
grid_expectation = _dispatched(reference.grid_expectation)
