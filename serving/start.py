"""Opens an installation for serving: every part in order, and one owner that closes them in the reverse order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from pipelines.files import make_home
from pipelines.log.protocol import TOPICS, LogUnavailable
from pipelines.log.sqlite.log import LocalLog
from pipelines.online.connection import Online, open_online
from pipelines.operations.processes import check_keys
from pipelines.registry.registry import Registry
from pipelines.retention.erasures import Erasures, is_announced
from pipelines.settings import Settings
from pipelines.state.state import State
from serving import metrics
from serving.core import Core
from serving.lags import INGEST_EVERY_S, DiskUse, IngestLag, Lags
from serving.loops import Loops
from serving.problems import TITLES
from serving.refresher import Refresher
from serving.replicas.answers import Answers
from serving.replicas.direct import open_direct
from serving.replicas.episodes import Episodes
from serving.replicas.pins import FilePins, OnlinePins
from serving.sessions import Sessions
from serving.snapshot import OnlineFeatures, Snapshot
from serving.spool import Spool
from serving.telemetry.traces import open_traces

_LOOK_S = 1.0
"""Seconds between two questions whether it is time to look at the disk."""
_ERASURES_S = 10.0
"""Seconds between two looks for what other machines erase."""


def open_core(settings: Settings, *, clock: Callable[[], float] = time.time) -> Core:
    """Open the home folder and return a core that is ready to decide; `Core.close` closes what was opened here.

    Raises:
        FieldError: a setting does not fit, for example an address other than loopback without API keys.
    """
    check_keys(settings)
    make_home(settings.root)
    with ExitStack() as opened:  # closes what is open already when a later part fails
        log = opened.enter_context(closing(LocalLog(settings.spool_path, clock=clock)))
        _create_topics(log, settings)
        traces = open_traces(settings)
        if traces is not None:
            opened.callback(traces.close)
        registry = Registry(settings)
        loops = Loops(settings, registry)
        direct = None if settings.ack == "disk" else open_direct(settings)
        if direct is not None:
            opened.callback(direct.close)
        spool = Spool(log) if direct is None else Spool(direct, healthy=not direct.away)
        opened.callback(spool.close)
        answers, pins = None, FilePins(settings.root / "episodes.db")
        online = open_online(settings)
        if online is not None:
            opened.callback(online.close)
            answers, pins = Answers(online, spool.give), OnlinePins(online)
            opened.callback(answers.close)
        episodes = Episodes(pins, loops.load)
        opened.callback(episodes.close)
        features = _FeatureSource(settings, online)
        opened.callback(features.close)
        core = Core(
            settings=settings,
            loops=loops,
            spool=spool,
            registry=registry,
            episodes=episodes,
            answers=answers,
            traces=traces,
            clock=clock,
        )
        opened.callback(loops.close)
        lags = Lags(settings, log, loops, clock)

        def observe() -> None:
            core.observe()
            lags.observe()

        loops.start(after_refresh=observe)
        sessions = Sessions(settings, loops, log if direct is None else direct.event_log, features, online=online)
        opened.callback(sessions.close)
        core.features, core.refreshers = sessions.source, (loops.refresher, sessions.refresher)
        sessions.start()
        if settings.state:
            opened.callback(_follow_erasures(settings, log, clock, core).close)
            core.erased = partial(_is_erased, settings)
        metrics.gauge("ingest_lag", 0.0)  # made now: making it later takes a file, and there may be none left
        for status in TITLES:
            metrics.refused(status, 0)
        if settings.log != "local:":
            opened.enter_context(_watched_ingestion(settings))
        opened.enter_context(_measured_disk(settings))
        for name in loops.names():
            metrics.show(name)
            snapshot = loops.get(name)
            if snapshot is not None and snapshot.loop.features.enabled:
                core.features(snapshot)  # opened before the service is ready, so that no request waits for it
        core.resources = opened.pop_all()
    return core


def check_logs(settings: Settings) -> None:
    """Open what decisions are acknowledged by, and close it again; one that is only away may come back later.

    Every worker would fail alike, and be started anew without end.

    Raises:
        FieldError: a log does not fit the settings.
        LogCorrupt: the spool is damaged, or newer code wrote it.
    """
    make_home(settings.root)
    with suppress(LogUnavailable), closing(LocalLog(settings.spool_path)) as log:
        _create_topics(log, settings)
    if settings.ack != "disk":
        open_direct(settings).close()


def _create_topics(log: LocalLog, settings: Settings) -> None:
    for topic in TOPICS:
        log.create(topic, settings.partitions)


def _follow_erasures(settings: Settings, log: LocalLog, clock: Callable[[], float], core: Core) -> Refresher:
    """Empty what other machines erase in this one's spool as well, in a thread."""

    def forget(event_ids: Sequence[bytes]) -> None:
        if core.answers is not None:  # one may have been offered here anew, before this machine heard of it
            core.answers.forget(core.loops.names(), event_ids)

    erasures = Erasures(State(settings.state_url), log, forget)
    refresher = Refresher(
        "erasures", lambda: erasures.follow(datetime.fromtimestamp(clock(), UTC)), period_s=_ERASURES_S
    )
    refresher.start()
    return refresher


def _is_erased(settings: Settings, event_id: bytes) -> bool:
    with State(settings.state_url) as state:
        return is_announced(state, event_id)


@contextmanager
def _watched_ingestion(settings: Settings) -> Iterator[None]:
    """Say how far followers are behind, from a thread."""
    lag = IngestLag(settings)
    refresher = Refresher("ingestion", lag.observe, period_s=INGEST_EVERY_S)
    refresher.start()
    try:
        yield
    finally:
        refresher.close()
        lag.close()


@contextmanager
def _measured_disk(settings: Settings) -> Iterator[None]:
    """Say how much space the installation takes, from a thread."""
    use = DiskUse(settings)
    refresher = Refresher("disk", use.observe, period_s=_LOOK_S)
    refresher.start()
    try:
        yield
    finally:
        use.close()
        refresher.close()


class _FeatureSource:
    """Feast's features of each loop, opened when the loop first asks for some."""

    def __init__(self, settings: Settings, online: Online | None) -> None:
        self._settings, self._online = settings, online
        self._opened: dict[str, OnlineFeatures] = {}
        self._closing = ExitStack()

    def __call__(self, snapshot: Snapshot) -> OnlineFeatures | None:
        """Return where the features of the snapshot's loop are looked up; None where it uses none."""
        if not snapshot.loop.features.enabled:
            return None
        found = self._opened.get(snapshot.loop.name)
        if found is None:
            from pipelines.features.store import Features  # imports Feast: only loops that use it pay the seconds

            features = Features(self._settings, snapshot.loop, online=self._online)
            features.open()
            self._closing.callback(features.close)
            found = self._opened[snapshot.loop.name] = features
        return found

    def close(self) -> None:
        """Close every loop's features; does nothing when they were closed before."""
        self._opened.clear()
        self._closing.close()
