"""The conformance suites: each planted fault is caught by the test that should catch it, and right parts pass."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, ClassVar

import processes
import pydantic
import pytest

import gankit.interfaces
import gankit.testing

FAULTY = Path(__file__).with_name("planted_faults.py")

# Test class: a test that must fail, and what it must say.
CAUGHT = {
    "PenaltyOfTheWholeBatch": ("test_is_a_mean_over_samples[critic]", "norm over the whole batch"),
    "OneAlphaABatch": ("test_draws_are_one_per_sample[critic]", "draw one row per sample"),
    "OneAlphaOfTheTurn": ("test_draws_are_one_per_sample[critic]", "the first size must be the number of samples"),
    "UndetachedFakes": ("test_trains_its_side_and_no_other[critic]", "trains the generator too"),
    "SilentlyPerSample": ("test_says_that_it_differentiates_sample_by_sample", "set per_sample = True"),
    "ChangesScores": ("test_keeps_the_images[critic]", "changes turn.real in place"),
    "Misspelt": ("test_acts_on_one_side_at_least", "overrides none of critic, generator and after_step"),
    "ReluBeforeAShortcut": ("test_activations_in_place_change_nothing_that_is_used_again", "leave out inplace=True"),
    "UnusedLayer": ("test_every_parameter_gets_a_finite_gradient[grey]", "no gradient reaches forgotten.weight"),
    "IgnoresLabels": ("test_labels_matter[classes]", "other labels change nothing"),
    "WrongPenalty": ("test_has_finite_first_and_second_derivatives", "the gradient penalty: derivatives differ"),
    "FailsOnGrey": ("test_takes_every_kind_of_image[grey-critic]", "FailsOnGrey'> cannot be built: IndexError"),
    "WithoutSource": ("test_cites_its_source", "cites no source"),
    "Unbounded": ("test_makes_images_of_the_right_shape_and_range[colour]", "end on tanh"),
    "HiddenState": ("test_state_survives_a_checkpoint", "a buffer is missing"),
    "HiddenStep": ("test_state_survives_a_checkpoint", "a buffer is missing"),
    "MixesSamples": ("test_an_image_depends_on_its_own_latents_alone_when_sampling", "not close"),
    "OneDrawABatch": ("test_draws_anew_for_every_sample", "draw one value per sample"),
    "Contrast": ("test_mixes_no_samples", "not close"),
    "DrawnElsewhere": ("test_is_deterministic_under_a_seed", "draw with torch"),
    "Rounded": ("test_is_twice_differentiable", "does not depend on the images"),
    "OfTheFirstHalf": ("test_does_not_depend_on_the_order_of_images", "in another order"),
    "Remembers": ("test_remembers_nothing", "after other images"),
    "Centres": ("test_remembers_nothing", "changes features in place"),
    "Resampled": ("test_resamples_as_from_scratch", "resampled and from scratch"),
    "Unasked": ("test_says_what_is_missing", "real.required('features')"),
    "OfTheBatch": ("test_features_of_an_image_are_its_own", "not close"),
    "Noise": ("test_everything_known_has_one_row_an_image", "assert"),
    "RandomConstant": ("test_can_be_trained_saved_exported_and_resumed", "once it is built anew"),
    "ReturnsTwo": ("test_can_be_trained_saved_exported_and_resumed", "returned a tuple"),
    "ForgetsItsMean": ("test_can_be_trained_saved_exported_and_resumed", "in a second step on the critic's turn"),
    "ForgetsItsShare": ("test_can_be_trained_saved_exported_and_resumed", "computes something else"),
    "SeedsTorch": ("test_can_be_trained_saved_exported_and_resumed", "changes torch's seed"),
    "TwoRecords": ("test_a_subset_keeps_what_is_known", "labels of a subset are others"),
}
RIGHT = ["PlainCritic", "PlainGenerator", "Brightness", "MeanDistance"]

Results = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The message of each failed test of each class; empty for one that passed. Of faulty parts, the test in CAUGHT."""
    report = tmp_path_factory.mktemp("faults") / "report.xml"
    chosen = [f"{FAULTY}::Test{name}::{test}" for name, (test, _) in CAUGHT.items()]
    chosen += [f"{FAULTY}::Test{name}" for name in RIGHT]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}"]
    processes.run(*options, *chosen, code=processes.PYTEST)
    found: Results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["classname"].rpartition(".Test")[2]
        failure = case.find("failure")
        found.setdefault(name, {})[case.attrib["name"]] = "" if failure is None else "".join(failure.itertext())
    return found


@pytest.mark.parametrize("name", CAUGHT)
def test_a_planted_fault_is_caught(name: str, results: Results) -> None:
    test, message = CAUGHT[name]
    assert message in results[name][test], f"{test} of {name} says: {results[name][test] or 'nothing, it passes'}"


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_part_passes(name: str, results: Results) -> None:
    assert len(results[name]) > 9
    assert not [test for test, failure in results[name].items() if failure]


def test_every_planted_fault_is_listed() -> None:
    tested = re.findall(r"^class Test(\w+)", FAULTY.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(tested) == sorted([*CAUGHT, *RIGHT])


def test_suites_are_found_from_the_registries() -> None:
    classes = gankit.testing.suites("gankit", TestHingeLoss={"settings": {}})
    assert classes["TestGradientPenaltyLoss"].part == "gradient-penalty"
    assert issubclass(classes["TestEyesDataset"], gankit.testing.DatasetTests)
    assert not gankit.testing.suites("not-installed")


def test_a_change_of_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no part is tested by TestNothing; there are TestDcganGenerator"):
        gankit.testing.suites("gankit", TestNothing={})


def test_a_suite_may_validate_settings_by_another_model() -> None:
    class Suite(gankit.testing.CriticTests):
        part = "resnet"
        settings_model = pydantic.create_model("Narrow", width=(int, 6), __config__={"extra": "forbid"})  # type: ignore
        files: ClassVar[dict[str, Any]] = {}

    with pytest.raises(gankit.GankitError, match="spectral: Extra inputs are not permitted"):
        Suite().build(spectral=True)


def test_a_metric_of_the_old_style_is_told_what_to_do() -> None:
    with pytest.raises(gankit.GankitError, match=r"metric Old: .* write compute\(self, real, fake\) .*CHANGELOG"):

        class Old(gankit.Metric):
            def update(self, batch: object) -> None: ...

            def compute(self) -> dict[str, float]:  # type: ignore[override]
                return {"old": 0.0}

    for module in (gankit, gankit.interfaces):
        with pytest.raises(gankit.GankitError, match=r"write compute\(self, real, fake\)"):
            module.Batch  # noqa: B018
