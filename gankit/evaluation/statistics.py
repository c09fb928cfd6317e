"""Mean and covariance of features in a file, as clean-fid and pytorch-fid read and write them."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from gankit.errors import DataError
from gankit.files import user_path, write_atomically
from gankit.interfaces import Moments


@final
@dataclass(frozen=True)
class Statistics:
    """Moments of the features of some images, with the protocol that they were computed under.

    The file is an npz archive with `mu` (d,) and `sigma` (d, d), which is all that clean-fid (Parmar et al. 2022) and
    pytorch-fid need, and `n` and `protocol`, which their files lack.

    Attributes:
        name: what results call the source; for a file its path.
        moments: mean, covariance and number of images.
        protocol: "features", "features_dim", "features_protocol" and "content" as in a metrics file; empty where the
            file is not gankit's.
    """

    name: str
    moments: Moments
    protocol: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def is_file(path: Path) -> bool:
        """Whether this is a statistics file: an archive with `mu` and `sigma`."""
        try:
            with zipfile.ZipFile(path) as archive:
                return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
        except (OSError, zipfile.BadZipFile):
            return False

    @classmethod
    def read(cls, path: str | Path) -> Statistics:
        """Statistics from a file of gankit, clean-fid or pytorch-fid.

        Raises:
            DataError: the file is missing, damaged, or holds no such statistics.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = (np.asarray(file[key], dtype=np.float64) for key in ("mu", "sigma"))
                n = int(file["n"]) if "n" in file.files else None
                protocol = dict(json.loads(str(file["protocol"]))) if "protocol" in file.files else {}
                dict(protocol.get("features_protocol", {}))  # raises if it is no table
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path}: no statistics can be read ({error}); they are npz files with mu and sigma"
            ) from None
        if n is not None and n < 2:
            raise DataError(f"{path}: the statistics are of {n} images; at least 2 are needed")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise DataError(
                f"{path}: mu must be (d,) and sigma (d, d); their shapes are {mean.shape} and {covariance.shape}"
            )
        return cls(str(path), Moments(n, mean, covariance), protocol)

    def write(self, path: str | Path) -> Path:
        """Write the file, as a whole or not at all."""
        target = user_path(path)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"mu": self.moments.mean, "sigma": self.moments.covariance}
        if self.moments.n is not None:
            arrays["n"] = np.int64(self.moments.n)
        np.savez_compressed(buffer, protocol=np.array(json.dumps(self.protocol)), **arrays)
        write_atomically(target, buffer.getvalue())
        return target
