"""What all parts share, as torch's number of threads: a part that changes it is refused, and it is put back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import IMAGES, Painter, Scoring, Trained
from torch import Tensor, nn

import gankit
from gankit import seeds
from gankit.errors import PartError
from gankit.runs.networks import call_part

trained = strangers.trained
CHANGES: dict[str, Callable[[], Any]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's number of CPU threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's deterministic mode": lambda: torch.use_deterministic_algorithms(True),
    "NumPy's handling of errors": lambda: np.seterr(invalid="raise"),
    "the working directory": lambda: os.chdir("/"),
    "what Ctrl-C does": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "torch's seed": lambda: torch.manual_seed(0),
}


def shared() -> list[Any]:
    return [
        torch.get_default_dtype(), torch.empty(0).device, torch.get_num_threads(),
        torch.get_deterministic_debug_mode(), np.geterr(), os.getcwd(), signal.getsignal(signal.SIGINT),
        torch.is_grad_enabled(), torch.get_rng_state().tolist(),
    ]  # fmt: skip


@pytest.mark.cpu
@pytest.mark.parametrize("what", CHANGES)
def test_a_part_that_changes_what_all_share_is_refused(
    what: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # an earlier test may have used a GPU

    class Changing(Painter):
        def forward(self, z: Tensor) -> Any:
            CHANGES[what]()
            return super().forward(z)

    class Built(Scoring):
        def __init__(self) -> None:
            super().__init__()
            CHANGES[what]()

    class Term(gankit.Loss):
        def critic(self, turn: gankit.Turn) -> Tensor:
            CHANGES[what]()
            return turn.real_scores.mean()

    before = shared()
    for kind, part, names in (
        ("generator", gankit.wrap("generator", Changing, latent_dim=16), "generator mine"),
        ("critic", gankit.wrap("critic", Built), "critic mine"),
        ("loss", Term, "(loss mine|one of generator resnet, critic resnet, loss wasserstein, loss mine)"),
    ):
        with pytest.raises(PartError, match=f"^{names} changes {what}, which all parts share: leave it as it is"):
            trained(**{kind: part})
        assert shared() == before


def test_a_part_that_ends_the_making_of_gradients_is_refused(trained: Trained) -> None:
    class Graphless(Scoring):
        def forward(self, images: Tensor) -> Any:
            torch.set_grad_enabled(False)
            return super().forward(images)

    with pytest.raises(PartError, match=r"critic mine, .*changes torch's gradient mode, which all parts share"):
        trained(critic=gankit.wrap("critic", Graphless))
    assert torch.is_grad_enabled()


def test_a_seed_is_put_back_so_that_a_second_build_is_refused_too(trained: Trained) -> None:
    class Seeding(Scoring):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)

    class Nested(gankit.Loss):
        def __init__(self, *, augment: gankit.Augment) -> None:
            pass

    for kind, made in ("critic", gankit.wrap("critic", Seeding)), ("augment", gankit.wrap("augment", Seeding)):
        getattr(gankit, f"{kind}s").register("seeding")(made)
    gankit.losses.register("nested")(Nested)
    image, state = gankit.ImageSpec(3, 16, 16), torch.get_rng_state()
    for _ in range(2):
        with seeds.own_draws([]):
            seeds.seed_torch(1, "initial weights")  # as when an experiment is built
            with pytest.raises(PartError, match=r"^critic seeding changes torch's seed"):
                gankit.build("critic", "seeding", image)
            with pytest.raises(PartError, match=r"^augment seeding changes torch's seed, [^;]*$"):
                gankit.build("loss", "nested", image, augment="seeding")
        assert torch.equal(torch.get_rng_state(), state)


def test_the_device_is_not_watched_where_the_program_has_a_default_of_its_own() -> None:
    def moving(images: Tensor) -> Tensor:
        torch.set_default_device("meta" if torch.empty(0).device.type == "cpu" else "cpu")
        return images

    image = torch.ones(1)
    try:
        torch.set_default_device("meta")
        assert call_part("features mine", moving, image) is image
        assert torch.empty(0).device.type == "cpu"
    finally:
        torch.set_default_device(None)
    with pytest.raises(PartError, match="features mine changes torch's default device"):
        call_part("features mine", moving, image)
    assert torch.zeros(1).device.type == "cpu"


class Averages(gankit.Features):
    dim = 3

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.001)  # so that others run meanwhile
        return images.mean((2, 3))


@contextmanager
def restless() -> Iterator[None]:
    """Another thread that seeds torch, as a training does in each step, and changes all other settings."""
    over, begun = threading.Event(), threading.Event()

    def change() -> None:
        with seeds.own_draws():
            for step in range(10**9):
                if over.is_set():
                    return
                seeds.seed_torch(0, "step", step)
                torch.set_default_dtype((torch.float32, torch.float64)[step % 2])
                torch.set_deterministic_debug_mode(step % 2)
                os.chdir(("/", home)[step % 2])
                begun.set()

    home, dtype = os.getcwd(), torch.get_default_dtype()
    thread = threading.Thread(target=change)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        over.set()
        thread.join()
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(0)
        os.chdir(home)


def test_no_part_is_blamed_for_what_another_thread_changes() -> None:
    gankit.features.register("averages")(Averages)
    image, images = gankit.ImageSpec(3, 16, 16), torch.ones(2, 3, 16, 16)
    with restless():
        for _ in range(100):
            features = gankit.build("features", "averages", image)
            assert call_part("features averages", features, images).shape == (2, 3)
            gankit.build("metric", "frechet")


class Generated(gankit.Dataset):
    """Images that are drawn when they are read, from torch's generator, whose state is put back."""

    image, value_range, dtype = gankit.ImageSpec(3, 16, 16), (0.0, 255.0), np.dtype(np.uint8)

    @property
    def images(self) -> Any:
        return self.read(np.arange(len(self)))

    def __len__(self) -> int:
        return 512

    def read(self, indices: Any) -> Any:
        time.sleep(0.005)  # features of the images before begin meanwhile
        state = torch.get_rng_state()
        torch.manual_seed(int(indices[0]))
        time.sleep(0.01)
        drawn = torch.randint(256, (len(indices), *self.image.shape), dtype=torch.uint8).numpy()
        torch.set_rng_state(state)
        return drawn


