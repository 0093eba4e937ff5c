"""Lines as applications of VW logged them, and models that VW's own driver learned from them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from vowpalwabbit import Workspace

from decision.batch import Batch, Features, one
from decision.features import flatten
from pipelines.formats.dsjson.shape import action_of, context_of

ROOMS = ("attic", "cellar", "porch")
PERSONALIZER = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
"""The learning settings that Personalizer had by default."""


def personalizer_line(rng: random.Random) -> dict[str, Any]:
    """A line with every kind of feature under ``FromUrl``, ``i`` and ``j``."""
    mood = rng.choice(["gay: a|b", "sad=blue", "käse \t.", "plain"])
    context = [
        {"mood": mood, "steps": rng.randrange(4), "rate": rng.random() / 3, "old": rng.random() < 0.5, "none": None},
        {"place": {"town": rng.choice(["Ulm", "Bonn"]), "inner": {"floor": rng.randrange(3), "name": "x.y"}}},
        {"vector": [0.25, 0, rng.random(), -1.5]},
        {"items": [{"qty": 3}, {"qty": rng.randrange(9), "unit": "kg"}]},
    ]
    multi = [
        {
            "_tag": room,
            "i": {"constant": 1, "id": room},
            "j": [{"size": at * 1.5, "kind": room[:2]}, {"has": {"w": at}}],
        }
        for at, room in enumerate(ROOMS)
    ]
    multi[1]["j"] = []
    return labelled({"FromUrl": context, "_multi": multi}, rng, best=len(mood) % 3)


def plain_line(rng: random.Random) -> dict[str, Any]:
    """A line of one's own namespaces, with as many actions as it likes."""
    user = rng.choice(["ann", "bob"])
    multi = [{"TAction": {"topic": f"t{k}", "length": k / 7}, "loose": k} for k in range(rng.randint(2, 4))]
    return labelled({"GUser": {"id": user, "age": rng.randrange(9)}, "_multi": multi}, rng, best=int(user == "ann"))


def labelled(c: dict[str, Any], rng: random.Random, best: int) -> dict[str, Any]:
    """Return a line of a decision drawn evenly, with what it cost."""
    k = len(c["_multi"])
    drawn = rng.randrange(k)
    return {
        "_label_cost": -float(rng.random() < (0.8 if drawn == best else 0.1)),
        "_label_probability": 1 / k,
        "_label_Action": drawn + 1,
        "_labelIndex": drawn,
        "a": [drawn + 1, *(at + 1 for at in range(k) if at != drawn)],
        "p": [1 / k] * k,
        "c": c,
    }


def learned(lines: list[dict[str, Any]], arguments: str, folder: Path) -> bytes:
    """Return the file of the model that VW's driver learns from `lines`."""
    (folder / "lines.json").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    workspace = Workspace(f"--quiet --dsjson {arguments} -d {folder / 'lines.json'} -f {folder / 'made.vw'}")
    workspace.finish()
    return (folder / "made.vw").read_bytes()


def costs(model: bytes, lines: list[dict[str, Any]], folder: Path) -> list[list[float]]:
    """Return what VW itself predicts that each action of `lines` costs."""
    (folder / "asked.vw").write_bytes(model)
    workspace: Any = Workspace(f"--quiet -t --dsjson -i {folder / 'asked.vw'}")
    found: list[list[float]] = []
    for line in lines:
        examples = workspace.parse(json.dumps(line, ensure_ascii=False))
        workspace.predict(examples)
        found.append([example.get_partial_prediction() for example in examples[1:]])
        workspace.finish_example(examples)
    workspace.finish()
    return found


def asked(line: dict[str, Any]) -> Batch:
    """Return a line's decision as a request or an import makes it."""
    multi = line["c"]["_multi"]
    context: Features = flatten(context_of({n: v for n, v in line["c"].items() if n != "_multi"}), field="context")
    ids = [entry.get("_tag", f"{at + 1}") for at, entry in enumerate(multi)]
    return one(context, [flatten(action_of(entry), field="action") for entry in multi], ids)
