"""The report of a study of rater agreement: one self-contained page, and the tables as files."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from gankit.files import write_atomically
from gankit.images.pictures import grid_png
from gankit.report.pages import draw_png, png_uri, render
from gankit.runs.run import Run, open_run
from gankit.studies.agreement.arms import Arm, heading, percent
from gankit.studies.agreement.conclusions import REALS, conclusions, counts, share
from gankit.studies.agreement.estimates import ROWS, Estimates, Where
from gankit.studies.agreement.study import RUN, Findings, failures
from gankit.studies.agreement.tables import EQUAL, block_title, blocks, rows, table1, write_tables
from gankit.studies.trainings import format_seconds

SHOWN = 10
CAPTION = (
    "Distance by selection rate: lines of the first seed, crosses of the others; bars are the standard error of one "
    "training."
)


def write_agreement_report(findings: Findings) -> Path:
    """Write `report.html`, and `table1` and `table2` as .csv and .tex, into a study's folder."""
    estimates = Estimates(findings)
    write_tables(estimates, findings.folder)
    study, images = findings.study, findings.images
    runs = [open_run(t.folder / RUN) for t in findings.trainings if not t.outcome.failure]
    record = runs[0].experiment.run
    assert record is not None
    parts = blocks(rows(estimates))
    page = render(
        "gankit.studies.agreement",
        "report.html.j2",
        data=study.data.name,
        image=record.image,
        headings=[heading(t) for t in images.thresholds],
        conclusions=conclusions(estimates),
        cautions=cautions(findings),
        table1=table1(estimates),
        table2=[block for block in parts if block[0].images != EQUAL],
        equal=[block for block in parts if block[0].images == EQUAL],
        block_title=block_title,
        n=images.n,
        study=study.study,
        training=study.training,
        reals=findings.reals,
        deviations=_deviations(estimates),
        pictures=[
            (png_uri(picture), caption)
            for picture, caption in (
                (_by_threshold(estimates), CAPTION),
                (_losses(runs), "The critic's loss by step, a colour for each kind of training."),
            )
            if picture
        ],
        real_grid=png_uri(_real_grid(findings)),
        grids=_grids(estimates),
        trainings=[
            {
                "title": t.arm.title, "seed": t.seed, "folder": (t.folder / RUN).relative_to(findings.folder),
                "images": len(images.chosen(t.arm, t.seed)), "seconds": format_seconds(t.outcome.seconds),
                "threads": t.outcome.threads, "failure": t.outcome.failure,
            }
            for t in findings.trainings
        ],
        seconds=format_seconds(findings.seconds),
        versions=record.versions,
        device=record.device,
        methods=methods(findings, estimates, record.versions["gankit"]),
        experiment=study.toml(),
        command=f"gankit study agreement {shlex.quote(str(findings.folder / 'study.toml'))} --out NEW_FOLDER",
    )  # fmt: skip
    path = findings.folder / "report.html"
    write_atomically(path, page.encode())
    return path


def cautions(findings: Findings) -> list[str]:
    """What a reader must know before the numbers."""
    study, images, reals = findings.study.study, findings.images, findings.reals
    found = []
    if failed := failures(findings):
        found.append(failed)
    few = [n for n in sorted({study.kept, study.drawn, images.n}) if n < reals["dim"]]
    if few:
        found.append(
            f"the features have {reals['dim']} dimensions, and sets of {', '.join(map(str, few))} images cannot fill "
            "them: a Frechet distance of so few images is mostly bias, and at equal n a generator of more alike images "
            "has less of it; read it beside real against real, or read KID, which has no such bias"
        )
    if study.warm_start:
        found.append(
            f"trainings of a seed share their first {study.warm_start} steps, on all training images, so that "
            "selection rates differ less than they would from scratch"
        )
    for lower, upper in itertools.pairwise(images.thresholds):
        if len(images.training_at(lower)) == len(images.training_at(upper)):
            found.append(
                f"SR {percent(upper)} leaves out no more images than {percent(lower)}: the same training twice"
            )
    if all(images.seeds(arm, findings.study)[1:] == [] for arm in images.arms(findings.study)):
        found.append(
            "every arm was trained once, so that nobody knows how much trainings differ, and no conclusion is drawn: "
            "set study.seeds_at_ends=3, say"
        )
    if findings.study.data.name == "eyes" and reals["estimator"] is None:
        found.append("the deviation cannot be measured well enough on images of this size, and is left out")
    return found


