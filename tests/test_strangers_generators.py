"""Generators as strangers write them: they train, or one line says what does not fit."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import Painter, Scoring, Trained, labelled
from torch import Tensor, nn

import gankit
from gankit.errors import PartError

trained = strangers.trained


class Normed(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.end = (torch.nn.utils.spectral_norm(layer) for layer in (self.start, self.end))


class Remembering(Painter):
    """Keeps activations of its last call, deep within a list."""

    def inner(self, z: Tensor) -> Tensor:
        self.seen = [{"inner": super().inner(z)}]
        return self.seen[0]["inner"]


class Twice(Painter):
    """Uses one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = self.mix_again = nn.Conv2d(4, 4, 3, 1, 1)

    def inner(self, z: Tensor) -> Tensor:
        return self.mix_again(self.mix(super().inner(z)))  # type: ignore[no-any-return]


class Lazy(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.LazyLinear(64)
        self.end = nn.LazyConv2d(3, 3, 1, 1)


class Forgetting(Painter):
    def train(self, mode: bool = True) -> Any:  # forgets to return itself
        super().train(mode)


@pytest.mark.parametrize("kind", [Normed, Remembering, Twice, Lazy, Forgetting])
def test_generators_that_train_and_are_opened_as_they_were(kind: type, trained: Trained) -> None:
    run = trained("training.checkpoint_every=1", generator=gankit.wrap("generator", kind, latent_dim=16))
    assert run.finished
    assert np.array_equal(run.sample(3), gankit.open_run(run.path).sample(3))
    assert gankit.resume(run.path, data=labelled()).finished


class Pair(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z), z


class Columns(Painter):
    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z[:, :, 0, 0])


class FixedBatch(Painter):
    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z).view(4, 4, 4, 4)


class Single(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z)[:1]


class RandomConstant(Painter):
    """Random frequencies in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = torch.randn(16)

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(torch.sin(3 * z * self.frequencies))


class RandomBuffer(RandomConstant):
    """Random frequencies in a buffer that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        del self.frequencies
        self.register_buffer("frequencies", torch.randn(16), persistent=False)


class OwnDraws(Painter):
    """Draws from a generator of its own, whose state a resume loses."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(0)

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z + torch.randn(z.shape, generator=self.draws))


class Counting(Painter):
    """Counts its calls in a number."""

    calls = 0

    def inner(self, z: Tensor) -> Tensor:
        self.calls += self.training
        return super().inner(z)


class Locked(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Extra(Painter):
    """Adds to its state what is no tensor."""

    def get_extra_state(self) -> Any:
        return {"name": "extra"}

    def set_extra_state(self, state: Any) -> None:
        pass


class Empty(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.start, self.grow, self.end]
        del self.start, self.end

    def forward(self, z: Tensor) -> Any:
        start, grow, end = self.layers
        return end(grow(start(z).unflatten(1, (-1, 4, 4)))).tanh()


class Hooked(Painter):
    def before_step(self, step: int) -> Any:
        return 0.5


class HookedPair(Painter):
    def before_step(self, step: int) -> Any:
        return {"pair": torch.zeros(2)}


class HookedStep(Painter):
    def before_step(self, step: int) -> Any:
        return {"step": 0.5}


class DtypeOfItsOwn(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).numpy(force=True)


class Bodiless(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(3, device="meta"))


class Computed(Painter):
    def __init__(self) -> None:
        super().__init__()
        for values in self.start._parameters, self.end._parameters:
            values.update({name: value * 1 for name, value in values.items() if value is not None})  # type: ignore


class Halved(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).bfloat16()


class Doubling(Painter):
    """Leaves torch with another default."""

    def forward(self, z: Tensor) -> Any:
        images = super().forward(z)
        torch.set_default_dtype(torch.float64)
        return images


class Growing(Painter):
    def inner(self, z: Tensor) -> Tensor:
        self.register_parameter(f"scale{len(list(self.parameters()))}", nn.Parameter(torch.ones(1)))
        return super().inner(z)


class Banking(Painter):
    """Keeps all latents that it has seen."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 16))

    def inner(self, z: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, z.detach()])
        return super().inner(z)


