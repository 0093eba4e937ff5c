"""The image's recipe: linted, for a user without rights, with settings that exist. `tests.soak.image` builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pipelines.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "infra/image/Dockerfile"
IGNORED = ROOT / "infra/image/Dockerfile.dockerignore"


def hadolint(recipe: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([Path(sys.executable).with_name("hadolint"), recipe], capture_output=True, text=True)


def test_the_recipe_passes_hadolint(tmp_path: Path) -> None:
    done = hadolint(RECIPE)
    assert done.returncode == 0, done.stdout
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install curl\n")
    assert hadolint(careless).returncode == 1


def test_what_the_recipe_copies_is_all_that_the_build_sees() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", RECIPE.read_text(), re.MULTILINE)
    seen = [line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")]
    assert sorted(name for names in copied for name in names.split()) == sorted(seen)
    assert all((ROOT / name).exists() for name in seen)


def test_the_image_serves_as_a_user_without_rights_under_settings_that_exist() -> None:
    text = RECIPE.read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    settings = load_settings(dict(re.findall(r"(DECISION_\w+)=(\S+)", text.split("\nENV ")[1].split("\nUSER")[0])))
    assert (settings.home, settings.host, settings.log_format) == ("/var/lib/decision", "0.0.0.0", "json")
    assert f"EXPOSE {settings.port}\n" in text
