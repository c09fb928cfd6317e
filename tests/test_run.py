"""Samples of a run: the same everywhere, alone or together, labelled, at the data's own depth."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import processes
import pytest
import torch
from PIL import Image

import gankit
from gankit import seeds
from gankit.errors import GankitError, RunError
from gankit.report import write_report
from gankit.runs import checkpoint, networks, walk
from gankit.runs.networks import generate_batches, recompute_norms
from gankit.runs.record import check_same_data, check_same_images, record_run
from gankit.runs.sampling import write_samples
from gankit.terminal.text import progress_bar

Small = Callable[..., list[str]]


def test_latents_are_the_same_everywhere() -> None:
    expected = torch.tensor([[-0.3686, 0.0429], [0.4457, 1.7162], [-0.2388, -0.9542]])
    drawn = seeds.latents(3, 3, 2)
    assert torch.equal(seeds.latents(3, 2, 2), drawn[:2])
    assert not torch.equal(seeds.latents(4, 3, 2), drawn)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)


def test_a_sample_depends_only_on_seed_number_and_label(plain: gankit.Run, conditional: gankit.Run) -> None:
    many = plain.sample(70, seed=5)
    assert many.shape == (70, 3, 8, 8)
    assert many.dtype == np.uint8
    np.testing.assert_array_equal(plain.sample(3, seed=5), many[:3])
    assert not np.array_equal(plain.sample(3, seed=6), many[:3])
    mixed = conditional.sample(4, labels=[0, 1, 0, 1], seed=5).astype(int)
    zeros = conditional.sample(4, labels=0, seed=5).astype(int)
    np.testing.assert_allclose(mixed[[0, 2]], zeros[[0, 2]], atol=1)
    drawn = conditional.draw(60, None, 5)[1]
    assert drawn is not None
    assert torch.equal(conditional.draw(9, None, 5)[1], drawn[:9])  # type: ignore[arg-type]
    assert set(drawn.tolist()) == {0, 1}


def test_another_process_draws_the_same(plain: gankit.Run, tmp_path: Path) -> None:
    code = (
        "import gankit, numpy, sys, torch; torch.set_num_threads(2); torch.manual_seed(99); "
        "numpy.save(sys.argv[2], gankit.open_run(sys.argv[1]).sample(5, seed=2))"
    )
    assert processes.run(str(plain.path), str(tmp_path / "there.npy"), code=code).returncode == 0
    there = np.load(tmp_path / "there.npy").astype(int)
    np.testing.assert_allclose(there, plain.sample(5, seed=2).astype(int), atol=1)


def test_networks_of_a_run(plain: gankit.Run) -> None:
    assert not plain.generator.training
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    assert plain.critic(images).shape == (4,)
    assert not any(p.requires_grad for p in (*plain.generator.parameters(), *plain.critic.parameters()))


def test_statistics_settled_for_the_weights_equal_those_of_a_large_batch() -> None:
    torch.manual_seed(0)
    generator = gankit.build("generator", "resnet", gankit.ImageSpec(1, 8, 8), width=4, latent_dim=6)
    recompute_norms(generator, 6, None, seed=0, n_batches=40)
    z = torch.randn(4096, 6)
    settled = torch.cat(list(generate_batches(generator, z, None)))
    generator.train()
    with torch.no_grad():
        batch = generator(z)
    assert (settled - batch).abs().mean() < 0.02
    norms = [m for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms)


def test_labels_in_many_forms_and_those_that_do_not_fit(conditional: gankit.Run) -> None:
    expected = conditional.sample(2, labels=1)
    forms: list[Any] = [
        torch.tensor(1),
        np.array(1),
        1.0,
        "1",
        [1],
        [1, "1"],
        np.float32([1, 1]),
        torch.ones(2).bfloat16(),
    ]
    for labels in forms:
        np.testing.assert_array_equal(conditional.sample(2, labels=labels), expected)
    assert conditional.sample(0, labels=1).shape == (0, *expected.shape[1:])
    misfits: list[tuple[Any, str]] = [
        ("dog", "no class 'dog' .* known: 0 0, 1 1"),
        (2, "no class 2"),
        ([0, 1, 0], "3 labels for 2 samples"),
        ([0, 1.5], "no class 1.5"),
        ([[0], [1]], r"no class \[0\]"),
        ([[0], [0, 1]], "labels cannot be an array: its rows have several lengths"),
    ]
    for labels, message in misfits:
        with pytest.raises(GankitError, match=message):
            conditional.sample(2, labels=labels)


def test_labels_for_a_run_without(plain: gankit.Run) -> None:
    with pytest.raises(RunError, match="trained without labels"):
        plain.sample(2, labels=0)
    with pytest.raises(RunError, match="-1 images cannot be drawn"):
        plain.sample(-1)
    with pytest.raises(GankitError, match="-3 images cannot be drawn"):
        gankit.evaluate(plain, count=-3)
    with pytest.raises(RunError, match="too much for the memory"):
        walk.write_walk(plain, plain.path / "walk", stops=10**5, frames=10**5)


def test_long_drawing_shows_how_far_it_is(plain: gankit.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def bar(*arguments: Any, desc: str = "", **options: Any) -> Any:
        shown.append(desc)
        return progress_bar(*arguments, desc=desc, **options)

    for module in (networks, walk):
        monkeypatch.setattr(module, "progress_bar", bar)
    plain.sample(2)
    walk.write_walk(plain, plain.path / "walk", stops=2, frames=1)
    assert shown == ["drawing", "drawing", "animating"]


def test_a_generator_that_cannot_truncate(plain: gankit.Run) -> None:
    assert np.array_equal(plain.sample(2, truncation=1.0), plain.sample(2))
    with pytest.raises(RunError, match=r"generator resnet cannot truncate: leave truncation at 1"):
        plain.sample(2, truncation=0.7)


def test_what_cannot_be_opened_as_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"a": 1})
    (tmp_path / "step-00000002.pt").mkdir()
    restored = checkpoint.restore(tmp_path)
    assert restored is not None
    assert restored.step == 1
    assert "step-00000002.pt cannot be read (" in restored.skipped[0]


def test_conditions_in_their_own_units(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small('data.conditional=["severity"]')), tmp_path / "run")
    record = run.experiment.run
    assert record is not None
    mean, scale = record.condition_mean[0], record.condition_scale[0]
    encoded = run.encode_labels(2, [mean + 2 * scale])
    torch.testing.assert_close(encoded, torch.full((2, 1), 2.0))
    np.testing.assert_allclose(run.decode_conditions(encoded), mean + 2 * scale, rtol=1e-6)  # type: ignore[arg-type]
    assert (run.decode_conditions(run.encode_labels(1, [0.0])) == 0).all()  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"shape \(2, 2\)"):
        run.sample(2, labels=[1.0, 2.0])
    other = record.model_copy(update={"condition_mean": [], "condition_scale": []})
    with pytest.raises(RunError, match=r"condition_mean was \[.+\], is \[\]"):
        check_same_data(run.path, record, other)
    turned = record.model_copy(update={"class_names": record.class_names[::-1]})
    with pytest.raises(RunError, match=r"class_names was \[.+\], is \[.+\] \(the same in another order\)\); put"):
        check_same_data(run.path, record, turned)
    for wrong in ("severe", [math.nan], [None]):
        with pytest.raises(RunError, match="conditions must be 1 finite numbers"):
            run.sample(2, labels=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "rounding"), [("uint8", 1.0), ("uint16", 1.0), ("float32", 0.01)])
def test_images_of_low_contrast_cannot_be_exchanged_unseen(dtype: str, rounding: float) -> None:
    """Their means differ by a few grey levels, less than a hundredth of the range of 16 bits."""
    draw = np.random.default_rng(0)
    first, second = (
        np.round(draw.uniform(40, 60, (24, 1, 1, 1)) + draw.uniform(0, 5, (24, 1, 8, 8))).astype(dtype)
        for _ in range(2)
    )
    value_range = {"uint8": (0, 255), "uint16": (0, 65535), "float32": (-1024, 3071)}[dtype]

    def data(images: Any) -> gankit.Dataset:
        made: gankit.Dataset = gankit.wrap("dataset", images, value_range=value_range)
        return made

    image = {"channels": 1, "height": 8, "width": 8}
    before = record_run(gankit.load("wgan-gp"), data(first), image=image, device="cpu", held_out=0)
    older = before.model_copy(update={"image_means": [round(mean, 5) for mean in before.image_means]})
    rounded = first.copy()
    rounded[:, :, :3] += np.array(rounding, dtype)  # three of eight rows
    for record in (before, older):
        check_same_images(Path("run"), record, data(first), None)
        check_same_images(Path("run"), record, data(rounded), None)
        with pytest.raises(RunError, match="as many images, but other ones"):
            check_same_images(Path("run"), record, data(second), None)
    one = first.copy()
    one[11] += np.array(1, dtype)
    with pytest.raises(RunError, match="as many images, but other ones"):
        check_same_images(Path("run"), before, data(one), None)


@pytest.mark.parametrize(
    ("was", "edited", "message"),
    [
        ("value_range = [0.0, 255.0]", "value_range = [0.0, 100.0]", r"range was \[0.0, 255.0\], is \[0.0, 100.0\]"),
        ("value_range = [0.0, 255.0]", "value_range = [255.0, 0.0]", "two numbers, the smaller one first"),
        ('dtype = "uint8"', 'dtype = "uint16"', r"run\.dtype was 'uint8', is 'uint16'; put it back"),
        ('class_names = ["0", "1"]', 'class_names = ["1", "0"]', r"run.class_names was .+; put it back"),
        ("label_counts = [20, 20]", "label_counts = [20, 20, 1]", "label_counts need a value for each of 2 classes"),
        ("label_counts = [20, 20]", "label_counts = [20, 19]", "label_counts counts 39 of 40 images"),
        ("label_counts = [20, 20]", "label_counts = [-1, 20]", r"label_counts\.0: .+ greater than or equal to 0"),
        ("images = 40", "images = 0", r"run\.images: .+ greater than or equal to 1"),
        ("threads = 1", "threads = 1000000", r"run\.threads: .+ less than or equal to 4096"),
    ],
)  # fmt: skip
def test_a_record_that_was_changed_by_hand_is_refused(
    was: str, edited: str, message: str, conditional: gankit.Run
) -> None:
    file = conditional.path / "experiment.toml"
    settings, record = file.read_text().split("[run]\n")
    assert was in record
    file.write_text(f"{settings}[run]\n{record.replace(was, edited, 1)}")
    with pytest.raises(GankitError, match=message):
        gankit.open_run(conditional.path).sample(2)


def test_written_samples_hold_the_same_pixels(conditional: gankit.Run, tmp_path: Path) -> None:
    folder = write_samples(conditional, tmp_path / "out", 5, "1", seed=3)
    images = [np.asarray(Image.open(folder / f"{i:05d}.png")).transpose(2, 0, 1) for i in range(5)]
    np.testing.assert_array_equal(images, conditional.sample(5, labels=1, seed=3))
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    assert rows == [{"file": f"{i:05d}.png", "label": "1"} for i in range(5)]
    dataset = gankit.build("dataset", "folder", None, path=str(folder), unlisted="skip")
    assert len(dataset) == 5


@pytest.mark.parametrize(("dtype", "channels"), [("uint16", 1), ("uint16", 3), ("float32", 1)])
def test_depth_is_kept(dtype: str, channels: int, small: Small, tmp_path: Path) -> None:
    draw = np.random.default_rng(0).uniform(100, 4000, (12, channels, 8, 8)).astype(dtype)
    data = gankit.wrap("dataset", draw, value_range=(0, 4095))
    run = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run", data=data)
    images = run.sample(3)
    assert images.dtype == dtype
    assert images.max() > 300
    folder = write_samples(run, tmp_path / "out", 3)
    if (dtype, channels) == ("uint16", 1):
        assert np.array_equal(np.asarray(Image.open(folder / "00001.png")), images[1, 0])
    else:
        assert np.array_equal(np.load(folder / "00001.npy"), images[1])


def test_samples_are_never_augmented(small: Small, tmp_path: Path) -> None:
    """Cutout blanks a quarter; the averaged generator's samples are its plain output."""
    run = gankit.train(gankit.load("wgan-gp", *small("augment.name=diffaugment")), tmp_path / "run")
    latents, labels = run.draw(4, None, 0)
    with torch.no_grad():
        plain = run.generator(latents.to(run.device), labels).cpu()
    expected = np.rint((plain.double().numpy() + 1) * 127.5)
    np.testing.assert_allclose(run.sample(4).astype(float), expected, atol=1)


