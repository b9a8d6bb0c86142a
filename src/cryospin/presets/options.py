"""Which presets learn by gradient descent, and how a user changes their numbers."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cryospin.engine.learning import Learning
from cryospin.errors import InputError

LEARNED = {
    "paper": Learning(),
    "cryoai": Learning(
        heads=1,
        volume="implicit",
        loss="l2",
        symmetrised=True,
        shifts="head",
        batch=64,
        volume_rate=1e-4,
        encoding_epochs=20,
        decoding_epochs=0,
    ),
}
"""The presets that learn everything by gradient descent.

The published cryoAI has no number of epochs of its own; 20 are as many as the paper's two stages have together.
"""


def learning(preset: str, options: Mapping[str, Any], *, shifts: bool = True) -> Learning:
    """A preset's numbers with some of them changed.

    options: values, or texts to read them from, by name
    shifts: whether displacements are estimated
    raises: `InputError` for a name or value that is not known
    """
    values = LEARNED[preset]
    changed: dict[str, Any] = {} if shifts else {"shifts": "none"}
    for name, given in options.items():
        if name not in Learning.__dataclass_fields__:
            raise InputError(
                f"--set {name}: --preset {preset} has no such number",
                remedy=f"Choose from {', '.join(Learning.__dataclass_fields__)}",
            )
        changed[name] = _read(name, given, getattr(values, name))
    return replace(values, **changed)


def _read(name: str, given: Any, example: Any) -> Any:
    """A value of the same type as an example; `32,64` and `(32, 64)` are both lists."""
    value = given
    if isinstance(given, str) and not isinstance(example, str):
        try:
            value = ast.literal_eval(given.capitalize() if isinstance(example, bool) else given)
        except (ValueError, SyntaxError):
            value = given
    if isinstance(example, tuple) and isinstance(value, (list, tuple)):
        kind = type(example[0])
        if all(isinstance(v, (int, kind)) and not isinstance(v, bool) for v in value):
            return tuple(kind(v) for v in value)
    elif isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is type(example):
        return value
    raise InputError(f"--set {name}={given}: not a value it can have", remedy=f"Give something like {example}")
