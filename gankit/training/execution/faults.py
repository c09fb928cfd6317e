"""What a device may do to a training: run out of memory, or fail."""

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from gankit.errors import RunError
from gankit.experiments.experiment import Training

OUT_OF_MEMORY = ("out of memory", "allocate memory")
"""One of these is in the error of torch's allocators, on the GPU and on the CPU."""
ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


@contextlib.contextmanager
def device_faults(folder: Path, settings: Training, step: Callable[[], int]) -> Iterator[None]:
    """Say in one line what a device's error means for the run in a folder.

    Args:
        folder: the run's.
        settings: of its training.
        step: gives the step that has been reached.

    Raises:
        RunError: there was too little memory, or the device failed.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if any(sign in text for sign in OUT_OF_MEMORY):
            asked = ASKED.search(text)
            raise RunError(
                f"{folder}: not enough memory after step {step()}"
                f"{f' (another {asked[1]} were asked for)' if asked else ''}; the last checkpoint stays; lower "
                f"training.batch ({settings.batch}), the widths of both networks or data.size, raise "
                f"training.accumulate ({settings.accumulate}), leave the device to this training alone, or set "
                "training.graphs=false, which takes less memory on a GPU"
            ) from error
        if "CUDA error" in text or "CUDA driver" in text:
            raise RunError(
                f"{folder}: the GPU failed after step {step()} ({text.splitlines()[0][:120]}); go on from the last "
                f"checkpoint, once it works again or on the CPU (CUDA_VISIBLE_DEVICES=), with: gankit resume "
                f"{shlex.quote(str(folder))}"
            ) from error
        raise
