"""Clusters that run the jobs of a study: Dask, Ray, or whatever else a program has registered with joblib."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import joblib
from joblib.parallel import BACKENDS

from gankit.errors import RunError, SettingsError, one_line

PATIENCE = 30  # Seconds to wait for the answer of a scheduler


@final
@dataclass(frozen=True)
class Cluster:
    """Workers on which the jobs run that are started meanwhile."""

    workers: int  # jobs at a time
    lost: tuple[type[Exception], ...] = ()  # what is raised where a worker dies


@contextlib.contextmanager
def open_cluster(name: str, workers: int | None = None) -> Iterator[Cluster]:
    """A cluster on which joblib runs what is started inside.

    Args:
        name: "dask" or "ray", which start workers on this machine, or either with ":ADDRESS" of a cluster that is there
            already; or a backend that the program has registered with joblib.
        workers: jobs at a time; by default as many as the cluster has workers or, on Ray, CPUs.

    Raises:
        SettingsError: there is no such cluster, or its package is not installed.
        RunError: it does not answer, or cannot run several jobs at a time, each in a process of its own.
    """
    kind, _, address = name.partition(":")
    if kind in STARTS:
        try:
            start = STARTS[kind](address, workers)
        except ImportError as error:
            raise SettingsError(f"cluster {name}: pip install 'gankit[{kind}]' first ({one_line(error)})") from None
    elif kind in BACKENDS and not getattr(BACKENDS[kind], "supports_sharedmem", False) and not address:
        start = _registered(kind, workers)
    else:
        raise SettingsError(f"cluster {name}: write dask or ray, or dask:ADDRESS or ray:ADDRESS of one that is there")
    with start as cluster:
        if cluster.workers < 2:
            raise RunError(f"cluster {name}: it runs one job at a time, as this machine does: start a second worker")
        yield cluster


@contextlib.contextmanager
def _registered(kind: str, workers: int | None) -> Iterator[Cluster]:
    with joblib.parallel_config(kind):
        yield Cluster(workers or joblib.cpu_count())


def _dask(address: str, workers: int | None) -> contextlib.AbstractContextManager[Cluster]:
    from distributed import Client, KilledWorker, LocalCluster

    @contextlib.contextmanager
    def start() -> Iterator[Cluster]:
        with contextlib.ExitStack() as stack:
            place = address
            if not address:
                place = stack.enter_context(LocalCluster(
                    n_workers=workers or joblib.cpu_count(), threads_per_worker=1, memory_limit=0,
                    dashboard_address=None,
                ))  # fmt: skip
            try:
                client = stack.enter_context(Client(place, timeout=PATIENCE))
            except (OSError, ValueError) as error:
                raise RunError(f"cluster dask:{address}: {one_line(error)}; start dask scheduler there") from None
            threads = client.nthreads()
            if any(count > 1 for count in threads.values()):
                raise RunError(
                    f"cluster dask:{address}: workers have several threads, and a job needs a process of its own: "
                    "start them by dask worker --nthreads 1 --nworkers NUMBER"
                )
            stack.enter_context(joblib.parallel_config("dask", client=client))
            yield Cluster(min(workers or len(threads), len(threads)), (KilledWorker,))

    return start()


def _ray(address: str, workers: int | None) -> contextlib.AbstractContextManager[Cluster]:
    import ray
    from ray.util.joblib import register_ray

    @contextlib.contextmanager
    def start() -> Iterator[Cluster]:
        own = {"address": address} if address else {"address": "local", "num_cpus": workers or joblib.cpu_count(),
                                                    "include_dashboard": False}  # fmt: skip
        try:
            ray.init(**own, log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray raises nothing more particular where it times out
            ray.shutdown()
            raise RunError(f"cluster ray:{address}: {one_line(error)}; start ray there") from error
        try:
            register_ray()
            has = ray.cluster_resources()
            number = min(workers or int(has.get("CPU", 0)), int(has.get("CPU", 0)))
            # Without a share Ray would hide the GPUs from the workers
            gpus = {"num_gpus": min(1, has["GPU"] / number)} if has.get("GPU") else {}
            with joblib.parallel_config("ray", ray_remote_args={"num_cpus": 1, **gpus}):
                yield Cluster(number, (ray.exceptions.RayError,))
        finally:
            ray.shutdown()

    return start()


STARTS: dict[str, Callable[[str, int | None], contextlib.AbstractContextManager[Cluster]]] = {
    "dask": _dask, "ray": _ray,
}  # fmt: skip
