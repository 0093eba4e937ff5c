"""The one place for settings: an installation's, and each loop's ``loop.toml``.

Values come from the file, environment variables override them, and what does not fit names the file or variable, the
key, what fits, and what was probably meant. Bounds and defaults that the core shares are in `decision.options`.
Installation: ``DECISION_HOME``, ``DECISION_LOG``, ... (one per field of `Settings`). Loop:
``DECISION_LOOP_<NAME>__<SECTION>__<KEY>``, the loop's name in capitals with "-" as "_". Machines that
share State have a loop's settings there, as `decision apply` put them.
"""

from pipelines.settings.installation import BENTO_PORT_OFFSET, LOOP_NAME, Settings, check_loop_name, load_settings
from pipelines.settings.loop import (
    AuxiliaryOutcome,
    BaselineSettings,
    FairnessSettings,
    FeatureSettings,
    GateSettings,
    GuardSettings,
    LoopSettings,
    RetentionSettings,
    RewardSettings,
    TrainingSettings,
    Variant,
)
from pipelines.settings.reading import (
    LOOPS,
    MAX_FILE_BYTES,
    applied_loops,
    list_loops,
    load_loop,
    load_loops,
    parse_applied,
    parse_loop,
    read_loop_file,
    refuse_overrides,
    setting_names,
    settings_key,
    unknown_setting,
)

__all__ = [
    "BENTO_PORT_OFFSET",
    "LOOPS",
    "LOOP_NAME",
    "MAX_FILE_BYTES",
    "AuxiliaryOutcome",
    "BaselineSettings",
    "FairnessSettings",
    "FeatureSettings",
    "GateSettings",
    "GuardSettings",
    "LoopSettings",
    "RetentionSettings",
    "RewardSettings",
    "Settings",
    "TrainingSettings",
    "Variant",
    "applied_loops",
    "check_loop_name",
    "list_loops",
    "load_loop",
    "load_loops",
    "load_settings",
    "parse_applied",
    "parse_loop",
    "read_loop_file",
    "refuse_overrides",
    "setting_names",
    "settings_key",
    "unknown_setting",
]
