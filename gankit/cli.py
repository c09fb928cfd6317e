"""The command line: `gankit` and `python -m gankit`."""

import contextlib
import os
import shlex
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from gankit.errors import GankitError, ProcessLostError, plain_words
from gankit.experiments.options import Best, Extractor, Label, Metrics, Out, Overrides, Recipe, RunFolder, Window
from gankit.experiments.values import parse_value
from gankit.planning.command import plan
from gankit.runs.commands import sample, walk
from gankit.studies.commands import study
from gankit.terminal.help import Commands, epilog, options
from gankit.terminal.text import end_output, open_standard_streams, say, speaks

app = typer.Typer(
    cls=Commands, help="Train, swap and judge GANs on few images.", epilog=epilog(""), no_args_is_help=True,
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
CACHE = "Files that gankit keeps on disk and can make again; GANKIT_CACHE says where."
cache = typer.Typer(cls=Commands, help=CACHE, no_args_is_help=True)
app.add_typer(cache, name="cache")
app.add_typer(study, name="study")
app.callback()(options)


def _finish(run: Any) -> None:
    if run.finished:
        say(f"{run.path}: finished, {run.steps} steps; samples in {run.path / 'samples'}")
        path = shlex.quote(str(run.path))
        say(f"next: gankit evaluate {path}, gankit report {path}, gankit sample {path}")


@app.command()
def demo(overrides: Overrides = None, out: Out = None) -> None:
    """Train a small WGAN-GP on the embedded eyes, evaluate it and write its report: under ten minutes."""
    import gankit
    from gankit.evaluation.comparison import set_aside, write_metrics
    from gankit.evaluation.evaluate import cost_of_features
    from gankit.files import sole_output, user_path
    from gankit.report import write_report
    from gankit.runs.run import open_run
    from gankit.training.progress import format_seconds

    folder = user_path(out or "runs/demo")
    if (folder / "experiment.toml").is_file():
        run = open_run(folder)
        if overrides:
            say(f"{folder}: the run that is there keeps its settings; for others choose another --out")
        if not run.finished:
            if (folder / "metrics.json").is_file():
                set_aside(folder / "metrics.json")  # its values are those of an earlier state
            run = gankit.resume(folder)
    else:
        experiment = gankit.load("demo", *(overrides or []))
        count, seconds = cost_of_features(experiment)
        say(f"evaluation after the training: features of {count:,} images, about {format_seconds(seconds)}", error=True)
        run = gankit.train(experiment, folder)
    if not (folder / "metrics.json").is_file():
        with sole_output(folder / "metrics.json"):
            report = gankit.evaluate(run, pictures=folder)
            write_metrics(report, folder / "metrics.json")
        say(report)
    say(*(f"samples: {grid}" for grid in sorted((folder / "samples").glob("*.png"))[-1:]))
    say(f"report:  {write_report(run)}")


@app.command()
def train(recipe: Recipe, overrides: Overrides = None, out: Out = None) -> None:
    """Train an experiment into a new run folder."""
    import gankit

    experiment = gankit.load(recipe, *(overrides or []))
    _finish(gankit.train(experiment, out or Path("runs") / Path(recipe).stem))


@app.command()
def resume(run: RunFolder) -> None:
    """Continue a run from its newest checkpoint; a finished run is left as it is."""
    import gankit

    _finish(gankit.resume(run))


app.command()(sample)
app.command()(walk)


@app.command()
def rank(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="A run's folder. For --page and ratings also a folder of images, an npz file or a table, or several.",
        ),
    ],
    count: Annotated[int | None, typer.Option(help="Images to draw; 100 by default.", min=1)] = None,
    keep: Annotated[int, typer.Option(help="How many of the best and worst to keep.", min=1)] = 10,
    by: Annotated[str, typer.Option(help="critic, realism, label, or ratings:FILE.csv,FILE.csv,...")] = "critic",
    label: Label = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the latents; 0 by default.", min=0)] = None,
    best: Best = False,
    features: Extractor = None,
    against: Annotated[str | None, typer.Option(help="Other real images, as for evaluate.", show_default=False)] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="For label: a study's .safetensors, a TorchScript or .pt2 file, or features with logits."),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Write a page on which a person rates the images.")] = False,
    real: Annotated[int, typer.Option(help="Real images to mix in on the page.", min=0)] = 0,
    key: Annotated[Path | None, typer.Option(help="The page's key.json, if not beside the ratings.")] = None,
    out: Out = None,
) -> None:
    """Draw images and keep the best and the worst; or write a page on which a person rates them blindly."""
    from gankit import ranking
    from gankit.files import refuse_taken, user_path
    from gankit.runs.run import open_run

    given: list[Any] = [open_run(source, best=True) if best else source for source in sources]
    first = user_path(sources[0])
    beside = first if os.path.isfile(first / "experiment.toml") else Path()  # of os, which takes a long table too
    if page:
        if against and not real:
            raise GankitError("--against: how many of these real images are to be on the page? add --real NUMBER")
        path = ranking.write_page(
            given, out or beside / f"rating-{seed or 0}", count, seed=seed or 0, label=label, real=real, against=against
        )
        say(f"page: {path}\nkey:  {path.parent / 'key.json'} (sealed: give raters the page alone)")
        return
    if real:
        raise GankitError("--real mixes real images into a page: add --page")
    if out:
        refuse_taken(out)  # before the work
    ranked = ranking.rank(
        given if len(given) > 1 else given[0], count, keep, by, seed=seed, label=label, features=features, real=against,
        classifier=_classifier(classifier), key=key,
    )  # fmt: skip
    folder = ranking.write_ranking(ranked, out or beside / f"ranked-{ranked.by}-{ranked.seed}")
    say(ranked)
    say(f"ranking.csv, best.png and worst.png in {folder}")


