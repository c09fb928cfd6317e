"""DCGAN and WGAN-GP on the same eyes, with the same networks but for the critic's norm.

It shows each critic's loss beside the samples' Frechet distance.

Overrides after the output folder apply to both trainings.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # write files; open no window
import matplotlib.pyplot as plt

import gankit

out, *overrides = sys.argv[1:] or ["runs/dcgan-or-wgan-gp"]

# --8<-- [start:experiments]
SMALL = ["data.size=32", "data.flip=true", "generator.width=16", "critic.width=16", "training.batch=32"]
# Evaluate the generator every 200 updates, to compare its quality with the losses.
EVALUATE = ["training.tick_every=50", "evaluation.every=4", "evaluation.subset=300", 'evaluation.metrics=["frechet"]']
SWAP = [
    'losses=[{name="wasserstein"}, {name="gradient-penalty"}]',
    "critic.norm=layer",  # batch normalisation mixes samples, and the penalty is per sample
    "training.critic_steps=3",  # when a Wasserstein critic is ahead, the generator still gets a gradient
    "training.betas=[0.0, 0.9]",
]

experiments = {
    "DCGAN": gankit.load("dcgan", *SMALL, *EVALUATE, "training.steps=3000", *overrides),
    "WGAN-GP": gankit.load("dcgan", *SMALL, *EVALUATE, *SWAP, "training.steps=1500", *overrides),
}
# --8<-- [end:experiments]


# --8<-- [start:distances]
def estimate(row: dict) -> float:
    """The distance estimated from a critic's loss, for one line of log.jsonl."""
    if "critic/wasserstein" in row:
        return -row["critic/wasserstein"]  # mean score of reals minus that of fakes
    return np.log(2) - row["critic/non-saturating"] / 2  # a lower bound on the Jensen-Shannon divergence


# --8<-- [end:distances]

# --8<-- [start:plot]
figure, axes = plt.subplots(2, 2, figsize=(9, 5), sharex="col", layout="constrained")
for (loss, quality), (name, experiment) in zip(axes.T, experiments.items(), strict=True):
    run = gankit.train(experiment, Path(out) / name.lower())
    log = run.log  # the lines of log.jsonl
    evaluated = [row for row in log if "metrics" in row]
    distances, frechet = [estimate(row) for row in evaluated], [row["metrics"]["frechet"] for row in evaluated]
    loss.plot([row["step"] for row in log], [estimate(row) for row in log])
    quality.plot([row["step"] for row in evaluated], frechet, "o-", color="tab:orange")
    loss.set_title(name)
    quality.set_xlabel("generator updates")
    print(f"{name}: estimate {distances[0]:.3g} to {distances[-1]:.3g}, frechet {frechet[0]:.4g} to {frechet[-1]:.4g}")
    if len(evaluated) > 2:
        print(f"  correlation of the two: {np.corrcoef(distances, frechet)[0, 1]:.2f}")
axes[0, 0].axhline(np.log(2), linestyle=":", color="grey")
axes[0, 0].set_ylabel("distance from the critic's loss")
axes[1, 0].set_ylabel("Frechet distance of samples")
figure.savefig(Path(out) / "curves.png", dpi=100)
# --8<-- [end:plot]
