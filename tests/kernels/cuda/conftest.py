"""The Triton kernels run on a device where there is one, and in Triton's interpreter on the CPU otherwise."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

# Triton decides when it is imported, and nothing before these tests imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
