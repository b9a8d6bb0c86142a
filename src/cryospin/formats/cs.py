"""cryoSPARC particle tables (`.cs`): structured arrays in NumPy's own file format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from cryospin.errors import InputError
from cryospin.findings import Findings, Severity
from cryospin.formats.new_star import write_new_star
from cryospin.formats.star_optics import LEAST_PIXEL, MOST_PIXEL
from cryospin.formats.table import AssignedPoses, GivenPoses, ImageNames, ParticleTable
from cryospin.formats.whole import whole
from cryospin.geometry.rotations import from_rotation_vectors, to_rotation_vectors
from cryospin.optics import Optics, OpticsGroup

_NUMPY = b"\x93NUMPY"
_COMPRESSED = b"CSDAT"
"""After a first byte that has been another in other versions."""

_LONGEST_HEADER = 1 << 20
_IMAGE_FIELDS = ("blob/path", "blob/idx", "blob/psize_A")
_CTF_FIELDS = ("ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad")
_UNUSED = {
    "ctf/trefoil_A": "trefoil",
    "ctf/tetra_A": "tetrafoil",
    "ctf/anisomag": "anisotropic magnification",
    "ctf/shift_A": "CTF shift",
}
_COLUMNS = {
    "rlnImageName": "blob/path",
    "rlnImagePixelSize": "blob/psize_A",
    "rlnImageSize": "blob/shape",
    "rlnVoltage": "ctf/accel_kv",
    "rlnSphericalAberration": "ctf/cs_mm",
    "rlnAmplitudeContrast": "ctf/amp_contrast",
    "rlnDefocusU": "ctf/df1_A",
    "rlnDefocusV": "ctf/df2_A",
    "rlnDefocusAngle": "ctf/df_angle_rad",
    "rlnPhaseShift": "ctf/phase_shift_rad",
    "rlnCtfBfactor": "ctf/bfactor",
    "rlnCtfScalefactor": "ctf/scale",
    "rlnMagMat00": "ctf/anisomag",
}
_MM = 1e7
_NEW_FIELDS: list[tuple[str, Any, tuple[int, ...]]] = [
    ("alignments3D/split", "<u4", ()),
    ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/psize_A", "<f4", ()),
    ("alignments3D/error", "<f4", ()),
    ("alignments3D/class_posterior", "<f4", ()),
    ("alignments3D/class", "<u4", ()),
]
_NEUTRAL = dict.fromkeys(
    ("error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "weight", "pose_ess", "shift_ess", "class"), 0
) | dict.fromkeys(("alpha", "alpha_min", "class_ess"), 1)
"""Fields of `alignments3D` that no run finds, as they are before anything is known; `alpha` is the particle's scale."""


def read_cs(path: str | Path, passthrough: Path | None = None) -> ParticleTable:
    """Read a particle table; its images need not be there.

    passthrough: a second `.cs` of the same particles, which has the fields that this one lacks
    raises: `InputError` for a file that is not such a table; what is wrong with its values is in the table's findings
    """
    path, findings = Path(path), Findings()
    rows = read_rows(path)
    full = rows if passthrough is None else _joined(rows, read_rows(passthrough), path, passthrough)
    _refuse_empty(full, path)
    _require(full, _IMAGE_FIELDS, path, "Give the particles of an import or extraction job")
    _require(full, _CTF_FIELDS, path, "Give the job's passthrough file with --ctf, which holds the CTF parameters")
    optics = _optics(full, path, findings)
    shift, poses = _alignments(full, optics, path, findings)
    return ParticleTable(
        path=path,
        format="cryoSPARC CS",
        images=_image_names(full),
        optics=optics,
        poses=poses,
        shift=shift,
        sign=_sign(full),
        rows=np.arange(len(full)),
        source=CsSource(rows),
        findings=findings,
    )


def read_cs_poses(path: str | Path) -> GivenPoses:
    """The poses of a table alone; it needs no images and no CTF.

    raises: `InputError` where there are none, or where they are broken
    """
    path, findings = Path(path), Findings()
    rows = read_rows(path)
    _refuse_empty(rows, path)
    pixel = "blob/psize_A" if "blob/psize_A" in (rows.dtype.names or ()) else "alignments3D/psize_A"
    needed = ("alignments3D/pose", "alignments3D/shift", pixel)
    _require(rows, needed, path, "Give a table of particles that were aligned in 3D")
    size = _finite(rows, pixel, path, findings)
    poses = _poses(rows, _displacements(rows, "alignments3D", size, path, findings), size, path, findings)
    findings.refuse_errors()
    named = {"blob/path", "blob/idx"} <= set(rows.dtype.names or ())
    return replace(poses, images=_image_names(rows)) if named else poses


