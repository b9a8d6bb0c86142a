"""The page of a run: one file that needs nothing else, to be opened from wherever it lies."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FunctionLoader
from markupsafe import Markup

from cryospin.engine.likeness import DOUBTFUL
from cryospin.formats.whole import whole
from cryospin.geometry.rotations import to_relion_angles
from cryospin.report.contents import Contents, read_run
from cryospin.report.drawing import draw
from cryospin.report.map3d import surfaces
from cryospin.report.numbers import SURE, UNEVEN, Numbers, remarks
from cryospin.report.spheres import RIGHT_DEG
from cryospin.report.style import picture
from cryospin.words import duration

PAGE = "report.html"
REFRESH_SECONDS = 15
_LOG_LINES = 400
_PICTURE = re.compile(r'<figure class="figure" id="figure-(\w+)">\s*<img src="(data:[^"]*)"')
"""Name and data address of a figure on a page."""

_FILES = (
    ("map.mrc", "the map, masked and filtered"),
    ("map_other_hand.mrc", "its mirror image, which fits the images as well"),
    ("half1.mrc", "half maps, neither masked nor filtered"),
    ("half2.mrc", ""),
    ("mask.mrc", "the soft mask used on them"),
    ("map_sharpened.mrc", "the map with the fall-off of its amplitudes undone"),
    ("local_resolution.mrc", "the resolution in Å at each voxel"),
    ("fsc.csv", "the FSC curves"),
    ("particles.star", "your table with poses, half-sets and confidence"),
    ("particles.cs", "the same for cryoSPARC"),
    ("particles_good.star", "your table without the doubtful particles"),
    ("particles_good.cs", "the same for cryoSPARC"),
    ("good_rows.txt", "rows of your table without the doubtful particles, for --particles-index"),
    ("symmetry.json", "the point groups that the map may have"),
    ("metrics.jsonl", "one record an epoch"),
    ("config.toml", "every setting as it was used"),
    ("log.txt", "what happened when"),
    ("checkpoints", "what cryospin assign, resume and report need"),
)


def write_report(run: str | Path) -> list[Path]:
    """Draw a run's figures and write its page, `report.html`; returns the paths of all.

    A run that is not finished, or was stopped, gets a page of what there is.

    raises: `InputError` for a folder that is not that of a run, or whose files were damaged
    """
    run = Path(run)
    contents = read_run(run)
    numbers = Numbers.of(contents)
    before = {p: p.stat().st_mtime_ns for p in run.glob("*.png")}
    pictures = draw(contents, numbers, run)
    write_page(contents, numbers, pictures)
    return [*sorted(p for p in run.glob("*.png") if before.get(p) != p.stat().st_mtime_ns), run / PAGE]


def rewrite_page(run: str | Path) -> None:
    """Write a run's page again with the figures that it holds, which takes a fraction of a second; nothing without a page.

    For what is known only after the figures were drawn, such as the end of the log.
    """
    page = Path(run) / PAGE
    if page.is_file():
        pictures = dict(_PICTURE.findall(page.read_text(encoding="utf-8")))
        contents = read_run(Path(run))
        write_page(contents, Numbers.of(contents), pictures)


def write_page(contents: Contents, numbers: Numbers, pictures: dict[str, str]) -> None:
    """Write the page, whole or not at all."""
    with whole(contents.folder / PAGE) as temporary:
        temporary.write_text(as_html(contents, numbers, pictures), encoding="utf-8", errors="replace")


def as_html(contents: Contents, numbers: Numbers, pictures: dict[str, str]) -> str:
    """The page; every text that comes from a file or a path is escaped.

    pictures: data addresses of the figures by name; those not there are left out
    """
    volumes = json.dumps(surfaces(contents.maps)) if contents.maps else None
    return _template().render(
        title=contents.folder.resolve().name,
        run=contents,
        numbers=numbers,
        remarks=remarks(contents, numbers),
        pictures=pictures,
        views=_views(contents),
        thumbnails=_thumbnails(contents),
        volumes=Markup(volumes) if volumes else None,  # numbers and base64
        last=contents.records[-1] if contents.records else {},
        threads=contents.config.get("threads"),
        duration=duration(contents.seconds),
        log=contents.log[-_LOG_LINES:],
        files=[(name, what) for name, what in _FILES if (contents.folder / name).exists()],
        written=datetime.now().astimezone(),
        refresh=REFRESH_SECONDS if contents.running else None,
        sure=SURE,
        uneven=UNEVEN,
        doubtful=DOUBTFUL,
        right_deg=RIGHT_DEG,
        style=_asset("page.css"),
        script=_asset("page.js"),
        viewer=_asset("3Dmol-min.js") if volumes else None,
    )


def _views(contents: Contents) -> list[dict[str, Any]]:
    """Projections of the map and averages of the particles, side by side."""
    e = contents.evidence
    if "view_rotation" not in e:
        return []
    angles = to_relion_angles(e["view_rotation"])
    return [
        {
            "projection": picture(e["view_projection"][k].float().numpy()),
            "average": picture(e["view_average"][k].float().numpy()),
            "rot": float(angles[k, 0]),
            "tilt": float(angles[k, 1]),
            "count": int(e["view_count"][k]),
            "spread": float(e["view_spread_deg"][k]),
            "correlation": float(e["view_correlation"][k]),
        }
        for k in range(len(angles))
    ]


def _thumbnails(contents: Contents) -> list[dict[str, Any]]:
    """The images that fit worst, then some that fit as usual, each beside what the map predicts."""
    e, particles = contents.evidence, contents.particles
    if "thumbnail_row" not in e or particles is None:
        return []
    return [
        {
            "image": picture(e["thumbnail_image"][k].float().numpy()),
            "expected": picture(e["thumbnail_expected"][k].float().numpy()),
            "row": row + 1,
            "name": particles.names[row],
            "shortfall": round(float(e["shortfall"][row]), 1) + 0.0,  # no -0.0
            "confidence": float(particles.confidence[row]) if particles.confidence is not None else None,
        }
        for k, row in enumerate(e["thumbnail_row"].tolist())
    ]


@lru_cache(maxsize=1)
def _template() -> Any:
    """The page's template; whatever is put into it is escaped."""
    loader = FunctionLoader(lambda name: str(_asset(name)))
    environment = Environment(
        loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


@lru_cache
def _asset(name: str) -> Markup:
    """A file of the package, which is put into the page as it is."""
    return Markup((files("cryospin.report") / "assets" / name).read_text(encoding="utf-8"))
