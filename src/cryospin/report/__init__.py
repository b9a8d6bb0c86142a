"""What a run shows of itself."""

from cryospin.report.run import write_figures

__all__ = ["write_figures"]
