"""A training shown in MLflow: each line of the log is sent as it is written."""

import sys

import mlflow

import gankit

out, *overrides = sys.argv[1:] or ["runs/tracked"]
experiment = gankit.load("demo", *overrides)

# --8<-- [start:track]
mlflow.set_experiment("gankit")
with mlflow.start_run():
    mlflow.log_dict(experiment.tables(), "experiment.json")

    def send(row: dict) -> None:
        metrics = row.pop("metrics", {})
        mlflow.log_metrics({**row, **metrics}, step=row["step"])

    run = gankit.train(experiment, out, on_tick=send)
# --8<-- [end:track]
