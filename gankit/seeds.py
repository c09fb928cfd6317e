"""Every random draw is a function of (seed, stream, index), so that a resumed run draws what an unbroken one would."""

import contextlib
import hashlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import PartError, first_of, is_fault_of_machine, typed_line

Given = ParamSpec("Given")
Result = TypeVar("Result")

_CHANGED, _ENTERED = threading.Condition(), threading.Lock()
_turns: list[int] = []
"""Once for each `own_draws` that is entered, its thread: the last one has the turn, those before it wait for it."""


@dataclass
class _Client:
    """The thread that waits for a `Reader` now, and the client of that thread if it is a reader's itself."""

    thread: int | None = None
    client: "_Client | None" = None


_here = threading.local()  # `client`: that of this thread of the program, if it is a `Reader`'s
_plain: list[torch.dtype] = []
"""The calling program's default type, once for each `plain_torch` that is now entered, in any thread."""


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Use torch as it is when it is imported, whatever defaults and modes the calling program has set."""
    with _ENTERED:  # the default type is one for all threads: the last one to leave brings it back
        _plain.append(_plain[0] if _plain else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        with contextlib.ExitStack() as stack:
            modes: list[Any] = [torch.inference_mode(False), torch.enable_grad()]
            modes += [
                torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)
            ]
            if _default_device().type != "cpu":  # else it would slow down every operation
                modes.append(torch.device("cpu"))
            for mode in modes:
                stack.enter_context(mode)
            yield
    finally:
        with _ENTERED:
            before = _plain.pop()
            if not _plain:
                torch.set_default_dtype(before)


def _default_device() -> torch.device:
    """Where torch makes tensors; `torch.get_default_device` does not know of `torch.set_default_tensor_type`."""
    return torch.empty(0).device


def _on_interrupt() -> Any:
    """What SIGINT does; None in threads that cannot set it, and where no Python code has set it."""
    return signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None


def _read(setting: Callable[[], Any]) -> Any:
    """A setting; None where it cannot be read, such as the working directory when it is deleted."""
    try:
        return setting()
    except Exception:
        return None


# What all parts share: its name, the function that reads it, and the one that sets it. Of a thread:
_SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default device": (_default_device, lambda device: torch.set_default_device(None)),
    "torch's number of CPU threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "NumPy's handling of errors": (np.geterr, lambda state: np.seterr(**state)),
}
# Of the program:
_GLOBAL: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's deterministic mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "the working directory": (os.getcwd, os.chdir),
    "what Ctrl-C does": (_on_interrupt, lambda handler: signal.signal(signal.SIGINT, handler)),
    # Draws do not change it; `own_draws` puts the state back, too.
    "torch's seed": (torch.initial_seed, torch.default_generator.manual_seed),
}


@contextlib.contextmanager
def unchanged_settings(name: str, seed: bool = True, alone: bool = True) -> Iterator[None]:
    """Raise a PartError, with the part's name, where the block changes what all parts share, which is put back.

    Settings of the whole program are watched only where this thread has the turn to draw: else another thread, such as
    one that trains, may be the one that changes them. `seed` tells whether torch's seed is among them. `alone` is false
    where a thread of gankit reads images meanwhile, as their data set asks for.
    """
    watched = dict(_SHARED)
    if torch._C._len_torch_function_stack():  # perhaps a default of the program's own, which torch nests in its order
        del watched["torch's default device"]
    if alone and _turns[-1:] == [threading.get_ident()]:
        watched |= _GLOBAL
        if not seed:
            del watched["torch's seed"]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            del watched["torch's deterministic mode"]  # features that another thread computes on a GPU set it
    before = {what: value for what, (read, _) in watched.items() if (value := _read(read)) is not None}
    raised: BaseException | None = None
    try:
        yield
    except BaseException as error:
        raised = error
        raise
    finally:
        changed = [what for what, value in before.items() if _read(watched[what][0]) != value]
        for what in changed:
            with contextlib.suppress(Exception):  # one that cannot be put back keeps no other from it
                watched[what][1](before[what])
        if changed and (raised is None or (isinstance(raised, Exception) and not is_fault_of_machine(raised))):
            then = "" if raised is None else f"; then it raised {typed_line(raised, 300)}"
            raise PartError(
                f"{name} changes {first_of(changed)}, which all parts share: leave it as it is{then}"
            ) from raised


@contextlib.contextmanager
def own_draws(devices: Sequence[torch.device] | None = None) -> Iterator[None]:
    """Draw from the global generators of torch, NumPy and Python, and leave them as they were.

    There is one of each for all threads, which therefore take turns: a training as a whole, a network that is built,
    a batch of samples. A thread that waits for a `Reader` lends it the turn; one that holds the turn and waits in
    another way for a thread that draws waits for ever. `devices`, by default all, are those whose generators are used
    beside the CPU's.
    """
    with _CHANGED:
        _CHANGED.wait_for(_may_draw)
        _turns.append(threading.get_ident())
    try:
        # Named, since torch warns where there are several GPUs and none is named. Where the driver is too old, torch
        # counts GPUs that it cannot use.
        usable = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        of_numpy, of_python = np.random.get_state(legacy=False), random.getstate()
        try:
            with torch.random.fork_rng(usable if devices is None else devices):
                yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
    finally:
        with _CHANGED:
            _turns.pop()
            _CHANGED.notify_all()


def _may_draw() -> bool:
    """Whether nobody has the turn, this thread has it, or one that it serves, directly or through other readers."""
    thread, client = threading.get_ident(), getattr(_here, "client", None)
    while _turns and _turns[-1] != thread:
        if client is None or client.thread is None:
            return False
        thread, client = client.thread, client.client
    return True


@final
class Reader:
    """A thread that reads ahead for others; what it reads may be generated, in the turn of the one that waits for it.

    It uses the device, if that is a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._client = client = _Client()

        def start() -> None:  # knows nothing of this object, so that the thread ends with it
            _here.client = client
            if device.type == "cuda":  # else pinned memory would take memory of the first GPU
                torch.cuda.set_device(device)

        # One thread: data sets need not be safe for more.
        self._pool = ThreadPoolExecutor(1, "gankit images", start)

    def submit(self, read: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Future[Result]:
        """Read something once all that was submitted before is read."""
        return self._pool.submit(read, *given, **named)

    def result(self, future: Future[Result]) -> Result:
        """What was read, once it is there."""
        with self._waited_for():
            return future.result()

    def close(self) -> None:
        """Wait until all is read that was submitted."""
        with self._waited_for():
            self._pool.shutdown()

    @contextlib.contextmanager
    def _waited_for(self) -> Iterator[None]:
        thread = threading.get_ident()
        with _CHANGED:
            self._client.thread, self._client.client = thread, getattr(_here, "client", None)
            _CHANGED.notify_all()
        try:
            yield
        finally:
            with _CHANGED:
                # The next batch may be generated already, in this thread's turn: that must end first.
                _CHANGED.wait_for(lambda: thread not in _turns or _turns[-1] == thread)
                self._client.thread = None


def derive_seed(seed: int, stream: str, *index: int) -> int:
    """A 63-bit number that depends on all of its arguments."""
    text = "/".join([str(seed), stream, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose; of one seed, other devices draw other numbers."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream, *index))


def device_of_draws(device: torch.device) -> torch.device:
    """Where the draws of a training on this device are made: on a CUDA device there, else on the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")


def seed_torch(seed: int, stream: str, *index: int) -> None:
    """Seed the global generators of torch, on every device in use, NumPy and Python, for parts that draw from them."""
    value = derive_seed(seed, stream, *index)
    np.random.seed(value % 2**32)
    random.seed(value)
    manual_seed(value)


def manual_seed(value: int) -> None:
    """Do what `torch.manual_seed` does, which also takes a stack trace for each kind of device that is not in use."""
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


def latents(seed: int, count: int, dim: int) -> Tensor:
    """(count, dim) float32 standard normal latents on the CPU; row i depends only on (seed, i)."""
    rows = [torch.randn(dim, generator=generator(seed, "sample", i)) for i in range(count)]
    return torch.stack(rows) if rows else torch.empty(0, dim)


class TurnDraws:
    """Random draws of one turn (one update of one network), made for the whole batch.

    Losses see them as `turn.random`; the interface is `gankit.interfaces.Random`. The generator draws on its own
    device; draws have the type and device of `like`, a (0,) tensor. `rows` are the (start, stop, total) of this
    process's rows of a global batch.
    """

    def __init__(self, generator: torch.Generator, like: Tensor, rows: tuple[int, int, int]) -> None:
        self._generator, self._like, self._rows = generator, like, rows

    def _draw(self, distribution: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        start, stop, total = self._rows
        if shape[:1] != (stop - start,):
            raise PartError(
                f"draws of shape {shape} for {stop - start} samples: the first size must be the number of samples"
            )
        whole = distribution((total, *shape[1:]), generator=self._generator, device=self._generator.device)
        # A copy: matrix products round differently where memory begins elsewhere, as that of some rows does.
        return whole[start:stop].to(self._like, copy=start > 0)

    def uniform(self, *shape: int) -> Tensor:
        """Values in [0, 1) of the given shape, (n, ...)."""
        return self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values of the given shape, (n, ...)."""
        return self._draw(torch.randn, shape)


class Order:
    """Which of `count` images each batch holds, for the purpose that `stream` names.

    These are whole epochs in random order, without repetition; or draws with the (count,) probabilities of the images.
    """

    def __init__(self, seed: int, stream: str, count: int, probabilities: NDArray[np.float64] | None = None) -> None:
        self.seed, self.stream, self.count = seed, stream, count
        self.cumulative = None if probabilities is None else np.cumsum(probabilities) / np.sum(probabilities)

    def batch(self, number: int, size: int) -> NDArray[np.int64]:
        """(size,) indices of the batch with this number; the same at every call."""
        if self.cumulative is not None:
            draws = torch.rand(size, generator=generator(self.seed, self.stream, number), dtype=torch.float64).numpy()
            return np.minimum(np.searchsorted(self.cumulative, draws, side="right"), self.count - 1)
        epoch, start = divmod(number * size, self.count)  # a batch may end in a later epoch than it starts in
        epochs = range(epoch, epoch + (start + size - 1) // self.count + 1)
        order = np.concatenate([_permutation(self.seed, self.stream, self.count, e) for e in epochs])
        return order[start : start + size]


@lru_cache(16)
def _permutation(seed: int, stream: str, count: int, epoch: int) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator(seed, stream, epoch)).numpy()
