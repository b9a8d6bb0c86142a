"""Running other programs, and comparing what they make."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.volume.mask import spherical_mask

BOX, PIXEL, COUNT = 48, 4.0, 400
"""Of the sets they are tried on."""


def run(command: str, where: Path) -> str:
    """Run a program in a folder; its output, and a failed test if it fails."""
    done = subprocess.run(command, shell=True, cwd=where, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def masked_fsc(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """FSC of two maps within a sphere, which takes away what programs do to the corners of a box."""
    mask = spherical_mask(a.shape[-1], 0.8)
    return fourier_shell_correlation(a * mask, b * mask)
