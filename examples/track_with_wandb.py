"""A training shown in Weights & Biases: each line of the log is sent as it is written."""

import sys

import wandb

import gankit

out, *overrides = sys.argv[1:] or ["runs/tracked"]
experiment = gankit.load("demo", *overrides)

# --8<-- [start:track]
with wandb.init(project="gankit", config=experiment.tables()) as tracked:

    def send(row: dict) -> None:
        metrics = row.pop("metrics", {})
        tracked.log({**row, **metrics}, step=row["step"])

    run = gankit.train(experiment, out, on_tick=send)
    tracked.log({"samples": [wandb.Image(image.transpose(1, 2, 0)) for image in run.sample(16)]})
# --8<-- [end:track]
