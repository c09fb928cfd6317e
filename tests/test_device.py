"""Which device "auto" takes, how it computes, and that all generators of random numbers are seeded; without a GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gankit
from gankit import seeds
from gankit.errors import GankitError, PartError, RunError, plain_words
from gankit.evaluation import extraction
from gankit.interfaces import Augment, Critic, ImageSpec, Loss, Turn
from gankit.nn.modes import NOT_DETERMINISTIC, deterministic, exact
from gankit.runs import networks
from gankit.runs.networks import call_part, generate_batches
from gankit.runs.run import choose_device
from gankit.training import rehearsal
from gankit.training.execution.arithmetic import arithmetic, determinism_warnings, nondeterministic_operations
from gankit.training.log import TickLog
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]
GPU = torch.device("cuda")
CPU = torch.device("cpu")


@pytest.mark.parametrize(("cuda", "mps", "taken"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_first_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, taken: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == taken


def test_an_apple_gpu_is_seeded_like_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "manual_seed", seeded.append)
    with torch.random.fork_rng(devices=[]):
        seeds.seed_torch(3, "step", 7)
    assert seeded == [seeds.derive_seed(3, "step", 7)]


def flags() -> tuple[bool, ...]:
    return (
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
    )  # fmt: skip


@pytest.fixture
def other_flags() -> Iterator[None]:
    """Of the calling program: not those that torch starts with."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32, matmul.allow_tf32 = False, True
    yield
    cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.mark.usefixtures("other_flags")