class Filling(Painter):
    """Has a buffer from its first call on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", None)

    def inner(self, z: Tensor) -> Tensor:
        self.last = z.detach().mean(0)
        return super().inner(z)


class Modeless(Painter):
    def train(self) -> Any:  # type: ignore[override]
        return super().train(True)


class Keyless(Painter):
    def state_dict(self, *given: Any, **named: Any) -> Any:
        state = super().state_dict(*given, **named)
        del state["step"]
        return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Halved, r"generator mine makes images of torch.bfloat16 from torch.float32: .* images.to\(z.dtype\)"),
        (Doubling, "generator mine changes torch's default dtype, which all parts share"),
        (Growing, "generator mine gains or loses parameters or buffers in a step, or changes their shapes"),
        (Banking, "generator mine gains or loses parameters or buffers in a step, or changes their shapes"),
        (Filling, "generator mine gains or loses parameters or buffers in a step, or changes their shapes"),
        (Modeless, "generator mine cannot be moved to cpu: TypeError: .*train"),
        (Keyless, "the state of generator cannot be saved: KeyError: 'step'"),
        (Bodiless, "generator mine cannot be moved to cpu: NotImplementedError: Cannot copy out of meta tensor"),
        (Computed, "generator mine has parameters that no optimizer can train, as copies of TorchScript modules"),
        (Pair, r"generator mine, called with \(4, 16\), returned a tuple of \(4, 3, 16, 16\) and \(4, 16\)"),
        (Columns, r"generator mine takes latents of shape \(4, 16, 1, 1\).*begin with z = z\[:, :, None, None\]"),
        (FixedBatch, r"generator mine, called with \(3, 16\), raised RuntimeError: shape"),
        (Single, r"generator mine makes \(1, 3, 16, 16\) of 4 latents; the data are \(3, 16, 16\)"),
        (RandomConstant, "generator mine computes something else once it is built anew"),
        (RandomBuffer, "generator mine computes something else once it is built anew"),
        (OwnDraws, "generator mine computes something else"),
        (Counting, "generator mine changes calls in a step, which a resumed run would lose"),
        (Locked, "generator mine cannot be copied, which sampling requires: TypeError"),
        (Extra, "the state of generator mine cannot be exported"),
        (Empty, "generator mine has no parameters to train: hold its layers as attributes, several of them in a torch"),
        (Hooked, r"Hooked.before_step returned 0\.5 \(float\): return numbers by name, or None"),
        (HookedPair, r"HookedPair.before_step returned a dict of pair: \(2,\): return numbers by name, or None"),
        (HookedStep, "a part logs step, which is an entry of gankit's own in the log; choose another name"),
        (DtypeOfItsOwn, r"returned a NumPy array of \(4, 3, 16, 16\); it must return one tensor"),
    ],
)
def test_generators_that_are_refused(kind: type, message: str, trained: Trained) -> None:
    with pytest.raises(PartError, match=message):
        trained(generator=gankit.wrap("generator", kind, latent_dim=16))


class Drawing(Painter):
    """Draws from the global generators of NumPy and Python, its weights and in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.start.weight.data.copy_(torch.from_numpy(np.random.normal(size=self.start.weight.shape)))

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(random.random() * z + torch.from_numpy(np.random.normal(size=z.shape)).float())


class DrawingCritic(Scoring):
    def forward(self, images: Tensor) -> Any:
        weights = torch.from_numpy(np.random.normal(size=images.shape)).float()
        return super().forward(images + random.random() * weights)


def test_draws_of_numpy_and_python_follow_the_seed_and_a_resume(trained: Trained) -> None:
    np.random.seed(0)
    random.seed(0)
    state, numbers = random.getstate(), np.random.get_state()[1]
    generator = gankit.wrap("generator", Drawing, latent_dim=16)
    runs = [trained("training.steps=3", generator=generator, name=name) for name in ("a", "b")]

    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        gankit.train(runs[0].experiment, runs[0].path.parent / "c", data=labelled(), on_tick=stop)
    runs.append(gankit.resume(runs[0].path.parent / "c", data=labelled()))
    expected = runs[0].generator.state_dict()
    for run in runs:
        assert run.steps == 3
        assert all(torch.equal(value, expected[name]) for name, value in run.generator.state_dict().items())
        assert np.array_equal(run.sample(4), runs[0].sample(3 + 1))
    run = trained(critic=gankit.wrap("critic", DrawingCritic), name="critic")
    assert run.finished, "draws of a critic are not taken for a clock"
    assert random.getstate() == state, "the calling program's own draws go on as they were"
    assert np.array_equal(np.random.get_state()[1], numbers)


class Turned(Painter):
    """With numbers of three types, the first of them unused."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("turn", torch.tensor(1j))
        self.shift = nn.Parameter(torch.tensor(0j))

    def forward(self, z: Tensor) -> Any:
        return (super().forward(z) * self.turn * self.turn + self.shift).real


def test_complex_numbers_stay_complex_and_no_unused_parameter_decides_the_type(trained: Trained) -> None:
    run = trained(generator=gankit.wrap("generator", Turned, latent_dim=16))
    images = run.sample(4)
    assert images.std() > 1  # all are grey without the imaginary part
    assert np.array_equal(images, gankit.open_run(run.path).sample(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_other_types_are_trained_in_float32(dtype: torch.dtype, trained: Trained) -> None:
    parts = {"generator": gankit.wrap("generator", Painter().to(dtype), latent_dim=16),
             "critic": gankit.wrap("critic", Scoring().to(dtype))}  # fmt: skip
    run = trained(**parts)
    assert {value.dtype for value in run.generator.parameters()} == {torch.float32}


def test_a_generator_without_latent_dim_is_told(trained: Trained) -> None:
    class Own(gankit.Generator):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            return z

    with pytest.raises(PartError, match=r"generator mine has no latent_dim: set self\.latent_dim"):
        trained(generator=Own)
