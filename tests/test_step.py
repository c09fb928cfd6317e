"""What a step does not do: gradients that nobody uses, conversions on the host, values read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import gankit
from gankit.distributed import shard
from gankit.interfaces import Critic, ImageSpec, Loss, Turn
from gankit.nn.gradients import score_gradients
from gankit.registry import registry
from gankit.testing._capture import _Crossings
from gankit.training.averaging import update_average
from gankit.training.data import prepare
from gankit.training.log import TickLog
from gankit.training.step import Stepper
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]
CONVOLUTION, BACKWARD = torch.ops.aten.convolution, torch.ops.aten.convolution_backward


class Operations(TorchDispatchMode):
    """Every operation, with its arguments and floating point operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...]]] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in (CONVOLUTION, BACKWARD):
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        self.seen.append((packet, args))
        return out

    def of(self, packet: Any) -> list[tuple[Any, ...]]:
        return [args for operation, args in self.seen if operation is packet]


def counted(work: Callable[[], Any]) -> Operations:
    with Operations() as operations:
        work()
    return operations


def gradients(operations: Operations) -> tuple[int, int]:
    """How many convolutions were differentiated by their input, and by their weight."""
    wanted = [args[-1] for args in operations.of(BACKWARD)]
    return sum(each[0] for each in wanted), sum(each[1] for each in wanted)


def updates(small: Small, folder: Path, *overrides: str) -> Stepper:
    # Weights of different widths, so that shapes say whose they are.
    widths = ["generator.width=6", "critic.width=4", *overrides]
    return Trainer(gankit.load("wgan-gp", *small(*widths)), folder, None).stepper


def test_a_penaltys_first_derivative_has_no_gradients_of_weights() -> None:
    """It costs what the scores cost: one convolution back for each one forward."""
    critic = gankit.build("critic", "resnet", gankit.ImageSpec(3, 16, 16), width=4)
    images = torch.randn(3, 3, 16, 16)
    forward = counted(lambda: critic(images))
    operations = counted(lambda: score_gradients(critic, images))
    assert len(forward.of(CONVOLUTION)) > 5
    assert [args[-1] for args in operations.of(BACKWARD)] == [[True, False, False]] * len(forward.of(CONVOLUTION))
    assert operations.flops == 2 * forward.flops


def test_the_critics_turn_makes_fakes_without_graph_and_scores_once(small: Small, tmp_path: Path) -> None:
    step = updates(small, tmp_path / "run", 'losses=["hinge"]')
    turn = step.turn("critic", shard(4), 0)
    fakes = counted(lambda: step.generator(turn.latents))
    both = torch.cat([turn.real, turn.fake])
    scores = counted(lambda: step.critic(both))
    operations = counted(lambda: step.update("critic", 4, 0))
    assert len(operations.of(CONVOLUTION)) == len(fakes.of(CONVOLUTION)) + len(scores.of(CONVOLUTION))
    by_input, by_weight = gradients(operations)
    pixels = [args for args in scores.of(CONVOLUTION) if args[0].shape[1] == 3]
    assert by_weight == len(scores.of(CONVOLUTION))
    assert by_input == by_weight - len(pixels)
    # Forward, gradients of weights, and gradients of inputs but for the images.
    first = sum(flop_registry[CONVOLUTION](*args, out_val=torch.ops.aten.convolution(*args)) for args in pixels)
    assert operations.flops == fakes.flops + 3 * scores.flops - first


def test_the_generators_turn_computes_no_gradients_of_the_critic(small: Small, tmp_path: Path) -> None:
    step = updates(small, tmp_path / "run")
    step.advance()
    before = [None if p.grad is None else p.grad.clone() for p in step.critic.parameters()]
    with step.frozen_critic():
        operations = counted(lambda: step.update("generator", 4, 1))
    own = [p.shape for p in step.generator.parameters() if p.dim() == 4]
    by_input, by_weight = gradients(operations)
    assert by_weight == len(own)
    assert by_input == len(operations.of(CONVOLUTION)) > len(own)
    for parameter, gradient in zip(step.critic.parameters(), before, strict=True):
        assert gradient is None or torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize(("overrides", "channels_last"), [([], True), (["training.channels_last=false"], False)])
