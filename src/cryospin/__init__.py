"""Ab-initio single-particle cryo-EM reconstruction with semi-amortized pose inference.

The whole public surface: read particles, reconstruct them, simulate some, evaluate a result.

    from cryospin import Settings, reconstruct
    result = reconstruct(Settings(particles="particles.star", out="run"))
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "InputError": "cryospin.errors",
    "ParticleSet": "cryospin.particles",
    "Settings": "cryospin.settings",
    "evaluate": "cryospin.evaluation.evaluate",
    "reconstruct": "cryospin.pipeline",
    "simulate": "cryospin.simulation",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: PyTorch alone takes seconds, and `--help` needs none of it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
