"""Move data to a device while the next is being read."""

from __future__ import annotations

import torch
from torch import Tensor


class Upload:
    """Fills rows of a tensor, or of what stands in for one, from chunks on the CPU.

    On CUDA a chunk is copied to pinned memory and from there, on a stream of its own, to the device; `put` returns as
    soon as that is under way. PyTorch keeps the pinned memory until the copy is done.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target
        on_cuda = isinstance(target, Tensor) and target.is_cuda
        self.stream = torch.cuda.Stream(target.device) if on_cuda else None
        if self.stream is not None:
            # The target's memory may have served work that is still going on.
            self.stream.wait_stream(torch.cuda.current_stream(target.device))

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Copy `values` `(m, ...)` to the target's rows `(m,)`."""
        if self.stream is None:
            self.target[rows] = values
            return
        with torch.cuda.stream(self.stream):
            moved = (x.pin_memory().to(self.target.device, non_blocking=True) for x in (rows, values))
            self.target.index_copy_(0, *moved)

    def finish(self) -> Tensor:
        """The target, which whatever is asked of it next will find filled."""
        if self.stream is not None:
            torch.cuda.current_stream(self.target.device).wait_stream(self.stream)
        return self.target
