"""Formats of other systems' logs by name: what `decision import` reads and `decision export` writes.

Each format's file ends with its `FORMAT`. The help texts stand here, so that the command line tells of a format
without importing what reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from decision.errors import FieldError

if TYPE_CHECKING:  # the command line lists formats without the library that reads them
    import pyarrow as pa

    from pipelines.progress import Progress


Reason = Literal[
    "undrawn",
    "repeated",
    "checkpoint",
    "dangling",
    "malformed",
    "truncated",
    "no_actions",
    "no_label",
    "not_a_number",
    "always_dropped",
    "after_the_end",
]
LEFT_OUT: dict[Reason, str] = {
    "undrawn": "rows without a propensity",
    "repeated": "events that were there before",
    "checkpoint": "lines that are no JSON object, as checkpoints are",
    "dangling": "outcomes whose decision is in no line",
    "malformed": "lines of broken JSON",
    "truncated": "last lines that end in the middle",
    "no_actions": "decisions without actions",
    "no_label": "decisions of which no outcome and no draw is known",
    "not_a_number": "decisions whose cost or probability is no number",
    "always_dropped": "decisions that the logger drops with probability 1",
    "after_the_end": "steps after the end of their episode",
}
"""Why a row of a log is left out, in words."""


class Entry(NamedTuple):
    """A line of the registry.

    Attributes:
        module: holds the `FORMAT`; imported when it is asked for.
        help: of ``decision import NAME``.
        suffixes: of files that ``decision export`` writes in this format unless told otherwise.
        shipped: there is a log to read without a path.
        mapped: its columns have names of their own, which the user maps to fields.
        drawn: it may hold no propensities; the user says whether every action offered was as probable.
        strict: what it leaves out, it refuses if the user says so.
        timed: its times may be numbers, of which the user may say the unit.
    """

    module: str
    help: str
    suffixes: tuple[str, ...] = ()
    shipped: bool = False
    mapped: bool = False
    drawn: bool = False
    strict: bool = False
    timed: bool = False


FORMATS = {
    "open-bandit": Entry(
        "pipelines.formats.open_bandit",
        "Import Open Bandit logs: every policy and campaign below PATH as NAME-POLICY-CAMPAIGN.\n\n"
        "The data set records the propensity of the item shown, not the whole distribution, and so does the import."
        "\n\n"
        "Example: `decision import open-bandit && decision replay open-bandit-bts-women`",
        shipped=True,
    ),
    "dsjson": Entry(
        "pipelines.formats.dsjson.format",
        "Import a dsjson log, as VW's reinforcement learning library and Azure Personalizer write it, also of several "
        "slots (CCB).\n\n"
        "PATH is a file, a folder with its folders (`2026/08/03_07.json`), a pattern, or - for standard input; files "
        "may be compressed (.gz, .zst). Lines that VW would skip are left out and counted by their reason, and so are "
        "events that come again; `--strict` refuses them.\n\n"
        "Example: `decision import dsjson personalizer/ --name news-2025`",
        suffixes=(".dsjson", ".json"),
        strict=True,
    ),
    "parquet": Entry(
        "pipelines.formats.parquet",
        "Import interactions from Parquet: the columns of `decision export --format parquet`, or others by a map.\n\n"
        "Required: event_id, ts, action_ids, action_index, propensity, reward. Everything else may be missing. "
        "Features (context, actions) are JSON texts, structs or maps; the index of pandas is left alone. With --map, "
        "COLUMN may be a field of a struct (user.age), `action` is the drawn action's id in place of action_index, "
        "context.NAME makes a column a feature, and other columns are left alone.\n\n"
        "Examples: `decision import parquet march.parquet --name march`, "
        "`decision import parquet clicks.parquet --map action=shown --map context.age=user.age`",
        suffixes=(".parquet",),
        mapped=True,
        timed=True,
    ),
    "obp": Entry(
        "pipelines.formats.obp",
        "Import an Open Bandit Pipeline `bandit_feedback` from an npz file (`numpy.savez(path, **bandit_feedback)`)."
        "\n\nRequired: n_actions, action, reward, pscore. Optional: context, action_context, position, pi_b.\n\n"
        "Example: `decision import obp feedback.npz --name synthetic`",
        suffixes=(".npz",),
    ),
    "scope-rl": Entry(
        "pipelines.formats.scope_rl",
        "Import a SCOPE-RL `logged_dataset` with discrete actions from an npz file; a trajectory becomes an episode."
        "\n\nTrajectories may be of unequal lengths: `done` or `terminal` ends them, or `step_per_trajectory` holds "
        "the length of each.\n\n"
        "Example: `decision import scope-rl logged.npz --name rec`",
    ),
    "minari": Entry(
        "pipelines.formats.minari",
        "Import a Minari data set with discrete actions in its Arrow layout; propensities come from "
        '`infos["propensity"]`, NaN in the row of each reset.\n\n'
        "Example: `decision import minari ~/.minari/datasets/shop/clicks-v0 --name clicks`",
    ),
    "csv": Entry(
        "pipelines.formats.csv",
        "Import a session log from CSV, with a map from fields to its columns.\n\n"
        "Needed: ts (RFC 3339, or numbers since 1970), action, actions (the ids offered, with | between them or as a "
        "list), propensity, reward. Optional: event, subject, episode, step, version, context.NAME; context and "
        "features (of each action) as JSON. Rows without a propensity are left out and counted; with `--uniform` no "
        "column of them is needed. Columns stand between commas, semicolons or tabs.\n\n"
        "Example: `decision import csv feed.csv --name feed-2025 --map subject=user_id --map action=video_id`",
        mapped=True,
        drawn=True,
        timed=True,
    ),
    "kuairand": Entry(
        "pipelines.formats.kuairand",
        "Import the randomly exposed videos of a KuaiRand log (`log_*.csv`), whose propensities are known; all other "
        "rows are left out and counted.\n\n"
        "The reward is is_click, or the column of `--map reward=long_view`; `--map context.NAME=COLUMN` adds features "
        "beside the tab. Of a pool of more than 100 videos, 100 count as offered, drawn at random with the one "
        "shown.\n\n"
        "Example: `decision import kuairand log_random_4_22_to_5_08_1k.csv --name kuairand`",
        mapped=True,
    ),
    "recsim": Entry(
        "pipelines.formats.recsim",
        "Import the episodes that RecSim's runner logs (TFRecord), of slates of one document.\n\n"
        "RecSim logs no propensities: `--uniform` says that its random agent wrote the log; no other log can be "
        "evaluated.\n\n"
        "Example: `decision import recsim episodes.tfrecord --uniform --name recsim`",
        drawn=True,
    ),
}


class Found(NamedTuple):
    """A log that was found, to be kept as one import.

    Attributes:
        name: of the import.
        source: where it was read from.
        batches: its rows, see `pipelines.formats.rows.complete`; read when they are asked for.
        attribution: whose data it is.
        left_out: {reason: how many rows were left out so far}.
    """

    name: str
    source: str
    batches: Iterable[pa.Table]
    attribution: str = ""
    left_out: Callable[[], Mapping[Reason, int]] = dict


class Format(NamedTuple):
    """One format.

    Attributes:
        find: (path, name) -> the logs there; the path is None for the one that is shipped. A format that is mapped
            takes {field: column} as well, one that may hold no propensities ``uniform=``, one that is strict if
            asked to ``strict=``, and one that is timed ``time_unit=``.
        write: (interactions, path, progress) -> rows written, and rows that the format cannot hold; None where it is
            only read.
    """

    find: Callable[..., Iterable[Found]]
    write: Callable[[pa.Table, Path, Progress], tuple[int, int]] | None = None


def one_log(read: Callable[[Path, str], Iterable[pa.Table]]) -> Callable[[Path | None, str], Iterable[Found]]:
    """Return `Format.find` of a format whose file holds one log."""

    def find(path: Path | None, name: str) -> Iterable[Found]:
        if path is None:
            raise FieldError("path", wanted="the file or folder to read", got=None)
        return [Found(name, path.name, read(path, name))]

    return find


def format_of(name: str) -> Format:
    """Return the format of that name.

    Raises:
        FieldError: there is none.
    """
    if name not in FORMATS:
        raise FieldError.choice("format", list(FORMATS), name)
    return import_module(FORMATS[name].module).FORMAT
