"""How far bf16 moves the critic's gradients, with penalties in float32 and with penalties in bf16; see float64.

Prints the table of docs/measured/bf16.md.
"""

import argparse
import contextlib
import copy
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import gankit
from gankit.distributed import shard
from gankit.nn import gradients
from gankit.nn.modes import without_autocast
from gankit.training.data import prepare
from gankit.training.log import TickLog
from gankit.training.step import Stepper

# --8<-- [start:settings]
NETWORKS = {
    "16x16, width 16": ["data.size=16", "generator={name='resnet', width=16}", "critic={name='resnet', width=16}"],
    "32x32, width 32": ["data.size=32", "generator={name='resnet', width=32}", "critic={name='resnet', width=32}"],
    "32x32, width 32, layer norm": [
        "data.size=32",
        "generator={name='resnet', width=32}",
        "critic={name='resnet', width=32, norm='layer'}",
    ],
}
LOSSES = {
    "gradient-penalty": ["wasserstein", "gradient-penalty"],
    "r1": ["non-saturating", "r1"],
    "r1, r2": ["relativistic", "r1", "r2"],
}
SETTINGS = [
    "data.subset=300",
    "augment=none",
    "training.batch=16",
    "training.threads=1",
    "training.device=cpu",
    "training.averaging=0",
]
# --8<-- [end:settings]
COLUMNS = {"float32": "float32", "penalty in float32": "bf16", "all in bf16": "bf16"}


def stepper(precision: str, settings: list[str]) -> Stepper:
    experiment = gankit.load("demo", *SETTINGS, *settings, f"training.precision={precision}")
    return Stepper(experiment, prepare(experiment.data, 0), TickLog(Path(), tensorboard=False))


def penalties(column: str) -> contextlib.AbstractContextManager:
    """Compute penalties as the column says."""
    leaves = column == "penalty in float32"
    return mock.patch.object(gradients, "without_float16", without_autocast) if leaves else contextlib.nullcontext()


def critic_gradients(of: Stepper, state: dict, turns: int) -> Tensor:
    """(turns, parameters) gradients of critic updates by as many batches, all from the networks of the state."""
    found = []
    for index in range(turns):
        for name in ("generator", "critic"):
            getattr(of, name).load_state_dict(copy.deepcopy(state[name]))
        of.execution.run(of._work("critic", shard(of.settings.batch), index, 0))
        found.append(torch.cat([p.grad.double().flatten() for p in of.critic.parameters() if p.grad is not None]))
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20, help="steps of training, in float32, before it is measured")
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    given = parser.parse_args()
    print("| networks | losses | batches | " + " | ".join(COLUMNS) + " | mean: " + " | mean: ".join(COLUMNS) + " |")
    for networks in given.networks:
        for losses, names in LOSSES.items():
            settings = [*NETWORKS[networks], f"losses={names}", f"training.steps={given.steps}"]
            begun = stepper("float32", settings)
            for _ in range(given.steps):
                begun.advance()
            state = begun.state_dict()
            exact = critic_gradients(stepper("float64", settings), state, given.turns)
            mean = exact.mean(0)
            errors, biases = [], []
            for column, precision in COLUMNS.items():
                with penalties(column):
                    off = critic_gradients(stepper(precision, settings), state, given.turns) - exact
                errors.append(f"{(off.norm(dim=1) / exact.norm(dim=1)).mean():.2g}")
                biases.append(f"{off.mean(0).norm() / mean.norm():.2g}")
            spread = (exact - mean).norm(dim=1).mean() / mean.norm()
            print(f"| {networks} | {losses} | {spread:.2g} | {' | '.join([*errors, *biases])} |", flush=True)


if __name__ == "__main__":
    main()
