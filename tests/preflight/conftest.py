"""Sets to check: enough particles to reconstruct from, to be spoiled one way or another."""

from __future__ import annotations

from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from cryospin.simulation import ImagingConditions, simulate

COUNT, BOX, PIXEL = 260, 20, 7.0


@pytest.fixture(scope="session")
def imaged(tmp_path_factory, blobs):
    folder = tmp_path_factory.mktemp("imaged")
    simulate(blobs.density(BOX), PIXEL, COUNT, folder, ImagingConditions(snr=0.3), seed=2)
    return folder


@pytest.fixture
def many(imaged, tmp_path):
    """A copy of the set: `change(function)` replaces its pixels, `edit(old, new)` rewrites the table."""
    star, stack = tmp_path / "particles.star", tmp_path / "particles.mrcs"
    for path in (star, stack):
        path.write_bytes((imaged / path.name).read_bytes())

    def change(function):
        with mrcfile.mmap(stack, mode="r+") as handle:
            handle.data[:] = function(np.array(handle.data))

    def edit(old, new, count=-1):
        text = star.read_text()
        assert old in text
        star.write_text(text.replace(old, new, count))

    return SimpleNamespace(star=star, stack=stack, folder=tmp_path, change=change, edit=edit)
