"""Particle images of known pose, for demonstrations, tests and benchmarks."""

from cryospin.simulation.density import density_from_source
from cryospin.simulation.images import ImagingConditions, simulate
from cryospin.simulation.phantom import phantom

__all__ = ["ImagingConditions", "density_from_source", "phantom", "simulate"]
