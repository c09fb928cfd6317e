"""What a device may do to a training: run out of memory, or fail."""

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from gankit.errors import RunError, is_device_failure, is_short_of_memory
from gankit.experiments.experiment import Training

ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


@contextlib.contextmanager
def device_faults(folder: Path, settings: Training, step: Callable[[], int] | None = None) -> Iterator[None]:
    """Say in one line what a device's error means for the run in a folder.

    Args:
        folder: the run's.
        settings: of its training.
        step: gives the step that has been reached; None before a training runs.

    Raises:
        RunError: there was too little memory, or the device failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        when = "before the first step" if step is None else f"after step {step()}"
        if is_short_of_memory(error):
            asked = ASKED.search(text)
            amount = f" (another {asked[1]} were asked for)" if asked else ""
            kept = "" if step is None else "the last checkpoint stays; "
            raise RunError(
                f"{folder}: not enough memory {when}{amount}; {kept}lower training.batch ({settings.batch}), the "
                f"widths of both networks or data.size, raise training.accumulate ({settings.accumulate}), leave the "
                "device to this training alone, or set training.graphs=false, which takes less memory on a GPU"
            ) from error
        if is_device_failure(error):
            again = "try again" if step is None else "go on from the last checkpoint"
            first_line, *_ = text.splitlines() or [""]
            command = "" if step is None else f", with: gankit resume {shlex.quote(str(folder))}"
            raise RunError(
                f"{folder}: the GPU failed {when} ({first_line[:120]}); {again}, once it works again or on "
                f"the CPU (CUDA_VISIBLE_DEVICES=){command}"
            ) from error
        raise
