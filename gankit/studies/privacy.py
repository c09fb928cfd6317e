"""Do the generators of a study copy their training images, or give them away? Judged beside held-out images."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gankit.errors import GankitError, is_short_of_memory, plain_words
from gankit.evaluation.copies import find_copies
from gankit.evaluation.extraction import extractor, rows
from gankit.evaluation.membership import ATTACKS, attacks
from gankit.evaluation.sources import Drawn
from gankit.files import write_atomically
from gankit.interfaces import Dataset, Pool, Result
from gankit.registry import build
from gankit.report.card import FROM_STUDY, write_card
from gankit.runs.run import Run
from gankit.studies.formats import NONE, interval, number

CONTROLS = ("copycat", "held-out reals")  # of the metric `memorisation`
HEADER = [
    "generator", "generated", "equal", "near copies", "memorisation", *CONTROLS,
    *(f"attack by {score}, [95 %], members alone below" for score in ATTACKS.values()),
]  # fmt: skip


def judge_privacy(source: Run | Dataset, training: Dataset, held_out: Dataset) -> dict[str, Any]:
    """Copies, memorisation with its controls, and membership attacks, on pixels; a run's card is written beside it.

    The source is a generator's run, of which as many images are drawn as are held out; or generated images. Held-out
    images are of other patients than those of the training, which the generator has not seen.

    Returns:
        "protocol" and "metrics" as `gankit.evaluate` gives them, without standard errors, which take long; or
        "failure", the reason why nothing can be judged.
    """
    if not len(held_out):
        return {"failure": "data.min_agreement leaves no held-out image to judge beside; lower it"}
    try:
        metric, (_, network) = build("metric", "memorisation"), extractor("pixels", training.image.shape)
        fakes = Drawn(source, len(held_out)) if isinstance(source, Run) else source
        members, others, made = (rows(each, network, metric.needs, quiet=True) for each in (training, held_out, fakes))
        pool = Pool(replace(others, training=members), made)
        found = Result.of(metric, pool.real, pool.fake)
        copies, warnings = find_copies(fakes, training, held_out, "training image")
        membership, more_warnings = attacks(source, pool, training, held_out)
    except Exception as error:
        if isinstance(error, GankitError) or is_short_of_memory(error):
            return {"failure": plain_words(error)}
        raise
    counts = {"n_real": len(held_out), "n_fake": len(fakes)}
    protocol = {
        "real": "held-out images", "fake": "generated images", "training": "training images", "features": "pixels",
        "features_dim": network.dim, "features_protocol": {}, "n_training": len(training), **counts,
        "copies": copies, "membership": membership, "warnings": [*found.warnings, *warnings, *more_warnings],
    }  # fmt: skip
    value = {
        "value": found.values["memorisation"], "standard_error": None, "real_vs_real": None, **counts,
        "metric": {"name": "memorisation"}, "details": {"controls": found.details["controls"]},
    }  # fmt: skip
    report = {"protocol": protocol, "metrics": {"memorisation": value}}
    if isinstance(source, Run):
        write_atomically(source.path / FROM_STUDY, json.dumps(report, indent=1) + "\n")
        write_card(source, None)
    return report


def privacy_rows(judged: Mapping[str, Mapping[str, Any] | None]) -> list[list[str]]:
    """What `judge_privacy` found, by the name of the generator, a header first."""
    return [HEADER, *([name, *_cells(report)] for name, report in judged.items() if report)]


def _cells(report: Mapping[str, Any]) -> list[str]:
    if "failure" in report:
        return [f"not judged: {report['failure']}", *[NONE] * (len(HEADER) - 2)]
    protocol, entry = report["protocol"], report["metrics"]["memorisation"]
    cells = [str(protocol["n_fake"]), *(str(protocol["copies"].get(kind, NONE)) for kind in ("exact", "near"))]
    cells += [
        number(entry["value"], 2),
        *(number(entry["details"]["controls"][name]["memorisation"], 2) for name in CONTROLS),
    ]
    for attack in map(protocol["membership"].get, ATTACKS):
        area = attack and interval({**attack, "value": attack["area"]}, digits=2)
        cells.append(f"{area}, {attack['control']:.2f}" if attack else NONE)
    return cells
