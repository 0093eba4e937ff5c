"""The image: built from `infra/image/Dockerfile` without a daemon, and used as its user on files that it cannot write.

``make soak NAME=image``, some four minutes. Buildah builds on a base that debootstrap makes, or on one given by
``ARGS="--base IMAGE"``; both are Debian packages, and debootstrap needs root. What is missing skips the run, with the
reason. The folder (``--folder``) keeps base and layers for the next run.

In the image `decision --help` runs, a service answers one decision and ends, and a night passes. After that, no file is
new or changed but in DECISION_HOME and /tmp, so that a read-only root will do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE, IMAGE = "localhost/decision-base", "localhost/decision"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PORT = 18931  # in the host's network
USE = f"""
set -eu
touch /tmp/before
decision init shop >/tmp/output 2>&1
DECISION_HOST=127.0.0.1 DECISION_PORT={PORT} decision serve >>/tmp/output 2>&1 &
service=$!
python3 - <<'END' || {{ cat /tmp/output; exit 1; }}
import time, urllib.request
url = "http://127.0.0.1:{PORT}/v1/loops/shop/decide"
body = b'{{"context": {{}}, "actions": [{{"id": "a"}}, {{"id": "b"}}]}}'
for attempt in range(600):
    try:
        assert b'"propensity":0.5' in urllib.request.urlopen(url, body, timeout=60).read()
        break
    except OSError:
        assert attempt < 599
        time.sleep(0.1)
END
kill $service
wait $service || true
decision nightly shop --json >/tmp/night 2>>/tmp/output || {{ cat /tmp/output; exit 1; }}
grep -q '"decisions":1' /tmp/night
id -u
find / -xdev -type f -newer /tmp/before ! -path '/proc/*' ! -path '/sys/*' ! -path '/dev/*' 2>/dev/null \\
  | grep -v -e '^/tmp/' -e '^/var/lib/decision/' || true
"""


def main() -> None:
    """Build the image, use it, and print a row for each step, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="", help="an image that is there, or can be pulled, instead of debootstrap's")
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/decision/image").expanduser())
    options = parser.parse_args()
    if reason := missing(options.base):
        print(json.dumps({"name": "image", "skipped": reason}))
        return
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    steps: dict[str, float] = {}

    def timed(step: str, *arguments: str) -> str:
        begun = time.monotonic()
        output = run(*arguments)
        steps[step] = round(time.monotonic() - begun, 1)
        print(f"{step:<8} {steps[step]:>6.1f} s", flush=True)
        return output

    buildah = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
    base = options.base or BASE
    if not options.base and BASE not in run(*buildah, "images", "--noheading", "--format", "{{.Name}}").split():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tree = f"{scratch}/tree"
            packages = "--include=python3,python3-venv,ca-certificates"
            timed("base", "debootstrap", "--variant=minbase", packages, "bookworm", tree)
            shutil.copy(ssl.get_default_verify_paths().cafile or CERTIFICATES, tree + CERTIFICATES)
            made = run(*buildah, "from", "scratch").strip()
            run(*buildah, "add", "--quiet", made, tree, "/")
            run(*buildah, "commit", "--quiet", "--rm", made, BASE)
    where = ROOT / "infra/image"
    trusted = [part for name in ("PIP_CERT", "SSL_CERT_FILE") for part in ("--build-arg", f"{name}={CERTIFICATES}")]
    files = ["--file", f"{where}/Dockerfile", "--ignorefile", f"{where}/Dockerfile.dockerignore"]
    arguments = ["--layers", "--build-arg", f"BASE={base}", *trusted, *files, "--tag", IMAGE, str(ROOT)]
    timed("image", *buildah, "build", *arguments)
    size = run(*buildah, "images", "--noheading", "--format", "{{.Size}}", IMAGE).strip()
    container = run(*buildah, "from", IMAGE).strip()
    try:
        assert "decision" in timed("help", *buildah, "run", container, "decision", "--help")
        user, *written = timed("use", *buildah, "run", container, "bash", "-c", USE).split()
    finally:
        run(*buildah, "rm", container)
    found = {"user": int(user), "size": size, "written": written, "seconds": steps}
    print(json.dumps({"name": "image", **found}))
    sys.exit(int(user) == 0 or bool(written))


def missing(base: str) -> str:
    """Return why no image can be built here, "" when one can."""
    if shutil.which("buildah") is None:
        return "buildah is not installed"
    if base:
        return ""
    if os.geteuid() != 0:
        return "debootstrap needs root; give --base IMAGE"
    return "" if shutil.which("debootstrap") else "debootstrap is not installed; give --base IMAGE"


def run(*command: str) -> str:
    """Return what a command printed; raises `RuntimeError` with the end of it when it failed."""
    variables = os.environ | {"BUILDAH_ISOLATION": "chroot"}  # needs neither a daemon nor privileges of a container
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)[:200]}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
