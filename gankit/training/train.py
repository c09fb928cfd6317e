"""Start a training, and resume one: `gankit.train` and `gankit.resume`."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gankit import distributed, seeds
from gankit.errors import RunError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.experiment import Experiment, load
from gankit.experiments.reading import read_settings
from gankit.files import refuse_nonempty, sole_writer, user_path
from gankit.interfaces import Dataset
from gankit.nn.threads import thread_options, torch_threads
from gankit.runs import checkpoint
from gankit.runs.run import Run, choose_device, open_run
from gankit.training.execution.arithmetic import arithmetic
from gankit.training.execution.faults import device_faults
from gankit.training.progress import resume_hint
from gankit.training.start import load_start_weights
from gankit.training.trainer import OnTick, Trainer


def train(
    experiment: Experiment | str | Path, out: str | Path, *, data: Dataset | None = None, on_tick: OnTick | None = None
) -> Run:
    """Train an experiment into a new run folder.

    Args:
        experiment: from `gankit.load`, or what it reads: a recipe's name, a file.
        out: the folder to make; it must be new or empty.
        data: a data set of the calling program, in place of the one that the experiment names. The size, flip and
            `evaluation.count` that a recipe chose for its own data do not apply to it.
        on_tick: called with each line of the log.

    Returns:
        The finished run; an unfinished one where `training.max_minutes` ended it.

    Raises:
        GankitError: the experiment cannot be trained (nothing is written then), the folder is taken, or the training
            diverges.
        KeyboardInterrupt: interrupted; a checkpoint was written if an update was done and no second interrupt came.
    """
    folder = user_path(out)
    experiment = experiment if isinstance(experiment, Experiment) else load(experiment, data=data)
    experiment = (experiment if data is None else experiment.for_given_data()).with_run(None)
    with _trainer(experiment, folder, data, _new_folder(folder)) as trainer:
        trainer.rehearse()
        load_start_weights(trainer.stepper)
        distributed.on_rank_zero(trainer.create_folder)
        return trainer.run(on_tick)


def resume(path: str | Path, *, data: Dataset | None = None, on_tick: OnTick | None = None) -> Run:
    """Resume a run from its newest checkpoint, or from step 0 where there is none; a finished run stays as it is.

    On a CPU, a run ends bitwise as if never stopped; on a GPU see `training.deterministic`. Returns as `train`.

    Args:
        path: the run's folder.
        data: the data set, where the program that started the run passed one.
        on_tick: called with each further line of the log.

    Raises:
        GankitError: there is no run, its parts or data are missing, the data or parts are not those that it started
            with, no checkpoint can be read, or the training diverges.
        KeyboardInterrupt: as for `train`.
    """
    run = open_run(path)
    run.check_own("resume")  # a run that comes with gankit has no checkpoint
    # A finished run whose last evaluation was broken off has no line for its last step.
    if run.finished and run.exported.is_file() and (not run.log or run.log[-1]["step"] >= run.steps):
        if distributed.torchrun_rank_and_size()[0] == 0:  # delete checkpoints that a killed process left behind
            with contextlib.suppress(OSError), sole_writer(run.path):  # where the folder can be written
                checkpoint.prune(run.path / "checkpoints", run.steps, run.experiment.training.checkpoint_every)
        return run
    # Refuses a run whose parts are not known here, which can be opened.
    read_settings(Experiment, SettingsDocument.read(run.path / "experiment.toml"), complete=True)
    record = run.experiment.run
    if record is not None and record.data_in_process and data is None:
        raise RunError(f"{run.path} was trained on data of the program that started it: resume it there with data=...")
    with _trainer(run.experiment, run.path, data, sole_writer(run.path)) as trainer:
        trainer.restore()
        return trainer.run(on_tick)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """A context in which only this process writes into the folder of a new run; raises RunError if it is taken."""

    def refuse() -> None:
        is_run = (folder / "experiment.toml").is_file()
        refuse_nonempty(folder, f"{resume_hint(folder)}, or choose another --out" if is_run else "choose another --out")

    refuse()  # before `sole_writer` writes there
    with sole_writer(folder):
        refuse()  # another process may have come first
        yield


@contextlib.contextmanager
def _trainer(
    experiment: Experiment, folder: Path, data: Dataset | None, claim: contextlib.AbstractContextManager[None]
) -> Iterator[Trainer]:
    """A trainer in the context that it needs; process 0 enters `claim`, so that no other writes into the folder."""
    with (
        distributed.process_group(), device_faults(folder, experiment.training),
        _threads_and_random_state(experiment) as options, contextlib.ExitStack() as stack,
    ):  # fmt: skip
        distributed.on_rank_zero(lambda: stack.enter_context(claim))
        yield Trainer(experiment, folder, data, options)


@contextlib.contextmanager
def _threads_and_random_state(experiment: Experiment) -> Iterator[Sequence[int]]:
    """Use the experiment's or the recorded number of threads; at the end restore the caller's, and its random state.

    Yields the numbers of threads to choose from while training; none where the number is fixed.
    """
    threads, record = experiment.training.threads, experiment.run
    computing = arithmetic(experiment.training, choose_device(experiment.training.device))
    # `torch_threads(None)` only restores the caller's number at the end. It comes before `own_draws`, which may wait
    # for another training of this process: after the wait, that one's number could be taken for the caller's.
    with torch_threads(None), seeds.own_draws(), seeds.plain_torch(), computing:
        may_choose = threads == "auto" and distributed.size() == 1 and not experiment.training.compile
        options = thread_options() if may_choose else []  # asked first: a number once set is the only option
        recorded = record.threads if record else None
        with torch_threads(recorded if threads == "auto" else threads):
            yield options
