"""The numbers of methods that learn by gradient descent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from cryospin.errors import InputError

_CHOICES = {
    "volume": ("hartley", "implicit"),
    "loss": ("l1", "l2"),
    "shifts": ("search", "head", "none"),
    "precision": ("float32", "bfloat16"),
}
_MAY_BE_ZERO = (
    "decoding_epochs",
    "shift_limit",
    "shift_rate",
    "rotation_rate",
    "pose_betas",
    "pyramid_octaves",
    "first_shell",
)


@dataclass(frozen=True)
class Learning:
    """Every number of the published method; as they stand, those of `paper`.

    heads: pose candidates for each image (the paper: 7, and 15 on real data)
    pyramid_octaves, pyramid_size, pyramid_variance, pyramid_scaling: blurred copies the encoder sees, pixels of the kernels,
        variance of the first in square pixels, factor from one to the next
    channels: features after each of the encoder's five blocks
    features: hidden layers of a head
    volume: `hartley` or `implicit`
    padding: points per cycle per box of the Hartley lattice
    implicit_width: neurons in a layer of the implicit volume
    loss: `l1` or `l2`, of the residual's Fourier coefficients
    symmetrised: whether the image turned by 180 degrees in its plane is tried too
    shifts: `search` the best of a grid for each candidate, `head` to have one learned, `none`
    shift_limit, shift_step: reach of that grid as a fraction of the box, and its step in pixels
    first_shell: frequency limit of the first epoch, cycles per box; 0 to compare all frequencies from the start, as
        published
    rise: share of auto-encoding over which that limit rises evenly to the last frequency
    batch: images in a step
    encoder_rate, volume_rate: Adam's, while encoding
    encoding_epochs, decoding_epochs: passes over all images in the two stages
    decoding_volume_rate: Adam's, for the volume while decoding
    rotation_rate, shift_rate, pose_betas: Adam's for poses, radians and pixels, and the memory of its two moments
    pose_steps, volume_steps: taken in turn on each batch while decoding
    precision: `float32`, or `bfloat16` in the encoder's convolutions
    """

    heads: int = 7
    pyramid_octaves: int = 4
    pyramid_size: int = 11
    pyramid_variance: float = 0.01
    pyramid_scaling: float = 10.0
    channels: tuple[int, ...] = (64, 128, 256, 256, 256)
    features: tuple[int, ...] = (512, 256)
    volume: str = "hartley"
    padding: int = 1
    implicit_width: int = 256
    loss: str = "l1"
    symmetrised: bool = False
    shifts: str = "search"
    shift_limit: float = 0.08
    shift_step: float = 1.0
    first_shell: int = 0
    rise: float = 0.7
    batch: int = 32
    encoder_rate: float = 1e-4
    volume_rate: float = 5e-3
    encoding_epochs: int = 7
    decoding_epochs: int = 13
    decoding_volume_rate: float = 2e-3
    rotation_rate: float = 0.05
    shift_rate: float = 0.2
    pose_betas: tuple[float, ...] = (0.9, 0.9)
    pose_steps: int = 5
    volume_steps: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)} is not known", remedy=f"Choose from {', '.join(known)}")
        for field in fields(self):
            value = getattr(self, field.name)
            parts = value if isinstance(value, tuple) else (value,)
            least = 0 if field.name in _MAY_BE_ZERO else 1e-12
            if any(isinstance(v, (int, float)) and not isinstance(v, bool) and v < least for v in parts):
                raise InputError(f"{field.name} {value} is too small")
        if len(self.channels) != len(Learning.channels) or len(self.pose_betas) != 2:
            raise InputError("channels are five numbers and pose_betas two")
        if self.pyramid_size % 2 == 0:
            raise InputError(f"pyramid_size {self.pyramid_size} is even", remedy="Give an odd number of pixels")

    def table(self) -> dict[str, Any]:
        """All values, plainly, for a configuration file."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
