"""The service on its two ports, as processes: both answer the same, workers share one, and an ending loses nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipelines.files import SOURCES
from pipelines.operations.init import init_loop
from pipelines.operations.processes import environment, free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings, load_settings
from tests.e2e.traffic import BODY, Load, check_booked_once
from tests.promtool import promtool
from tests.worlds.fleet import processes_of

pytestmark = pytest.mark.connected


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("two-workers")
    settings = load_settings({}, home=str(home), port=free_port(), workers=2)
    init_loop(settings, "news")
    output = home / "service.log"
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        wait_until(lambda: output.read_text().count("open host=") >= 2, "both workers to open the door")
        yield settings


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/loops/news/decide", BODY | {"event_id": "same"}),
        ("POST", "/v1/loops/news/decide", BODY | {"nothing": 1}),
        ("POST", "/v1/loops/other/decide", BODY),
        ("POST", "/v1/loops/news/decide/batch", {"decisions": [BODY | {"event_id": "first"}]}),
        ("POST", "/v1/loops/news/outcomes", {"event_id": "same", "value": 1}),
        ("POST", "/v1/loops/news/outcomes", "x" * (2 << 20)),
        ("GET", "/v1/decisions/same", None),
        ("GET", "/v1/loops", None),
        ("GET", "/livez", None),
        ("GET", "/readyz", None),
        ("HEAD", "/livez", None),
        ("PUT", "/livez", None),
        ("GET", "/nothing", None),
        ("GET", "/openapi.json", None),
    ],
)
def test_both_ports_answer_the_same(two_workers: Settings, method: str, path: str, body: Any) -> None:
    ours, bentos = (ask(port, method, path, body) for port in (two_workers.port, two_workers.frame_port))
    for answer in (ours, bentos):
        answer[1].pop("date", None)
    assert ours == bentos
    assert ours[0] < 500


def test_a_scrape_keeps_to_prometheus_conventions_by_its_own_checker(two_workers: Settings) -> None:
    for path, body in (("decide", BODY), ("decide", {"nothing": 1}), ("outcomes", {"event_id": "e", "value": 1})):
        ask(two_workers.port, "POST", f"/v1/loops/news/{path}", body)
    status, _, text = ask(two_workers.port, "GET", "/metrics")
    assert status == 200
    checked = promtool("check", "metrics", given=text.decode())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    wrong = promtool("check", "metrics", given="# TYPE decided counter\ndecided 1\n")
    assert wrong.returncode != 0


def test_metrics_of_any_worker_count_the_requests_of_both_workers_on_both_ports(two_workers: Settings) -> None:
    def decided() -> float:
        text = ask(two_workers.port, "GET", "/metrics")[2].decode()
        found = re.findall(r'^decision_request_seconds_count\{route="decide",status="200"\} (.*)$', text, re.MULTILINE)
        return float(found[0]) if found else 0.0

    before = decided()
    for port in (two_workers.port, two_workers.frame_port):
        for _ in range(8):  # on connections of their own, which the system spreads over the workers
            assert ask(port, "POST", "/v1/loops/news/decide", BODY)[0] == 200
    # a request is counted once its answer is sent, while another worker may be asked already
    wait_until(lambda: decided() >= before + 16, "every request to be counted by whichever worker is asked")


def test_the_workers_of_a_run_count_in_its_own_folder(two_workers: Settings) -> None:
    (run,) = (two_workers.root / "metrics").iterdir()
    assert len(list(run.glob("histogram_*.db"))) == 2  # written by each worker, and by nobody else


def test_a_page_of_another_site_is_refused_on_both_ports(two_workers: Settings) -> None:
    for port in (two_workers.port, two_workers.frame_port):
        assert ask(port, "POST", "/v1/loops/news/decide", BODY, Origin="http://elsewhere.example")[0] == 403
        assert ask(port, "POST", "/v1/loops/news/decide", BODY, Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_no_path_or_id_becomes_a_label_on_either_port(two_workers: Settings) -> None:
    ports = (two_workers.port, two_workers.frame_port)

    def labelled(text: str) -> set[str]:
        names = {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        assert all(name.startswith("decision_") for name in names)  # nothing of BentoML's
        return {name for name in names if name.startswith("decision_request_seconds_count")}

    for round_ in range(2):
        for port in ports:
            for number in range(10):
                one = f"{port}-{round_}-{number}"
                assert ask(port, "POST", f"/personalizer/v1.0/events/{one}/reward", {"value": 1})[0] == 204
                assert ask(port, "GET", f"/nothing/{one}")[0] == 404
                assert ask(port, "GET", f"/v1/decisions/{one}")[0] == 404
    for port in ports:
        seen = labelled(ask(port, "GET", "/metrics")[2].decode())
        assert all(re.search(r'route="[A-Za-z]+",status="\d{3}"', name) for name in seen)
        assert sum('status="404"' in name for name in seen) <= 4  # one for each route, one for paths that are none


def test_workers_share_the_service_port(two_workers: Settings) -> None:
    def decided() -> int:
        return json.loads(ask(two_workers.port, "GET", "/v1/loops/news")[2])["process"]["decided"]

    def two_counts() -> bool:
        # One more decision each time, since both may have decided equally many; none between the two readings.
        ask(two_workers.port, "POST", "/v1/loops/news/decide", BODY)
        return decided() != decided()

    wait_until(two_counts, "two workers to tell what each has decided")


def test_a_second_service_on_the_same_port_is_refused_with_the_name_of_the_setting(
    two_workers: Settings, tmp_path: Path
) -> None:
    second = load_settings({}, home=str(tmp_path), port=two_workers.port, bento_port=free_port())
    init_loop(second, "news")
    for command in (
        [sys.executable, "-m", "pipelines.cli", "serve", "--home", second.home],
        serve_command(second),
    ):
        done = subprocess.run(
            command, env=environment(second), cwd=SOURCES, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode
        told = (done.stdout + done.stderr).strip().splitlines()[-1]
        assert told.endswith(f"port: must be free, {second.port} is taken on 127.0.0.1 (DECISION_PORT)")


def test_a_public_address_without_keys_is_refused_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port())
    public = load_settings({}, home=str(tmp_path), port=settings.port, host="0.0.0.0")
    init_loop(settings, "news")
    made = "`decision keys create` makes one, DECISION_API_KEYS holds some"
    says = f"api_keys: must be given, since 0.0.0.0 is not loopback ({made})"
    for command, started in (
        ([sys.executable, "-m", "pipelines.cli", "serve", "--host", "0.0.0.0"], settings),
        ([*serve_command(settings), "--host", "0.0.0.0"], settings),
        (serve_command(public), public),
    ):
        done = subprocess.run(
            command, env=environment(started), cwd=SOURCES, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, (done.stdout + done.stderr).strip()) == (2, f"error: {says}")


def test_service_told_to_end_under_load_loses_and_repeats_nothing_it_acknowledged(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port(), workers=2)
    init_loop(settings, "news")
    output = tmp_path / "service.log"
    loads = [Load(port, f"l{port}-{i}") for port in (settings.port, settings.frame_port) for i in range(4)]
    for load in loads:
        load.start()
    for opened in (2, 4):
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            wait_until(
                lambda opened=opened: output.read_text().count("Completed async startup hook: open") == opened,
                "both workers to have opened",  # one answers while the other still begins
            )
            before = [len(load.decided) for load in loads]
            wait_until(
                lambda before=before: all(len(load.decided) > n + 5 for load, n in zip(loads, before, strict=True)),
                "every connection to be answered a few times",
            )
        assert output.read_text().count("Service instance cleanup finalized") == opened
    check_booked_once(loads, settings.spool_path)


def test_a_built_bento_opens_both_ports(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port())
    init_loop(settings, "news")
    build = (
        "import bentoml; print(bentoml.build('serving.service:DecisionService', build_ctx='.', "
        "include=['decision/', 'simulators/', 'pipelines/', 'serving/'], python={'lock_packages': False}).tag)"
    )
    store = {"BENTOML_HOME": str(tmp_path / "bentos"), "BENTOML_DO_NOT_TRACK": "1"}
    built = subprocess.run(
        [sys.executable, "-c", build],
        cwd=SOURCES,
        env=os.environ | store,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    tag = built.stdout.strip().splitlines()[-1]
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(settings.frame_port)]
    output = tmp_path / "service.log"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in store.items():
            patch.setenv(name, value)
        running = stack.enter_context(process("bento", command, settings, output))
        wait_until_ready(running, settings, output)
        answers = [
            ask(port, "POST", "/v1/loops/news/decide", BODY | {"event_id": "e"})
            for port in (settings.port, settings.frame_port)
        ]
    assert answers[0][0] == 200
    assert answers[0][2] == answers[1][2]


def test_workers_end_in_order_once_their_supervisor_was_killed(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port(), workers=2)
    init_loop(settings, "news")
    output = tmp_path / "service.log"
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        started = "Completed async startup hook: open"
        wait_until(lambda: output.read_text().count(started) == 2, "both workers to have opened")
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        wait_until(lambda: not processes_of(tmp_path), "the workers to end", progress=lambda: processes_of(tmp_path))
    assert output.read_text().count("Service instance cleanup finalized") == 2
