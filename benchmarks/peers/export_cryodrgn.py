"""Poses of `cryodrgn abinit` as a STAR file; run by the Python of cryoDRGN's environment.

python export_cryodrgn.py particles.mrcs pose.N.pkl ctf.pkl poses.star
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from cryodrgn.source import ImageSource
from cryodrgn.utils import load_pkl


def main() -> None:
    particles, poses, ctf, out = sys.argv[1:]
    rotation, shift = load_pkl(poses)
    # abinit writes shifts in pixels; everything else of cryoDRGN reads and writes them as fractions of the box.
    fractions = Path(out).with_suffix(".pkl")
    with fractions.open("wb") as handle:
        pickle.dump((rotation, shift / ImageSource.from_file(particles, lazy=True).D), handle)
    write_star = [Path(sys.executable).with_name("cryodrgn_utils"), "write_star", particles]
    subprocess.run([*write_star, "--ctf", ctf, "--poses", fractions, "-o", out], check=True)


if __name__ == "__main__":
    main()
