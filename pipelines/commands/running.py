"""What runs for long: the service, the forwarder, a broker for development, and the live view of it all."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from itertools import count
from typing import Annotated

import msgspec
import typer

from pipelines.commands.outcome import FAILED, Home, Json, Outcome, command, console, progress
from pipelines.files import make_home
from pipelines.operations.installation import Installation
from pipelines.settings import Settings, list_loops, load_settings
from pipelines.state.failures import StateError

_LOOK_S = 1.0
_LOOKS_A_DISK = 30
"""Of so many looks of `decision top` one is at the disk, which may hold many files."""


@command
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to bind to (default: $DECISION_HOST or 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (default: $DECISION_PORT or 8080).")] = None,
    bento_port: Annotated[
        int | None, typer.Option(help="BentoML's own port (default: $DECISION_BENTO_PORT or --port and 10,000).")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (default: $DECISION_WORKERS or 1).")] = None,
    log: Annotated[
        str | None, typer.Option(help="Event log, local: or kafka://host:port (default: $DECISION_LOG or local:).")
    ] = None,
    json: Json = False,
) -> Outcome:
    """Run the service in the foreground. With a kafka:// log, the forwarder runs beside it.

    Example: `decision serve --port 8080`, then
    `curl localhost:8080/v1/loops/news/decide -d '{"context": {}, "actions": [{"id": "a"}, {"id": "b"}]}'`
    """
    from pipelines.log.open import open_log
    from pipelines.operations.doctor import examine
    from pipelines.operations.processes import check_keys, check_port, environment, serve_command

    settings = load_settings(
        home=None if home is None else str(home), host=host, port=port, bento_port=bento_port, workers=workers, log=log
    )
    check_keys(settings)
    if settings.log != "local:":
        open_log(settings.log_url).close()  # connects nowhere: refuses an address that does not fit before all starts
    check_port("port", settings.host, settings.port)
    check_port("bento_port", settings.host, settings.frame_port)
    make_home(settings.root)
    if _has_no_loops(settings):
        console.print("[yellow]no loops yet:[/] `decision init LOOP` makes one; until then the service is not ready")
    for finding in examine(settings):
        bad = finding.probe == "refused" or not finding.reachable
        style = "red" if bad else "yellow" if finding.advice else ""
        console.print(str(finding), style=style, markup=False, highlight=False, soft_wrap=True)
    command_line = serve_command(settings)
    sys.stdout.flush()
    if settings.log == "local:" or settings.ack != "disk":
        os.execve(command_line[0], command_line, environment(settings))  # noqa: S606 - the service takes our place
    service, left = _run_forwarded(command_line, settings)
    if left:
        console.print(f"[yellow]not forwarded:[/] {left} messages stay in {settings.spool_path} for the next start")
    return Outcome({"status": service}, None, FAILED if service else 0)


@command
def forward(
    home: Home = None,
    once: Annotated[bool, typer.Option("--once", help="Copy what is there and exit.")] = False,
    json: Json = False,
) -> Outcome:
    """Copy the spool to the event log, in order and without loss, through broker outages.

    `decision serve` starts a forwarder by itself where one is needed.

    Example: `DECISION_LOG=kafka://broker:9092 decision forward`
    """
    from pipelines.ingestion.forward import run_forwarder

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = load_settings(home=None if home is None else str(home))
    done = run_forwarder(
        settings, once=once, stop=stop, on_pass=lambda so_far: progress("messages forwarded", so_far.messages)
    )
    data = {
        "messages": done.messages,
        "bytes": done.bytes,
        "trimmed": done.trimmed,
        "failures": done.failures,
        "lag": sum(done.lag.values()),
    }
    return Outcome(data, lambda out: out.print(f"forwarded {done.messages} messages, {data['lag']} are left"))


@command
def top(
    home: Home = None,
    once: Annotated[bool, typer.Option("--once", help="Show the current state and exit.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between updates.", min=0.2)] = 2.0,
    json: Json = False,
) -> Outcome:
    """Watch the loops: who is in charge, what was decided, joined and dropped, how far ingestion lags, and the space.

    Example: `decision top --once --json`
    """
    from rich.live import Live

    from pipelines.operations.status import look, status_table

    with Installation.at(home) as parts:
        seen = look(parts)
        if not (once or json):
            try:
                with Live(status_table(seen), console=console, auto_refresh=False) as live:
                    for number in count(1):
                        time.sleep(every)
                        seen = look(parts, None if number % _LOOKS_A_DISK == 0 else seen.disk)
                        live.update(status_table(seen), refresh=True)
            except KeyboardInterrupt:
                pass
            return Outcome(msgspec.to_builtins(seen))
    return Outcome(msgspec.to_builtins(seen), lambda out: out.print(status_table(seen)))


def _has_no_loops(settings: Settings) -> bool:
    try:
        return not list_loops(settings)
    except StateError:  # as the lines about the addresses say
        return False


def _run_forwarded(command_line: list[str], settings: Settings) -> tuple[int, int]:
    """Run the service with a forwarder beside it; return its status, and how many messages are not forwarded."""
    import subprocess
    from contextlib import ExitStack

    from pipelines.operations.parent import started_by_us
    from pipelines.operations.processes import environment, forward_command, process, wait_until_forwarded

    told = list[int]()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda sent, _: told.append(sent))
    output = settings.root / "forwarder.log"
    console.print(f"forwarding to {_place(settings)}, output in {output}")
    with ExitStack() as stack:

        def beside() -> subprocess.Popen[bytes]:
            return stack.enter_context(process("forwarder", forward_command(), settings, output))

        forwarder = beside()
        child = subprocess.Popen(command_line, env=environment(settings) | started_by_us())  # noqa: S603 - a command line of ours
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda sent, _: (told.append(sent), child.terminate()))
        if told:
            child.terminate()
        while True:
            try:
                service = child.wait(_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if (status := forwarder.poll()) is not None:
                    console.print(f"[yellow]the forwarder ended with status {status}:[/] started again")
                    forwarder = beside()
        if told and service == -signal.SIGTERM:
            service = 0  # told to end while it still started: it had nothing to finish
        return service, wait_until_forwarded(forwarder, settings)


def _place(settings: Settings) -> str:
    return settings.log.split("?")[0]
