"""The Triton kernels run on a device where there is one, and in Triton's interpreter on the CPU otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def there(problem, device) -> SimpleNamespace:
    """The random problem on the device."""
    moved = {n: v.to(device) for n, v in vars(problem).items() if hasattr(v, "to")}
    return SimpleNamespace(**(vars(problem) | moved | {"disc": problem.observations.to(device).disc}))
