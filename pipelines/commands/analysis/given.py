"""What commands about logs are given: the name of a log, and a policy to try on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decision.errors import FieldError
from pipelines.operations.installation import Installation
from pipelines.settings import BaselineSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.replay.policy import PolicySpec
    from pipelines.replay.source import Cut, Source

Log = Annotated[str, typer.Argument(metavar="LOG", help="A loop, or the name of an import.", show_default=False)]


def logged(parts: Installation, name: str) -> pa.Table:
    """Return the settled interactions of a loop or an import.

    Raises:
        FieldError: there is neither.
    """
    from pipelines.formats.store import load_import

    return parts.lake.interactions(name) if is_loop(parts, name) else load_import(parts.settings, name)


def is_loop(parts: Installation, name: str) -> bool:
    """Return whether `name` is a loop; if not it is an import.

    Raises:
        FieldError: it is neither.
    """
    from pipelines.formats.store import list_imports

    if name in parts.loops:
        return True
    imports = [note.name for note in list_imports(parts.settings)]
    if name not in imports:
        known = [*parts.loops, *imports]
        raise FieldError("log", wanted=f"one of {known}" if known else "a loop or an import", got=name)
    return False


def rows_of(
    parts: Installation, log: str, cut: Cut, table_version: int | None
) -> tuple[Source, str, float | None, float | None]:
    """Return the rows of a log, what was left out, and the smallest and the largest reward where they are known.

    Raises:
        FieldError: there is no such log or version of its table.
    """
    from dataclasses import replace

    from pipelines.formats.store import import_key
    from pipelines.replay.source import import_source, source_of
    from pipelines.training.settled import IMPORTED

    if not is_loop(parts, log):
        if table_version is not None:
            raise FieldError("table_version", wanted="absent for an import, which has one version", got=table_version)
        return import_source(parts.settings.files_url, import_key(parts.settings, log), cut), "", None, None
    reward = parts.loop(log).reward
    cut = replace(cut, versions=(reward.version, IMPORTED))
    return source_of(parts.lake, log, version=table_version, cut=cut), "", reward.minimum, reward.maximum


def holdout_of(parts: Installation, log: str, cut: Cut, table_version: int | None) -> tuple[Source, str]:
    """Return the decisions of a loop that no version was trained on, and what was left out."""
    from pipelines.replay.source import TableSource
    from pipelines.training.window import window

    found = window(parts.lake, parts.loop(log), table_version)
    return TableSource(found.holdout, cut), f"{found.rows} decisions that a version may have learned from"


def policy_of(parts: Installation, log: str, policy: str) -> PolicySpec:
    """Return the policy that an option names.

    Raises:
        FieldError: there is none of this name, or its file cannot be read.
    """
    from pipelines.replay.policy import PolicySpec

    if policy == "uniform" or policy == "first":
        return PolicySpec(kind=policy, name=f"{policy} policy")
    if policy == "ranking":
        steepness = parts.loop(log).baseline.steepness if log in parts.loops else BaselineSettings().steepness
        return PolicySpec(kind=policy, name="ranking policy", steepness=steepness)
    if policy.endswith(".py"):
        raise FieldError("policy", wanted=f"the function too, as in {policy}:policy", got=policy)
    if ".py:" in policy:
        return PolicySpec(kind="python", name=policy, path=policy)
    if policy.endswith(".toml") or "/" in policy or (":" not in policy and Path(policy).is_dir()):
        return _from_disk(Path(policy))
    if ":" in policy:
        return PolicySpec(kind="python", name=policy, path=policy)
    if log not in parts.loops:
        raise FieldError(
            "policy",
            wanted="uniform, first, ranking, file.py:function, rules.toml or a folder with a model for an import",
            got=policy,
        )
    version = policy
    if policy == "champion":
        champion = parts.registry.aliases(log).get("champion")
        if champion is None:
            raise FieldError("policy", wanted="a loop with a champion", got=policy)
        version = champion
    elif policy not in {entry.version for entry in parts.registry.versions(log)}:
        known = [entry.version for entry in parts.registry.versions(log) if entry.kept == "whole"]
        raise FieldError(
            "policy",
            wanted=f"champion, uniform, first, ranking, file.py:function, rules.toml or one of {known}",
            got=policy,
        )
    return PolicySpec(kind="version", name=f"version {version}", files=parts.registry.files(log, version))


def _from_disk(path: Path) -> PolicySpec:
    from decision.artifact import MANIFEST_FILE, MAX_BYTES
    from pipelines.replay.policies.rules import MAX_BYTES as MAX_RULES
    from pipelines.replay.policy import PolicySpec

    if path.is_dir():
        if not (path / MANIFEST_FILE).is_file():
            raise FieldError("policy", wanted=f"a folder with the {MANIFEST_FILE} of a version", got=str(path))
        found = [each for each in sorted(path.iterdir()) if each.is_file()]
        size = sum(each.stat().st_size for each in found)
        if size > MAX_BYTES:
            raise FieldError("policy", wanted=f"a model of at most {MAX_BYTES} bytes", got=size)
        return PolicySpec(
            kind="version", name=f"model {path.name}", files={each.name: each.read_bytes() for each in found}
        )
    if path.suffix != ".toml" or not path.is_file():
        raise FieldError("policy", wanted="a file of rules (.toml) or a folder with a model", got=str(path))
    with path.open("rb") as file:  # at most a byte more than there may be
        text = file.read(MAX_RULES + 1)
    return PolicySpec(kind="rules", name=f"rules of {path.name}", files={path.name: text})


def generations_of(parts: Installation, log: str) -> dict[str, PolicySpec]:
    """Return the policies that drew the log of a loop, by version.

    Raises:
        FieldError: the log is no loop's.
    """
    from pipelines.replay.policy import PolicySpec

    if log not in parts.loops:
        raise FieldError("balanced", wanted="a loop, whose generations are registered", got=log)
    out = {
        entry.version: PolicySpec(
            kind="version", name=f"version {entry.version}", files=parts.registry.files(log, entry.version)
        )
        for entry in parts.registry.versions(log)
        if entry.kept == "whole"
    }
    loop = parts.loop(log)
    kind = loop.reference
    drawn = PolicySpec(kind=kind, name=f"{kind} policy", steepness=loop.steepness, explore=loop.explored)
    return out | dict.fromkeys(("", f"baseline:{kind}"), drawn)
