"""A contextual-bandit model of Vowpal Wabbit's own, asked through VW: the score of an action is minus its cost.

The file is kept as it came. VW reads the features as JSON, in the shape of the lines that the model learned from, and
its reduction ``mtr`` predicts a cost for every action; drawing is left to the rule of the policy. Learning goes on
where the file stopped, by VW's own driver, with the options that the file carries.

References:
    Bietti, Agarwal, Langford 2021, "A Contextual Bandit Bake-off", section 2.3 (mtr).
    Vowpal Wabbit 9.11, ``cb_adf.cc``; ``json_parser`` for how features become hashes.
"""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import numpy as np
from vowpalwabbit import Workspace

from decision.batch import Batch, Floats, Interactions
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.oracles.adf.head import check_adf
from decision.oracles.adf.shape import Shape, action_json, context_json
from decision.oracles.files.vw_head import MODEL_FILE, scratch_file
from decision.validation import Checked

SETTINGS_FILE = "vw_adf.json"


class AdfSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model file does not say of itself; stored beside it.

    Attributes:
        shape: of the lines that it learned from.
    """

    shape: Shape = "personalizer"


_stored = msgspec.json.Decoder(AdfSettings).decode  # made at import, which one thread does


class AdfOracle:
    """A model of ``--cb_adf`` or ``--cb_explore_adf``; safe to share between threads, which it lets in one by one.

    Attributes:
        model: VW's file.
        settings: what it does not say.
        fits_whole: see `decision.protocols.FitsWhole`.

    Raises:
        FieldError: the file is no such model, see `check_adf`.
    """

    fits_whole = True

    def __init__(self, model: bytes, settings: AdfSettings | None = None, *, name: str = MODEL_FILE) -> None:
        self.settings = settings or AdfSettings()
        self.head = check_adf(name, model)
        self._name, self._lock = name, threading.Lock()
        self._take(model)

    def _take(self, model: bytes) -> None:
        with scratch_file() as path:
            path.write_bytes(model)
            try:
                # predictions alone: asking must not change what is asked next
                self._workspace: Any = Workspace(f"--quiet -t --json -i {path}")
            except RuntimeError as error:
                raise FieldError(self._name, wanted="a VW model", got=error) from error
        self.model = model

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered: minus the costs that VW predicts."""
        out, offsets = np.empty(len(batch.actions)), batch.offsets.tolist()
        with self._lock:
            for number, text in enumerate(self._texts(batch)):
                out[offsets[number] : offsets[number + 1]] = self._costs(text)
        return 0.0 - out

    def _costs(self, text: str) -> list[float]:
        workspace = self._workspace
        examples = workspace.parse(text)
        try:
            workspace.predict(examples)
            return [example.get_partial_prediction() for example in examples[1:]]  # the first is the context
        finally:
            workspace.finish_example(examples)

    def _texts(self, batch: Batch) -> list[str]:
        """Return [n] decisions as JSON; what recurs is written once."""
        contexts, actions = FeatureRows.of(batch.contexts), FeatureRows.of(batch.actions)
        known: dict[tuple[int, str], bytes] = {}
        told: list[bytes] = []
        for place, (row, name) in enumerate(zip(actions.rows.tolist(), batch.action_ids, strict=True)):
            text = known.get((row, name))
            if text is None:
                text = known[row, name] = action_json(actions[place], name, self.settings.shape)
            told.append(text)
        offsets = batch.offsets.tolist()
        return [
            context_json(contexts[i], told[offsets[i] : offsets[i + 1]], self.settings.shape).decode()
            for i in range(len(batch))
        ]

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions` where the file stopped, once, in their order, with the file's own options.

        Raises:
            FieldError: VW cannot read what it wrote itself.
        """
        texts, batch = self._texts(interactions.batch), interactions.batch
        drawn = (interactions.chosen - batch.offsets[:-1]).tolist()
        weights = interactions.weights.tolist()
        lines = [
            _line(text, index, cost, propensity, weight)
            for text, index, cost, propensity, weight in zip(
                texts,
                drawn,
                (0.0 - interactions.reward).tolist(),
                interactions.propensity.tolist(),
                weights,
                strict=True,
            )
            if weight > 0.0
        ]
        if not lines:
            return
        with scratch_file() as path:
            path.write_bytes(self.model)
            rows, learned = path.with_name("rows.json"), path.with_name("learned.vw")
            rows.write_text("".join(lines))
            try:
                workspace = Workspace(f"--quiet --dsjson -i {path} -d {rows}")
                workspace.save(str(learned))
                workspace.finish()
            except RuntimeError as error:
                raise FieldError(self._name, wanted="a VW model that goes on learning", got=error) from error
            model = learned.read_bytes()
        with self._lock:
            self._take(model)

    def save(self) -> dict[str, bytes]:
        """Return VW's own file, as it came until something was learned, and the settings."""
        return {SETTINGS_FILE: msgspec.json.encode(self.settings), MODEL_FILE: self.model}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> AdfOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            settings = _stored(files[SETTINGS_FILE])
            model = files[MODEL_FILE]
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="the model's settings and its file", got=error) from error
        return cls(model, settings)


def _line(text: str, index: int, cost: float, propensity: float, weight: float) -> str:
    """Return a line of dsjson; a weight w is that of a line of which the share 1 - 1 / w was left out of the log."""
    left_out = f'"pdrop":{1.0 - 1.0 / weight!r},' if weight != 1.0 else ""
    label = (
        f'"_label_cost":{cost!r},"_label_probability":{propensity!r},"_label_Action":{index + 1},"_labelIndex":{index}'
    )
    return f'{{{label},"a":[{index + 1}],"p":[{propensity!r}],{left_out}"c":{text}}}\n'
