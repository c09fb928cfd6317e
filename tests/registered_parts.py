"""An augment to register, and the one line of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Le
from torch import Tensor

import gankit
from gankit.errors import PartError


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(PartError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Blur(gankit.Augment):
    def __init__(
        self, *, share: Annotated[float, Ge(0), Le(1)], times: int = 2, way: Literal["up", "down"] = "up",
        sizes: tuple[int, ...] = (1, 2),
    ) -> None:  # fmt: skip
        super().__init__()
        self.share, self.times, self.way, self.sizes = share, times, way, sizes

    def forward(self, images: Tensor) -> Tensor:
        return images * self.share
