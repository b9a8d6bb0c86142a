"""Make the pictures of docs/images again, from the run that docs/first-reconstruction.md describes.

    python tools/pictures.py RUN

Needs Chromium for those of the report.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

import cryospin

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.report.chromium import Browser  # noqa: E402

IMAGES = ROOT / "docs" / "images"
_LOCAL = "local_resolution"
"""A figure that a run has on its page only."""

FIGURES = ("fsc", "orientations", "slices", "progress", "heads")
SECTIONS = {
    "report-top": ("run1", "Contour"),
    "report-views": ("Projections and the particles that match them", "Resolution"),
    "report-particles": ("Particles", "Doubtful particles"),
    "report-doubtful": ("Doubtful particles", "The run"),
}
"""Pictures of the report: from one text on the page to another."""

_WIDTH, _LARGEST, _COLOURS = 1100, 300_000, 128
_DRAWN = 5.0
"""Seconds within which the map in 3D is on the page, even without a GPU."""

_TOP = """[...document.querySelectorAll('h1, h2, h3, label, span')].find(e => e.innerText.trim() === '{}')
.getBoundingClientRect().top + scrollY"""


def main(run: Path) -> None:
    """Write all pictures that are of this run."""
    for name in FIGURES:
        (IMAGES / f"{name}.png").write_bytes((run / f"{name}.png").read_bytes())
    cryospin.load_run(run).plot_local_resolution(IMAGES / f"{_LOCAL}.png")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
        browser.size(_WIDTH, 900)
        browser.open((run / "report.html").resolve().as_uri())
        time.sleep(_DRAWN)
        for name, (first, last) in SECTIONS.items():
            top, bottom = (float(browser.run(_TOP.format(text))) for text in (first, last))
            clip = {"x": 0.0, "y": max(0.0, top - 40), "width": float(_WIDTH), "height": bottom - top}
            browser.screenshot(IMAGES / f"{name}.png", clip=clip)
    for path in (IMAGES / f"{name}.png" for name in (*FIGURES, _LOCAL, *SECTIONS)):
        Image.open(path).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        assert path.stat().st_size < _LARGEST, f"{path} is large"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
