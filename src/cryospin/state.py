"""What it takes to go on where something stopped: tensors and plain values, as they can be written without pickle.

A state is a tree of dictionaries and lists whose leaves are tensors, numbers, strings, booleans or None. Whatever has to
be continued gives its state and takes it back; `taken_apart` and `put_together` stand between such a tree and two files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]

_TENSOR = "tensor"
"""A dictionary with this key stands for a tensor; no state uses the key itself."""


def taken_apart(state: State) -> tuple[State, dict[str, Tensor]]:
    """A state as a tree without tensors, which JSON can hold, and the tensors by name.

    A tensor that occurs several times is kept once. Its layout in memory is kept too: sums are taken in the order of
    memory, so another layout would change their last bits.
    """
    tensors: dict[str, Tensor] = {}
    mentions: dict[int, State] = {}
    memory: set[int] = set()

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {key: plain(v, f"{name}.{key}" if name else key) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v, f"{name}.{i}") for i, v in enumerate(value)]
        if not isinstance(value, Tensor):
            return value
        if id(value) not in mentions:
            mentions[id(value)], tensors[name] = _stored(value.detach().cpu(), name, memory)
        return mentions[id(value)]

    return plain(state, ""), tensors


def put_together(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The state that `taken_apart` took apart; raises `KeyError` where a tensor is missing."""
    if isinstance(tree, list):
        return [put_together(v, tensors) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return _restored(tree, tensors[tree[_TENSOR]])
    return {key: put_together(v, tensors) for key, v in tree.items()}


def copied(state: Any) -> Any:
    """The same state on its own memory, which later work does not touch."""
    if isinstance(state, dict):
        return {key: copied(v) for key, v in state.items()}
    if isinstance(state, list | tuple):
        return [copied(v) for v in state]
    return state.clone() if isinstance(state, Tensor) else state


def moved(state: Any, device: torch.device) -> Any:
    """The same state where it is computed with; what random generators remember stays on the CPU, as they do."""
    if isinstance(state, dict):
        return {key: moved(v, device) for key, v in state.items()}
    if isinstance(state, list | tuple):
        return [moved(v, device) for v in state]
    return state.to(device) if isinstance(state, Tensor) and state.dtype != torch.uint8 else state


def _stored(value: Tensor, name: str, memory: set[int]) -> tuple[State, Tensor]:
    """How the tree mentions a tensor, and its values in the order of its axes, complex numbers as pairs."""
    mention: State = {_TENSOR: name}
    if value.is_complex():
        mention["complex"] = True
    if not value.is_contiguous():
        mention["layout"] = sorted(range(value.dim()), key=value.stride().__getitem__, reverse=True)
    flat = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    # safetensors takes no views on a part of another tensor, and no two tensors that share memory.
    whole = flat.is_contiguous() and flat.untyped_storage().nbytes() == flat.nbytes
    if not whole or flat.data_ptr() in memory:
        flat = flat.clone(memory_format=torch.contiguous_format)
    memory.add(flat.data_ptr())
    return mention, flat


def _restored(mention: State, stored: Tensor) -> Tensor:
    # A copy of its own begins where memory is aligned, as it did in the run that wrote it.
    value = torch.view_as_complex(stored.clone()) if mention.get("complex") else stored.clone()
    if "layout" not in mention:
        return value
    order = mention["layout"]
    back = sorted(range(len(order)), key=order.__getitem__)
    return value.permute(order).contiguous().permute(back)