@app.command()
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run, a folder of images, an npz file, a table {name = ...}, or a folder of exported folds.",
            show_default=False,
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            help="Real images: a folder, an npz file, a run, a statistics file, a data set's name, or its table "
            '{name = "npz", path = "a.npz", split = "test"}.'
        ),
    ] = None,
    features: Extractor = None,
    metrics: Metrics = None,
    training: Annotated[str | None, typer.Option(help="The images that the generator was trained on.")] = None,
    count: Annotated[int | None, typer.Option(help="Images to draw or to choose.", min=2, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the latents; 0 by default.", min=0)] = None,
    best: Best = False,
    window: Window = None,
    permutations: Annotated[
        int, typer.Option(help="Permutations of a permutation test; 0 for no test.", min=0, max=1_000_000)
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The file to write, or to add to: .json, .csv or .tex; a run's metrics.json.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV, with every digit.")] = None,
    tex: Annotated[Path | None, typer.Option(help="Also write the table as LaTeX, for a paper.")] = None,
) -> None:
    """Compare a run or a folder of images with real images; those of a run's own data by default."""
    import gankit
    from gankit import distributed
    from gankit.evaluation.comparison import check_files, write_evaluation
    from gankit.evaluation.folds import evaluate_folds, fold_folders, write_folds
    from gankit.evaluation.sources import open_source
    from gankit.files import sole_output
    from gankit.report.card import write_card
    from gankit.runs.run import open_run

    # "Best" is the same run with another generator.
    opened: Any = None
    folds = not best and bool(fold_folders(source))
    if folds and training:
        raise GankitError("--training: each fold has training images of its own: leave it out")
    if not folds:
        opened = open_run(source, best=True) if best else open_source(source, window)
    is_run = isinstance(opened, gankit.Run)
    default = opened.path / "metrics.json" if is_run else None
    files = check_files({"--out": out or default, "--csv": csv, "--tex": tex}, adds=not folds)
    path = files.get("--out")
    with distributed.process_group(), contextlib.ExitStack() as stack:
        first = distributed.rank() == 0
        distributed.on_rank_zero(lambda: stack.enter_context(sole_output(*files.values())))
        options = {"count": count, "seed": seed, "window": window, "permutations": permutations}
        report: Any
        if folds:
            report = evaluate_folds(source, against, metrics, features, **options)
        else:
            report = gankit.evaluate(
                opened if is_run else source, against, metrics, features, training=training,
                pictures=path.parent if path and first else None, **options,
            )  # fmt: skip
        say(report)
        for file in files.values() if first else ():
            say(write_folds(report, file) if folds else write_evaluation(report, file))
        if first and is_run and path == default:
            write_card(opened, report)


@app.command()
def statistics(
    source: Annotated[str, typer.Argument(help="Real images, as for evaluate --against.")],
    out: Annotated[Path, typer.Option(help="The npz file to write.", show_default=False)],
    features: Extractor = None,
    window: Window = None,
) -> None:
    """Store mean and covariance of the features of real images, as clean-fid and pytorch-fid read them."""
    import gankit
    from gankit.evaluation.statistics import Statistics

    out = Statistics.check_output(out)  # before the work
    result = gankit.statistics(source, features, window=window)
    warnings = (f"warning: {warning}" for warning in result.protocol.get("warnings", []))
    count = "?" if result.moments.n is None else result.moments.n
    say(f"{count} images of {result.name}: {result.write(out)}", *warnings)


def _classifier(text: str | None) -> Any:
    """A classifier that a study saved, from its .safetensors file; any other text becomes a value for `gankit.rank`."""
    if text is None or not text.endswith(".safetensors"):
        return text and parse_value(text)
    from gankit.runs.classifiers import load_classifier

    return load_classifier(text, grey_levels=True)


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's report.html."""
    from gankit.report import write_report
    from gankit.runs.run import open_run

    say(write_report(open_run(run)))


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="Only this kind of part; or recipes.", show_default=False)] = None,
    load: Annotated[bool, typer.Option("--load", help="Import every part, and say which fail and why.")] = False,
) -> None:
    """List every part: name, kind, distribution; or every recipe: what it is for, and how long it takes."""
    from gankit.experiments.recipe_files import recipe_lines
    from gankit.registry.parts import list_parts
    from gankit.registry.plugins import scan

    if kind in ("recipe", "recipes"):
        return say(*recipe_lines())
    if load:
        import gankit.experiments.tables  # noqa: F401 - reserves keys that no setting of a part may have
    lines, failures = list_parts(kind, load)
    say(*lines)
    for fault in scan().faults:
        say(f"gankit: {fault}", error=True)
    if failures:
        raise GankitError(f"{failures} of {len(lines)} parts cannot be used")


