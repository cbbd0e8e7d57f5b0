"""One parameter of a network: its name, its shape, and where it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Starts uniformly within centre ± bound. trained: false for a buffer (running means of batch normalisation),
    which training moves without a gradient."""

    name: str
    shape: Shape
    centre: float
    bound: float = 0.0
    trained: bool = True

    @property
    def size(self) -> int:
        return prod(self.shape)

    def under(self, prefix: str) -> Parameter:
        """The same, of the layer `prefix` of something larger."""
        return replace(self, name=f"{prefix}.{self.name}")
