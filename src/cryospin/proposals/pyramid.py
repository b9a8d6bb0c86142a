"""The published encoder: images blurred in several steps, a VGG-like trunk, one perceptron a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryospin.geometry.rotations import from_six_numbers

_MEAN, _SD = 0.45, 0.226
"""Every channel of every image is brought to this mean and standard deviation."""

_BLOCKS = (2, 2, 3, 2, 2)
"""Convolutions between two poolings."""

_LEAST = 2
"""Pixels a pooling must leave along a side; small boxes skip those that would leave less."""


class GaussianPyramid(nn.Module):
    """An image beside ever stronger blurs of itself, all of the same size.

    A Gaussian blurs along x and then along y, 22 products a pixel where the square kernel takes 121.

    octaves: blurred copies besides the (almost) untouched one
    size: pixels of the kernels; variance: of the first, square pixels; scaling: from one to the next
    """

    kernels: Tensor
    """One line of each blur, `(octaves + 1, size)`."""

    def __init__(self, octaves: int, size: int, variance: float, scaling: float) -> None:
        super().__init__()
        square = (torch.arange(size) - size // 2) ** 2
        blurs = torch.stack([torch.exp(-square / (2 * variance * scaling**i)) for i in range(octaves + 1)])
        self.register_buffer("kernels", blurs / blurs.sum(1, keepdim=True))

    def forward(self, images: Tensor) -> Tensor:
        """`(n, D, D)` to `(n, octaves + 1, D, D)`, each channel of each image of one mean and variance."""
        reach = self.kernels.shape[-1] // 2
        padded = nn.functional.pad(images[:, None], (reach,) * 4, mode="reflect")
        along_x = nn.functional.conv2d(padded, self.kernels[:, None, None, :])
        channels = nn.functional.conv2d(along_x, self.kernels[:, None, :, None], groups=len(self.kernels))
        variance, mean = torch.var_mean(channels, dim=(2, 3), keepdim=True)
        return (channels - mean) * (_SD / variance.clamp_min(1e-12).sqrt()) + _MEAN


class PyramidEncoder(nn.Module):
    """Images to M rotations each, and to M displacements where they are asked for.

    box: pixels of the images
    heads: M
    channels: features after each of the five blocks of convolutions
    features: sizes of the heads' hidden layers
    shifts: whether each head has a companion for the displacement
    half_precision: convolutions in bfloat16, where the processor is quick at it
    """

    def __init__(
        self,
        box: int,
        heads: int,
        pyramid: GaussianPyramid,
        channels: tuple[int, ...],
        features: tuple[int, ...],
        *,
        shifts: bool = False,
        half_precision: bool = False,
    ) -> None:
        super().__init__()
        self.pyramid, self.half_precision = pyramid, half_precision
        layers: list[nn.Module] = []
        inputs, side = len(pyramid.kernels), box
        for level, (outputs, count) in enumerate(zip(channels, _BLOCKS, strict=True)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            # The last average is followed by one more maximum.
            poolings = [nn.MaxPool2d(2)] if level < 3 else [nn.AvgPool2d(2)]
            for pooling in [*poolings, nn.MaxPool2d(2)] if level == len(channels) - 1 else poolings:
                if side // 2 >= _LEAST:
                    layers.append(pooling)
                    side //= 2
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        for layer in self.trunk:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
        self.rotations = nn.ModuleList(_perceptron(inputs * side**2, features, 6) for _ in range(heads))
        self.shifts = nn.ModuleList(_perceptron(inputs * side**2, features, 2) for _ in range(heads if shifts else 0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`(n, D, D)` to rotations `(n, M, 3, 3)` and displacements `(n, M, 2)` in pixels, 0 without heads for them."""
        seen = self.pyramid(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half_precision):
            code = self.trunk(seen)
        code = code.float()
        rotation = from_six_numbers(torch.stack([head(code) for head in self.rotations], dim=1))
        if not self.shifts:
            return rotation, rotation.new_zeros(*rotation.shape[:2], 2)
        return rotation, torch.stack([head(code) for head in self.shifts], dim=1)


def _perceptron(inputs: int, features: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers, each hidden one followed by a rectifier and then batch norm."""
    layers: list[nn.Module] = []
    for size in features:
        linear = nn.Linear(inputs, size)
        nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
        nn.init.uniform_(linear.bias, -1, 1)
        layers += [linear, nn.ReLU(), nn.BatchNorm1d(size)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
