"""What correcting for beam tilt, anisotropic magnification and a phase plate is worth.

Simulates one set with each, reconstructs it as its table has it and with the columns taken away, and compares both maps
with the truth:

    python -m benchmarks.aberrations --source structure.pdb --out results.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import COMMAND, measured
from cryospin.formats.star import read_star
from cryospin.simulation import ImagingConditions, density_from_source, simulate

PLAIN = ImagingConditions(snr=0.1)
CASES = {
    "none": PLAIN,
    "beam tilt 2.0, -1.5 mrad": replace(PLAIN, beam_tilt=(2.0, -1.5)),
    "magnification ±2 %": replace(PLAIN, magnification=(1.02, 0.01, 0.01, 0.98)),
    # A phase plate keeps the low frequencies, which hold most of the variance: the same noise is another ratio.
    "phase shift 75°, SNR 0.6": replace(PLAIN, phase_shift=75.0, snr=0.6),
}
LABELS = ("rlnBeamTilt", "rlnMagMat", "rlnPhaseShift")


def main() -> None:
    a = parse()
    results = json.loads(a.out.read_text()) if a.out.exists() else {}
    density = density_from_source(a.source, a.box, a.pixel_size, 0)
    for name, conditions in CASES.items():
        if name in results:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            simulate(density, a.pixel_size, a.n, folder, conditions, seed=1)
            results[name] = {"corrected": figures(folder, "particles.star")}
            if forget(folder / "particles.star", folder / "ignorant.star"):
                results[name]["ignored"] = figures(folder, "ignorant.star")
        a.out.write_text(json.dumps(results, indent=1))
    print(as_table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="atomic model or map")
    parser.add_argument("--out", type=Path, required=True, help="results, JSON; cases in it already are not repeated")
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--box", type=int, default=96)
    parser.add_argument("--pixel-size", type=float, default=2.0)
    return parser.parse_args()


def forget(source: Path, target: Path) -> bool:
    """Write a table without its aberrations; False where there are none."""
    star, found = read_star(source).source.star, False
    for name in ("optics", "particles"):
        block = star.block(name)
        labels = [label for label in block.labels if label.startswith(LABELS)]
        nothing = {label: ["1" if label in ("rlnMagMat00", "rlnMagMat11") else "0"] * len(block) for label in labels}
        star, found = star.replaced(block, nothing), found or bool(labels)
    star.write(target)
    return found


def figures(folder: Path, table: str) -> dict:
    """Reconstruct and compare with the truth."""
    run, out = folder / f"run-{table}", folder / "figures.json"
    truth = ["--truth-map", folder / "truth.mrc", "--truth-poses", folder / "truth.star", "--no-ceiling"]
    for arguments in (["reconstruct", folder / table, "--out", run], ["evaluate", run, *truth, "--json", out]):
        measured([*COMMAND, *arguments])
    found = json.loads(out.read_text())
    return {
        "fsc_0_5": found["resolution_A"]["fsc_0_5"],
        "fsc_0_143": found["resolution_A"]["fsc_0_143"],
        "half_maps": found["resolution_A"]["half_map_0_143"],
        "rotation": found["rotation_error_deg"]["median"],
    }


def as_table(results: dict) -> str:
    lines = ["| aberration | its columns | FSC 0.5 Å | FSC 0.143 Å | half maps Å | rotation ° |", "| --- " * 6 + "|"]
    for name, kinds in results.items():
        for kind, f in kinds.items():
            numbers = " | ".join(f"{f[k]:.2f}" for k in ("fsc_0_5", "fsc_0_143", "half_maps", "rotation"))
            lines.append(f"| {name} | {'used' if kind == 'corrected' else 'taken away'} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
