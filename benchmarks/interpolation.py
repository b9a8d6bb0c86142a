"""What interpolation alone costs: FSC of a map with its own slices put together again, without noise, CTF or pose errors.

The slices are read from a lattice twice as fine as the one they are inserted in. The map is white noise within a ball,
which has as much to lose at every frequency.

    python -m benchmarks.interpolation --box 64 --figure interpolation.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from cryospin.fourier import FourierGrid, HalfDisc, map_to_grid
from cryospin.geometry.rotations import random_rotations
from cryospin.kernels import cpu
from cryospin.maps.fsc import fourier_shell_correlation
from cryospin.volume.accumulated import AccumulatedVolume
from cryospin.volume.halves import HalfMaps
from cryospin.volume.mask import spherical_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--views", type=int, default=5000)
    parser.add_argument("--paddings", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    curves = {p: there_and_back(arguments.box, arguments.views, p) for p in arguments.paddings}
    last = int(0.45 * arguments.box)
    for padding, fsc in curves.items():
        print(f"padding {padding}: lowest FSC up to 0.9 Nyquist {float(fsc[1 : last + 1].min()):.5f}")
    if arguments.figure:
        draw(curves, arguments.box, arguments.figure)


def there_and_back(box: int, views: int, padding: int) -> Tensor:
    """FSC of a map and its slices put together again on a lattice of some points per cycle per box: `(box // 2,)`."""
    g, radius = torch.Generator().manual_seed(0), box // 2 - 1
    truth = torch.randn(box, box, box, generator=g) * spherical_mask(box, 0.6, 0.1)
    finer, disc, rotations = FourierGrid(radius, padding=2 * padding), HalfDisc.build(radius), random_rotations(views, g)
    slices = cpu.slices(map_to_grid(truth, finer), finer, rotations, disc)
    sums = AccumulatedVolume(FourierGrid(radius, padding=padding))
    sums.add_slices(rotations, disc, slices, torch.ones(slices.shape))
    return fourier_shell_correlation(HalfMaps(sums, sums).together(box), truth)


def draw(curves: dict[int, Tensor], box: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for padding, fsc in curves.items():
        shells = torch.arange(1, len(fsc))
        axes.semilogy(shells / (box / 2), (1 - fsc[1:]).clamp_min(1e-6), label=f"{padding} lattice points a cycle")
    axes.axhline(1e-3, color="0.7", linewidth=1)
    axes.axvline(0.9, color="0.7", linewidth=1)
    axes.set(xlabel="frequency / Nyquist", ylabel="1 - FSC", xlim=(0, 1))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
