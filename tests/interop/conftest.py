"""Sets that other programs are tried on: written back by cryospin with poses that are known to be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from other_programs import BOX, COUNT, PIXEL

from cryospin.formats.star import read_star
from cryospin.formats.table import AssignedPoses, ParticleTable
from cryospin.simulation import ImagingConditions, simulate


@pytest.fixture(scope="session")
def density(blobs):
    """Blobs sharp enough to have power at all frequencies."""
    return replace(blobs, width=0.4 * blobs.width).density(BOX)


@pytest.fixture(scope="session", name="found")
def _found():
    return found


def found(table: ParticleTable) -> AssignedPoses:
    """The table's own poses, as if a run had found them."""
    assert table.poses is not None
    count = len(table)
    return AssignedPoses(
        rotation=table.poses.rotation,
        shift=table.poses.shift,
        half=np.arange(count) % 2 + 1,
        confidence=np.full(count, 0.9),
        log_likelihood=np.arange(count, dtype=float),
    )


@pytest.fixture(scope="session")
def written(density, tmp_path_factory) -> Path:
    """A folder with a simulated set, `truth.star`, and in `back/` the table as cryospin writes it back."""
    folder = tmp_path_factory.mktemp("interop")
    simulate(density, PIXEL, COUNT, folder, ImagingConditions(snr=1.0, astigmatism=2000.0), seed=3)
    table = read_star(folder / "truth.star")
    (folder / "back").mkdir()
    table.source.write(folder / "back", table, found(table))
    (folder / "particles.star").write_bytes((folder / "back" / "particles.star").read_bytes())
    return folder
