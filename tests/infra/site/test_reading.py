"""Pages are followed by a reader, block by block and in order: what they tell to run runs, and answers look as shown.

The quickstart and the recipes have a reader of their own in `test_pages.py`, the runbook in
`tests/infra/test_runbook.py`. What has happened before a block, and what stands in for an address or a version of the
page, is said here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import pytest

from decision.errors import FieldError
from infra.site.blocks import Block
from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.features.store import Features
from pipelines.lake.lake import Lake
from pipelines.log.kafka.options import parse_address
from pipelines.settings import load_loop
from pipelines.training.train import train
from tests.e2e.test_bring_history import line as logged
from tests.infra.site.reader import Reader, shell
from tests.newcomers.terminal import file_of
from tests.redis_server import RedisServer
from tests.worlds.credit import TEXT, Credit
from tests.worlds.node import compiled
from tests.worlds.panels import NOW
from tests.worlds.press import ask
from tests.worlds.rollout import GuardedLoop
from tests.worlds.s3 import BUCKET, S3
from tests.worlds.vw_models import learned, plain_line

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "infra/docs"
pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with shell(tmp_path_factory.mktemp("shell")) as made:
        yield made


@pytest.fixture
def reader(tmp_path: Path, tools: Path) -> Iterator[Reader]:
    """Somebody with an empty installation."""
    made = Reader(tmp_path, tools)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Reader]:
    """Somebody whose loop `news` has decided, learned a version, and goes on."""
    made = Reader(tmp_path_factory.mktemp("newsroom"), tools)
    loop(made, "news", "[reward]\nwindow_s = 0.1\n[features]\nenabled = true\n")
    ask(made.settings, np.random.default_rng(5))
    made.run("decision nightly news")
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def newsroom(decided: Reader) -> Iterator[Reader]:
    """The same, at the beginning of a page."""
    folder = decided.folder
    yield decided
    decided.move(folder)
    decided.stand_ins.clear()
    decided.names.clear()


def loop(reader: Reader, name: str, text: str = "") -> None:
    path = reader.settings.loop_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def days(reader: Reader, _: Block) -> None:
    today = datetime.now(UTC)
    reader.stand_ins |= {
        "2026-03-01": f"{today - timedelta(days=1):%Y-%m-%d}",
        "2026-04-01": f"{today + timedelta(days=1):%Y-%m-%d}",
        "--table-version 17": "--table-version 1",
    }
    (reader.folder / "mine.py").write_text(file_of("# mine.py", "infra/docs/evaluation.md"))


def frame(reader: Reader, _: Block) -> None:
    rng = np.random.default_rng(1)
    pi = rng.dirichlet(np.ones(3), size=400)
    columns = {"action": rng.integers(0, 3, 400), "propensity": 1 / 3, "reward": rng.random(400)}
    reader.names["frame"] = pd.DataFrame(columns | {f"pi_{name}": pi[:, at] for at, name in enumerate("abc")})


def personalizers(reader: Reader, _: Block) -> None:
    """What the storage of a resource held."""
    rng, folder = random.Random(6), reader.folder / "personalizer-logs/2026/08"
    folder.mkdir(parents=True)
    lines = (json.dumps(logged(rng, number)) for number in range(1_500))
    (folder / "03_07.json").write_text("\n".join(lines) + "\n")


def elsewhere(reader: Reader, block: Block) -> None:
    reader.move(reader.folder / "elsewhere")
    personalizers(reader, block)


def clicks(reader: Reader, _: Block) -> None:
    rows = [
        {
            "at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
            "offered": ["a", "b"],
            "shown": "ab"[number % 2],
            "draw": {"p": 0.5},
            "click": float(number % 3 == 0),
            "user": {"profile": {"age": 20 + number}},
        }
        for number in range(60)
    ]
    pd.DataFrame(rows).to_parquet(reader.folder / "clicks.parquet")


def feed(reader: Reader, _: Block) -> None:
    lines = (f"u{n},{1_767_225_600_000 + n},{'xy'[n % 2]},x|y,0.5,{n % 2},home" for n in range(60))
    head = "user_id,time_ms,video_id,actions,propensity,is_click,tab"
    (reader.folder / "feed.csv").write_text("\n".join([head, *lines]) + "\n")


def test_the_page_on_evaluation(newsroom: Reader) -> None:
    newsroom.follow(
        DOCS / "evaluation.md",
        before={
            "decision replay news --policy champion": days,
            "from decision import ope": frame,
            "decision init news": elsewhere,
            "decision import parquet": clicks,
            "decision import csv": feed,
        },
    )
    assert {"frame", "ope"} <= newsroom.names.keys()


def test_the_page_on_access(reader: Reader) -> None:
    def known(reader: Reader, _: Block) -> None:
        loop(reader, "news")
        made = reader.run("decision keys create --role read")
        reader.stand_ins["abcdefghijkl"] = made.split("dk_", 1)[1][:12]

    reader.follow(DOCS / "access.md", before={"decision keys create": known})
    listed = reader.run("decision keys list")
    assert "revoked" in listed, listed
    reader.follow(DOCS / "console.md")


def test_the_page_on_choosing(reader: Reader) -> None:
    reader.follow(DOCS / "choosing.md")
    answer = json.loads(reader.run(reader.here("curl -s localhost:8080/v1/loops")))
    assert "shelf" in json.dumps(answer)


def test_the_page_on_clients(newsroom: Reader) -> None:
    newsroom.names["KEY"] = None
    newsroom.follow(DOCS / "clients.md", instead={"import {": node})
    assert newsroom.names["answer"].action_id in ("sport", "politics")
    newsroom.follow(ROOT / "infra/clients/python/README.md")
    newsroom.follow(ROOT / "infra/clients/typescript/README.md", instead={"import {": node})


def node(reader: Reader, block: Block) -> None:
    """Run a program of Node beside the package, as npm would install it."""
    modules = reader.folder / "node_modules"
    if not modules.exists():
        modules.mkdir()
        compiled(modules)
    (reader.folder / "program.mjs").write_text(f"const key = undefined;\n{reader.here(block.text)}")
    reader.run("node program.mjs")


def test_the_page_on_panels(reader: Reader) -> None:
    def played(reader: Reader, _: Block) -> None:
        credit = Credit.at(reader.home, TEXT)  # what the page's file says, and more: its decisions are few
        credit.play(300)
        train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW)
        roles = ["auditor"] * 4 + ["adjudicator", "administrator"]
        with Governance.at(credit.settings) as store:
            made = [
                add_person(store, name=f"Person {number}", roles=[role], now=NOW, by="test")
                for number, role in enumerate(roles)
            ]
        reader.names["keys"] = [key for _, key in made]

    reader.follow(
        DOCS / "fairness.md", before={"decision audit people add": played}, instead={"GET  /fairness": panels}
    )
    reader.stand_ins["--version 7"] = "--version 1"
    reader.follow(DOCS / "robustness.md")


def panels(reader: Reader, block: Block) -> None:
    """Send what the page lists, each by whoever may; an id is that of the first task or pair that there is."""
    keys = reader.names["keys"]
    with httpx.Client(base_url=reader.serve(), timeout=300) as client:

        def send(key: str, method: str, path: str, body: str | None = None) -> httpx.Response:
            return client.request(method, path, content=body, headers={"authorization": f"Bearer {key}"})

        waiting = {key: send(key, "GET", "/fairness/tasks").json()["tasks"] for key in keys[:4]}
        judge, task = next((key, tasks[0]) for key, tasks in waiting.items() if tasks)
        pair = send(keys[-1], "GET", "/fairness/reports?loop=credit").json()["reports"][0]["task_id"]
        for method, rest in re.findall(r"\b(GET|POST) +(/.*?)(?=POST|GET|$)", block.text, re.MULTILINE):
            for path in re.findall(r"/fairness/[^\s,]+", rest):
                body = re.search(r"\{\".*\}", rest)
                if method == "POST" and body is None:
                    continue
                named = path.replace("{id}", task["task_id"] if "/tasks/" in path else pair)
                given = None if body is None else body[0].replace("...", task["payload_hash"], 1)
                got = [send(key, method, named, given) for key in (judge, *keys)]
                taken = [
                    one.is_success or "must be a disputed pair" in one.text for one in got
                ]  # none is disputed here
                assert any(taken), (path, [one.text for one in got])
                assert all(ok or one.status_code in (403, 404, 409) for ok, one in zip(taken, got, strict=True)), path


def test_the_page_on_features(newsroom: Reader) -> None:
    def customers(reader: Reader, _: Block) -> None:
        rows = pd.DataFrame({"subject_id": ["c-17", "c-18"], "age": [35.0, 52.0]})
        rows.to_parquet(reader.folder / "customers.parquet")

    def parts(reader: Reader, _: Block) -> None:
        settings = reader.settings
        reader.names |= {
            "Features": Features,
            "settings": settings,
            "loop": load_loop(settings, "news"),
            "lake": Lake(settings.lake_url),
        }

    newsroom.follow(DOCS / "features.md", before={"decision features": customers, "features = Features": parts})
    assert newsroom.names["values"].num_rows == newsroom.names["table"].num_rows > 0


def test_the_page_on_files(reader: Reader, s3: S3) -> None:
    reader.environ |= s3.environment
    reader.stand_ins["s3://decisions/production"] = f"s3://{BUCKET}/pages"
    reader.follow(DOCS / "files.md")


def test_the_page_on_the_guard(reader: Reader) -> None:
    shop = GuardedLoop(reader.home)
    shop.point("candidate", "2")
    shop.serve(shop.step(), 60, 0.5, 0.35)
    shop.step()
    shop.close()
    reader.stand_ins["LOOP"] = "shop"
    reader.follow(DOCS / "guard.md")
    assert (reader.folder / "weights.svg").stat().st_size > 0


def test_the_page_on_http(newsroom: Reader) -> None:
    newsroom.follow(DOCS / "http.md")
    assert newsroom.stand_ins.keys() == {"019a..."}


def test_the_page_on_moving(reader: Reader) -> None:
    reader.follow(DOCS / "migration.md", before={"decision init news": personalizers})
    answer = reader.run(reader.here("curl -s http://localhost:8080/personalizer/v1.0/configurations/service"))
    assert json.loads(answer)["learningMode"] == "Online"


def test_the_page_on_what_replicas_share(reader: Reader, redis: RedisServer) -> None:
    loop(reader, "news")
    reader.stand_ins["redis://redis:6379/0"] = redis.url
    reader.follow(DOCS / "online.md")
    assert httpx.get(f"{reader.serve()}/readyz", timeout=300).status_code == 200


def test_the_page_on_operating(newsroom: Reader) -> None:
    newsroom.follow(DOCS / "operating.md", instead={"loop 'news'": refused})


def refused(reader: Reader, block: Block) -> None:
    """Make the mistakes that the page shows, and hold what is said against it."""
    wrong = [
        ('[policy]\nexploration = "falkon"\n', {}),
        ("", {"DECISION_LOOP_NEWS__GATE__ALPHA": "0.7"}),
        ("\n" * 11 + "mode = \n", {}),
    ]
    good = reader.settings.loop_path("news").read_text()
    for shown, (text, variables) in zip(block.text.splitlines(), wrong, strict=True):
        loop(reader, "news", text)
        with pytest.raises(FieldError) as error:
            load_loop(reader.settings, "news", variables)
        said = str(error.value).replace(f"{reader.home}/", ".decision/")
        assert re.fullmatch(re.escape(shown).replace(re.escape("..."), ".*") + ".*", said), said
    loop(reader, "news", good)


def test_the_page_on_personalizers_interface(reader: Reader) -> None:
    def model(reader: Reader, _: Block) -> None:
        rng = random.Random(3)
        lines = [plain_line(rng) for _ in range(50)]
        arguments = "--cb_explore_adf --epsilon 0.2"
        (reader.folder / "model.vw").write_bytes(learned(lines, arguments, reader.folder))

    def refused_rank(reader: Reader, _: Block) -> None:
        actions = [{"id": name, "features": []} for name in ("a", "b", "")]
        body = {"contextFeatures": [], "actions": actions}
        reader.told.append(httpx.post(f"{reader.serve()}/personalizer/v1.0/rank", json=body, timeout=300).text)

    loop(reader, "news", 'hosts = ["news.example.com"]\n')
    reader.follow(
        DOCS / "personalizer.md",
        instead={"http://HOST:8080": ranked},
        before={"decision import vw-model": model, '{"error"': refused_rank},
    )


def ranked(reader: Reader, block: Block) -> None:
    """Ask at each address that the page lists."""
    actions = [{"id": "a", "features": [{"new": 1}]}, {"id": "b", "features": []}]
    body = {"contextFeatures": [{"hour": 9}], "actions": actions}
    for line in block.text.splitlines():
        url = urlsplit(line.split()[0])
        headers = {"host": url.netloc} if "HOST" not in url.netloc else {}
        answer = httpx.post(f"{reader.serve()}{url.path}?{url.query}", json=body, headers=headers, timeout=300)
        assert answer.status_code == 201, (line, answer.text)


def test_the_way_in(reader: Reader) -> None:
    def reported(reader: Reader, _: Block) -> None:
        reader.end()
        loop(reader, "news", "[reward]\nwindow_s = 0.1\n")
        ask(reader.settings, np.random.default_rng(5))

    reader.follow(ROOT / "README.md", before={"decision nightly news": reported})


def test_an_address_of_a_cluster_is_read(reader: Reader) -> None:
    def read(reader: Reader, block: Block) -> None:
        brokers, options = parse_address(reader.here(block.text.strip()))
        assert (len(brokers), options["client"]["sasl_plain_password"]) == (2, "secret")

    (reader.folder / "password").write_text("secret")
    (reader.folder / "ca.pem").touch()
    reader.stand_ins["/run/secrets/kafka"] = str(reader.folder / "password")
    reader.stand_ins["/etc/kafka/ca.pem"] = str(reader.folder / "ca.pem")
    reader.follow(ROOT / "infra/kafka/README.md", instead={"kafka://": read})