def _deviations(estimates: Estimates) -> list[list[str]]:
    """Shares of strabismic images among drawn, best, worst and real ones, a row an arm."""
    if estimates.findings.reals["estimator"] is None:
        return []
    rows = []
    for arm in estimates.arms():
        shares = [share(*counts(estimates, arm, row)) if estimates.trainings(arm) else "failed" for row in ROWS]
        rows.append([arm.title, *shares, share(*counts(estimates, arm, REALS))])
    return rows


def _real_grid(findings: Findings) -> bytes:
    dataset = findings.images.full
    places = np.linspace(0, len(dataset) - 1, min(2 * SHOWN, len(dataset))).astype(np.int64)
    return grid_png(dataset.read(places), dataset.value_range, SHOWN)


def _grids(estimates: Estimates) -> list[dict[str, Any]]:
    """Best and worst of the first training of each arm, with their numbers."""
    kept = estimates.findings.study.study.kept
    found: list[dict[str, Any]] = []
    for arm in estimates.arms():
        if not estimates.trainings(arm):
            found.append({"title": f"{arm.title}: failed", "seed": "", "rows": [], "all": ""})
        for training in estimates.trainings(arm)[:1]:
            rows = []
            for row, word in (("top", f"Top {kept}"), ("bottom", f"Bottom {kept}")):
                entry = training.outcome.result["drawn"][row]
                values = ", ".join(f"{estimates.metric_name(m)} {v['value']:.3g}" for m, v in entry.items())
                picture = png_uri((training.folder / f"{row}.png").read_bytes())
                rows.append({"words": f"{word}: n = {kept}, {values}", "picture": picture})
            everything = png_uri((training.folder / "all.png").read_bytes())
            found.append({"title": arm.title, "seed": training.seed, "rows": rows, "all": everything})
    return found


def _by_threshold(estimates: Estimates) -> bytes | None:
    """The distance by selection rate: as the paper has it, and beside held-out images with the controls."""
    images, study = estimates.findings.images, estimates.findings.study.study
    if len(images.thresholds) < 2:
        return None
    panels: list[tuple[str, list[tuple[str, list[Arm], Where]]]] = [
        ("to own training images, as in the paper", [
            (name if row == "all" else f"{name} {study.kept}", [Arm(t) for t in images.thresholds], Where("drawn", row))
            for row, name in ROWS.items()
        ]),
        (f"to held-out images, {images.n} a side", [
            (label, [Arm(t, control, scope) for t in images.thresholds], Where("equal", "held-out"))
            for label, control, scope in (
                ("by agreement", "", ""), ("random subset", "random-subset", ""),
                *((f"scope {scope}", "", scope) for scope in study.scopes[1:]),
            )
        ]),
    ]  # fmt: skip

    def draw(figure: Any) -> None:
        for axes, (label, lines) in zip(figure.subplots(1, 2), panels, strict=True):
            for place, (name, arms, where) in enumerate(lines):
                aside = 0.8 * (place - (len(lines) - 1) / 2)  # so that bars do not cover each other
                known = [arm for arm in arms if estimates.by_seed(arm, where)]
                seeds = estimates.common(known, where)[:1] if known else []
                points = [(arm, found) for arm in known if (found := estimates.of(arm, where, seeds or None))]
                if points:
                    axes.errorbar(
                        [100 * arm.threshold + aside for arm, _ in points], [found.value for _, found in points],
                        [found.error or 0.0 for _, found in points], label=name, color=f"C{place}", marker="o",
                        capsize=3, linewidth=1.2,
                    )  # fmt: skip
                for arm, _ in points:
                    others = [value for seed, value in estimates.by_seed(arm, where).items() if seed not in seeds]
                    axes.plot([100 * arm.threshold + aside] * len(others), others, "x", color=f"C{place}", alpha=0.6)
            real = [(arm.threshold, estimates.between_reals(arm, lines[0][2])) for arm in lines[0][1]]
            drawn = [(100 * threshold, found["mean"]) for threshold, found in real if found is not None]
            if drawn:
                axes.plot(*zip(*drawn, strict=True), "--", color="0.4", linewidth=1, label="reals in place of All"
                          if lines[0][2].row == "all" else "reals")  # fmt: skip
            axes.set(xlabel="selection rate, %", ylabel=estimates.metric_name("frechet"), title=label)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize=8)

    return draw_png(draw, (9, 3.4))