@pytest.mark.parametrize("path", ["mine", "run/mine", "runs", "runs/min"])
def test_a_path_that_leads_to_no_run_is_answered_with_the_run_that_is_there(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/experiment.toml").touch()
    with pytest.raises(RunError, match=r"there is no run here .*; did you mean runs/mine\?$"):
        gankit.open_run(path)


def test_what_is_no_run(tmp_path: Path, small: Small) -> None:
    with pytest.raises(RunError, match="no run here"):
        gankit.open_run(tmp_path)
    run = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
    (run.path / "generator.safetensors").write_bytes(b"half a file")
    with pytest.raises(RunError, match="was not exported by gankit, or is damaged"):
        gankit.open_run(run.path).sample(1)
    for path in (run.path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match="none of 2 checkpoints can be read"):
        gankit.resume(run.path)
    (run.path / "experiment.toml").write_text("[data")
    with pytest.raises(GankitError, match=r"experiment\.toml: not TOML: Expected ']'"):
        gankit.open_run(run.path)


def test_drawn_conditions_are_those_of_training_images(small: Small, tmp_path: Path) -> None:
    """Whole rows, in their own units: not what a normal distribution of the same mean and spread would give."""
    images = np.random.default_rng(0).integers(0, 255, (30, 1, 8, 8), dtype=np.uint8)
    severity = np.array([0.0] * 27 + [10.0] * 3)
    data = gankit.wrap("dataset", images, facts={"severity": severity, "twice": 2 * severity})
    experiment = gankit.load("wgan-gp", *small('data.conditional=["severity", "twice"]'))
    run = gankit.train(experiment, tmp_path / "run", data=data)
    encoded = run.draw(400, None, seed=1)[1]
    assert encoded is not None
    drawn = run.decode_conditions(encoded)
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0], atol=1e-5)
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 0].round(-1), atol=1e-5)
    assert 0.05 < (drawn[:, 0] > 5).mean() < 0.16
    assert torch.equal(run.draw(9, None, 1)[1], encoded[:9])  # type: ignore[arg-type]