@app.command()
def show(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print an experiment with every setting filled in."""
    import gankit

    experiment = gankit.load(recipe, *(overrides or []))
    say(experiment.toml().removesuffix("\n"))
    if experiment.training.precision == "float32":
        say('# training.precision = "float32": a GPU computes convolutions in TF32; "float32-exact" turns it off')


app.command()(plan)


@app.command()
def check(file: Recipe, overrides: Overrides = None) -> None:
    """Validate an experiment, say what data it reads, and try its parts in small; nothing is trained or written."""
    from gankit.training.rehearsal import check as lines_of

    for line in lines_of(file, *(overrides or [])):
        say(line)


@app.command()
def schema(
    study: Annotated[str | None, typer.Option(help="A study's name, for the schema of its file.")] = None,
    load: Annotated[bool, typer.Option("--load", help="Import all plug-ins, to name their settings too.")] = False,
) -> None:
    """Print the JSON schema of an experiment file, or of a study's file, by which editors complete it."""
    import json

    from gankit.experiments.schema import schema as make
    from gankit.studies.reading import study_schema

    say(json.dumps(make(load) if study is None else study_schema(study, load), indent=2))


@cache.command("clear")
def clear() -> None:
    """Delete the cached arrays and features."""
    from gankit.cache import cache_folder, clear_cache

    say(f"{clear_cache() / 1e6:.1f} MB freed in {cache_folder()}")


def main() -> None:
    """Run the command line; the exit code is 2, with one line, for a mistake, an OSError or too little memory."""
    open_standard_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a plug-in's name may be beyond the locale's letters
    first = speaks()  # the others report only that a process was lost
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if first else nowhere):
            app(prog_name="gankit")
    except Exception as error:
        text = plain_words(error)
        if text is None:
            raise
        if first or not isinstance(error, GankitError) or isinstance(error, ProcessLostError):
            say(*(f"gankit: {line}" for line in text.split("\n")), error=True)
        sys.exit(2)
    finally:
        if reason := end_output():
            say(f"gankit: standard output: {reason}", error=True)
            sys.exit(2)
