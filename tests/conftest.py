"""What tests share: a cache and a registry of their own, one thread, and small experiments."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    import gankit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("GANKIT_REQUIRE_BROWSER") == "1"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


# Files that take longest come first, so that no process is left alone with one of them at the end; then those of which
# any process that is free takes the next test, since their tests share nothing that takes long to make. Of the two that
# need the generated pages, test_site.py comes early, so that test_docs.py does not wait for it.
LONGEST = (
    "test_shipped_plugins.py", "test_distributed.py", "test_site.py", "test_conformance.py",
    "test_installed_plugins.py", "test_agreement_study.py", "test_augmentation_folds.py", "test_training.py",
    "test_resume.py", "test_permutations.py", "test_uncertainty.py", "test_strangers_gradients.py",
    "test_reliability.py", "test_agreement_effects.py", "test_augmentation_study.py", "test_classifier_study.py",
)  # fmt: skip
DIVIDED = ("test_examples_measured.py", "test_examples.py", "test_docs_how_to.py", "test_docs_pages.py", "test_ring.py")


def pytest_configure(config: pytest.Config) -> None:
    """Load what all tests use, seconds long and not without warnings; not in a process that only hands tests out."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two tests at a time must not fight for two cores
    if not config.getoption("numprocesses", None):
        importlib.import_module("gankit.testing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate((*LONGEST, *DIVIDED))}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is loaded by now stays: to look through it again and again takes a tenth of the tests' time


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `--dist loadfile`: a file's tests run one after another in one process, but for those of `DIVIDED`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return nodeid if Path(file).name in DIVIDED else file

    return Files(config, log)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared_folder: Path) -> Iterator[None]:
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANKIT_CACHE", str(shared_folder / "cache"))
        torch.set_num_threads(1)  # two tests at a time must not fight for two cores
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_rehearsal_of_a_kind() -> Iterator[None]:
    from rehearsals import shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gankit.training.trainer.rehearse", shared(of_strangers=False))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_trainings() -> Iterator[None]:
    from short_trainings import SHORTER

    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in SHORTER.items():
            patch.setattr(module, name, value)
        yield


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """Parts that a test registers are gone after it; another number of threads, too, which would round differently."""
    import torch

    from gankit.testing import isolated_registry

    torch.set_num_threads(1)
    with isolated_registry():
        yield


@pytest.fixture(autouse=True)
def _own_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that are marked as about the CPU train there, whatever the machine has."""
    if request.node.get_closest_marker("cpu"):
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        there = torch.backends.mps.is_available  # torch's compiler, once it is imported, unwraps it
        monkeypatch.setattr(torch.backends.mps, "is_available", functools.wraps(there)(lambda: False))


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """The path of a real test set by its place below shared/data; skips where the folder is absent."""

    def find(place: str) -> Path:
        path = SHARED_DATA / place
        if not path.exists():
            pytest.skip(f"{place} is not here")
        return path

    return find


def write_arrays(path: Path) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] += 150
    np.savez(path, images=images, labels=labels, groups=np.arange(40) // 4, severity=draw.normal(size=40),
             severe=draw.random(40))  # fmt: skip


def small_training(arrays: Path, *more: str) -> list[str]:
    return [
        "data.name=npz", f"data.path={arrays}", "generator.width=4", "generator.latent_dim=6", "critic.width=4",
        "critic.flat_blocks=1", "training.steps=6", "training.batch=4", "training.generator_batch=4",
        "training.critic_steps=2", "training.tick_every=3", "training.sample_every=6",
        "training.checkpoint_every=4", "evaluation.features=pixels", 'evaluation.metrics=["frechet"]', *more,
    ]  # fmt: skip


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """An npz file of 40 colour images of 8x8 in two classes: bright left halves, bright right halves."""
    path = tmp_path / "arrays.npz"
    write_arrays(path)
    return path


@pytest.fixture
def small(arrays: Path) -> Callable[..., list[str]]:
    """Overrides of the recipe wgan-gp that make a training of a second; more can be added."""
    return functools.partial(small_training, arrays)


@pytest.fixture(scope="session")
def _small_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("small")
    write_arrays(folder / "arrays.npz")

    @functools.cache
    def trained(conditional: str) -> Path:
        import gankit

        settings = small_training(folder / "arrays.npz", f"data.conditional={conditional}")
        return gankit.train(gankit.load("wgan-gp", *settings), folder / conditional).path

    return trained


@pytest.fixture
def plain(_small_run: Callable[[str], Path], tmp_path: Path) -> gankit.Run:
    """A run of `small` in a folder of this test's own, without labels.

    Its experiment names the session's arrays.npz, which no test may change.
    """
    import gankit

    return gankit.open_run(shutil.copytree(_small_run("false"), tmp_path / "plain"))


@pytest.fixture
def conditional(_small_run: Callable[[str], Path], tmp_path: Path) -> gankit.Run:
    """A run of `small` in a folder of this test's own, on classes; its experiment names the session's arrays, too."""
    import gankit

    return gankit.open_run(shutil.copytree(_small_run("true"), tmp_path / "conditional"))


@pytest.fixture(scope="session")
def one_step_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, gankit.Run]:
    """Trained for one step: without labels, on classes, on a float condition, and on classes with held-out images.

    All tests share them, and the d.npz that their experiments name: no test may write there.
    """
    import numpy as np

    import gankit

    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (40, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 4] += 150
    np.savez(folder / "d.npz", images=images, labels=labels, class_names=np.array(["left", "right"]),
             severity=draw.normal(5, 2, 40))  # fmt: skip
    small = ["data.name=npz", f"data.path={folder}/d.npz", "generator.width=4", "generator.latent_dim=6",
             "critic.width=4", "critic.flat_blocks=1", "training.steps=1", "training.batch=4",
             "training.generator_batch=4", "training.critic_steps=1", "evaluation.features=pixels"]  # fmt: skip
    made = {
        "plain": [], "classes": ["data.conditional=true"], "condition": ['data.conditional=["severity"]'],
        "held": ["data.conditional=true", "data.held_out=0.25"],
    }  # fmt: skip
    return {name: gankit.train(gankit.load("wgan-gp", *small, *more), folder / name) for name, more in made.items()}


@pytest.fixture
def copied_run(one_step_runs: dict[str, gankit.Run], tmp_path: Path) -> gankit.Run:
    """A run on classes in a folder of this test's own; its experiment names the session's d.npz."""
    import gankit

    return gankit.open_run(shutil.copytree(one_step_runs["held"].path, tmp_path / "own"))


@pytest.fixture(scope="session")
def generated_docs(shared_folder: Path) -> Path:
    """A folder with what `docs/generate.py` writes below `docs`; made once."""
    docs = Path(__file__).parents[1] / "docs"
    folder = shared_folder / "generated-docs"
    with FileLock(folder.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        if not folder.is_dir():
            patch.syspath_prepend(docs)
            importlib.import_module("mistakes")
            importlib.import_module("generate").write(folder.with_suffix(".new") / "reference")
            folder.with_suffix(".new").rename(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; where it is missing the tests are skipped, or fail where GANKIT_REQUIRE_BROWSER=1 is set."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        assert not REQUIRED, "playwright is not installed"
        pytest.skip("playwright is not installed")
    if CHROMIUM is None:
        assert not REQUIRED, "chromium is not installed"
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()
