"""The kernels go through Triton's compiler to machine code, which needs no device."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

# Types by argument name; what is not named is a pointer to float32.
PROGRAM = """
import importlib, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WORDS = {name: "*i64" for name in ("volume", "images", "upstream", "values", "group", "image", "which")}
INTEGERS = "half padding count turns width image_stride ctf_stride weight_stride shift_count"
NUMBERS = {name: "i32" for name in INTEGERS.split()}
CONSTANTS = {"BLOCK": 128, "CELLS": 1024, "WEIGHTED": True}
SPECIAL = {
    "_slice_kernel": {"out": "*i64"},
    "_best_kernel": {"shifts": "i32"},
    "_entropy_kernel": {"shifts": "i32"},
    "_summary_kernel": {"shifts": "i32", "sharpness": "fp32", "best": "*i64"},
    "_posterior_kernel": {"shifts": "i32", "sharpness": "fp32"},
}
for module in ("slicing", "insertion", "fit", "normal", "scoring"):
    for name, kernel in vars(importlib.import_module(f"cryospin.kernels.cuda.{module}")).items():
        if not name.endswith("_kernel"):
            continue
        types = {"box": "fp32"} | WORDS | NUMBERS | {c: "constexpr" for c in CONSTANTS} | SPECIAL.get(name, {})
        signature = {a: types.get(a, "*fp32") for a in kernel.arg_names}
        constants = {(kernel.arg_names.index(c),): v for c, v in CONSTANTS.items() if c in signature}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        options = {"num_warps": 4, "enable_fp_fusion": True}
        code = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options).asm
        ptx = code["ptx"]
        adds = sum(line.strip().startswith(("atom.", "red.", "@")) and ".add.f32" in line for line in ptx.splitlines())
        print(name, len(code["cubin"]), adds, ".local" in ptx)
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles_for_devices(capability, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, capability], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    compiled = {name: rest for name, *rest in map(str.split, done.stdout.splitlines())}
    assert len(compiled) == 11
    for name, (size, adds, spilled) in compiled.items():
        assert re.fullmatch(r"[1-9]\d{3,}", size), f"{name} has no machine code"
        assert spilled == "False", f"{name} keeps numbers in local memory"
        # Eight corners, each with two parts and a weight.
        assert int(adds) == (24 if name in ("_insert_kernel", "_spread_kernel") else 0), name
