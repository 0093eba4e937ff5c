"""Cross-fitting: a learned reward model for every fold, fitted on the rows of all others.

Libraries that hold the interpreter while they learn, as VW does, leave nothing to threads. So some folds go to other
processes (``python -m pipelines.replay.crossfit FOLDER FOLD...``), which import what learning needs and no more.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal, cast

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints
from decision.columns import FeatureRows, Texts
from decision.oracles.action_ids import with_ids
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kind import OracleSettings
from decision.protocols import Oracle
from decision.validation import prepared

Learner = Literal["vw", "logistic"]
FOLDS = 5
_LEAST_ROWS = 20_000  # from which on another process is worth its start
_ROWS_FILE = "rows.npz"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Learned models by fold, small enough to be sent anywhere; `+` joins those of different folds.

    Attributes:
        kind: of the oracle.
        files: of the oracle by fold; empty where all rewards it could learn from are the same.
        constant: that reward, by fold.
        named: actions' ids are among their features.
    """

    kind: str
    files: dict[int, dict[str, bytes]]
    constant: dict[int, float]
    named: bool = False

    def __add__(self, other: Fitted) -> Fitted:
        return Fitted(self.kind, self.files | other.files, self.constant | other.constant, self.named)

    def load(self) -> tuple[Oracle | None, ...]:
        """Return the models of all folds ready to predict; None for a constant."""
        files = [self.files[number] for number in range(FOLDS)]
        return tuple(load_oracle(self.kind, of_fold) if of_fold else None for of_fold in files)

    def predict(self, batch: Batch, fold: Ints, oracles: tuple[Oracle | None, ...]) -> Floats:
        """Return [m] expected rewards of decisions in [n] folds; `oracles` are those of `load`."""
        batch = with_ids(batch) if self.named else batch
        flat = np.repeat(fold, np.diff(batch.offsets))
        out = np.empty(len(flat))
        for number, oracle in enumerate(oracles):
            here = np.flatnonzero(fold == number)
            if oracle is None:
                out[flat == number] = self.constant[number]
            elif here.size:
                out[flat == number] = oracle.predict(batch.take(here))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """What learned models are fitted on, each fold's on the rows of all others.

    Attributes:
        kind: of the oracle.
        log: [n] rows.
        fold: [n] int64 in 0..FOLDS-1.
        named: `log` has actions' ids among their features.
    """

    kind: Learner
    log: Interactions
    fold: Ints
    named: bool = False

    def model(self, fold: int) -> Fitted:
        """Return the model of one fold."""
        training = self.log.take(np.flatnonzero(self.fold != fold))
        low, high = (float(training.reward.min()), float(training.reward.max())) if len(training) else (0.0, 0.0)
        if low == high:
            return Fitted(self.kind, {fold: {}}, {fold: low}, self.named)
        oracle = new_oracle(OracleSettings(kind=self.kind, low=low, high=high))
        oracle.fit(training)
        return Fitted(self.kind, {fold: oracle.save()}, {fold: low}, self.named)

    def models(self, workers: int = 1, seen: Callable[[Fitted], None] | None = None) -> Fitted:
        """Return the models of all folds, the same however many processes fit them.

        Args:
            workers: processes at once, this one among them; the others are left out where rows are few.
            seen: told of the models as they arrive.
        """
        shares = [range(first, FOLDS, workers) for first in range(min(workers, FOLDS))]
        if len(self.log) < _LEAST_ROWS:
            shares = [range(FOLDS)]
        others: list[subprocess.Popen[bytes]] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                if len(shares) > 1:
                    _write(self, Path(folder))
                others.extend(_started(folder, share) for share in shares[1:])
                found = [_told(self.model(fold), seen) for fold in shares[0]]
                for share, process in zip(shares[1:], others, strict=True):
                    # What a process could not do is done here, where it may raise.
                    done = process.wait() == 0
                    parts = [_read(Path(folder), fold) if done else self.model(fold) for fold in share]
                    found += [_told(part, seen) for part in parts]
            finally:
                for process in others:
                    process.kill()
                    process.wait()
        return reduce(add, found)


def _started(folder: str, folds: range) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.replay.crossfit", folder, *map(str, folds)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - numbers


def _told(part: Fitted, seen: Callable[[Fitted], None] | None) -> Fitted:
    if seen is not None:
        seen(part)
    return part


def _write(crossfit: CrossFit, folder: Path) -> None:
    log, batch = crossfit.log, crossfit.log.batch
    arrays = {"fold": crossfit.fold, "offsets": batch.offsets, "chosen": log.chosen, "reward": log.reward}
    for name, features in (("context", batch.contexts), ("action", batch.actions)):
        rows = FeatureRows.of(features)
        arrays |= {f"{name}.{part}": getattr(rows, part) for part in ("name", "value", "offsets", "rows")}
        arrays[f"{name}.names"] = np.frombuffer(msgspec.json.encode(rows.names), np.uint8)
    arrays |= {"kind": np.array(crossfit.kind), "named": np.array(crossfit.named)}
    np.savez(folder / _ROWS_FILE, allow_pickle=False, **arrays)


def _written(folder: Path) -> CrossFit:
    with np.load(folder / _ROWS_FILE, allow_pickle=False) as found:
        arrays: dict[str, np.ndarray] = dict(found)
    contexts, actions = (
        FeatureRows(
            msgspec.json.decode(arrays[f"{name}.names"].tobytes(), type=list[str]),
            *(arrays[f"{name}.{part}"] for part in ("name", "value", "offsets", "rows")),
        )
        for name in ("context", "action")
    )
    m, n = len(actions), len(contexts)
    batch = Batch(contexts, actions, Texts([""], np.zeros(m, np.int64)), arrays["offsets"])
    log = Interactions(batch, arrays["chosen"], np.ones(n), arrays["reward"], np.ones(m))  # learning asks for no more
    return CrossFit(cast(Learner, str(arrays["kind"])), log, arrays["fold"], bool(arrays["named"]))


def _read(folder: Path, fold: int) -> Fitted:
    return msgspec.msgpack.decode((folder / str(fold)).read_bytes(), type=prepared(Fitted))


def main(folder: str, *folds: str) -> None:
    """Fit `folds` of the rows in `folder`, and leave the models there."""
    crossfit = _written(Path(folder))
    for fold in map(int, folds):
        (Path(folder) / str(fold)).write_bytes(msgspec.msgpack.encode(crossfit.model(fold)))


if __name__ == "__main__":
    main(*sys.argv[1:])