def test_a_data_set_may_seed_torch_to_draw_and_put_it_back() -> None:
    state = torch.get_rng_state()
    data = Generated()
    assert gankit.evaluate(data, data, features=Averages(), metrics=["frechet"])
    assert torch.equal(torch.get_rng_state(), state)


def test_such_a_data_set_is_read_while_features_are_computed_in_a_training(tmp_path: Path) -> None:
    """The training has the turn to draw, and the next images are read in another thread."""

    class Slow(Averages):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.01)  # ends while the next images are drawn
            return super().forward(images)

    gankit.features.register("slow")(Slow)
    experiment = gankit.load(
        "wgan-gp", "generator.width=2", "critic.width=2", "training.steps=2", "training.batch=2",
        "training.generator_batch=2", "training.critic_steps=1", "training.tick_every=1", "training.device=cpu",
        "evaluation.every=1", "evaluation.count=256", "evaluation.subset=256", "evaluation.features=slow",
        'evaluation.metrics=["frechet"]',
    )  # fmt: skip
    run = gankit.train(experiment, tmp_path / "run", data=Generated())
    assert [sorted(row["metrics"]) for row in run.log] == [["frechet"]] * 2


@pytest.mark.skipif(os.name == "nt", reason="the working directory cannot be deleted there")
def test_a_working_directory_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaving(images: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        os.chdir("/")
        return images

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with seeds.own_draws([]):
        assert gankit.build("critic", "dcgan", gankit.ImageSpec(3, 16, 16), width=4) is not None
    assert gankit.evaluate(IMAGES, IMAGES, features="pixels", metrics=["frechet"])
    (tmp_path / "soon").mkdir()
    os.chdir(tmp_path / "soon")

    def deleting(images: Tensor) -> Tensor:
        (tmp_path / "soon").rmdir()
        return leaving(images)

    said = "^augment mine changes torch's gradient mode, the working directory, which all parts share"
    with seeds.own_draws([]), pytest.raises(PartError, match=said):
        call_part("augment mine", deleting, torch.ones(1))
    assert torch.is_grad_enabled()


def test_an_error_beside_a_change_is_named_and_one_of_the_machine_stays() -> None:
    def failing(error: Exception) -> Callable[[Tensor], Tensor]:
        def call(images: Tensor) -> Tensor:
            np.seterr(invalid="raise")
            raise error

        return call

    before = np.geterr()
    said = (
        r"^critic mine changes NumPy's handling of errors, .*; then it raised PartError: critic mine, .*: no such layer"
    )
    with pytest.raises(PartError, match=said):
        call_part("critic mine", failing(ValueError("no such layer")), torch.ones(1))
    for error in MemoryError("of the machine"), RuntimeError("CUDA error: of the machine"):
        with pytest.raises(type(error), match=r"of the machine$"):
            call_part("critic mine", failing(error), torch.ones(1))
    assert np.geterr() == before


class Constant(Scoring):
    """With random numbers that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(())

    def forward(self, images: Tensor) -> Any:
        return self.scale * super().forward(images)


class Timed(nn.Module):
    """Computes with the time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) * (1 + time.perf_counter() % 1)


UNSTEADY = "computes something else at every call for the same input and draws: use no clock"


def test_a_clock_is_told_from_mixed_samples_and_from_constants_that_are_not_saved(trained: Trained) -> None:
    with pytest.raises(PartError, match=f"^critic mine {UNSTEADY}"):
        trained(critic=gankit.wrap("critic", Timed(Scoring())))
    with pytest.raises(PartError, match=f"^generator mine {UNSTEADY}"):
        trained(generator=gankit.wrap("generator", Timed(Painter()), latent_dim=16))
    with pytest.raises(PartError, match=r"^critic mine computes something else once it is built anew with its saved"):
        trained(critic=gankit.wrap("critic", Constant))
