"""Copies, memorisation and attacks in the reports of studies, by generator and by patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import gankit
from gankit.errors import GankitError, RunError
from gankit.evaluation.sources import run_data
from gankit.report import write_report
from gankit.report.card import FROM_STUDY
from gankit.studies import privacy
from gankit.studies.formats import write_latex
from gankit.studies.privacy import judge_privacy, privacy_rows


def data_set(n: int, seed: int, images_of_one: int = 2) -> gankit.Dataset:
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return gankit.wrap("dataset", images, labels=np.arange(n) % 2, groups=np.arange(n) // images_of_one)


def test_a_copycat_is_told_from_new_images_by_patient() -> None:
    training, held_out = data_set(60, 0), data_set(40, 1)
    judged = {
        "copycat": judge_privacy(training.subset(np.arange(40)), training, held_out),
        "new": judge_privacy(data_set(40, 2), training, held_out),
        "few": judge_privacy(data_set(40, 2), training.subset([0]), held_out),
        "older": None,
    }
    header, copycat, new, few = privacy_rows(judged)
    assert {len(header)} == {len(row) for row in (copycat, new, few)}
    assert copycat[:6] == ["copycat", "40", "40", "0", "1.00", "1.00"]
    assert new[:4] == ["new", "40", "0", "0"]
    assert few[1].startswith("not judged: memorisation has 1 training image")
    attack, other = (judged[name]["protocol"]["membership"]["generator"] for name in ("copycat", "new"))  # type: ignore[index]
    assert (attack["members"], attack["others"]) == (30, 20)  # patients
    assert attack["low"] > 0.5
    assert attack["area"] > attack["control"]
    assert other["low"] < 0.5
    told = [f"{name}: {text}" for name in ("copycat", "new") for text in judged[name]["protocol"]["warnings"]]  # type: ignore[index]
    assert any(text.startswith("copycat: 40 of 40 generated images equal a training image") for text in told)
    assert any(text.startswith("copycat: training images can be told from held-out ones by distance") for text in told)
    assert not [text for text in told if text.startswith("new:") and "told from" in text]


def test_a_run_is_attacked_by_its_critic_too_and_has_its_card(small: Callable[..., list[str]], tmp_path: Path) -> None:
    training = data_set(60, 0)
    run = gankit.train(gankit.load("wgan-gp", *small("data.conditional=true")), tmp_path / "run", data=training)
    judged = judge_privacy(run, training, data_set(40, 1))
    assert set(judged["protocol"]["membership"]) == {"generator", "critic"}
    card = (run.path / "card.md").read_text()
    for words in ("Membership attack by critic score: area 0.", "control, copycat: ", "Not for clinical use"):
        assert words in card
    assert "Kept from training: 40 images." in card
    page = write_report(gankit.open_run(run.path)).read_text()
    assert (run.path / "card.md").read_text() == card
    assert "Membership attack by critic score" in page
    _, row = privacy_rows({"generator-0": judged})
    assert row[-1].count(".") == 4  # area, both ends, control
    (run.path / FROM_STUDY).write_text("{")
    with pytest.raises(GankitError, match=r"privacy\.json is not a metrics file"):
        write_report(run)
    none = judge_privacy(run, training, training.subset(np.zeros(0, int)))
    assert none == {"failure": "data.min_agreement leaves no held-out image to judge beside; lower it"}


def test_a_card_counts_all_images_that_a_run_kept_where_a_study_judged_beside_some(
    copied_run: gankit.Run,
) -> None:
    """As a study of agreement does, which judges beside held-out images of the same agreement."""
    training, held_out = run_data(copied_run)
    assert held_out is not None
    judged = judge_privacy(copied_run, training, held_out.subset(np.arange(4)))
    assert judged["protocol"]["n_real"] == 4
    assert f"Kept from training: {len(held_out)} images." in (copied_run.path / "card.md").read_text()


@pytest.mark.parametrize("error", [RunError("no"), MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize("refuses", ["extractor", "find_copies"])
def test_what_cannot_be_judged_is_told_and_ends_no_job(
    refuses: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise error

    monkeypatch.setattr(privacy, refuses, refuse)
    judged = judge_privacy(data_set(40, 2), data_set(60, 0), data_set(40, 1))
    told = "no" if isinstance(error, RunError) else "not enough memory"
    assert list(judged) == ["failure"]
    assert judged["failure"].startswith(told)


def test_a_mistake_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "find_copies", None)
    with pytest.raises(TypeError):
        judge_privacy(data_set(40, 2), data_set(60, 0), data_set(40, 1))


def test_a_table_that_has_lost_its_rows_leaves_no_file(tmp_path: Path) -> None:
    write_latex(tmp_path, {"privacy": [["generator"], ["a"]]}, {})
    assert r"\begin{tabular}" in (tmp_path / "privacy.tex").read_text()
    for _ in range(2):
        write_latex(tmp_path, {"privacy": [["generator"]]}, {})
        assert not list(tmp_path.iterdir())
