"""What is wrong with the input, told before anything is computed."""

from cryospin.preflight.report import Preflight, preflight

__all__ = ["Preflight", "preflight"]
