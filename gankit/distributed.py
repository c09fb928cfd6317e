"""Several processes that train as one: started by torchrun, gradients summed by one call, one process writes.

Every process draws the same batch and works on its share of the rows, so that the sum of the gradients is that of one
process with the whole batch. `DistributedDataParallel` is not used: its hooks miss parameters that only a penalty's
second derivative reaches.
"""

import contextlib
import datetime
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._pytree import tree_map_only

from gankit.errors import GankitError, PartError, ProcessLostError, RunError, one_line

Result = TypeVar("Result")
PATIENCE = datetime.timedelta(minutes=30)  # how long a process waits for another, which may be computing metrics
START_OR_UNSET = "start all processes by torchrun, or unset RANK and WORLD_SIZE to train in one"


@dataclass(frozen=True)
class Shard:
    """The rows of a global batch that one process works on."""

    start: int  # the first row
    stop: int  # one after the last
    total: int  # rows of the global batch

    @property
    def weight(self) -> float:
        """The fraction of the batch that these rows are: the weight of their mean in the mean of the whole batch."""
        return (self.stop - self.start) / self.total

    @property
    def rows(self) -> slice:
        """The rows as an index."""
        return slice(self.start, self.stop)

    def parts(self, count: int) -> list["Shard"]:
        """These rows in so many parts, as equal as whole rows allow; fewer where there are fewer rows."""
        rows = self.stop - self.start
        count = min(count, rows)
        ends = [self.start + rows * number // count for number in range(count + 1)]
        return [Shard(start, stop, self.total) for start, stop in itertools.pairwise(ends)]


_together = False
"""True within `with process_group()`. Elsewhere gankit acts as one process, even if the calling program has initialised
torch.distributed for itself."""


def size() -> int:
    """The number of processes; 1 outside `process_group`."""
    return dist.get_world_size() if _together else 1


def rank() -> int:
    """This process's number, from 0; process 0 writes and speaks."""
    return dist.get_rank() if size() > 1 else 0


def torchrun_rank_and_size() -> tuple[int, int]:
    """(rank, size) that torchrun gave this process; (0, 1) without torchrun.

    Raises:
        RunError: they are no numbers.
    """
    return _torchrun_number("RANK", 0), _torchrun_number("WORLD_SIZE", 1)


def _torchrun_number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise RunError(f"{name}={text} is not a number: {START_OR_UNSET}") from None


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes that torchrun started; without torchrun nothing happens.

    Raises:
        RunError: they cannot be joined.
        ProcessLostError: another process was lost.
    """
    global _together
    number, count = torchrun_rank_and_size()
    if count == 1 or _together:
        yield
        return
    starts = not dist.is_initialized()
    if starts:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(_torchrun_number("LOCAL_RANK", 0) % torch.cuda.device_count())
        # NCCL refuses two processes on one GPU; gloo sums their gradients by way of the machine's memory.
        alone_on_gpu = cuda and _torchrun_number("LOCAL_WORLD_SIZE", 1) <= torch.cuda.device_count()
        backend = "cpu:gloo,cuda:nccl" if alone_on_gpu and dist.is_nccl_available() else "gloo"  # Windows has no NCCL
        try:
            dist.init_process_group(backend, timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            raise RunError(
                f"process {number} of {count} cannot join the others ({one_line(error, 120)}): {START_OR_UNSET}"
            ) from error
    _together = True
    try:
        yield
    except RuntimeError as error:
        if not is_process_loss(error):
            raise
        raise ProcessLostError(
            f"process {number} of {count}: another process was lost ({one_line(error, 120)}); look at "
            "its own message, then go on from the last checkpoint with gankit resume RUN, under torchrun with as many "
            "processes as you still have, or without torchrun"
        ) from error
    finally:
        _together = False
        if starts:
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Act as one process, whatever the others do."""
    global _together
    before, _together = _together, False
    try:
        yield
    finally:
        _together = before


def is_process_loss(error: BaseException) -> bool:
    """Whether an error of a collective call says that another process is gone."""
    signs = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl")
    return any(sign in str(error).lower() for sign in signs)


def shard(batch: int) -> Shard:
    """This process's rows of a global batch: as equal shares as whole rows allow.

    Raises:
        RunError: there are more processes than rows.
    """
    number, count = rank(), size()
    if batch < count:
        raise RunError(f"training.batch: {batch} images cannot be shared by {count} processes; enlarge the batch")
    return Shard(batch * number // count, batch * (number + 1) // count, batch)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one call.

    Where a process does not use a parameter, its gradient there counts as zero; one that no process uses stays without
    a gradient.
    """
    if size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    unused = [number for number, parameter in enumerate(trained) if parameter.grad is None]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    uses = gradients[0].new_ones(len(trained))
    for number in unused:  # one by one: `uses[unused]` would copy the list to the device, and wait for that
        uses[number].zero_()
    flat = torch.cat([gradient.reshape(-1) for gradient in [*gradients, uses]])
    dist.all_reduce(flat)
    *parts, uses = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(trained)])
    torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])
    if unused:  # else nothing is read back from the device
        for parameter, gradient, count in zip(trained, gradients, uses.tolist(), strict=True):
            parameter.grad = gradient if count else None


def average(value: Tensor) -> Tensor:
    """The mean of a floating tensor of any shape over all processes, detached; every process must call it."""
    if size() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / size()


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process; every process must call it, and waits until all have."""
    if size() == 1:
        return flag
    flags = torch.tensor([int(flag)])  # on the CPU: nothing is read back from a GPU
    dist.all_reduce(flags)
    return bool(flags.item())


def means(values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over the processes that have one of this name; every process must call it."""
    if size() == 1:
        return values
    by_name: dict[str, list[float]] = {}
    for name, value in (item for own in gather(values) for item in own.items()):
        by_name.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in by_name.items()}


def on_rank_zero(action: Callable[[], Result]) -> Result:
    """Run an action in process 0 alone; every process must call this, and gets its result or its error.

    Raises:
        GankitError: the action raised it in process 0.
    """
    if size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except GankitError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    result: Result
    result, refusal = outcome
    if refusal is not None:
        raise refusal
    return result


def gather(value: Any) -> list[Any]:
    """The values of all processes in their order, their tensors on the CPU; every process must call it."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    # A tensor on a GPU would be opened there by every process, which takes memory of all GPUs.
    dist.all_gather_object(values, tree_map_only(Tensor, Tensor.cpu, value))
    return values


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) by the statistics of all processes' rows.

    Equals one process with the whole batch, in derivatives of any order, on any device; `SyncBatchNorm` needs GPUs.
    """

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """As any module's; a subclass whose forward does not reach this one is refused."""
        self.__dict__["_reached"] = False
        outputs = super().__call__(*inputs, **named)
        if self.training and size() > 1 and not self.__dict__["_reached"]:
            name = self.__dict__["_own_class"].__name__
            raise PartError(
                f"batch normalisation {name} normalises by itself, so that each of {size()} processes would use its "
                "own rows alone: let its forward call super().forward, or train in one process"
            )
        return outputs

    def _check_input_dim(self, x: Tensor) -> None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same shape."""
        self.__dict__["_reached"] = True
        if not self.training or size() == 1:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = _Total.apply(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _Total.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = _Total.apply(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            rate = 1 / self.num_batches_tracked.to(mean) if self.momentum is None else self.momentum
            unbiased = variance.detach() * count / (count - 1).clamp_min(1)
            for running, value in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
                running.add_((value - running) * rate)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        return y if self.weight is None else torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))


class _Total(torch.autograd.Function):
    """The sum over all processes, through any derivative.

    The backward pass sums the gradients too, since the input of each process enters the sum of every process.
    """

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        return _Total.apply(gradient)


def synchronise(network: nn.Module, on: bool = True) -> None:
    """Make every batch normalisation of a network use the rows of all processes, or (not `on`) this process's again.

    The network is changed in place; its parameters and state stay as they are.
    """
    for module in network.modules():
        if on and size() > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = module.__dict__.setdefault("_own_class", type(module))
            # A forward of its own is kept: what it calls by super() is then the synchronised one.
            plain = own.forward is nn.modules.batchnorm._BatchNorm.forward or own is nn.SyncBatchNorm
            module.__class__ = SynchronisedBatchNorm if plain else type(own.__name__, (own, SynchronisedBatchNorm), {})
        elif not on and isinstance(module, SynchronisedBatchNorm):
            module.__class__ = module.__dict__.pop("_own_class")


def has_synchronised_norms(*networks: nn.Module) -> bool:
    """Whether any batch normalisation of these networks uses the rows of all processes."""
    return any(isinstance(module, SynchronisedBatchNorm) for network in networks for module in network.modules())
