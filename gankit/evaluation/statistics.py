"""Mean and covariance of features in a file, as clean-fid and pytorch-fid read and write them."""

from __future__ import annotations

import io
import json
import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from gankit.errors import DataError, counted
from gankit.evaluation.comparison import without_versions
from gankit.files import refuse_unwritable, sole_output, user_path, write_atomically
from gankit.images.archive import Archive
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
        protocol: "features", "features_dim" and "features_protocol" as in a metrics file, "content" (the images'
            digest) and "warnings" if there are any; empty where the file is not gankit's.
    """

    name: str
    moments: Moments
    protocol: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def is_file(path: Path) -> bool:
        """Whether this is a statistics file: an archive with `mu` and `sigma`, and no images (3 dimensions or more)."""
        try:
            headers = Archive(path).headers
        except DataError:
            return False
        return {"mu", "sigma"} <= headers.keys() and all(len(header.shape) < 3 for header in headers.values())

    @classmethod
    def read(cls, path: str | Path) -> Statistics:
        """Statistics from a file of gankit, clean-fid or pytorch-fid.

        Raises:
            DataError: the file is missing, damaged, or holds no such statistics.
        """
        archive = Archive(Path(path))
        try:
            mean, covariance = (archive.read(key).astype(np.float64) for key in ("mu", "sigma"))
            n = operator.index(archive.read("n")[()]) if "n" in archive.headers else None
            protocol = dict(json.loads(str(archive.read("protocol")))) if "protocol" in archive.headers else {}
            _ = protocol.get("features_protocol", {}).items()  # raises if it is no table
        except DataError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise DataError(
                f"{path}: no statistics can be read ({error}); they are npz files with mu and sigma"
            ) from None
        if n is not None and n < 2:
            raise DataError(f"{path}: the statistics are of {counted(n, 'image')}; at least 2 are needed")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise DataError(
                f"{path}: mu must be (d,) and sigma (d, d); their shapes are {mean.shape} and {covariance.shape}"
            )
        return cls(str(path), Moments(n, mean, covariance), protocol)

    def check_features(self, features: dict[str, Any]) -> list[str]:
        """Warnings if the file does not say what features it is of, or if versions differ from those here.

        Args:
            features: the "features", "features_dim" and "features_protocol" that generated images are given.

        Raises:
            DataError: the statistics are of other features.
        """
        different = [
            f"{key}: {self.protocol[key]} in the file, {value} here"
            for key, value in features.items()
            if key in self.protocol and without_versions(self.protocol[key]) != without_versions(value)
        ]
        dim = len(self.moments.mean)
        if different or features["features_dim"] != dim:
            reason = "; ".join(different[:2]) or f"{dim} dimensions"
            raise DataError(
                f"{self.name} has the statistics of other features ({reason}); "
                f"features {features['features']} have {features['features_dim']} dimensions: choose the features that "
                "the file was made with"
            )
        if not self.protocol:
            return [f"{self.name} does not say which features, resize and weights it was made with"]
        versions = self.protocol.get("features_protocol", {}).get("versions")
        here = features["features_protocol"].get("versions")
        if versions == here:
            return []
        made_with = versions or "unknown"
        return [f"{self.name} was made with versions {made_with}, and this is {here}: values may differ slightly"]

    @staticmethod
    def check_output(path: str | Path) -> Path:
        """The path of a file, once it is clear that statistics may be written to it.

        Raises:
            DataError: it is no .npz file in a folder that exists, or it holds something else, such as the images.
        """
        target = user_path(path)
        if target.suffix != ".npz" or not target.absolute().parent.is_dir():
            raise DataError(f"{target} must be an .npz file in a folder that exists")
        if target.is_file() and not Statistics.is_file(target):
            raise DataError(f"{target} holds something other than statistics, which would be lost: name another file")
        refuse_unwritable(target)
        return target

    def write(self, path: str | Path) -> Path:
        """Write the file, as a whole or not at all.

        Raises:
            DataError: as `check_output`.
        """
        target = self.check_output(path)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"mu": self.moments.mean, "sigma": self.moments.covariance}
        if self.moments.n is not None:
            arrays["n"] = np.int64(self.moments.n)
        np.savez_compressed(buffer, protocol=np.array(json.dumps(self.protocol)), **arrays)
        with sole_output(target):
            write_atomically(target, buffer.getvalue())
        return target