def read_rows(path: Path) -> np.ndarray:
    """The structured array of a `.cs` file; nothing in it is ever unpickled.

    raises: `InputError` for another kind of file
    """
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path of the particle table")
    with path.open("rb") as handle:
        start = handle.read(len(_NUMPY))
        if start[1:] == _COMPRESSED:
            raise InputError(
                "is in cryoSPARC's compressed format (version 5), which only cryoSPARC's own tools read",
                where=path,
                remedy="Export the job's outputs, or save it with cryosparc-tools: Dataset.load(FILE).save(NEW)",
            )
        if start != _NUMPY:
            raise InputError("not a cryoSPARC .cs file", where=path, remedy="Give the particles of a job, exported")
        handle.seek(0)
        dtype, count = _layout(handle, path)
        held = path.stat().st_size - handle.tell()
        if held < count * dtype.itemsize:
            raise InputError(
                f"cut short: it promises {count} particles and holds {held // max(1, dtype.itemsize)}",
                where=path,
                remedy="Copy the file again",
            )
        return np.fromfile(handle, dtype, count)


@dataclass(frozen=True)
class CsSource:
    """A cryoSPARC table as it was read."""

    columns: ClassVar[Mapping[str, str]] = _COLUMNS

    rows: np.ndarray

    def write(self, folder: Path, table: ParticleTable, found: AssignedPoses, stem: str = "particles") -> None:
        """Write `STEM.cs`, the same fields with poses added or replaced, and `STEM.star` for RELION."""
        with whole(folder / f"{stem}.cs") as temporary, temporary.open("wb") as handle:
            np.save(handle, self.with_poses(table, found), allow_pickle=False)
        write_new_star(folder / f"{stem}.star", table, found)

    def with_poses(self, table: ParticleTable, found: AssignedPoses) -> np.ndarray:
        """The kept rows with what was found, and nothing that an older alignment found.

        Every other field, and all types, stay as they were.
        """
        old = self.rows[table.rows]
        out = _with_fields(old, [f for f in _NEW_FIELDS if f[0] not in (old.dtype.names or ())])
        pixel = table.optics.of_group("pixel_size")
        out["alignments3D/pose"] = to_rotation_vectors(found.rotation.mT).numpy()
        out["alignments3D/shift"] = (-table.optics.shift_in_image(found.shift) / pixel[:, None]).numpy()
        out["alignments3D/psize_A"] = pixel.numpy()
        out["alignments3D/split"] = found.half - 1
        out["alignments3D/error"] = -found.log_likelihood
        out["alignments3D/class_posterior"] = found.confidence
        # What an older job measured at its own poses would be taken for what was measured at the new ones.
        for name, value in _NEUTRAL.items():
            if f"alignments3D/{name}" in (out.dtype.names or ()):
                out[f"alignments3D/{name}"] = value
        return out


def _kind(dtype: np.dtype) -> tuple[np.dtype, tuple[int, ...]]:
    return dtype.subdtype or (dtype, ())


def _with_fields(rows: np.ndarray, fields: list[tuple[str, Any, tuple[int, ...]]]) -> np.ndarray:
    """A copy of rows with further fields, of zeros: (name, type, shape) each."""
    own = rows.dtype.names or ()
    out = np.zeros(len(rows), np.dtype([(n, *_kind(rows.dtype[n])) for n in own] + fields))
    for n in own:
        out[n] = rows[n]
    return out


