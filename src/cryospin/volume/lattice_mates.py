"""A point group on the lattice of a volume: turns that bring lattice points to lattice points cost no insertion.

Insertion weights depend on where a point lies between the lattice points about it. A quarter turn about an axis of the
lattice, or any turn that only exchanges axes and their directions, leaves these weights as they are: the sums of images at
`R h` are those of the same images at `R`, turned by `h`. So with `G` made of cosets `r H` of the subgroup `H` of such turns,
images are inserted at the poses `R r` only, and the sums are turned by every `h` and added: in D2, C4 and O once an image
instead of 4, 4 and 24 times, in D7 7 times instead of 14, in I 5 times instead of 60. (T, whose axes stand as RELION has
them, has no such turn.)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_SAME = 1e-4


class LatticeMates:
    """A point group as cosets of its turns of the lattice.

    group: rotations `(order, 3, 3)`

    representatives: one rotation of each coset, `(order / len(turns), 3, 3)`
    turns: those that bring the lattice onto itself, `(n, 3, 3)`, entries -1, 0 and 1, the identity first
    """

    def __init__(self, group: Tensor) -> None:
        exact = group.cpu().double().numpy()
        kept, self.turns, self._steps = _cosets(exact.tobytes(), len(exact))
        self.representatives = group[list(kept)]

    def spread(self, sums: Tensor) -> Tensor:
        """Sums over images at `R r` to sums over images at all `R r h`.

        sums: `FourierGrid.shape`, what was inserted: of the plane x = 0 either of a pair of conjugate points may hold a part
        returns: the same shape; on that plane each of a pair holds half
        """
        half = sums.shape[0] // 2
        near = sums[..., : half + 1]
        whole = torch.cat([near[..., 1:].flip(0, 1, 2).conj(), near], dim=2)
        whole[..., half] += near[..., 0].flip(0, 1).conj()
        for step in self._steps:
            before = whole.clone()
            for turn in step:
                whole += _turned(before, turn)
        out = torch.zeros_like(sums)
        out[..., : half + 1] = whole[..., half:]
        out[..., 0] /= 2
        return out


@lru_cache(maxsize=16)
def _cosets(group: bytes, order: int) -> tuple[tuple[int, ...], np.ndarray, tuple[tuple[np.ndarray, ...], ...]]:
    """Which rotations of a group represent the cosets of its turns of the lattice; these turns; and a way through them.

    The way is a chain of subgroups, each made of cosets `K c` of the one before, so that sums over few turns make up those
    over many: 5 additions instead of 23 for the 24 turns of O. returns: of each link, all `c` but the identity
    """
    rotations = np.frombuffer(group).reshape(order, 3, 3)
    nearest = np.rint(rotations)
    turns = nearest[np.abs(rotations - nearest).max(axis=(1, 2)) < _SAME].astype(int)
    left, kept = np.ones(order, bool), []
    for number in range(order):
        if left[number]:
            kept.append(number)
            left &= ~_among(rotations, rotations[number] @ turns)
    chain: np.ndarray = np.eye(3, dtype=int)[None]
    steps: list[tuple[np.ndarray, ...]] = []
    while len(chain) < len(turns):
        wider = min((_generated(chain, turn) for turn in turns[~_among(turns, chain)]), key=len)
        left, cosets = ~_among(wider, chain), []
        while left.any():
            cosets.append(wider[left.argmax()])
            left &= ~_among(wider, chain @ cosets[-1])
        chain = wider
        steps.append(tuple(cosets))
    return tuple(kept), turns, tuple(steps)


def _among(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which matrices `(n, 3, 3)` are among others `(m, 3, 3)`."""
    return (np.abs(some[:, None] - others).max(axis=(2, 3)) < _SAME).any(1)


def _generated(group: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The smallest group that holds another and one more turn."""
    found = np.concatenate([group, turn[None]])
    while True:
        products = (found[:, None] @ found).reshape(-1, 3, 3)
        wider = np.unique(products, axis=0)
        if len(wider) == len(found):
            return found
        found = wider


def _turned(whole: Tensor, turn: np.ndarray) -> Tensor:
    """A centred lattice `[z, y, x]` whose point `p` holds what point `h p` of another does; turn: `h`, of (x, y, z)."""
    order, flipped = [0, 0, 0], []
    for row, entries in enumerate(turn):
        column = int(np.flatnonzero(entries)[0])
        order[2 - column] = 2 - row
        if entries[column] < 0:
            flipped.append(2 - row)
    return whole.flip(flipped).permute(order)
