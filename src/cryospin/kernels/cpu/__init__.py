"""The kernels for the CPU, in numba: float32, contiguous parts of the work on as many cores as torch is given."""

from cryospin.kernels.cpu.fit import fits
from cryospin.kernels.cpu.insertion import insert, insert_values
from cryospin.kernels.cpu.normal import normal_equations
from cryospin.kernels.cpu.scoring import grid_entropies, grid_expectation, grid_scores
from cryospin.kernels.cpu.slicing import slices

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
