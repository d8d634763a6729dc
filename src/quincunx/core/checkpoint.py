"""Checkpoints of a training: one file, replaced at once, refused when it belongs to another fit."""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

SECONDS = 10.0


def fingerprint(key: jax.Array, *parts: Any) -> str:
    """A digest of everything that decides a training: settings, shapes, and the arrays themselves."""
    leaves, structure = jax.tree.flatten(parts)
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(structure)).encode())  # addresses change at every start
    digest.update(np.asarray(jax.random.key_data(key)).tobytes())
    for leaf in leaves:
        digest.update(np.asarray(leaf).tobytes() if isinstance(leaf, (jax.Array, np.ndarray)) else repr(leaf).encode())
    return digest.hexdigest()


class Saver:
    """Writes the state of one training to one file, and reads it again.

    Parameters
    ----------
    path: the file.
    fingerprint: of the training that it belongs to.
    """

    def __init__(self, path: str | Path, fingerprint: str):
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.last = time.monotonic()

    def save_if_due(self, state: Any) -> None:
        if time.monotonic() - self.last >= SECONDS:
            self.save(state)

    def save(self, state: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        leaves: dict[str, Any] = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        with open(partial, "wb") as file:
            np.savez(file, header=np.array(json.dumps({"fingerprint": self.fingerprint})), **leaves)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)
        self.last = time.monotonic()

    def load(self, like: Any) -> Any:
        """The state that was saved, shaped like `like`; `like` itself when there is no such file.

        Raises
        ------
        ValueError: the file is damaged, or was written by a training with another key, data or settings.
        """
        if not self.path.exists():
            return like
        try:
            with np.load(self.path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                leaves = [file[f"leaf_{i}"] for i in range(len(file.files) - 1)]
        except Exception as error:
            raise ValueError(f"checkpoint {self.path} cannot be read ({error}); delete it to start afresh") from error
        if header.get("fingerprint") != self.fingerprint:
            raise ValueError(
                f"checkpoint {self.path} belongs to a training with another key, data, network or settings; "
                "delete it to start afresh, or go back to those settings"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [jax.numpy.asarray(leaf) for leaf in leaves])
