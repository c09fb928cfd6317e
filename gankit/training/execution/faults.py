"""Errors of a device while it trains: it runs out of memory, or fails."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gankit.errors import RunError, is_device_failure, is_short_of_memory
from gankit.experiments.experiment import Training
from gankit.training.progress import resume_hint

ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


@contextlib.contextmanager
def device_faults(folder: Path, settings: Training, step: Callable[[], int] | None = None) -> Iterator[None]:
    """Raise a RunError that says in one line what a failed device, or too little memory, means for a folder's run.

    `step` gives the step that has been reached; None while a training is set up, or a run is loaded.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        earlier = error.__context__
        while earlier is not None and not isinstance(earlier, RunError):
            earlier = earlier.__context__
        if earlier is not None and is_device_failure(error):  # a dead GPU fails again where draws are restored
            raise earlier from earlier.__cause__
        text, is_run = str(error), (folder / "experiment.toml").is_file()
        setting_up = "while the run was loaded" if is_run else "before the first step"
        when = setting_up if step is None else f"after step {step()}"
        if is_short_of_memory(error):
            asked = ASKED.search(text)
            amount = f" (it asked for another {asked[1]})" if asked else ""
            kept = "checkpoints stay; " if is_run else ""
            raise RunError(
                f"{folder}: not enough memory {when}{amount}; {kept}lower training.batch ({settings.batch}), the "
                f"widths of both networks or data.size, raise training.accumulate ({settings.accumulate}), leave the "
                "device to this training alone, or set training.graphs=false, which takes less memory on a GPU"
            ) from error
        if is_device_failure(error):
            first_line, *_ = text.splitlines() or [""]
            raise RunError(
                f"{folder}: the GPU failed {when} ({first_line[:120]}); when it works again, or on the CPU "
                f"(CUDA_VISIBLE_DEVICES=), {resume_hint(folder) if is_run else 'try again'}"
            ) from error
        raise
