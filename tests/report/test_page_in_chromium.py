"""The page as a browser shows it: nothing complained of, nothing fetched, everything drawn."""

from __future__ import annotations

import numpy as np
import pytest
from chromium import Browser, find_chromium
from matplotlib.image import imread

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")

_SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
_DRIVER = "GL Driver Message"
"""What the software that stands in for a graphics card says of its own speed."""


@pytest.fixture(scope="module", params=_SCREENS)
def browser(request, written, tmp_path_factory):
    """The page opened on a screen."""
    width, height, phone = _SCREENS[request.param]
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(width, height, phone=phone)
        browser.open((written.folder / "report.html").as_uri())
        browser.wait_for("document.getElementById('viewer').dataset.state !== undefined")
        yield browser


def colours(browser, path):
    """Pixels of the 3D view as a screenshot has them, `(h, w, 3)` from 0 to 1."""
    place = browser.run(
        "(() => { const r = document.querySelector('.viewer-frame').getBoundingClientRect();"
        " return {x: r.x + scrollX + 2, y: r.y + scrollY + 2, width: r.width - 4, height: r.height - 4}; })()"
    )
    browser.screenshot(path, clip=place)
    return imread(path)[..., :3]


def settle(browser):
    """Until what was asked for has been drawn."""
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def set_contour(browser, percent):
    slider = "document.getElementById('contour')"
    browser.run(f"{slider}.value = {percent}; {slider}.dispatchEvent(new Event('input'))")


def is_drawn(pixels):
    return (pixels.min(axis=-1) < 0.95).mean()


def test_nothing_is_complained_of_and_nothing_fetched(browser):
    assert [c for c in browser.complaints if _DRIVER not in c] == []
    assert [r[:80] for r in browser.requests if not r.startswith(("file:", "data:", "blob:"))] == []
    assert sum(r.startswith("file:") for r in browser.requests) == 1


def test_every_picture_is_there_and_fits_the_screen(browser):
    broken = "[...document.images].filter(i => !i.hidden && !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
    assert browser.run(broken) == []
    assert browser.run("[...document.images].filter(i => !i.hidden).length") > 40
    assert browser.run("document.querySelectorAll('.figure').length") == 12
    assert browser.run("document.documentElement.scrollWidth") <= browser.run("innerWidth")


def test_the_map_is_drawn_and_follows_its_controls(browser, tmp_path):
    first = colours(browser, tmp_path / "first.png")
    assert 0.01 < is_drawn(first) < 0.8
    # It is drawn in light and shade, not as a flat patch.
    assert len(np.unique((first * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 50
    set_contour(browser, 70)
    settle(browser)
    assert is_drawn(colours(browser, tmp_path / "tight.png")) < 0.7 * is_drawn(first)
    assert "70 % of the highest density" in browser.run("document.getElementById('enclosed').textContent")


def test_half_maps_and_the_other_hand_are_drawn(browser, tmp_path):
    set_contour(browser, 30)
    browser.run("document.querySelector('input[value=map]').click()")
    seen = {}
    for name in ("map", "half1", "half2", "both"):
        browser.run(f"document.querySelector('input[value={name}]').click()")
        settle(browser)
        seen[name] = colours(browser, tmp_path / f"{name}.png")
        assert is_drawn(seen[name]) > 0.01
    # Half 1 is blue and half 2 orange.
    for name, sign in (("half1", 1), ("half2", -1)):
        inside = seen[name].min(axis=-1) < 0.95
        blue_over_red = (seen[name][..., 2] - seen[name][..., 0])[inside].mean()
        assert sign * blue_over_red > 0.05
    browser.run("document.querySelector('input[value=map]').click()")
    browser.run("document.getElementById('other-hand').click()")
    settle(browser)
    other = colours(browser, tmp_path / "other.png")
    assert is_drawn(other) > 0.01
    assert np.abs(other - seen["map"]).mean() > 0.002
