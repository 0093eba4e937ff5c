"""`decision` for the shells of tests, imported once: every command is a fork of one process, and starts at once.

Run as a program, this file is the command that a shell calls: it hands its words, folder, environment and files on.
"""

from __future__ import annotations

import json
import os
import socket
import sys

_HEAVY = ("deltalake", "duckdb", "mlflow", "pandas", "scipy.stats", "vowpalwabbit", "pipelines.nightly")


def ask(path: str, words: list[str]) -> int:
    """Let the process that listens at `path` run a command here; return its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        given = {"words": words, "folder": os.getcwd(), "environ": dict(os.environ)}
        connection.sendall(json.dumps(given).encode())
        connection.shutdown(socket.SHUT_WR)
        return next(iter(connection.recv(1)), 1)


def listen(path: str) -> None:
    """Run what is asked for at `path`, each command in a process of its own, until this one is ended."""
    import importlib
    import threading

    from pipelines import cli

    for name in _HEAVY:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads must not be forked"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    children: set[int] = set()
    while True:
        connection, _ = listener.accept()
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        children = {child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0}
        child = os.fork()
        if child == 0:
            listener.close()
            _run(cli.main, connection, files)
        children.add(child)
        connection.close()
        for file in files:
            os.close(file)


def _run(main: object, connection: socket.socket, files: list[int]) -> None:
    import atexit
    import faulthandler
    import traceback

    status = 1
    try:
        with connection.makefile("rb") as message:
            given = json.loads(message.read())
        for number, file in enumerate(files):
            os.dup2(file, number)
        faulthandler.enable()
        os.chdir(given["folder"])
        os.environ.clear()
        os.environ.update(given["environ"])
        sys.argv = ["decision", *given["words"]]
        main(given["words"])  # type: ignore[operator]
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
