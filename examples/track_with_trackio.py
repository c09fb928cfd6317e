"""A training shown in Trackio, which keeps everything on this machine: `trackio show` opens the curves."""

import sys

import trackio

import gankit

out, *overrides = sys.argv[1:] or ["runs/tracked"]
experiment = gankit.load("demo", *overrides)

# --8<-- [start:track]
trackio.init(project="gankit", config=experiment.tables())


def send(row: dict) -> None:
    metrics = row.pop("metrics", {})
    trackio.log({**row, **metrics}, step=row["step"])


run = gankit.train(experiment, out, on_tick=send)
trackio.finish()
# --8<-- [end:track]
