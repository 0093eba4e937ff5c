"""PPO's training written to bytes and read back, as that of a student is (`simulators.sim2rec.checkpoint`)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from decision.errors import FieldError
from decision.oracles.archive import read_archive
from simulators.sim2rec.checkpoint import LARGEST
from simulators.sim2rec.network import arrays_of, load_arrays
from simulators.sim2rec.ppo import PpoRecipe, Spread, Training, begin
from simulators.sim2rec.views import View


def save(training: Training) -> bytes:
    """Return all that `training` needs to go on."""
    actor = training.actor
    arrays: dict[str, np.ndarray] = {"log_std": actor.log_std.detach().numpy()}
    for part, module in (("policy", actor.policy), ("value", actor.value)):
        arrays |= {f"{part}/{name}": value for name, value in arrays_of(module).items()}
    for part, optimizer in (("chooser", training.chooser), ("critic", training.critic)):
        for number, moments in optimizer.state_dict()["state"].items():
            arrays |= {f"{part}/{number}/{name}": value.numpy() for name, value in moments.items()}
    arrays["generator"] = training.generator.get_state().numpy()
    told = {
        "update": training.update,
        "user_steps": actor.user_steps,
        "curve": actor.curve,
        "spread": asdict(training.spread),
        "rng": training.rng.bit_generator.state,
    }
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def restore(content: bytes, view: View, recipe: PpoRecipe) -> Training:
    """Return the training of `content`.

    Args:
        content: as `save` returned it.
        view: as the training was begun with.
        recipe: likewise.

    Raises:
        FieldError: `content` is no checkpoint, too large, or of an actor that sees something else.
    """
    if len(content) > LARGEST:
        raise FieldError("checkpoint", wanted=f"{LARGEST:,} bytes at most", got=len(content))
    training = begin(view, recipe, 0)
    try:
        arrays = read_archive(io.BytesIO(content), most_bytes=LARGEST)
        told: dict[str, Any] = json.loads(bytes(arrays["told"]))
        _fill(training, arrays, told)
    except (ValueError, KeyError, EOFError, OSError, TypeError, RuntimeError) as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError("checkpoint", wanted="bytes that save returned", got=type(error).__name__) from error
    return training


def _fill(training: Training, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> None:
    actor = training.actor
    for part, module in (("policy", actor.policy), ("value", actor.value)):
        load_arrays(module, _under(arrays, f"{part}/"))
    with torch.no_grad():
        actor.log_std.copy_(torch.from_numpy(np.array(arrays["log_std"])))
    for part, optimizer in (("chooser", training.chooser), ("critic", training.critic)):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _under(arrays, f"{part}/").items():
            number, moment = name.split("/")
            state.setdefault(int(number), {})[moment] = torch.from_numpy(np.array(value))
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    training.generator.set_state(torch.from_numpy(np.array(arrays["generator"])))
    training.rng.bit_generator.state = told["rng"]
    training.spread = Spread(**told["spread"])
    training.update, actor.user_steps = int(told["update"]), int(told["user_steps"])
    actor.curve = [(int(steps), float(reached)) for steps, reached in told["curve"]]


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