def test_weights_are_channels_last_images_contiguous_and_adam_fused(
    overrides: list[str], channels_last: bool, small: Small, tmp_path: Path
) -> None:
    step = updates(small, tmp_path / "run", "data.flip=true", "training.dequantise=true", *overrides)
    turn = step.turn("critic", shard(4), 0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    maps: list[torch.Tensor] = []
    for network in (step.generator, step.critic):
        assert all(p.is_contiguous(memory_format=layout) for p in network.parameters() if p.dim() == 4)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda *call: maps.append(call[-1]))
    assert turn.real.is_contiguous()
    assert turn.fake.is_contiguous()
    step.critic(turn.real)
    assert len(maps) > 8
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in maps)  # convolutions take up the layout
    assert all(optimizer.param_groups[0]["fused"] is True for optimizer in step.optimizers.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_are_converted_and_mirrored_on_the_device(dtype: Any) -> None:
    """Only the rows in their own type and the draws of mirrors go there, and nothing comes back."""
    images = np.zeros((9, 3, 8, 8), dtype)
    table = gankit.load("wgan-gp").data.model_copy(update={"size": None})
    data = prepare(table, 0, gankit.wrap("dataset", images, value_range=(0, 1)))
    like = torch.empty(0, device="meta")
    operations = counted(lambda: data.batch(np.arange(4), like, torch.ones(4, dtype=torch.bool)))
    on_host = [
        (packet, args[0].dtype, args[0].numel())
        for packet, args in operations.seen
        if isinstance(args[0], torch.Tensor) and args[0].device.type == "cpu"
        if packet is not torch.ops.aten.lift_fresh  # which does nothing
    ]
    copies, kept = torch.ops.aten._to_copy, {"uint8": torch.uint8, "uint16": torch.int16, "float32": torch.float32}
    assert on_host == [(copies, kept[np.dtype(dtype).name], 4 * 3 * 64), (copies, torch.bool, 4)]


class NoReadBack(TorchDispatchMode):
    """Refuses to turn a tensor into a number, but for one that is on the CPU whatever the device."""

    def __init__(self, counter: torch.Tensor) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = func._overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        assert not reads or args[0] is self.counter, func
        return func(*args, **(kwargs or {}))


READ = {
    "wgan-gp": ["augment.name=diffaugment", "data.flip=true", "training.dequantise=true", "data.balance=1.0"],
    "conditional": ["data.conditional=true", "critic.spectral=true", "data.held_out=0.2"],
    "many losses": ['losses=["relativistic", "r1", "r2", "drift", {name="consistency", real=1.0}]',
                    "augment.name=diffaugment"],
    "clipping": ['losses=["wasserstein", "weight-clipping"]', "training.optimizer=RMSprop"],
    "bf16": ["training.precision=bf16", 'data.conditional=["severity"]'],
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_nothing_is_read_back_between_ticks(case: str, small: Small, tmp_path: Path) -> None:
    step = updates(small, tmp_path / "run", *READ[case])
    assert step.averaged is not None
    counter = step.averaged.n_averaged
    with NoReadBack(counter):
        for _ in range(2):
            step.advance()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReadBack(counter):
        step.log.means()


def test_averaging_waits_for_no_device(small: Small, tmp_path: Path) -> None:
    step = updates(small, tmp_path / "run")
    assert step.averaged is not None
    assert step.averaged.n_averaged.device.type == "cpu"
    for network in (step.generator, step.averaged.module):
        network.to("meta")
    with _Crossings() as crossings:
        for _ in range(2):
            update_average(step.averaged, step.generator, step.settings.averaging)
    assert not crossings.seen
    assert step.averaged.n_averaged == 2


class Inner(torch.nn.Module):
    """A module inside a part, which the trainer finds by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros(()))

    def before_step(self, step: int) -> dict[str, float]:
        SEEN.append((type(self).__name__, step))
        self.step.fill_(step)
        return {"inner": step / 10}


SEEN: list[tuple[str, int]] = []


class Noting(Loss):
    """A loss that is told of each step, and sees what the others made of it."""

    def before_step(self, step: int) -> None:
        SEEN.append(("Noting", step))

    def critic(self, turn: Turn) -> torch.Tensor:
        assert turn.critic.inner.step == turn.step  # type: ignore[union-attr]
        SEEN.append(("critic", turn.step))
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> torch.Tensor:
        return -turn.fake_scores.mean()


class WithInner(Critic):
    """A critic that keeps a module which follows the steps."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.inner = Inner()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.weight * images.mean((1, 2, 3))


def test_parts_and_modules_inside_them_are_told_of_each_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first turn of a step, once after the last, and with what the log shows of it."""
    for kind, name, part in (("critic", "with-inner", WithInner), ("loss", "noting", Noting)):
        monkeypatch.setattr(registry(kind), "_registered", {})
        registry(kind).register(name)(part)
    SEEN.clear()
    monkeypatch.setattr("gankit.training.trainer.rehearse", lambda *_: [])  # only the training counts
    more = ["critic={name='with-inner'}", "losses=['noting']", "training.steps=2", "training.tick_every=1"]
    overrides = [text for text in small(*more) if not text.startswith("critic.")]
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    step = [[("Inner", n), ("Noting", n), ("critic", n), ("critic", n)] for n in range(2)]
    assert [*step[0], *step[1], ("Inner", 2), ("Noting", 2)] == SEEN
    assert [row["inner"] for row in run.log] == [0.1, 0.2]
    assert run.critic.inner.step == 2  # type: ignore[union-attr]


def test_sums_of_another_number_of_processes_give_the_mean_of_all_values() -> None:
    log = TickLog(Path("unused"), False)
    one, two = (
        {"both": [torch.tensor(1.0), 2], "not equally often": [torch.tensor(4.0), 1]},
        {"both": [torch.tensor(3.0), 2], "not equally often": [torch.tensor(2.0), 2], "once": [torch.tensor(6.0), 3]},
    )
    log.load_state_dict([one, two])
    assert log.means() == {"both": 1.0, "not equally often": 2.0, "once": 2.0}
