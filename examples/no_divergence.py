"""Does a recipe diverge? Trains recipes on data sets at several sizes, with several seeds, and writes a table.

A training diverges if it ends with a number that is not finite, if a penalty times its weight ends above 100, or if the
Frechet distance on 8x8 pixels, measured 20 times, ends at more than three times its best value. After a stop, run it
again: finished trainings are kept, and the interrupted one goes on. docs/measured/divergence.md shows what came out.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gankit
from gankit.errors import GankitError
from gankit.experiments.recipe_files import fixed_recipe_names
from gankit.registry import value_at
from gankit.studies.trainings import train_or_resume

LOST, WORSE, TIMES = 100, 3, 20


def outcome(folder: Path, recipe: str, settings: list[str]) -> dict[str, Any]:
    """What became of one training: its words, and how far it came."""
    try:
        run = train_or_resume(gankit.load(recipe, *settings), folder)
    except GankitError as error:
        if "diverged by step" not in str(error):
            return {"outcome": f"not run: {error}"}
        return {"outcome": f"diverged: {'a lost penalty' if 'restrains' in str(error) else 'not finite'}"}
    last, distances = run.log[-1], [next(iter(row["metrics"].values())) for row in run.log if "metrics" in row]
    penalties = {
        loss.name: value_at(loss.weight, last["step"]) * last[f"critic/{loss.name}"]
        for loss in run.experiment.losses if loss.weight is not None and f"critic/{loss.name}" in last
    }  # fmt: skip
    worst, worse = max([0.0, *penalties.values()]), distances[-1] / min(distances)
    lost = f"diverged: a penalty of {worst:.3g}" if worst > LOST else ""
    far = f"diverged: {worse:.1f} times its best distance" if worse > WORSE else ""
    facts = {"batch": run.experiment.training.batch, "device": run.experiment.run.device, "steps": last["step"]}
    return {"outcome": lost or far or "stable", **facts, "distances": distances, "penalty": worst, "worse": worse}


def setting(row: dict[str, Any]) -> tuple[str, str, int]:
    """What is trained, whatever the seed."""
    return row["recipe"], row["data"], row["side"]


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """One row for each recipe, data set and size: its seeds together."""
    yield "| recipe | data | side | trainings | steps | batch | stable | largest penalty | distance: last over best |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (recipe, data, side), group in itertools.groupby(results, setting):
        rows = list(group)
        ran = [row for row in rows if "distances" in row]
        stable = sum(row["outcome"] == "stable" for row in rows)
        why = "; ".join(sorted({row["outcome"] for row in rows} - {"stable"}))
        cells = [recipe, data, side, len(rows)]
        cells += [ran[0]["steps"], ran[0]["batch"]] if ran else ["", ""]
        cells += [f"{stable}{f' ({why})' if why else ''}"]
        cells += [f"{max(row[key] for row in ran):.2g}" if ran else "" for key in ("penalty", "worse")]
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/divergence"))
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, as key.path=value")
    parser.add_argument("--npz", type=Path, nargs="+", default=[], help="further data sets beside the eyes")
    parser.add_argument("--recipes", nargs="+", default=sorted([*fixed_recipe_names(), *gankit.recipes.names()]))
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    sets = {"eyes": ["data.flip=true"]}
    sets |= {path.stem: ["data.name=npz", f"data.path={path.absolute()}"] for path in given.npz}
    cells = list(itertools.product(range(given.seeds), given.recipes, sets, given.sides))
    print(f"{len(cells)} trainings of {given.steps} steps; stop with Ctrl-C, and go on with the same command")
    results = []
    for done, (seed, recipe, data, side) in enumerate(cells):
        folder = given.out / f"{recipe}-{data}-{side}-{seed}".replace(":", "-")
        kept = folder.with_suffix(".json")
        if not kept.is_file():
            often = max(given.steps // TIMES, 1)
            found = outcome(folder, recipe, [
                *sets[data], f"data.size={side}", f"training.steps={given.steps}", f"training.seed={seed}",
                f"training.tick_every={often}", "evaluation.every=1", "evaluation.features=pixels",
                'evaluation.metrics=["frechet"]', "evaluation.subset=500", "evaluation.keep_best=false",
                *given.overrides,
            ])  # fmt: skip
            given.out.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"recipe": recipe, "data": data, "side": side, "seed": seed, **found}))
        results.append(json.loads(kept.read_text()))
        print(f"{done + 1} of {len(cells)}: {folder.name}: {results[-1]['outcome']}", flush=True)
    results.sort(key=setting)
    text = "\n".join(table(results)) + "\n"
    (given.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
