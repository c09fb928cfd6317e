"""Define a loss in a script (the hinge loss with softplus), register it under a name, and train with it."""

import sys

from torch import Tensor
from torch.nn.functional import softplus

import gankit


# --8<-- [start:loss]
@gankit.losses.register("margin")
class Margin(gankit.Loss):
    def __init__(self, *, margin: float = 1.0) -> None:
        self.margin = margin

    def critic(self, turn: gankit.Turn) -> Tensor:
        return softplus(self.margin - turn.real_scores).mean() + softplus(self.margin + turn.fake_scores).mean()

    def generator(self, turn: gankit.Turn) -> Tensor:
        return softplus(-turn.fake_scores).mean()


# --8<-- [end:loss]


# --8<-- [start:train]
out, *overrides = sys.argv[1:] or ["runs/own-loss"]
losses = 'losses=[{name="margin", margin=0.5}, {name="r1", weight=1.0}]'
run = gankit.train(gankit.load("wgan-gp", losses, *overrides), out)
# --8<-- [end:train]
print(run.path, run.steps)
