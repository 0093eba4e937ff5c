"""A student's training written to bytes and read back, so that a run goes on as if it had never stopped.

Arrays as ``.npz`` without pickle, the rest as JSON within. What is restored continues bit for bit.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from decision.errors import FieldError
from decision.oracles.archive import read_archive
from simulators.sim2rec.network import arrays_of, load_arrays
from simulators.sim2rec.student import Progress, Recipe, beginner
from simulators.sim2rec.views import View

LARGEST = 1 << 30
"""Bytes; more is not read."""


def save(progress: Progress) -> bytes:
    """Return all that `progress` needs to go on."""
    arrays: dict[str, np.ndarray] = {}
    for part, module in (("policy", progress.policy), ("average", progress.average)):
        arrays |= {f"{part}/{name}": value for name, value in arrays_of(module).items()}
    for number, moments in progress.optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{number}/{name}": value.numpy() for name, value in moments.items()}
    for number, (seen, advantages) in enumerate(progress.episodes):
        arrays[f"episodes/{number}/seen"], arrays[f"episodes/{number}/advantages"] = seen, advantages
    told = {
        "iteration": progress.iteration,
        "user_steps": progress.user_steps,
        "losses": progress.losses,
        "rng": progress.rng.bit_generator.state,
        "episodes": len(progress.episodes),
        "hidden": progress.policy.hidden,
    }
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def restore(content: bytes, view: View, recipe: Recipe) -> Progress:
    """Return the student of `content`.

    Args:
        content: as `save` returned it.
        view: as the student was begun with.
        recipe: likewise.

    Raises:
        FieldError: `content` is no checkpoint, too large, or of a student that sees something else.
    """
    if len(content) > LARGEST:
        raise FieldError("checkpoint", wanted=f"{LARGEST:,} bytes at most", got=len(content))
    try:
        arrays = read_archive(io.BytesIO(content), most_bytes=LARGEST)
        told: dict[str, Any] = json.loads(bytes(arrays["told"]))
        progress = beginner(view, recipe, 0, recurrent=told["hidden"] > 0)
        _fill(progress, arrays, told)
    except (ValueError, KeyError, EOFError, OSError, TypeError) as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError("checkpoint", wanted="bytes that save returned", got=type(error).__name__) from error
    return progress


def _fill(progress: Progress, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> None:
    for part, module in (("policy", progress.policy), ("average", progress.average)):
        load_arrays(module, _under(arrays, f"{part}/"))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under(arrays, "optimizer/").items():
        number, moment = name.split("/")
        state.setdefault(int(number), {})[moment] = torch.from_numpy(np.array(value))
    groups = progress.optimizer.state_dict()["param_groups"]
    progress.optimizer.load_state_dict({"state": state, "param_groups": groups})
    progress.episodes = deque(
        (
            (arrays[f"episodes/{number}/seen"], arrays[f"episodes/{number}/advantages"])
            for number in range(told["episodes"])
        ),
        maxlen=progress.episodes.maxlen,
    )
    progress.rng.bit_generator.state = told["rng"]
    progress.iteration, progress.user_steps = int(told["iteration"]), int(told["user_steps"])
    progress.losses = [float(loss) for loss in told["losses"]]


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
