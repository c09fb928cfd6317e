"""Clusters that run the jobs of a study: Dask, Ray, or another backend that a program has registered with joblib."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import joblib
from joblib.parallel import BACKENDS

from gankit.errors import RunError, SettingsError, counted, one_line

PATIENCE = 30  # seconds to wait for the answer of a Dask scheduler


@final
@dataclass(frozen=True)
class Cluster:
    """Workers on which joblib runs jobs while the cluster is open."""

    workers: int  # jobs at a time
    lost_worker: tuple[type[Exception], ...] = ()  # the errors that it raises where a worker dies


@contextlib.contextmanager
def open_cluster(name: str, workers: int | None = None) -> Iterator[Cluster]:
    """A cluster on which joblib runs the jobs that are started inside the block.

    Args:
        name: "dask" or "ray", which start workers on this machine, or either with ":ADDRESS" of a running cluster; or
            the name of a backend that the program has registered with joblib.
        workers: jobs at a time; by default as many as the cluster has workers or, on Ray, CPUs.

    Raises:
        SettingsError: there is no such cluster, or its package is not installed.
        RunError: it does not answer, or cannot run several jobs at a time, each in a process of its own.
    """
    kind, _, address = name.partition(":")
    if kind in KINDS:
        context = KINDS[kind](address, workers)
    elif (
        kind in BACKENDS.keys() - {"loky", "multiprocessing"}
        and not getattr(BACKENDS[kind], "supports_sharedmem", False)
        and not address
    ):
        context = _registered_backend(kind, workers)
    else:
        raise SettingsError(f"cluster {name}: write dask or ray, or dask:ADDRESS or ray:ADDRESS of a running one")
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(context)
        except ImportError as error:
            raise SettingsError(f"cluster {name}: pip install 'gankit[{kind}]' first ({one_line(error)})") from None
        if cluster.workers < 2:
            raise RunError(
                f"cluster {name}: it runs {counted(cluster.workers, 'job')} at a time, and must run two: raise "
                "--workers, start more workers there, or leave out --cluster"
            )
        yield cluster


@contextlib.contextmanager
def _registered_backend(name: str, workers: int | None) -> Iterator[Cluster]:
    """A backend that the program has registered with joblib."""
    with joblib.parallel_config(name):
        yield Cluster(workers or joblib.cpu_count())


@contextlib.contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Cluster]:
    """The Dask cluster at an address; a new one on this machine where the address is empty."""
    from distributed import Client, KilledWorker

    with contextlib.ExitStack() as stack:
        scheduler: Any = address
        if not address:
            import dask
            from distributed import LocalCluster

            # By default Dask gives up a worker that died where it takes 15 s to start again, as on a busy machine
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
            options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
            scheduler = stack.enter_context(LocalCluster(n_workers=workers or joblib.cpu_count(), **options))
        try:
            client = stack.enter_context(Client(scheduler, timeout=PATIENCE))
        except Exception as error:  # a TypeError, too, for an address of TLS without its certificates
            raise RunError(f"cluster dask:{address}: {one_line(error)}; start dask scheduler there") from None
        threads = client.nthreads()
        if any(count > 1 for count in threads.values()):
            raise RunError(
                f"cluster dask:{address}: workers have several threads, and a job needs a process of its own: "
                "start them with dask worker --nthreads 1 --nworkers NUMBER"
            )
        stack.enter_context(joblib.parallel_config("dask", client=client))
        yield Cluster(min(workers or len(threads), len(threads)), (KilledWorker,))


@contextlib.contextmanager
def _ray(address: str, workers: int | None) -> Iterator[Cluster]:
    """The Ray cluster at an address; a new one on this machine where the address is empty."""
    import ray
    from ray.util.joblib import register_ray

    # A process has one connection to Ray: using the program's own would mean shutting it down at the end
    if ray.is_initialized():
        raise RunError("cluster ray: this program uses Ray already; call ray.shutdown() before the study")
    options: dict[str, Any] = {"address": address}
    if not address:
        options = {"address": "local", "num_cpus": workers or joblib.cpu_count(), "include_dashboard": False}
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises nothing more specific where it times out
        ray.shutdown()
        raise RunError(f"cluster ray:{address}: {one_line(error)}; start ray there") from error
    try:
        register_ray()
        resources = ray.cluster_resources()
        cpus = int(resources.get("CPU", 0))
        at_a_time = min(workers or cpus, cpus)
        # Ray hides the GPUs from workers that claim no share of one, and places a share on a single GPU
        gpus = int(resources.get("GPU", 0))
        gpu_share = {"num_gpus": 1 / math.ceil(max(at_a_time, 1) / gpus)} if gpus else {}
        with joblib.parallel_config("ray", ray_remote_args={"num_cpus": 1, **gpu_share}):
            yield Cluster(at_a_time, (ray.exceptions.RayError,))
    finally:
        ray.shutdown()


Open = Callable[[str, int | None], contextlib.AbstractContextManager[Cluster]]
KINDS: dict[str, Open] = {"dask": _dask, "ray": _ray}
