"""The training loop: what a run folder holds, what a run starts from, and what is refused."""

from __future__ import annotations

import io
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tqdm
from same_runs import assert_equal, assert_same_run, state
from torch import Tensor, nn

import gankit
from gankit.errors import GankitError, PartError, RunError
from gankit.interfaces import Critic, ImageSpec, Loss, Turn
from gankit.runs import checkpoint
from gankit.training.assembly import build
from gankit.training.evaluator import Evaluator
from gankit.training.start import _load_matching, load_start_weights
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


def test_the_generator_is_prepared_for_sampling_once_a_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, steps = Evaluator.sampling_copy, []

    def noted(self: Evaluator) -> gankit.Generator:
        steps.append(self._stepper.step)
        return prepare(self)

    monkeypatch.setattr(Evaluator, "sampling_copy", noted)
    gankit.train(gankit.load("wgan-gp", *small("evaluation.every=1")), tmp_path / "run")
    assert steps == [0, 3, 4, 6]


def test_training_leaves_torch_as_it_was(small: Small, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    gankit.train(gankit.load("wgan-gp", *small("training.threads=2")), tmp_path / "run")
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == 1


def test_a_run_folder(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.conditional=true")), tmp_path / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints", "experiment.toml", "generator.safetensors", "log.jsonl", "samples",
    ]  # fmt: skip
    assert [row["step"] for row in run.log] == [3, 6]
    assert {"critic/wasserstein", "critic/gradient-penalty", "generator/wasserstein"} <= set(run.log[0])
    assert run.log[0]["images_per_second"] > 0
    grids = sorted(path.name for path in (run.path / "samples").iterdir())
    assert grids == ["step-00000000.png", "step-00000006.png"]
    again = gankit.open_run(run.path)
    assert again.experiment == run.experiment
    assert again.experiment.run is not None
    assert again.experiment.run.label_counts == [20, 20]
    assert again.experiment.run.versions["torch"] == torch.__version__


def test_equal_runs_give_equal_bytes_whatever_the_folder(small: Small, tmp_path: Path) -> None:
    for name in ("a", "b"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    other = gankit.train(gankit.load("wgan-gp", *small("training.seed=1")), tmp_path / "c")
    exported = [path / "generator.safetensors" for path in (other.path, tmp_path / "a")]
    assert exported[0].read_bytes() != exported[1].read_bytes()


def test_start_from_another_run(small: Small, tmp_path: Path) -> None:
    first = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    experiment = gankit.load("wgan-gp", *small(f"training.start_from={first.path}", "training.seed=9"))
    trainer = Trainer(experiment, tmp_path / "second", None)
    load_start_weights(trainer.stepper)
    assert_equal(dict(trainer.stepper.generator.state_dict()), dict(state(first.path)["generator"]))
    newest = max((first.path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    trainer.stepper.warnings.clear()
    load_start_weights(trainer.stepper)
    [line] = trainer.stepper.warnings
    assert "step-00000006.pt cannot be read" in line
    assert line.endswith("; starting from step 4 of that run")
    with pytest.raises(RunError, match=r"does not fit .* give the networks the names and widths"):
        gankit.train(gankit.load(experiment, "generator.width=8"), tmp_path / "third")
    assert not (tmp_path / "third").exists()


def start(small: Small, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...]) -> tuple[Any, Any]:
    """The state of a run, and the networks of another experiment that has started from it."""
    run = gankit.train(gankit.load("wgan-gp", *small(*first)), tmp_path / "first")
    experiment = gankit.load("wgan-gp", *small(*second, f"training.start_from={run.path}", "training.seed=9"))
    stepper = Trainer(experiment, tmp_path / "second", None).stepper
    load_start_weights(stepper)
    return state(run.path), stepper


def test_networks_of_another_size_share_the_layers_at_the_smallest_maps(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, ("data.size=8",), ("data.size=32",))
    generator, critic = stepper.generator.state_dict(), stepper.critic.state_dict()
    assert torch.equal(generator["blocks.0.conv1.weight"], saved["generator"]["blocks.0.conv1.weight"])
    assert "blocks.1.conv1.weight" not in saved["critic"]
    assert torch.equal(critic["blocks.1.conv1.weight"], saved["critic"]["blocks.0.conv1.weight"])
    told = {line.split(" of the ")[1].split()[0]: line for line in stepper.warnings if "start_from" in line}
    assert "freshly drawn: blocks.0.conv1.weight, blocks.0.conv1.bias" in told["critic"]
    assert "freshly drawn: blocks.1." in told["generator"]


@pytest.mark.parametrize("conditional", [False, True])
def test_classes_in_another_order_are_told(small: Small, arrays: Path, tmp_path: Path, conditional: bool) -> None:
    with np.load(arrays) as stored:
        kept = {name: stored[name] for name in stored.files}
    paths = []
    for names in (["a", "b", "c"], ["a", "c", "b"]):
        paths.append(tmp_path / f"{''.join(names)}.npz")
        np.savez(paths[-1], **{**kept, "labels": np.arange(len(kept["images"])) % 3, "class_names": names})
    first, second = ((f"data.path={path}", f"data.conditional={str(conditional).lower()}") for path in paths)
    _, stepper = start(small, tmp_path, first, second)
    told = [line for line in stepper.warnings if "in another order" in line]
    assert len(told) == conditional
    assert all(line.endswith("goes to the one in its place: of b to c, c to b") for line in told)
    repeated = gankit.load("wgan-gp", *small(*first, f"training.start_from={tmp_path / 'first'}"))
    same = Trainer(repeated, tmp_path / "third", None).stepper
    load_start_weights(same)
    assert not [line for line in same.warnings if "in another order" in line]


def test_layers_that_the_other_run_does_not_have_are_not_frozen(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.size=8")), tmp_path / "first")
    other = small("data.size=32", f"training.start_from={run.path}", "training.freeze=5")
    with pytest.raises(
        RunError, match=r"freeze: the critic of .*first has no blocks\.0\..*, which would stay as drawn"
    ):
        gankit.train(gankit.load("wgan-gp", *other), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_classes_begin_with_what_a_network_without_them_has_learned(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, (), ("data.conditional=true",))
    generator = stepper.generator.state_dict()
    for key, old in (("gain", "weight"), ("shift", "bias")):
        table = generator[f"blocks.0.norm1.{key}.table.weight"]
        assert torch.equal(table, saved["generator"][f"blocks.0.norm1.norm.{old}"].expand_as(table))
    assert any("freshly drawn: projection.table.weight" in line for line in stepper.warnings)


@pytest.mark.parametrize("spectral", [False, True])
def test_other_classes_begin_with_the_mean_of_the_old_ones(spectral: bool, small: Small, tmp_path: Path) -> None:
    three = tmp_path / "three.npz"
    np.savez(three, images=np.zeros((30, 8, 8, 3), np.uint8), labels=np.arange(30) % 3)
    more = ("data.conditional=true", f"critic.spectral={spectral}")
    saved, stepper = start(small, tmp_path, more, (*more, f"data.path={three}"))
    weight = "parametrizations.weight.original" if spectral else "weight"
    for kind, key in (("generator", "blocks.0.norm1.gain.table.weight"), ("critic", f"projection.table.{weight}")):
        table, old = getattr(stepper, kind).state_dict()[key], saved[kind][key]
        assert len(table) != len(old)
        torch.testing.assert_close(table, old.mean(0).expand_as(table))


def test_without_classes_a_network_begins_with_their_mean(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, ("data.conditional=true",), ())
    found = stepper.generator.state_dict()["blocks.0.norm1.norm.weight"]
    torch.testing.assert_close(found, saved["generator"]["blocks.0.norm1.gain.table.weight"].mean(0))


def test_an_average_goes_on_at_its_age(small: Small, tmp_path: Path) -> None:
    """Or the first steps would forget what another run has learned; the age survives a checkpoint, too."""
    saved, stepper = start(small, tmp_path, ("training.averaging=0.9",), ("training.averaging=0.999",))
    age = int(saved["averaged"]["n_averaged"])
    assert age == 6
    old = [value.clone() for value in stepper.averaged.module.parameters()]
    stepper.advance()
    share = (2 + age) / (11 + age)
    for before, now, average in zip(
        old, stepper.generator.parameters(), stepper.averaged.module.parameters(), strict=True
    ):
        torch.testing.assert_close(average, share * before + (1 - share) * now)
    assert int(stepper.state_dict()["averaged"]["n_averaged"]) == age + 1


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_class_table_is_known_however_torch_normalises_it(wrap: Any) -> None:
    def network(classes: int) -> nn.Module:
        return nn.ModuleDict({"layer": nn.Linear(4, 3), "table": wrap(nn.Embedding(classes, 3))})

    old, new = network(2), network(5)
    unmatched = _load_matching(new, "critic", {"critic": old.state_dict()}, Path("first"))
    assert [key.rpartition("_")[2] for key in unmatched] == ["u"]  # of the power iteration, one number for each class
    (key,) = [key for key in new.state_dict() if key.endswith(("orig", "original"))]
    table = new.state_dict()[key]
    torch.testing.assert_close(table, old.state_dict()[key].mean(0).expand_as(table))


def test_frozen_layers_of_the_critic_keep_their_weights(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    more = small(f"training.start_from={run.path}", "training.freeze=2")
    frozen = gankit.train(gankit.load("wgan-gp", *more), tmp_path / "frozen")
    before, after = state(run.path)["critic"], state(frozen.path)["critic"]
    same = [key for key in before if torch.equal(before[key], after[key]) and key != "linear.bias"]  # has no gradient
    assert same == ["stem.conv1.weight", "stem.conv1.bias", "stem.conv2.weight", "stem.conv2.bias"]
    with pytest.raises(PartError, match=r"the critic has \d+ layers; freeze at most"):
        gankit.train(gankit.load("wgan-gp", *more, "training.freeze=99"), tmp_path / "x")
    with pytest.raises(PartError, match=r"set training\.start_from to the run that they come from"):
        gankit.train(gankit.load("wgan-gp", *small("training.freeze=2")), tmp_path / "x")


@pytest.mark.parametrize(
    ("overrides", "frozen"),
    [
        (['critic={name="r3gan", width=8}'], ["conv.weight", "stages.0.0.expand.weight", "stages.0.0.expand.bias"]),
        (
            ["critic.spectral=true"],
            [f"stem.conv{k}.{name}" for k in (1, 2) for name in ("bias", "parametrizations.weight.original")],
        ),
        (
            ['critic={name="dcgan", width=4}', "data.size=16", 'losses=["hinge"]'],
            ["layers.0.weight", "layers.2.weight", "layers.3.norm.weight", "layers.3.norm.bias"],
        ),
    ],
)
def test_the_layers_next_to_the_image_freeze_first(overrides: list[str], frozen: list[str], small: Small) -> None:
    """Not what a critic holds for its end, nor the bias of the layer after them."""
    experiment = gankit.load("wgan-gp", *small(*overrides, "training.start_from=runs/a", "training.freeze=2"))
    side = experiment.data.height_width or (8, 8)
    critic = build(experiment, ImageSpec(3, *side)).critic
    assert [name for name, parameter in critic.named_parameters() if not parameter.requires_grad] == frozen


def test_a_layer_that_is_used_twice_counts_once_when_layers_freeze(small: Small) -> None:
    @gankit.critics.register("twice")
    class Twice(Critic):
        def __init__(self, image: ImageSpec) -> None:
            super().__init__()
            layer = nn.Conv2d(3, 3, 1)
            self.first, self.again = nn.Sequential(layer), nn.Sequential(layer)
            self.second, self.last = nn.Conv2d(3, 3, 1), nn.Linear(3, 1)

        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.last(self.second(self.again(self.first(images))).mean((2, 3)))  # type: ignore[no-any-return]

    more = ('critic={name="twice"}', "training.start_from=runs/a", "training.freeze=2")
    critic = build(gankit.load("wgan-gp", *small(*more)), ImageSpec(3, 8, 8)).critic
    frozen = [name for name, parameter in critic.named_parameters() if not parameter.requires_grad]
    assert frozen == ["first.0.weight", "first.0.bias", "second.weight", "second.bias"]


def test_max_minutes_stops_in_good_order(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=0.00001")), tmp_path / "run")
    assert run.steps == 1
    assert not run.finished
    for _ in range(5):
        run = gankit.resume(run.path)
    assert run.finished


def test_a_clock_that_is_set_while_a_run_trains(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    jumps = [0.0, 86400.0, -86400.0, -1e9, 1e12]
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + jumps[next(calls) % len(jumps)])
    monkeypatch.setattr(tqdm.std, "time", time.time)  # which it has by name
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    overrides = small("training.max_minutes=5", "evaluation.every=1", "data.in_memory=false")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert run.finished
    assert all(0 <= row["seconds"] < 300 and row["images_per_second"] > 0 for row in run.log)
    assert gankit.resume(run.path).finished
    assert "6/6 [00:0" in terminal.getvalue()
    assert not list(tmp_path.rglob("*.lock*"))


def test_data_of_the_calling_program(small: Small, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 65535, (12, 1, 8, 8), dtype=np.uint16)
    data = gankit.wrap("dataset", images)
    run = gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=0.00001")), tmp_path / "run", data=data)
    assert run.sample(2).dtype == np.uint16
    with pytest.raises(RunError, match="resume it there with data="):
        gankit.resume(run.path)
    assert gankit.resume(run.path, data=data).steps == 2


def test_a_training_that_diverges_ends_with_a_clear_error(small: Small, tmp_path: Path) -> None:
    weight = "losses.gradient-penalty.weight={start=1.0, end=1e30, steps=1}"
    experiment = gankit.load("wgan-gp", *small(weight, "training.optimizer=SGD"))
    with pytest.raises(RunError, match="diverged by step"):
        gankit.train(experiment, tmp_path / "run")


def test_refusals_write_nothing(small: Small, tmp_path: Path) -> None:
    refused = {
        "mixes the samples": ['critic={name="dcgan"}', "data.size=16"],
        "cannot use labels": ["generator.name=dcgan", "data.conditional=true"],
        "trains the generator": ['losses=["gradient-penalty"]'],
        "needs an Augment": ['losses=["hinge", "consistency"]'],
        "does not fit images 30 high": ["data.size=30"],
        "refuses them": ["training.optimizer_options={momentom=1}"],
        "cannot be used here": ["training.device=cuda:9"],
        "there is no run here": ["training.start_from=nowhere"],
        "no numeric column 'age'": ['data.conditional=["age"]'],
        "41 images are asked for": ["data.subset=41"],
        "does not record how many raters agreed": ["data.min_agreement=0.8"],
        "no split 'test'": ["data.split=test"],
        "no labels to fade in": ["training.label_fade=[0, 4]"],
        "needs a ClassHead, .*set critic.class_head=true": [
            "data.conditional=true",
            'losses=["hinge", "auxiliary-class"]',
        ],
        "needs classes: set data.conditional": ['losses=["wasserstein", "auxiliary-class"]'],
        "class_head needs classes": ["critic.class_head=true"],
        "critic resnet would ignore the labels": ["critic.projection=false", "data.conditional=true"],
    }
    for message, overrides in refused.items():
        with pytest.raises(GankitError, match=message) as caught:
            gankit.train(gankit.load("wgan-gp", *small(*overrides)), tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken(small: Small, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not empty; choose another"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_evaluation_while_training(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("evaluation.every=2", "evaluation.count=16")), tmp_path / "run")
    assert ["metrics" in row for row in run.log] == [False, True]
    assert run.log[1]["metrics"]["frechet"] > 0


def test_tensorboard(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.tensorboard=true")), tmp_path / "run")
    assert list((run.path / "tensorboard").iterdir())


def test_a_loss_that_needs_an_ability(small: Small, tmp_path: Path) -> None:
    @gankit.losses.register("needs-a-head")
    class NeedsHead(Loss):
        needs = (gankit.interfaces.ClassHead,)

        def generator(self, turn: Turn) -> Tensor:
            return turn.fake.mean()

    with pytest.raises(PartError, match="needs a ClassHead"):
        gankit.train(gankit.load("wgan-gp", *small('losses=["hinge", "needs-a-head"]')), tmp_path / "run")


@pytest.mark.parametrize(("scope", "said"), [("critic", False), ("critic-turn", True), ("real", True)])
def test_risky_scopes_are_allowed_with_a_warning(
    scope: str, said: bool, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small("augment.name=diffaugment", f"augment.scope={scope}", "training.steps=1")
    gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert (f"warning: augment.scope={scope}" in capsys.readouterr().err) == said


@pytest.mark.timeout(120)  # a thread that waits for the training's draws would wait for ever
def test_a_run_can_be_evaluated_while_another_one_trains(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small())
    run = gankit.train(experiment, tmp_path / "first")
    alone = gankit.evaluate(run, count=20, features="pixels", metrics="kid")
    during: list[Any] = []
    gankit.train(
        experiment, tmp_path / "second",
        on_tick=lambda row: during.append(gankit.evaluate(run, count=20, features="pixels", metrics="kid")),
    )  # fmt: skip
    assert [values["metrics"] for values in during] == [alone["metrics"]] * 2
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_no_checkpoint_holds_weights_that_are_not_finite(small: Small, tmp_path: Path) -> None:
    """Also where the losses are looked at more rarely than checkpoints are written."""
    weight = "losses.gradient-penalty.weight={start=1.0, end=1e30, steps=1}"
    options = [weight, "training.optimizer=SGD", "training.tick_every=1000"]
    with pytest.raises(RunError, match=r"diverged by step 4 \(.*critic"):
        gankit.train(gankit.load("wgan-gp", *small(*options)), tmp_path / "run")
    assert checkpoint.restore(tmp_path / "run" / "checkpoints") is None


def test_grids_show_the_same_conditions_at_every_step(small: Small, tmp_path: Path) -> None:
    trainer = Trainer(gankit.load("wgan-gp", *small('data.conditional=["severity"]')), tmp_path, None)
    shown = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        shown.append(trainer.evaluator.grid_labels())
    assert shown[0] is not None
    assert torch.equal(shown[0], shown[1])  # type: ignore[arg-type]
    rows = shown[0].view(8, 8)
    assert (rows == rows[:, :1]).all()
    assert (rows[1:] >= rows[:-1]).all()
    assert trainer.data.labels is not None
    assert (rows[0, 0], rows[-1, 0]) == (trainer.data.labels.min(), trainer.data.labels.max())


def test_an_out_that_is_a_file(small: Small, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("thesis")
    with pytest.raises(RunError, match="run is a file; choose another --out"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