@pytest.mark.parametrize(
    ("overrides", "device", "inside"),
    [
        ([], "cpu", (False, False, False, False, True, True)),
        (["training.precision=float32-exact"], "cpu", (False, False, False, False, True, True)),
        ([], "cuda", (True, False, True, True, False, False)),
        (["training.deterministic=false"], "cuda", (True, False, False, False, True, True)),
        (["training.precision=float32-exact", "training.deterministic=false"], "cuda",
         (False, False, False, False, True, True)),
    ],
)  # fmt: skip
def test_a_training_computes_as_its_settings_say(
    overrides: list[str], device: str, inside: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()
    with arithmetic(gankit.load("wgan-gp", *overrides).training, torch.device(device)):
        assert flags() == inside
        with exact(torch.device(device)):
            assert flags() == ((False, False, True, True, False, False) if device == "cuda" else inside)
        assert flags() == inside
    assert flags() == before


def test_what_is_drawn_or_measured_is_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the draws of every GPU in use stay as they were, since every one is seeded."""
    said: list[Any] = []

    def note(device: torch.device) -> Any:
        said.append(device.type)
        return contextlib.nullcontext()

    image = ImageSpec(3, 8, 8)
    generator = gankit.generators.get("resnet")(image, width=4, latent_dim=6).eval()
    with monkeypatch.context() as patch:
        patch.setattr(networks, "exact", note)
        for name, value in {"is_initialized": True, "is_available": True, "device_count": 2}.items():
            patch.setattr(torch.cuda, name, lambda value=value: value)
        patch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
        patch.setattr(torch.random, "fork_rng", lambda gpus: said.append(list(gpus)) or contextlib.nullcontext())
        pictures = next(generate_batches(generator, torch.zeros(1, 6), None))
    assert said == [[0, 1], "cpu"]
    said.clear()
    monkeypatch.setattr("gankit.evaluation.extraction.exact", note)
    extraction.features(
        gankit.wrap("dataset", pictures.numpy(), value_range=(-1.0, 1.0)), gankit.features.get("pixels")(image)
    )
    assert said == ["cpu"]


def test_a_training_makes_its_gpu_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or contextlib.nullcontext())
    for name in ("cuda", "cuda:1", "cpu"):
        with arithmetic(gankit.load("wgan-gp").training, torch.device(name)):
            pass
    assert entered == [torch.device("cuda:1")]


PROGRAMS: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "products": [("", "medium")],
    "everything": [("generic", "tf32")],
    "both ways": [("generic", "tf32"), ("", "high")],
    "convolutions": [("cudnn.rnn", "ieee")],
    "convolutions of a CPU": [("mkldnn.conv", "bf16"), ("mkldnn.rnn", "bf16")],
}
"""What a calling program sets, in this order: newer flags by their owner, and the older one of products."""


def precisions() -> dict[str, Any]:
    """All flags; None for older ones that cannot be read, since newer ones contradict them."""

    def read(get: Callable[[], Any]) -> Any:
        with contextlib.suppress(RuntimeError):
            return get()

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    older = {"convolutions": lambda: cudnn.allow_tf32, "products": lambda: matmul.allow_tf32,
             "level": torch.get_float32_matmul_precision}  # fmt: skip
    newer = {name: owner.fp32_precision for name, owner in owners().items()}
    return newer | {name: read(get) for name, get in older.items()}


def owners() -> dict[str, Any]:
    backends: Any = torch.backends
    cudnn = backends.cudnn
    return {"generic": backends, "cudnn": cudnn, "cudnn.conv": cudnn.conv, "cudnn.rnn": cudnn.rnn,
            "cuda.matmul": backends.cuda.matmul, "mkldnn.matmul": backends.mkldnn.matmul,
            "mkldnn.conv": backends.mkldnn.conv, "mkldnn.rnn": backends.mkldnn.rnn}  # fmt: skip


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[None]:
    for owner, value in PROGRAMS[request.param]:
        if owner:
            owners()[owner].fp32_precision = value
        else:
            torch.set_float32_matmul_precision(value)
    yield
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    for name, owner in owners().items():
        owner.fp32_precision = "tf32" if name in ("cudnn.conv", "cudnn.rnn") else "none"


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("program", PROGRAMS, indirect=True)
@pytest.mark.parametrize(("device", "precision"), [(GPU, "float32"), (GPU, "float32-exact"), (CPU, "float32")])
def test_a_program_may_set_older_and_newer_flags(device: torch.device, precision: str) -> None:
    """While a training computes, all say the same, so that its parts may read and set any; then they are as before."""
    before, has_tf32 = precisions(), device == GPU and precision == "float32"
    with arithmetic(gankit.load("wgan-gp", f"training.precision={precision}").training, device):
        assert precisions() == {
            **{name: before[name] for name in ("generic", "cudnn")},
            **dict.fromkeys(("cudnn.conv", "cudnn.rnn"), "tf32" if has_tf32 else "ieee"),
            **dict.fromkeys(("cuda.matmul", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"), "ieee"),
            "convolutions": has_tf32, "products": False, "level": "highest",
        }  # fmt: skip
        with torch.backends.cudnn.flags(enabled=False), exact(device):
            assert owners()["cudnn.conv"].fp32_precision == "ieee"
    after = precisions()
    assert {name: value for name, value in after.items() if before[name] is not None} == {
        name: value for name, value in before.items() if value is not None
    }


def test_the_last_of_several_threads_brings_a_programs_flags_back() -> None:
    """Sampling and extraction need not end in the order in which they began."""
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    torch.set_float32_matmul_precision("medium")
    try:
        first.enter_context(exact(CPU))
        second.enter_context(exact(CPU))
        first.close()
        assert torch.get_float32_matmul_precision() == "highest"
        second.close()
        assert torch.get_float32_matmul_precision() == "medium"
        with arithmetic(gankit.load("wgan-gp").training, GPU):
            with exact(CPU):
                assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


class AnyOrder(Augment):
    """Uses the one operation that has no deterministic form on a CPU either."""

    def forward(self, images: Tensor) -> Tensor:
        return images.clone().put_(torch.tensor([0]), torch.zeros(1, dtype=images.dtype))


class Plain(Critic):
    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(image.channels, 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.layer(images.mean((2, 3)))
        return scores


def test_parts_without_a_deterministic_form_are_named() -> None:
    images = torch.rand(2, 3, 4, 4)
    with deterministic():
        assert nondeterministic_operations(AnyOrder(), images) == ["put_"]
        assert nondeterministic_operations(Plain(ImageSpec(3, 4, 4)), images, None) == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", NOT_DETERMINISTIC.pattern)
            AnyOrder()(images)
    augment, critic = (AnyOrder(), (images,)), (Plain(ImageSpec(3, 4, 4)), (images,))
    begin = "training.deterministic: not deterministic on this GPU: "
    step = partial(AnyOrder(), images)
    (line,) = determinism_warnings({"augment a": augment, "critic b": critic}, step)
    assert line.startswith(f"{begin}augment a (put_); ")  # a step holds the augment
    (line,) = determinism_warnings({"critic b": critic}, step)
    assert line.startswith(f"{begin}the losses (put_); ")
    assert determinism_warnings({"critic b": critic}, images.sum) == []


class InAnyOrder(Loss):
    """As `AnyOrder`, on the generator's turn, in the backward pass."""

    def critic(self, turn: Turn) -> Tensor:
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> Tensor:
        scores = turn.fake_scores
        scores.register_hook(AnyOrder())
        return -scores.mean()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], None),
        (["augment.name=any-order"], "augment any-order (put_); "),
        (['losses=["in-any-order"]'], ": the losses (put_); "),
    ],
)
def test_a_rehearsal_names_them(
    settings: list[str], named: str | None, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.augments.register("any-order")(AnyOrder)
    gankit.losses.register("in-any-order")(InAnyOrder)
    stepper = Trainer(gankit.load("wgan-gp", *small(*settings)), tmp_path / "run", None).stepper
    assert rehearsal._determinism_warnings(stepper) == []
    monkeypatch.setattr(stepper, "device", GPU)
    lines = rehearsal._determinism_warnings(stepper)
    assert [named is not None and named in line for line in lines] == [True] * bool(named)


def test_the_record_says_how_precisely_a_run_computes(small: Small, tmp_path: Path) -> None:
    overrides = small("training.precision=float32-exact", "training.steps=1")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    record = run.experiment.run
    assert record is not None
    assert record.arithmetic == "float32"


class FailsLater(Loss):
    """Raises what a device would, in the fourth step."""

    text, step = "", 3

    def critic(self, turn: Turn) -> Tensor:
        if turn.step == self.step and turn.batch == 4:
            raise RuntimeError(self.text)
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> Tensor:
        return -turn.fake_scores.mean()


FAULTS = {
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 9 GiB\nmore": (
        r": not enough memory after step 3 \(it asked for another 20\.00 MiB\); checkpoints stay; lower "
        r"training\.batch \(4\), .* training\.graphs=false"
    ),
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.": (
        r": not enough memory after step 3 \(it asked for another 64 bytes\)"
    ),
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous": (
        r": the GPU failed after step 3 \(CUDA error: unspecified launch failure\); when it works again, .*, go on "
        r"with: gankit resume "
    ),
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": r": the GPU failed after step 3 \(cuDNN error: CUDNN_STATUS_EXEC",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": r": not enough memory after step 3; ",
}


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=[pytest.mark.slow] * (number not in (0, 2))) for number, text in enumerate(FAULTS)],
)
def test_a_fault_of_the_device_takes_one_line_and_keeps_the_checkpoint(
    text: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.losses.register("fails-later")(FailsLater)
    monkeypatch.setattr(FailsLater, "text", text)
    experiment = gankit.load("wgan-gp", *small('losses=["fails-later"]', "training.checkpoint_every=2"))
    with pytest.raises(RunError, match=FAULTS[text]) as caught:
        gankit.train(experiment, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "run"))
    monkeypatch.setattr(FailsLater, "text", "a mistake of a part")
    with pytest.raises(RuntimeError, match=r"^a mistake of a part$"):
        gankit.resume(tmp_path / "run")
    assert gankit.open_run(tmp_path / "run").steps == 2


