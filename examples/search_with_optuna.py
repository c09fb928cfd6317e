"""Search settings with optuna, then check the winner on fresh seeds and test images.

The best value of a search is too optimistic, because it is the luckiest of many. So the search evaluates settings on
held-out images over several seeds. Then it trains the winner and the unchanged recipe again, with seeds and test images
that the search has not used. Run it again with more --trials to continue the search.
"""

import argparse
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import gankit
from gankit.studies.trainings import train_or_resume

FEATURES = "pixels"  # quick; for real work use efficientnet-lite0 from gankit[offline]


# --8<-- [start:space]
def suggest(trial: optuna.Trial) -> list[str]:
    """Return the settings of a trial, as overrides."""
    rate = trial.suggest_float("rate", 1e-4, 3e-3, log=True)
    return [
        f"training.generator_lr={rate}",
        f"training.critic_lr={rate * trial.suggest_float('critic_faster', 0.3, 3.0, log=True)}",
        f"training.critic_steps={trial.suggest_int('critic_steps', 1, 3)}",
        f"losses.gradient-penalty.weight={trial.suggest_float('penalty', 0.3, 30.0, log=True)}",
    ]


# --8<-- [end:space]


def experiment(seed: int, settings: list[str]) -> gankit.Experiment:
    return gankit.load("demo", f"training.seed={seed}", "data.held_out=0.2", *settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/search"))
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, as key.path=value")
    parser.add_argument("--trials", type=int, default=20, help="total, including those of earlier calls")
    parser.add_argument("--seeds", type=int, default=2, help="trainings per trial, and per row of the final comparison")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    # --8<-- [start:study]
    def objective(trial: optuna.Trial) -> float:
        """Mean kid on held-out images; kid has no bias at any number of images, but noise."""
        values = []
        for seed in range(given.seeds):
            settings = [*given.overrides, *suggest(trial)]
            run = gankit.train(experiment(seed, settings), given.out / f"trial-{trial.number}-{seed}")
            report = gankit.evaluate(run, run, ["kid"], FEATURES)  # on the run's held-out images
            values.append(report["metrics"]["kid"]["value"])
        return float(np.mean(values))

    storage = JournalStorage(JournalFileBackend(str(given.out / "study.log")))
    study = optuna.create_study(study_name="demo", storage=storage, load_if_exists=True)
    done = [trial for trial in study.trials if trial.state.is_finished()]
    # With the same seed, a later call would try the random settings of the first call again.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    # A training that diverges is a failed trial, not the end of the search.
    study.optimize(objective, n_trials=max(0, given.trials - len(done)), catch=gankit.GankitError)
    # --8<-- [end:study]
    print(f"best of {given.trials}: {study.best_value:.4f}, {study.best_params}")

    # --8<-- [start:final]
    # Other subjects than in the search. For your own images, use a split that no trial has read.
    data = gankit.load("demo", *given.overrides).data
    test = gankit.build("dataset", "eyes", data.height_width, counts=data.settings.counts, seed=1)
    best = suggest(optuna.trial.FixedTrial(study.best_params))
    for name, settings in {"recipe": [], f"trial-{study.best_trial.number}": best}.items():
        values = []
        for seed in range(1000, 1000 + given.seeds):  # seeds that the search has not used
            # A run that an earlier call began is continued, and a finished one is left as it is.
            run = train_or_resume(experiment(seed, [*given.overrides, *settings]), given.out / f"final-{name}-{seed}")
            values.append(gankit.evaluate(run, test, ["kid"], FEATURES)["metrics"]["kid"]["value"])
        print(f"{name} on fresh seeds and test images: " + " ".join(f"{value:.4f}" for value in values))
    # --8<-- [end:final]


if __name__ == "__main__":
    main()