def test_weights_that_do_not_fit_an_edited_experiment(plain: gankit.Run) -> None:
    file = plain.path / "experiment.toml"
    file.write_text(file.read_text().replace("width = 4", "width = 8"))
    edited = gankit.open_run(plain.path)
    for network in ("generator", "critic"):
        with pytest.raises(RunError, match=rf"the saved {network} does not fit the experiment") as caught:
            getattr(edited, network)
        assert "\n" not in str(caught.value)


def test_weights_whose_imaginary_parts_would_be_lost_are_refused(plain: gankit.Run) -> None:
    weights, config = checkpoint.read_export(plain.exported)
    # As a forger would write it, with a digest that fits.
    forged = SimpleNamespace(state_dict=lambda: {name: tensor.to(torch.complex64) for name, tensor in weights.items()})
    checkpoint.export(plain.exported, cast(torch.nn.Module, forged), config)
    said = r"saved generator does not fit .* numbers of torch\.complex64, and the network's are of torch\.float32"
    with pytest.raises(RunError, match=said):
        _ = gankit.open_run(plain.path).generator


def test_a_log_that_ends_in_half_a_line(plain: gankit.Run) -> None:
    rows = plain.log
    with open(plain.path / "log.jsonl", "a") as file:
        file.write('garbage}\n{"step": 7, "losses": {"a": 1}')
    with open(plain.path / "log.jsonl", "ab") as file_of_bytes:
        file_of_bytes.write(b"\n\xff\xfe\n")
    assert plain.log == rows


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"step": true}', '{"step": 7.5}', '{"step": -1}', '{"step": 7, "critic/a": "x"}',
     '{"step": 7, "critic/a": [1]}', '{"step": 7, "metrics": [1]}', '{"step": 7, "metrics": {"frechet": "x"}}'],
    ids=range(8),
)  # fmt: skip
def test_lines_of_a_log_that_no_training_wrote_are_passed_over(plain: gankit.Run, line: str) -> None:
    rows = plain.log
    with open(plain.path / "log.jsonl", "a") as file:
        file.write(line + '\n{"step": 7, "critic/a": 1e308}\n')
    assert plain.log == [*rows, {"step": 7, "critic/a": 1e308}]
    assert write_report(plain).is_file()