def _layout(handle: BinaryIO, path: Path) -> tuple[np.dtype, int]:
    """Type and number of the rows, from the header of NumPy's format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(handle)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(handle, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # A damaged header is parsed as Python would be, which fails in a dozen ways.
        raise InputError("its header cannot be read", where=path, remedy="Copy or export the file again") from error
    if len(shape) != 1 or dtype.names is None:
        raise InputError("holds no table", where=path, remedy="Give the particles of a cryoSPARC job")
    if dtype.hasobject:
        raise InputError(
            "holds Python objects, which could run code when they are read and are therefore refused",
            where=path,
            remedy="Export the job's outputs from cryoSPARC",
        )
    if dtype.itemsize == 0 or not 0 <= shape[0] < 1 << 40:
        raise InputError("its header makes no sense", where=path, remedy="Copy or export the file again")
    return dtype, shape[0]


def _refuse_empty(rows: np.ndarray, path: Path) -> None:
    if len(rows) == 0:
        raise InputError("the table holds no particles", where=path, remedy="Check how it was selected or exported")


def _require(rows: np.ndarray, names: tuple[str, ...], path: Path, remedy: str) -> None:
    missing = [n for n in names if n not in (rows.dtype.names or ())]
    if missing:
        raise InputError(f"lacks the field {missing[0]}", where=path, remedy=remedy)


def _joined(rows: np.ndarray, more: np.ndarray, path: Path, passthrough: Path) -> np.ndarray:
    """Rows with the fields of a passthrough file beside their own, matched by uid."""
    for array, where in ((rows, path), (more, passthrough)):
        _require(array, ("uid",), where, "Give files of one job, which are matched by uid")
    order = np.argsort(more["uid"])
    at = np.searchsorted(more["uid"], rows["uid"], sorter=order).clip(max=max(0, len(more) - 1))
    match = order[at] if len(more) else at
    if not len(more) or (more["uid"][match] != rows["uid"]).any():
        raise InputError(
            f"lacks particles of {path.name}", where=passthrough, remedy="Give the passthrough file of the same job"
        )
    own = rows.dtype.names or ()
    names = [n for n in more.dtype.names or () if n not in own]
    out = _with_fields(rows, [(n, *_kind(more.dtype[n])) for n in names])
    for n in names:
        out[n] = more[n][match]
    return out


def _image_names(rows: np.ndarray) -> ImageNames:
    """Stacks without the `>` that exported tables mark a path relative to the project with."""
    paths, codes = np.unique(rows["blob/path"], return_inverse=True)
    names = [p.decode("utf-8", "surrogateescape") if isinstance(p, bytes) else str(p) for p in paths.tolist()]
    return ImageNames(
        tuple(n.removeprefix(">").lstrip("/") if n.startswith(">") else n for n in names),
        codes.reshape(-1).astype(np.int64),
        rows["blob/idx"].astype(np.int64),
    )


def _finite(rows: np.ndarray, name: str, path: Path, findings: Findings, default: float | None = None) -> np.ndarray:
    """A field as finite float64; anything else is an error, and 0."""
    names = rows.dtype.names or ()
    if name not in names and default is not None:
        return np.full(len(rows), default)
    try:
        with np.errstate(invalid="ignore"):
            values = rows[name].astype(np.float64)
    except (ValueError, TypeError):
        findings.error(f"{name} holds no numbers", path, "Export the particles again", name)
        return np.zeros(len(rows))
    bad = ~np.isfinite(values)
    each = np.asarray(bad.reshape(len(rows), -1).any(1))
    findings.rows(Severity.error, each, f"row {{row}}: {name} is not a number", path, "Remove the particle", name)
    values[bad] = 0.0
    return values


def _optics(rows: np.ndarray, path: Path, findings: Findings) -> Optics:
    """Imaging conditions; exposure groups with the same conditions are one optics group."""

    def get(name: str, default: float | None = None) -> np.ndarray:
        return _finite(rows, name, path, findings, default)

    pixel, aberration = get("blob/psize_A"), get("ctf/cs_mm")
    wrong = ~((pixel > LEAST_PIXEL) & (pixel < MOST_PIXEL))
    findings.rows(Severity.error, wrong, "row {row}: the pixel size is not positive", path, "Import again", "blob/psize_A")
    tilt = np.zeros((len(rows), 2))
    if "ctf/tilt_A" in (rows.dtype.names or ()):
        tilt = get("ctf/tilt_A").reshape(len(rows), -1)[:, :2]
        with np.errstate(divide="ignore", invalid="ignore"):
            # cryoSPARC gives beam tilt as the displacement that it causes.
            tilt = np.nan_to_num(np.arcsin(np.clip(tilt / (aberration[:, None] * _MM), -1, 1)) * 1e3)
    _warn_unused(rows, path, findings)
    box = get("blob/shape", 0.0).reshape(len(rows), -1)[:, 0].clip(0, 1 << 24)
    shared = np.column_stack([get("ctf/accel_kv"), aberration, get("ctf/amp_contrast"), pixel, box, tilt])
    kinds, group = np.unique(shared.astype(np.float32), axis=0, return_inverse=True)
    scale = get("ctf/scale", 1.0)
    if not scale.any():
        scale[:] = 1.0
        findings.warn("ctf/scale is 0 throughout and is taken for 1", path, "", "ctf/scale")
    columns = {
        "defocus_u": get("ctf/df1_A"),
        "defocus_v": get("ctf/df2_A"),
        "defocus_angle": np.rad2deg(get("ctf/df_angle_rad")),
        "phase_shift": np.rad2deg(get("ctf/phase_shift_rad", 0.0)),
        "b_factor": get("ctf/bfactor", 0.0),
        "scale": scale,
    }
    groups = tuple(
        OpticsGroup(
            f"opticsGroup{i + 1}",
            voltage=_tidy(kind[0]),
            spherical_aberration=_tidy(kind[1]),
            amplitude_contrast=_tidy(kind[2]),
            pixel_size=_tidy(kind[3]),
            box=int(kind[4]),
            beam_tilt=(_tidy(kind[5]), _tidy(kind[6])),
        )
        for i, kind in enumerate(kinds)
    )
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    return Optics(**tensors, group=torch.from_numpy(group.reshape(-1).astype(np.int64)), groups=groups)


def _tidy(value: np.float32) -> float:
    """A float32 as the decimal number it was meant to be."""
    return float(str(value))


def _warn_unused(rows: np.ndarray, path: Path, findings: Findings) -> None:
    used = [n for n in _UNUSED if n in (rows.dtype.names or ()) and rows[n].dtype.kind == "f" and rows[n].any()]
    for name in used:
        findings.warn(
            f"{name} ({_UNUSED[name]}) is not 0 and is not corrected for",
            path,
            "Convert the particles to a RELION table to have higher aberrations corrected",
            name,
        )


def _alignments(rows: np.ndarray, optics: Optics, path: Path, findings: Findings) -> tuple[Tensor | None, GivenPoses | None]:
    """Displacements from the 3D alignment, or else the 2D one; and poses where there was a 3D one."""
    names, size = rows.dtype.names or (), optics.of_group("pixel_size").numpy()
    kind = next((k for k in ("alignments3D", "alignments2D") if f"{k}/shift" in names), None)
    if kind is None:
        return None, None
    shift = _displacements(rows, kind, size, path, findings)
    return shift, _poses(rows, shift, size, path, findings) if "alignments3D/pose" in names else None


def _displacements(rows: np.ndarray, kind: str, image_pixel: np.ndarray, path: Path, findings: Findings) -> Tensor:
    """Displacement of each particle from one kind of alignment, `(N, 2)`, Å.

    image_pixel: of each image, Å, for alignments that do not say what their pixels are
    """
    pixels = _finite(rows, f"{kind}/shift", path, findings).reshape(len(rows), -1)[:, :2]
    if pixels.shape[1] != 2:
        raise InputError(f"{kind}/shift does not hold two numbers", where=path, remedy="Export the particles again")
    pixel = _finite(rows, f"{kind}/psize_A", path, findings, 0.0)
    return -torch.from_numpy(pixels * np.where(pixel > 0, pixel, image_pixel)[:, None])


def _poses(rows: np.ndarray, shift: Tensor, image_pixel: np.ndarray, path: Path, findings: Findings) -> GivenPoses:
    """The poses of the 3D alignment."""
    vectors = _finite(rows, "alignments3D/pose", path, findings).reshape(len(rows), -1)
    if vectors.shape[1] != 3:
        raise InputError("alignments3D/pose does not hold three numbers", where=path, remedy="Export the particles again")
    rotation = from_rotation_vectors(torch.from_numpy(vectors)).mT
    return GivenPoses(rotation, shift, float(image_pixel.max()))


def _sign(rows: np.ndarray) -> Tensor | None:
    """Contrast as `blob/sign` has it."""
    if "blob/sign" not in (rows.dtype.names or ()):
        return None
    return torch.from_numpy(np.where(rows["blob/sign"].astype(np.float32) < 0, -1.0, 1.0).astype(np.float32))
