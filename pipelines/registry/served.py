"""Who is in charge, kept in MLflow: aliases are its aliases, a verdict is a tag of its version and an artifact.

A verdict is written first and the alias moved after it, so that no move is without its reasons; a verdict whose move a
crash prevented is recognised by `moves`, because the next one does not start from it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from decision.validation import prepared
from pipelines.registry.charge import ALIASES, Chosen, Version, WrittenVerdict
from pipelines.registry.tracking import MissingError, Tracking

_VERDICT = re.compile(r"verdict\.(\d{6})")


class ServedCharge:
    """A `Charge` in MLflow.

    Args:
        tracking: MLflow; its errors come through.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def loops(self) -> list[str]:
        """Return every loop that has versions."""
        return self._tracking.model_names()

    def versions(self, loop: str) -> list[Version]:
        """Return the versions, oldest first."""
        return [
            Version(
                version=str(model.version),
                run_id=model.run_id or "",
                created_at=datetime.fromtimestamp(model.creation_timestamp / 1000, UTC),
                tags={name: text for name, text in model.tags.items() if not _VERDICT.fullmatch(name)},
            )
            for model in self._tracking.models(loop)
        ]

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the aliases stand."""
        if not self._tracking.exists:
            return {}
        try:
            with self._tracking.client() as client:
                found = client.get_registered_model(loop).aliases
        except MissingError:
            return {}
        return {name: str(version) for name, version in found.items() if name in ALIASES}

    def verdicts(self, loop: str) -> list[WrittenVerdict]:
        """Return the verdicts, oldest first."""
        found = [
            msgspec.json.decode(text, type=prepared(WrittenVerdict))
            for model in self._tracking.models(loop)
            for name, text in model.tags.items()
            if _VERDICT.fullmatch(name)
        ]
        return sorted(found, key=lambda verdict: verdict.number)

    def write(self, loop: str, written: WrittenVerdict) -> None:
        """Keep a verdict and move its alias; once more changes nothing."""
        data = msgspec.json.encode(written)
        with self._tracking.client() as client:
            run_id = str(client.get_model_version(loop, written.version).run_id)
        self._tracking.upload(run_id, "verdicts", {f"{written.number:06d}.json": data})
        with self._tracking.client() as client:
            client.set_model_version_tag(loop, written.version, f"verdict.{written.number:06d}", data.decode())
            if written.alias and written.to_version is None:
                client.delete_registered_model_alias(loop, written.alias)
            elif written.alias:
                client.set_registered_model_alias(loop, written.alias, str(written.to_version))

    def registered(self, loop: str) -> None:
        """Nothing is kept beside MLflow."""

    def mirror(self) -> None:
        """Nothing is kept beside MLflow."""

    def let_go(self, loop: str, chosen: Chosen) -> list[Version]:
        """Nothing goes: homes that share no State cannot agree on what none of them needs."""
        return []

    def gone(self, loop: str, version: str) -> None:
        """Nothing goes."""