def test_a_generator_that_draws_noise_gives_the_same_images_for_a_seed() -> None:
    class Noisy(gankit.Generator):
        latent_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)

        def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
            noisy: torch.Tensor = self.linear(z) + torch.randn(len(z), 4)
            return noisy.tanh().view(-1, 1, 2, 2)

    generator, z = Noisy(), torch.randn(100, 3)
    before = torch.random.get_rng_state()
    images = torch.cat(list(generate_batches(generator, z, None)))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(torch.cat(list(generate_batches(generator, z, None))), images)


def test_the_number_of_steps_needs_no_tensor_and_is_that_of_the_newest_readable_checkpoint(
    plain: gankit.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plain.path / "checkpoints"
    four, six = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(torch._C.PyTorchFileReader, "get_storage_from_record", None)
        with pytest.raises(RunError, match="cannot be read"):
            checkpoint.restore(folder)
        assert plain.steps == 6
    whole = six.read_bytes()
    for content in (b"", whole[:1000], whole[:-1000], b"x" * len(whole)):
        six.write_bytes(content)
        restored = checkpoint.restore(folder)
        assert restored is not None
        assert plain.steps == restored.step == 4
    four.unlink()
    with pytest.raises(RunError, match="none of 1 checkpoints can be read"):
        _ = plain.steps


def test_two_checkpoints_stay_however_often_a_run_is_stopped(tmp_path: Path) -> None:
    left = []
    for step in (1, 3, 5, 10, 12, 20, 25):
        checkpoint.save(tmp_path, step, {}, every=10)
        left.append([int(path.stem[5:]) for path in sorted(tmp_path.iterdir())])
    assert left == [[1], [1, 3], [3, 5], [5, 10], [10, 12], [10, 20], [20, 25]]


def test_files_of_a_newer_gankit_are_refused(plain: gankit.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config = checkpoint.read_export(plain.exported)
    assert config["format"] == checkpoint.FORMAT
    checkpoint.export(plain.exported, plain.generator, config | {"format": checkpoint.FORMAT + 1})
    with pytest.raises(RunError, match=r"written by a newer gankit \(format \d+\): upgrade gankit"):
        _ = gankit.open_run(plain.path).generator
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        checkpoint.save(plain.path / "checkpoints", 6, {})
    for read in (lambda: plain.steps, lambda: gankit.resume(plain.path)):
        with pytest.raises(RunError, match="written by a newer gankit"):
            read()