def _losses(runs: list[Run]) -> bytes | None:
    """The critic's first loss of every training; a colour for each arm."""
    name = runs[0].experiment.losses[0].name
    curves = [[(row["step"], row[f"critic/{name}"]) for row in run.log if f"critic/{name}" in row] for run in runs]
    if not any(curves):
        return None
    arms = [run.path.parent.name.rpartition("-seed")[0] for run in runs]

    def draw(figure: Any) -> None:
        axes, seen = figure.add_subplot(), list(dict.fromkeys(arms))
        for arm, points in zip(arms, curves, strict=True):
            if not points:
                continue
            label = f"_{arm}" if arm in {line.get_label() for line in axes.lines} else arm
            axes.plot(*zip(*points, strict=True), label=label, color=f"C{seen.index(arm) % 10}",
                      linestyle="-" if seen.index(arm) < 10 else ":", linewidth=0.9)  # fmt: skip
        axes.set(xlabel="step (generator updates)", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, ncols=2)

    return draw_png(draw, (9, 3.4))


def methods(findings: Findings, estimates: Estimates, version: str) -> str:
    """A paragraph for a paper."""
    study, table, images, reals = findings.study, findings.study.study, findings.images, findings.reals
    parts, training, shape = study.tables(), study.training, images.full.image
    losses = " and ".join(_loss(loss) for loss in parts["losses"])
    augment = parts.get("augment")
    scopes = " or ".join(table.scopes or [augment["scope"]]) if augment else ""
    shown = f", with the augment {augment['name']} (scope {scopes})" if augment else ""
    counts = ", ".join(
        f"{len(images.training_at(t))} at {heading(t)} ("
        + ", ".join(f"{n} {name}" for n, name in zip(images.counts(t), images.class_names, strict=True)) + ")"
        for t in images.thresholds
    )  # fmt: skip
    seeds: dict[int, list[str]] = {}
    for arm in estimates.arms():
        seeds.setdefault(len(images.seeds(arm, study)), []).append(arm.title)
    repeats = "; ".join(f"{'one training' if n == 1 else f'{n} trainings'} of {', '.join(a)}" for n, a in seeds.items())
    protocol = ", ".join(f"{key} {value}" for key, value in reals["protocol"].items())
    warm = (
        f" Those of a seed started from one network that was trained with it on all training images for "
        f"{table.warm_start} steps."
        if table.warm_start else ""
    )  # fmt: skip
    control = (
        " For each selection rate another network was trained on as many images drawn at random from all classes, "
        "anew for each seed."
        if table.controls else ""
    )  # fmt: skip
    grouped = images.full.groups is not None
    return (
        f"Networks ({parts['generator']['name']} generator, {parts['critic']['name']} critic, losses: {losses}{shown}) "
        f"were trained with gankit {version} on the images of {study.data.name} at {shape.height} x {shape.width} "
        f"pixels{', mirrored at random' if study.data.flip else ''}, on which at least a given share of the raters "
        f"agreed (selection rate, SR; training images: {counts}), for {training.steps} generator updates with "
        f"{training.critic_steps} critic update{'s' if training.critic_steps > 1 else ''} each and a batch of "
        f"{training.batch}, {training.optimizer} at rates of {training.generator_lr:g} and {training.critic_lr:g}"
        f"{' that fell linearly to 0' if training.lr_decay == 'linear' else ''}, weights averaged with "
        f"{training.averaging:g}: {repeats}.{warm}{control} "
        f"{100 * study.data.held_out:g} % of the images were held out before any selection "
        f"({len(images.held_out)}). From each generator {table.drawn} images were drawn, and the {table.kept} with the "
        f"highest and lowest critic scores kept. Distances ({estimates.metric_name('frechet')}, KID) use features of "
        f"{reals['features']} ({reals['dim']} dimensions; {protocol}). Standard errors are the jackknife's over "
        f"{'patients' if grouped else 'images'} of both sides{'' if grouped else ' (closed form for KID)'}. Values "
        f"were also computed at {images.n} images a side beside the training images, all training images, and held-out "
        "images, and between disjoint sets of real images of the same numbers. Differences are over trainings of the "
        "same seed; their intervals are Student's, from the residual of arm and seed over all arms with several seeds "
        "and the jackknife over real images."
    )


def _loss(table: dict[str, Any]) -> str:
    weight, every = table.get("weight", 1.0), table.get("every", 1)
    told = [f"weight {weight:g}"] if weight != 1 else []
    told += [f"every {every} critic updates"] if every != 1 else []
    name = str(table["name"]).replace("-", " ")
    return name + (f" ({', '.join(told)})" if told else "")
