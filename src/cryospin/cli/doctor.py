"""`cryospin doctor`: what a run on this computer would use."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Findings = dict[str, dict[str, Any]]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Show the versions, devices, threads and kernels that a run would use."""
    findings = examine()
    print(json.dumps(findings, indent=2) if as_json else _as_text(findings))


def examine() -> Findings:
    """All findings, section by section."""
    from cryospin.environment import devices, versions

    return {
        "versions": versions(),
        "devices": devices() | _chosen(),
        "threads": _threads(),
        "kernels": _kernels(),
        "compile cache": _compile_cache(),
    }


def _chosen() -> dict[str, str]:
    """The device that a run takes unless it is told."""
    from cryospin.device import choose

    chosen = choose("auto")
    return {"auto": f"{chosen.device} ({chosen.reason})"}


def _threads() -> dict[str, int]:
    """Cores there are, cores this process may use, and threads torch and the kernels take."""
    import os

    import torch

    from cryospin.environment import allowed_cores

    return {"cores": os.cpu_count() or 1, "cores allowed": allowed_cores(), "in use": torch.get_num_threads()}


def _kernels() -> dict[str, str]:
    """Which kernels there are for each kind of device."""
    from importlib.metadata import PackageNotFoundError, version

    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    widest = next((name for name in ("avx512f", "avx2", "avx", "neon") if features.get(name)), "no vector unit known")
    try:
        triton = f"Triton {version('triton')}"
    except PackageNotFoundError:
        triton = "none: Triton is not installed"
    return {"cpu": f"numba, {widest}", "cuda": triton}


def _compile_cache() -> dict[str, Any]:
    """Where compiled kernels are kept and how many of them are there already."""
    from cryospin.kernels.cpu.compile import KEPT

    if not KEPT:
        return {"state": "none: no folder for it is writable, so every run compiles; set NUMBA_CACHE_DIR to one of your own"}
    kernels = _compiled_functions()
    folders = sorted({k.stats.cache_path for k in kernels})
    ready = sum(_is_cached(k) for k in kernels)
    state = "ready" if ready == len(kernels) else "empty" if ready == 0 else "in part"
    note = "" if state == "ready" else "the first run compiles what is missing, which takes about 10 seconds"
    return {"state": f"{state} ({note})" if note else state, "compiled": f"{ready} of {len(kernels)}", "folders": folders}


def _compiled_functions() -> list[Any]:
    """The numba functions that are called from Python and therefore compiled into the cache."""
    import importlib
    import pkgutil

    from numba.core.registry import CPUDispatcher

    from cryospin.kernels import cpu

    found = {}
    for module in pkgutil.iter_modules(cpu.__path__, f"{cpu.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            # What has no cache of its own is kept with the kernels that contain it.
            if isinstance(value, CPUDispatcher) and value.stats.cache_path and value.targetoptions.get("inline") != "always":
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return list(found.values())


def _is_cached(kernel: Any) -> bool:
    """Whether the cache holds an index for this version of a function."""
    from pathlib import Path

    code = kernel.py_func.__code__
    pattern = f"{Path(code.co_filename).stem}.{kernel.__qualname__}-{code.co_firstlineno}.*.nbi"
    return any(Path(kernel.stats.cache_path).glob(pattern))


def _as_text(findings: Findings) -> str:
    """The findings as aligned lines under headings."""
    lines = []
    for section, entries in findings.items():
        lines.append(section.capitalize())
        for name, value in entries.items():
            lines += [f"  {name:<14} {item}" for item in (value if isinstance(value, list) else [value])]
    return "\n".join(lines)
