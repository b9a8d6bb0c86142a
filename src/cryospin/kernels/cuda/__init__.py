"""The kernels for CUDA devices, in Triton: float32, data and volume read as pairs of numbers, sums of a pose in one program.

Only `kernels.dispatch` imports this, and only for tensors on a device, so that a machine without Triton works. In Triton's
interpreter (`TRITON_INTERPRET=1`) the same functions take tensors on the CPU.
"""

from cryospin.kernels.cuda.fit import fits
from cryospin.kernels.cuda.insertion import insert, insert_values
from cryospin.kernels.cuda.normal import normal_equations
from cryospin.kernels.cuda.scoring import grid_entropies, grid_expectation, grid_scores
from cryospin.kernels.cuda.slicing import slices

__all__ = [
    "fits",
    "grid_entropies",
    "grid_expectation",
    "grid_scores",
    "insert",
    "insert_values",
    "normal_equations",
    "slices",
]