@pytest.mark.parametrize(
    ("text", "told"), [("CUDA out of memory.", "not enough memory"), ("CUDA error: no device", "the GPU failed")]
)
def test_a_fault_in_the_rehearsal_is_the_devices_and_no_parts(
    text: str, told: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.losses.register("fails-later")(FailsLater)
    monkeypatch.setattr(FailsLater, "text", text)
    monkeypatch.setattr(FailsLater, "step", 0)
    with pytest.raises(RunError, match=rf"run: {told} before the first step"):
        gankit.train(gankit.load("wgan-gp", *small('losses=["fails-later"]')), tmp_path / "run")
    assert not (tmp_path / "run" / "experiment.toml").exists()


def test_what_a_dead_gpu_says_when_draws_are_restored_hides_nothing(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch asks a GPU whether it records before it sets the state of a generator."""
    text = "CUDA error: an illegal memory access was encountered"

    @contextlib.contextmanager
    def fork(gpus: Any) -> Iterator[None]:
        try:
            yield
        except GankitError:
            raise RuntimeError(f"{text}\nmore") from None

    gankit.losses.register("fails-later")(FailsLater)
    monkeypatch.setattr(FailsLater, "text", text)
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    experiment = gankit.load("wgan-gp", *small('losses=["fails-later"]', "training.checkpoint_every=2"))
    with pytest.raises(
        RunError, match=r"run: the GPU failed after step 3 \(CUDA error: an illegal .*, go on with: gankit resume "
    ):
        gankit.train(experiment, tmp_path / "run")


def test_too_little_memory_is_no_fault_of_the_part_that_asked_for_it() -> None:
    def part(images: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        call_part("critic", part, torch.zeros(1))


def test_a_checkpoint_that_the_device_cannot_take_is_not_called_damaged(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.losses.register("fails-later")(FailsLater)
    run, torch_load = tmp_path / "run", torch.load
    settings = small('losses=["fails-later"]', "training.checkpoint_every=2", "training.device=cpu")
    with pytest.raises(RuntimeError):
        gankit.train(gankit.load("wgan-gp", *settings), run)

    def refusal(place: Any, name: str, error: RuntimeError) -> str:
        def fail(*arguments: Any, mmap: bool = False, **options: Any) -> Any:
            if mmap:  # as `Run.steps` reads it, tensors stay on the disk
                return torch_load(*arguments, mmap=mmap, **options)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            with pytest.raises(RunError) as caught:
                gankit.resume(run)
        return str(caught.value)

    no_room, failure = torch.OutOfMemoryError("CUDA out of memory. Tried 1 MiB."), RuntimeError("CUDA error: no device")
    assert refusal(torch, "load", no_room).endswith(
        "00000002.pt does not fit into the memory of cpu (CUDA out of memory. Tried 1 MiB.); it is not damaged: leave "
        "the device to this run alone, or use the CPU (CUDA_VISIBLE_DEVICES=)"
    )
    loading = refusal(TickLog, "load_state_dict", no_room)
    assert "run: not enough memory while the run was loaded; checkpoints stay; " in loading
    for place, name in ((torch, "load"), (TickLog, "load_state_dict")):
        told = refusal(place, name, failure)
        assert "run: the GPU failed while the run was loaded (" in told
        assert told.endswith(f"go on with: gankit resume {run}")


def test_outside_a_training_a_fault_is_one_line_too() -> None:
    assert plain_words(RuntimeError("CUDA error: device lost\nmore")) == (
        "the GPU failed (CUDA error: device lost); try again, or on the CPU (CUDA_VISIBLE_DEVICES=)"
    )
    assert "too old" in str(plain_words(RuntimeError("The NVIDIA driver on your system is too old (found version 1)")))
    assert plain_words(RuntimeError("a mistake of a part")) is None


def test_the_draws_of_all_gpus_that_work_are_named_since_torch_would_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices: named.append(list(devices)) or contextlib.nullcontext()
    )
    for driver_works in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda works=driver_works: works)
        with seeds.own_draws(), seeds.own_draws([]):
            pass
    assert named == [[0, 1], [], [], []]


def test_doubles_on_an_apple_gpu_are_refused(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gankit.training.step.choose_device", lambda setting: torch.device("mps"))
    with pytest.raises(PartError, match=r"^training\.precision: Apple GPUs have no float64; set training\.device=cpu"):
        Trainer(gankit.load("wgan-gp", *small("training.precision=float64")), tmp_path, None)


def test_bfloat16_is_refused_where_a_gpu_has_none(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gankit.training.step.choose_device", lambda setting: GPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(
        PartError, match=r"^training\.precision: this GPU has no bfloat16; set training\.precision=float"
    ):
        Trainer(gankit.load("wgan-gp", *small("training.precision=bf16")), tmp_path, None)


def test_one_gpu_for_several_processes_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL would end, and seem to have lost a process."""
    monkeypatch.setattr("gankit.training.step.choose_device", torch.device)
    monkeypatch.setattr("gankit.training.step.distributed.size", lambda: 2)
    with pytest.raises(PartError, match=r"^training\.device: each process takes a GPU of its own; set "):
        Trainer(gankit.load("wgan-gp", *small("training.device=cuda:0")), tmp_path, None)


def test_nothing_is_made_double_on_a_device_that_may_have_no_doubles() -> None:
    """An Apple GPU has none."""
    for path in Path(gankit.__file__).parent.rglob("*.py"):
        assert ".double().cpu()" not in path.read_text(), path


def test_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RunError, match=r"^training\.device: 'cuda' cannot be used here .*; set training\.device=auto$"):
        choose_device("cuda")
