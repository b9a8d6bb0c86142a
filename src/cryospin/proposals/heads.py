"""Poses from a convolutional encoder with several heads, trained on the poses that won."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cryospin.environment import quick_at_bfloat16
from cryospin.fourier import CPU, unpack
from cryospin.geometry.rotations import chordal_distance_squared, from_six_numbers, in_plane
from cryospin.kernels.types import Observations, Poses
from cryospin.state import State, optimiser_state, restore_optimiser

HEADS = 7
INPUT_BOX = 24
INPUT_RADIUS = 10
"""The encoder sees no frequency beyond this, cycles per box."""

_LEARNING_RATE = 1e-3
_IN_CACHE = 200
_SHARE_OF_OTHERS = 0.05
_MOVE = 0.02
"""Standard deviation of the random displacement of a training image, fraction of the box."""
_SHIFT_WEIGHT = 20.0


class Encoder(nn.Module):
    """Images to M poses each.

    A small convolutional trunk (24, 12, 6, 3 pixels), then one two-layer perceptron a head, which gives a rotation as
    six numbers and a shift as a fraction of the box.
    """

    def __init__(self, heads: int = HEADS, width: int = 32) -> None:
        super().__init__()
        self.heads = heads
        sizes = (width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = []
        inputs = 1
        for level, outputs in enumerate(sizes):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=1 if level == 0 else 2, padding=1),
                nn.GroupNorm(8, outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        side = INPUT_BOX // 2 ** (len(sizes) - 1)
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(sizes[-1] * side**2, 512), nn.ReLU())
        self.branch = nn.ModuleList(nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 8)) for _ in range(heads))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(n, 1, 24, 24)` to rotations `(n, M, 3, 3)` and shifts `(n, M, 2)` in fractions of the box."""
        quick = images.device.type == "cuda" or bool(quick_at_bfloat16())
        with torch.autocast(images.device.type, torch.bfloat16, enabled=quick):
            seen = self.trunk(images)
            out = torch.stack([branch(seen) for branch in self.branch], dim=1).float()
        return from_six_numbers(out[..., :6]), out[..., 6:]


