"use strict";
// How old the page is: a run that has died leaves it saying that it runs.
(function () {
  const written = document.querySelector("time"), place = document.getElementById("age");
  if (!document.body.classList.contains("running")) return;
  const tell = () => {
    const seconds = Math.max(0, (Date.now() - new Date(written.dateTime)) / 1000);
    place.textContent = seconds < 90 ? ` (${Math.round(seconds)} s ago)`
      : ` (${Math.round(seconds / 60)} min ago; a step may take long, or the run has stopped)`;
  };
  tell();
  setInterval(tell, 1000);
})();

// Only the row of links stays in sight when the page is scrolled.
(function () {
  const header = document.querySelector("header"), nav = document.querySelector("nav");
  const stick = () => document.documentElement.style.setProperty("--stuck", `${nav.offsetHeight - header.offsetHeight}px`);
  stick();
  addEventListener("resize", stick);
})();

(function () {
  const source = document.getElementById("volumes");
  if (!source) return;
  const box = document.getElementById("viewer");
  const canvas = document.createElement("canvas");
  if (!window.$3Dmol || !(canvas.getContext("webgl2") || canvas.getContext("webgl"))) {
    document.getElementById("no-webgl").hidden = false;
    box.dataset.state = "no-webgl";
    return;
  }
  const stored = JSON.parse(source.textContent);
  const [nx, ny, nz] = stored.size, voxel = stored.voxel;
  const colours = { map: "#7fb2d6", half1: "#56b4e9", half2: "#e69f00" };
  const slider = document.getElementById("contour"), readout = document.getElementById("enclosed");
  const otherHand = document.getElementById("other-hand");
  const maps = {};

  // Voxels of a map with how many of them reach each of the 256 levels.
  function map(name) {
    if (!maps[name]) {
      const values = Uint8Array.from(atob(stored[name]), (c) => c.charCodeAt(0));
      const reach = new Float64Array(257);
      for (const value of values) reach[value]++;
      for (let level = 255; level >= 0; level--) reach[level] += reach[level + 1];
      maps[name] = { values, reach, volumes: {} };
    }
    return maps[name];
  }

  // What 3Dmol draws contours of; the other hand is the mirror image along z.
  function volume(name, mirrored) {
    const { values, volumes } = map(name);
    if (!volumes[mirrored]) {
      const data = Float32Array.from(values);
      if (mirrored) for (let start = 0; start < data.length; start += nz) data.subarray(start, start + nz).reverse();
      const made = new $3Dmol.VolumeData("", "voxels");
      made.size = { x: nx, y: ny, z: nz };
      made.unit = { x: voxel, y: voxel, z: voxel };
      made.origin = { x: -voxel * nx / 2, y: -voxel * ny / 2, z: -voxel * nz / 2 };
      made.data = data;
      volumes[mirrored] = made;
    }
    return volumes[mirrored];
  }

  const viewer = $3Dmol.createViewer(box, { backgroundColor: "white", antialias: true });
  viewer.setProjection("orthographic");
  let turned = false;

  function draw() {
    const chosen = document.querySelector("input[name=shown]:checked").value;
    const names = chosen === "both" ? ["half1", "half2"] : [chosen];
    const level = Math.max(1, 255 * slider.value / 100);
    const enclosed = map("map").reach[Math.round(level)];
    viewer.removeAllShapes();
    for (const name of names) {
      // A contour of a half map encloses as much as the map's.
      const { reach } = map(name);
      let own = level;
      if (name !== "map") for (own = 1; own < 255 && reach[Math.round(own)] > enclosed; own += 0.5);
      viewer.addIsosurface(volume(name, otherHand.checked), {
        isoval: own, color: colours[name], smoothness: 3, opacity: names.length > 1 ? 0.72 : 1,
      });
    }
    if (!turned) home();
    viewer.render();
    // Protein of 1.35 g / cm^3 fills 1.23 cubic angstrom a dalton.
    const cubic = enclosed * voxel ** 3;
    readout.textContent = `${Math.round(slider.value)} % of the highest density: ${Number((cubic / 1000).toPrecision(3))} nm³, `
      + `as much as ${Number((cubic / 1230).toPrecision(2)).toLocaleString("en")} kDa of protein`;
    box.dataset.state = "drawn";
  }

  // Distance from the middle to the farthest voxel within the first contour, in angstrom.
  function radius() {
    const { values } = map("map"), level = 255 * stored.level;
    let farthest = 1;
    for (let i = 0; i < values.length; i++) if (values[i] >= level) {
      const x = Math.floor(i / (ny * nz)) - nx / 2, y = Math.floor(i / nz) % ny - ny / 2, z = i % nz - nz / 2;
      farthest = Math.max(farthest, x * x + y * y + z * z);
    }
    return voxel * Math.sqrt(farthest);
  }

  // An orthographic camera of 3Dmol, 150 in front of its screen, sees tan(20 degrees) of that distance to either side.
  function home() {
    turned = true;
    const distance = 1.08 * radius() * Math.max(1, box.clientWidth / box.clientHeight) / Math.tan(Math.PI / 9);
    viewer.setView([0, 0, 0, 150 - distance, 0, 0, 0, 1]);
    // By itself 3Dmol cuts off what lies more than 50 from the middle.
    const corner = voxel * Math.hypot(nx, ny, nz) / 2;
    viewer.setSlab(-corner, corner);
    viewer.rotate(-70, "x");
    viewer.rotate(25, "y");
  }

  slider.value = 100 * stored.level;
  let waiting = 0;
  slider.addEventListener("input", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); });
  document.getElementById("shown").addEventListener("change", draw);
  otherHand.addEventListener("change", draw);
  document.getElementById("reset").addEventListener("click", () => { home(); viewer.render(); });
  addEventListener("resize", () => viewer.resize());

  // The wheel scrolls the page until the map has been clicked.
  let taken = false;
  box.addEventListener("pointerdown", () => { taken = true; });
  box.addEventListener("pointerleave", () => { taken = false; });
  for (const kind of ["wheel", "mousewheel", "DOMMouseScroll"])
    box.addEventListener(kind, (event) => { if (!taken) event.stopImmediatePropagation(); }, true);

  // Paper gets a picture.
  const picture = document.getElementById("viewer-print");
  addEventListener("beforeprint", () => { picture.src = viewer.pngURI(); picture.hidden = false; box.style.visibility = "hidden"; });
  addEventListener("afterprint", () => { picture.hidden = true; box.style.visibility = ""; });
  draw();
})();
