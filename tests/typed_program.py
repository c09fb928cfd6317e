"""What type checkers know of a program that uses gankit; `make check` reads it with mypy, and nothing runs it.

An error that must be told is expected by its `type: ignore`, of which mypy says when it is not needed.
"""

from typing import assert_type

import numpy as np
from torch import nn

import gankit
from gankit import Augment, Critic, Dataset, Features, Generator, Loss, Metric, Run

image = gankit.ImageSpec(3, 8, 8)
assert_type(gankit.wrap("generator", nn.Linear(2, 2), latent_dim=2), Generator)
assert_type(gankit.wrap("generator", nn.Linear, latent_dim=2), type[Generator])
assert_type(gankit.wrap("critic", nn.Linear(2, 2)), Critic)
assert_type(gankit.wrap("critic", nn.Linear, labels=True), type[Critic])
assert_type(gankit.wrap("augment", nn.Identity()), Augment)
assert_type(gankit.wrap("features", nn.Identity, dim=2), type[Features])
assert_type(gankit.wrap("loss", critic=lambda turn: None), Loss)
assert_type(gankit.wrap("dataset", np.zeros((2, 3, 8, 8), np.uint8)), Dataset)
assert_type(gankit.build("generator", "resnet", image, width=4), Generator)
assert_type(gankit.build("critic", "resnet", image), Critic)
assert_type(gankit.build("metric", "kid"), Metric)
assert_type(gankit.build("dataset", "npz", path="a.npz"), Dataset)
assert_type(gankit.train("wgan-gp", "run"), Run)
gankit.wrap("generator", nn.Linear(2, 2))  # type: ignore[call-overload]
gankit.wrap("nothing", nn.Linear(2, 2))  # type: ignore[call-overload]
gankit.nothing  # type: ignore[attr-defined] # noqa: B018