class HeadProposals:
    """An encoder with its optimiser: proposes poses for images and learns from the poses that won.

    frame: `(3, 3)`, `Q` where a pose `R` of the encoder is `R Q` in the map as it stands: a map may be turned after the
        encoder learned its views
    """

    def __init__(self, seed: int, heads: int = HEADS, device: torch.device = CPU) -> None:
        # Drawn on the CPU, so that a seed means the same weights on every device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(heads).to(device)
        self.optimiser = torch.optim.Adam(self.encoder.parameters(), lr=_LEARNING_RATE, fused=True)
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.trained = False
        self.frame = torch.eye(3, device=device)

    def turn(self, by: Tensor) -> None:
        """The map's poses `R` are `R Q` from here on; by: `Q`, `(3, 3)`."""
        self.frame = self.frame @ by.to(self.frame.device, self.frame.dtype)

    def weights(self) -> State:
        """What it takes to propose, and nothing that only learning needs, as tensors by name."""
        return {"frame": self.frame, **self.encoder.state_dict()}

    def load(self, weights: State) -> None:
        """Propose as those did whose weights these are; raises `RuntimeError` for weights of another encoder."""
        own = dict(weights)
        self.frame = own.pop("frame", self.frame)
        self.encoder.load_state_dict(own)
        self.trained = True

    def state(self) -> State:
        """Weights, what the optimiser remembers, and the randomness; before any of it was used, the seed says the rest."""
        if not self.trained:
            return {"trained": False, "frame": self.frame}
        return {
            "trained": True,
            "frame": self.frame,
            "encoder": self.encoder.state_dict(),
            "optimiser": optimiser_state(self.optimiser),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self.trained, self.frame = state["trained"], state["frame"]
        if not self.trained:
            return
        self.encoder.load_state_dict(state["encoder"])
        restore_optimiser(self.optimiser, state["optimiser"])
        self.generator.set_state(state["generator"])

    @torch.no_grad()
    def propose(self, observations: Observations) -> Poses:
        """Every head's pose for each image: `n * M` hypotheses, by image."""
        rotation, shift = self._guesses(observations)
        image = torch.arange(len(rotation), device=rotation.device).repeat_interleave(rotation.shape[1])
        return Poses(image, rotation.flatten(0, 1) @ self.frame, shift.flatten(0, 1) * observations.box)

    def learn(self, observations: Observations, winners: Poses) -> Tensor:
        """One optimiser step towards the winning pose of each image; returns how often each head was nearest, `(M,)`.

        The nearest head is pulled to the winner, and the others a little. Images are turned and moved at random
        with their poses, which teaches the encoder all in-plane rotations of what it has seen.
        """
        images = encoder_input(observations.take(winners.image))
        angle = torch.rand(len(images), generator=self.generator).to(images.device) * (2 * math.pi)
        move = torch.randn(len(images), 2, generator=self.generator).to(images.device) * _MOVE
        turn = in_plane(angle)
        rotation = turn @ winners.rotation @ self.frame.T
        shift = (turn[:, :2, :2] @ (winners.shift / observations.box)[..., None])[..., 0] + move
        guess, moved = self.encoder(turn_images(images, angle, move))
        distance = _distances(guess, moved, rotation, shift)
        nearest, head = distance.min(dim=1)
        loss = nearest.mean() + _SHARE_OF_OTHERS * distance.mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.trained = True
        return torch.bincount(head, minlength=self.encoder.heads)

    def _guesses(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """Rotations and shifts as of `Encoder.forward`, with so few images at a time that layers stay in a core's cache."""
        images = encoder_input(observations)
        parts = [self.encoder(some) for some in images.split(_IN_CACHE if images.device == CPU else max(1, len(images)))]
        return torch.cat([rotation for rotation, _ in parts]), torch.cat([shift for _, shift in parts])

    @torch.no_grad()
    def nearest(self, observations: Observations, winners: Poses) -> Tensor:
        """How often each head is the nearest to the winning pose, without learning from it, `(M,)`."""
        guess, moved = self._guesses(observations.take(winners.image))
        distance = _distances(guess, moved, winners.rotation @ self.frame.T, winners.shift / observations.box)
        return torch.bincount(distance.argmin(1), minlength=self.encoder.heads)


def _distances(guess: Tensor, moved: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    """How far each head's pose is from the right one `(n, M)`: rotations `(n, M, 3, 3)`, shifts `(n, M, 2)` of the box."""
    return chordal_distance_squared(guess, rotation[:, None]) + _SHIFT_WEIGHT * ((moved - shift[:, None]) ** 2).sum(-1)


def encoder_input(observations: Observations) -> Tensor:
    """What the encoder sees of images: CTF-multiplied, whitened, low-passed, of unit variance, `(n, 1, 24, 24)`."""
    o = observations.up_to(INPUT_RADIUS)
    packed = o.images * o.ctf * o.weight[o.group]
    images = unpack(packed, o.disc, INPUT_BOX)
    return (images / images.std(dim=(1, 2), keepdim=True).clamp_min(1e-12))[:, None]


def turn_images(images: Tensor, angle: Tensor, move: Tensor) -> Tensor:
    """Images turned counter-clockwise (x towards y) about the box centre, then moved.

    angle: `(n,)`, radians; move: `(n, 2)`, fractions of the box
    """
    box = images.shape[-1]
    # The output pixel at p shows the input at R^-1 (p - move); coordinates of an even box are centred on box // 2.
    centre = (torch.arange(box, device=images.device) - box // 2) / box
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    at = torch.stack([x, y], -1)[None] - move[:, None, None]
    back = in_plane(-angle)[:, None, None, :2, :2]
    source = (back @ at[..., None])[..., 0]
    # grid_sample counts from -1 at the left edge of the first pixel to 1 at the right edge of the last.
    grid = 2 * source + (2 * (box // 2) + 1) / box - 1
    return nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
