"""The service configuration: Personalizer's settings of a resource, mapped onto a loop's, both ways.

An update answers with the configuration in force. A value that nothing here can put into force is refused, with the
setting or command that does what was meant.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from decision.options import LARGEST_REWARD, LEAST_REWARD
from pipelines.operations.apply import SettingsMovedError
from pipelines.operations.change import change, changed_at
from pipelines.settings import LoopSettings, load_loop
from serving.http.personalizer.addresses import loop_of, operation
from serving.http.personalizer.errors import RefusedError
from serving.routes import Call, Route
from serving.wire import decode

BY = "personalizer"
"""Who changed settings, in the history of State."""
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(days=2)
_INVALID = "InvalidServiceConfiguration"
_MODES = {"online": "Online", "apprentice": "Apprentice", "logging_only": "LoggingOnly"}
_KEPT_FOR_EVER = -1


class ServiceConfiguration(msgspec.Struct, rename="camel"):
    """What the loop does, as Personalizer says it.

    Attributes:
        reward_wait_time: `reward.window_s`, ISO 8601.
        default_reward: `reward.default`.
        reward_aggregation: `reward.aggregation`.
        exploration_percentage: `baseline.explore`, from 0 to 1; of the rule `epsilon_greedy` its epsilon, too.
        model_export_frequency: how long after its promotion a version answers at the latest, ISO 8601.
        log_retention_days: -1, for nothing is deleted by age.
        model_retrain_days: `training.days`; 0 for all.
        learning_mode: `mode`.
        log_mirror_enabled: false.
        is_auto_optimization_enabled: whether `training.variants` lists further configurations.
        last_configuration_edit_date: when the loop's settings were changed last.
    """

    reward_wait_time: str
    default_reward: float
    reward_aggregation: str
    exploration_percentage: float
    model_export_frequency: str
    log_retention_days: int
    model_retrain_days: float
    learning_mode: str
    log_mirror_enabled: bool
    is_auto_optimization_enabled: bool
    last_configuration_edit_date: datetime


class ConfigurationUpdate(msgspec.Struct, rename="camel"):
    """What is to change; what is left out or null stays as it is.

    Attributes:
        reward_wait_time: from 5 seconds to 2 days, ISO 8601.
        default_reward: from -1 to 1.
        reward_aggregation: one of those that `reward.aggregation` takes.
        exploration_percentage: from 0 to 1.
        model_export_frequency: no less than the time between two looks for a new version.
        log_retention_days: -1.
        model_retrain_days: 0 or more.
        learning_mode: `Online`, `Apprentice` or `LoggingOnly`.
        log_mirror_enabled: false.
        is_auto_optimization_enabled: as it is.
    """

    reward_wait_time: timedelta | None = None
    default_reward: float | None = None
    reward_aggregation: str | None = None
    exploration_percentage: float | None = None
    model_export_frequency: timedelta | None = None
    log_retention_days: int | None = None
    model_retrain_days: float | None = None
    learning_mode: str | None = None
    log_mirror_enabled: bool | None = None
    is_auto_optimization_enabled: bool | None = None


_update = msgspec.json.Decoder(ConfigurationUpdate)


async def _reads(call: Call) -> bytes:
    loop = loop_of(call)
    return await asyncio.to_thread(_described, call, loop)


async def _updates(call: Call) -> bytes:
    loop, asked = loop_of(call), decode(_update, call.body)
    return await asyncio.to_thread(_updated, call, loop, asked)


def _described(call: Call, loop: str) -> bytes:
    settings = call.core.settings
    edited = changed_at(settings, loop)
    return msgspec.json.encode(configuration_of(load_loop(settings, loop, os.environ), settings.reload_s, edited))


def _updated(call: Call, loop: str, asked: ConfigurationUpdate) -> bytes:
    stands = load_loop(call.core.settings, loop, os.environ)
    changed(call, loop, values_of(asked, stands, call.core.settings.reload_s), code=_INVALID)
    return _described(call, loop)


def changed(call: Call, loop: str, values: dict[str, Any], *, code: str) -> LoopSettings:
    """Change a loop's settings and return them; blocking.

    Args:
        call: whose core it is.
        loop: the loop.
        values: see `change`.
        code: of a refusal.

    Raises:
        RefusedError: a value does not fit, or somebody else changes the settings.
    """
    try:
        return change(call.core.settings, loop, values, by=BY, environ=os.environ)
    except FieldError as error:
        raise RefusedError(400, code, str(error), field=error.field) from error
    except SettingsMovedError as error:
        raise RefusedError(409, "UpdateConfigurationFailed", f"{error}; send the update again") from error


def configuration_of(loop: LoopSettings, reload_s: float, edited: datetime) -> ServiceConfiguration:
    """Return a loop's settings as Personalizer says them.

    Args:
        loop: the settings.
        reload_s: time between two looks for a new version, in seconds.
        edited: when they were changed last.
    """
    explores = loop.policy.epsilon if loop.policy.exploration == "epsilon_greedy" else loop.baseline.explore
    return ServiceConfiguration(
        reward_wait_time=_duration(loop.reward.window_s),
        default_reward=loop.reward.default,
        reward_aggregation=loop.reward.aggregation,
        exploration_percentage=explores,
        model_export_frequency=_duration(reload_s),
        log_retention_days=_KEPT_FOR_EVER,
        model_retrain_days=loop.training.days,
        learning_mode=_MODES[loop.mode],
        log_mirror_enabled=False,
        is_auto_optimization_enabled=bool(loop.training.variants),
        last_configuration_edit_date=edited.astimezone(UTC),
    )


def values_of(asked: ConfigurationUpdate, stands: LoopSettings, reload_s: float) -> dict[str, Any]:
    """Return what an update changes in a loop's settings, {path: value}.

    Args:
        asked: the update.
        stands: the settings before it.
        reload_s: time between two looks for a new version, in seconds.

    Raises:
        RefusedError: nothing can put a value into force.
    """
    values: dict[str, Any] = {}
    if asked.reward_wait_time is not None:
        if not SHORTEST_WAIT <= asked.reward_wait_time <= LONGEST_WAIT:
            raise _refused(
                "rewardWaitTime", "5 seconds to 2 days; `reward.window_s` takes more", "InvalidRewardWaitTime"
            )
        values["reward.window_s"] = asked.reward_wait_time.total_seconds()
    if asked.default_reward is not None:
        if not LEAST_REWARD <= asked.default_reward <= LARGEST_REWARD:
            raise _refused("defaultReward", f"{LEAST_REWARD:g} to {LARGEST_REWARD:g}")
        values["reward.default"] = asked.default_reward
    if asked.reward_aggregation is not None:
        values["reward.aggregation"] = asked.reward_aggregation.lower()
    if asked.exploration_percentage is not None:
        if not 0.0 <= asked.exploration_percentage <= 1.0:
            raise _refused("explorationPercentage", "0 to 1: 0.2 is 20%")
        values["baseline.explore"] = asked.exploration_percentage
        if stands.policy.exploration == "epsilon_greedy":
            values["policy.epsilon"] = asked.exploration_percentage
    if asked.model_retrain_days is not None:
        values["training.days"] = asked.model_retrain_days
    if asked.learning_mode is not None:
        modes = {said.lower(): mode for mode, said in _MODES.items()}
        mode = modes.get(asked.learning_mode.lower())
        if mode is None:
            raise _refused(
                "learningMode", f"one of {', '.join(_MODES.values())}", "InvalidLearningModeServiceConfiguration"
            )
        values["mode"] = mode
    _check_what_cannot_be(asked, stands, reload_s)
    return values


def _check_what_cannot_be(asked: ConfigurationUpdate, stands: LoopSettings, reload_s: float) -> None:
    checks: list[tuple[bool, Callable[[], RefusedError]]] = [
        (
            asked.model_export_frequency is not None and asked.model_export_frequency.total_seconds() < reload_s,
            lambda: _refused("modelExportFrequency", f"at least {_duration(reload_s)}, which DECISION_RELOAD_S sets"),
        ),
        (
            asked.log_retention_days not in (None, _KEPT_FOR_EVER),
            lambda: _refused(
                "logRetentionDays",
                "-1: nothing is deleted by age; `decision erase` deletes what is known of a person",
                "InvalidLogRetentionDays",
            ),
        ),
        (
            bool(asked.log_mirror_enabled),
            lambda: _refused(
                "logMirrorEnabled", "false: logs stand in DECISION_FILES, and `decision export` copies them"
            ),
        ),
        (
            asked.is_auto_optimization_enabled not in (None, bool(stands.training.variants)),
            lambda: _refused(
                "isAutoOptimizationEnabled", "as it is: `training.variants` lists what every night tries besides"
            ),
        ),
    ]
    for wrong, refusal in checks:
        if wrong:
            raise refusal()


def _refused(field: str, wanted: str, code: str = _INVALID) -> RefusedError:
    error = FieldError(field, wanted=wanted, got=Words("not"), says=f"must be {wanted}")
    return RefusedError(400, code, str(error), field=field)


def _duration(seconds: float) -> str:
    return msgspec.to_builtins(timedelta(seconds=seconds))


_EXAMPLE = {
    "rewardWaitTime": "PT10M",
    "defaultReward": 0.0,
    "rewardAggregation": "earliest",
    "explorationPercentage": 0.2,
    "modelExportFrequency": "PT5M",
    "logRetentionDays": -1,
}

ROUTES: tuple[Route, ...] = (
    operation(
        "/configurations/service",
        "readServiceConfiguration",
        "Read the service configuration",
        _reads,
        method="GET",
        role="read",
        response=ServiceConfiguration,
        answers={
            **_EXAMPLE,
            "modelExportFrequency": "PT1S",
            "modelRetrainDays": 90.0,
            "learningMode": "Online",
            "logMirrorEnabled": False,
            "isAutoOptimizationEnabled": False,
            "lastConfigurationEditDate": "2026-10-01T08:00:00Z",
        },
    ),
    operation(
        "/configurations/service",
        "updateServiceConfiguration",
        "Change the service configuration",
        _updates,
        method="PUT",
        role="admin",
        request=ConfigurationUpdate,
        response=ServiceConfiguration,
        errors=(409,),
        example=_EXAMPLE,
        answers={
            **_EXAMPLE,
            "modelExportFrequency": "PT1S",
            "modelRetrainDays": 90.0,
            "learningMode": "Online",
            "logMirrorEnabled": False,
            "isAutoOptimizationEnabled": False,
            "lastConfigurationEditDate": "2026-10-01T08:00:00Z",
        },
    ),
)
