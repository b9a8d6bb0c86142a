"""What tests of reading and of writing cryoSPARC's tables share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NO_ALIGNMENT = dict.fromkeys(f"alignments3D/{name}" for name in ("split", "shift", "pose", "psize_A", "class_posterior"))


def floats(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


def split_in_two(cs, order, ctf_only=("ctf/df1_A", "ctf/df2_A", "ctf/accel_kv")) -> tuple[Path, Path, np.ndarray]:
    """A table, and its passthrough file, in another order and with particles of its own; and the whole."""
    whole = np.load(cs(name="whole.cs", count=6))
    names = whole.dtype.names
    own = {n: None if n in ctf_only else whole[n][:4] for n in names}
    passed = {n: whole[n][order] if n in (*ctf_only, "uid", "blob/idx") else None for n in names}
    return cs(own, "own.cs"), cs(passed, "passthrough.cs", count=len(order)), whole[:4]
