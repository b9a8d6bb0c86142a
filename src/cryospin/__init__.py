"""Ab-initio single-particle cryo-EM reconstruction with semi-amortized pose inference.

The whole public surface: what the commands do, as functions that return objects.

    import cryospin

    run = cryospin.reconstruct("particles.star", out="run")
    print(run.resolution, run.map.density.shape, run.poses.angles_deg)
    run.plot_fsc("fsc.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryospin.api import evaluate, reconstruct, resume, simulate
    from cryospin.assignment import Assignment, assign
    from cryospin.errors import InputError
    from cryospin.particles import ParticleSet
    from cryospin.run import DensityMap, ParticlePoses, Run, load_run
    from cryospin.selection import Selection
    from cryospin.settings import Settings
    from cryospin.simulation import ImagingConditions

_WHERE = {
    "api": ("evaluate", "reconstruct", "resume", "simulate"),
    "assignment": ("Assignment", "assign"),
    "errors": ("InputError",),
    "particles": ("ParticleSet",),
    "run": ("DensityMap", "ParticlePoses", "Run", "load_run"),
    "selection": ("Selection",),
    "settings": ("Settings",),
    "simulation": ("ImagingConditions",),
}
_PUBLIC = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Assignment",
    "DensityMap",
    "ImagingConditions",
    "InputError",
    "ParticlePoses",
    "ParticleSet",
    "Run",
    "Selection",
    "Settings",
    "assign",
    "evaluate",
    "load_run",
    "reconstruct",
    "resume",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: PyTorch alone takes seconds, and `--help` needs none of it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
