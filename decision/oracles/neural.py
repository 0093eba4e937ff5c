"""A small neural network on context, action and their products: two hidden layers, log-loss, trained by torch.

Trained in torch (AdamW: Loshchilov and Hutter 2019), served in numpy: a service that loads one does not import torch. A
resumed fit goes on from the weights with a fresh optimiser, and every random choice comes from the seed and the number
of the fit, so a saved and loaded oracle resumes to the same weights.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints, take_rows
from decision.errors import FieldError
from decision.options import SHIPPED, NotNegative, Positive, Range, Seed
from decision.oracles.archive import read_archive
from decision.oracles.encoder import NOTHING_LEFT_OUT, LeftOut
from decision.oracles.identity import MAX_FEW, most_frequent_ids
from decision.oracles.kind import Kind, OracleSettings
from decision.oracles.products import MAX_COLUMNS, ColumnSet, dense, entries_of, written_out

MODEL_FILE = "neural.npz"
SETTINGS_FILE = "neural.json"
MAX_INPUTS = 8_192
MAX_HIDDEN = 1_024
MAX_STEPS = 100_000
_DECISIONS = 256
_LAYERS = ("w0", "b0", "w1", "b1", "w2", "b2")


class NeuralSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle.

    Attributes:
        interactions: feed the products of context and action columns too, where they make at most 8,192 inputs.
        hidden: units of each hidden layer.
        steps: steps of every fit.
        rows_per_step: rows of each step, drawn in proportion to their weights.
        learning_rate: the largest of the one-cycle schedule.
        weight_decay: AdamW's.
        seed: of every random choice.
    """

    interactions: bool = SHIPPED.interactions
    hidden: Annotated[int, msgspec.Meta(ge=1, le=MAX_HIDDEN)] = 64
    steps: Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)] = 1_000
    rows_per_step: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 512
    learning_rate: Positive = 4e-3
    weight_decay: NotNegative = 0.3
    seed: Seed = 0


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: NeuralSettings
    fits: int
    context: ColumnSet
    action: ColumnSet


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class NeuralOracle:
    """A multilayer perceptron; predictions are in reward units.

    Attributes:
        left_out: columns that the first fit had no room for: of context and action, the most frequent 4,096 are kept.
    """

    def __init__(self, settings: NeuralSettings | None = None) -> None:
        self.settings = settings or NeuralSettings()
        self.left_out = NOTHING_LEFT_OUT
        self._fits = 0
        self._layers: list[Floats] = []
        self._set_columns(ColumnSet(), ColumnSet())

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, go on from the present weights. Columns are the first fit's.

        Raises:
            FieldError: context and action columns alone make more than 8,192 inputs.
        """
        batch = interactions.batch
        chosen = take_rows(batch.actions, interactions.chosen)
        rows = np.flatnonzero(interactions.weights > 0)
        if not self._fits:
            none = ColumnSet()
            (context, rare), (action, own) = (none.extended_by(none.seen_in(each)) for each in (batch.contexts, chosen))
            c, a = len(context), len(action)
            crossed = self.settings.interactions and c + a + c * a <= MAX_INPUTS
            left = (MAX_INPUTS - c) // (1 + c) - a if crossed else min(MAX_INPUTS - c, MAX_COLUMNS) - a
            self._set_columns(context, action.with_flags(most_frequent_ids(chosen, min(left, MAX_FEW))))
            self.left_out = LeftOut(rare, own)
        if rows.size:
            s = self.settings
            x = entries_of(take_rows(batch.contexts, rows), self._positions[0], self._scales[0])
            y = entries_of(take_rows(chosen, rows), self._positions[1], self._scales[1])

            def inputs(picked: Ints) -> Floats:
                sides = written_out(x, len(self._context), picked), written_out(y, len(self._action), picked)
                return self._joined(*sides)

            target = np.clip((interactions.reward[rows] - s.low) / (s.high - s.low), 0.0, 1.0)
            weight, start = interactions.weights[rows], self._layers
            self._layers = _trained(inputs, self._width(), target, weight, start, self._fits, s)
        self._fits += 1

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        s = self.settings
        if not self._layers:
            return np.full(len(batch.actions), 0.5 * (s.low + s.high))
        w0, b0, w1, b1, w2, b2 = self._layers
        offsets = batch.offsets
        parts = [np.zeros(0)]
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            actions = batch.actions[int(offsets[start]) : int(offsets[stop])]
            of = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
            hidden = np.maximum(self._inputs(batch.contexts[start:stop], actions, of) @ w0.T + b0, 0.0)
            logit = (np.maximum(hidden @ w1.T + b1, 0.0) @ w2.T + b2)[:, 0]
            parts.append(1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0))))
        return s.low + (s.high - s.low) * np.concatenate(parts)

    def save(self) -> dict[str, bytes]:
        """Return the layers as a numpy archive without pickles, and settings and columns as JSON."""
        files = {SETTINGS_FILE: msgspec.json.encode(_Stored(self.settings, self._fits, self._context, self._action))}
        if self._layers:
            stream = io.BytesIO()
            # The archive stamps its members with a fixed date, so equal weights are equal bytes.
            arrays: Any = dict(zip(_LAYERS, self._layers, strict=True))
            np.savez(stream, **arrays)
            files[MODEL_FILE] = stream.getvalue()
        return files

    @classmethod
    def load(cls, files: dict[str, bytes]) -> NeuralOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[SETTINGS_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="the oracle's settings", got=error) from error
        oracle = cls(stored.settings)
        oracle._fits = stored.fits
        oracle._set_columns(stored.context, stored.action)
        if MODEL_FILE in files:
            h = stored.settings.hidden
            wanted = [(h, oracle._width()), (h,), (h, h), (h,), (1, h), (1,)]
            most = 8 * sum(math.prod(shape) for shape in wanted)
            try:
                found = read_archive(io.BytesIO(files[MODEL_FILE]), most_bytes=most, names=_LAYERS)
                layers = [np.asarray(found[name], dtype=np.float64) for name in _LAYERS]
            except (KeyError, ValueError, TypeError) as error:
                raise FieldError(MODEL_FILE, wanted="the layers", got=error) from error
            shapes = [layer.shape for layer in layers]
            if shapes != wanted or not all(np.isfinite(layer).all() for layer in layers):
                raise FieldError(MODEL_FILE, wanted=f"finite layers of {wanted}", got=shapes)
            oracle._layers = layers
        return oracle

    def _set_columns(self, context: ColumnSet, action: ColumnSet) -> None:
        self._context, self._action = context, action
        self._positions = context.positions(), action.positions()
        self._scales = context.scales(), action.scales()
        c, a = len(context), len(action)
        self._crossed = self.settings.interactions and c + a + c * a <= MAX_INPUTS
        if c + a > MAX_INPUTS:
            raise FieldError("features", wanted=f"at most {MAX_INPUTS} columns", got=c + a)

    def _width(self) -> int:
        c, a = len(self._context), len(self._action)
        return c + a + (c * a if self._crossed else 0)

    def _inputs(self, contexts: Any, actions: Any, of: Ints) -> Floats:
        """Return [r, width] inputs of `actions` [r], each under ``contexts[of]``."""
        x = dense(contexts, self._positions[0], self._scales[0])
        y = dense(actions, self._positions[1], self._scales[1])
        return self._joined(x[of], y)

    def _joined(self, x: Floats, y: Floats) -> Floats:
        parts = [x, y]
        if self._crossed:
            parts.append((x[:, :, None] * y[:, None, :]).reshape(len(y), -1))
        return np.concatenate(parts, axis=1)


def _trained(
    inputs: Callable[[Ints], Floats],
    width: int,
    target: Floats,
    weight: Floats,
    start: list[Floats],
    fits: int,
    s: NeuralSettings,
) -> list[Floats]:
    """Return the layers; `inputs` ([k] rows -> [k, width]) writes out the rows of one step, never all of them."""
    import torch

    seed = int(np.random.default_rng([s.seed, fits]).integers(2**62))
    generator = torch.Generator().manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums on several threads depend on their number
    try:
        shapes = ((s.hidden, width), (s.hidden, s.hidden), (1, s.hidden))
        if start:
            layers = [torch.tensor(layer, dtype=torch.float32) for layer in start]
        else:
            layers = []
            for rows, columns in shapes:
                bound = 1.0 / np.sqrt(max(columns, 1))
                layers.append((torch.rand(rows, columns, generator=generator) * 2.0 - 1.0) * bound)
                layers.append(torch.zeros(rows))
        for layer in layers:
            layer.requires_grad_()
        y = torch.tensor(target, dtype=torch.float32)
        share = torch.tensor(weight / weight.sum())
        optimizer = torch.optim.AdamW(layers, lr=s.learning_rate, weight_decay=s.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.learning_rate, total_steps=s.steps + 1)
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        for _ in range(s.steps):
            picked = torch.multinomial(share, s.rows_per_step, replacement=True, generator=generator)
            x = torch.tensor(inputs(picked.numpy()), dtype=torch.float32)
            hidden = torch.relu(torch.nn.functional.linear(x, layers[0], layers[1]))
            hidden = torch.relu(torch.nn.functional.linear(hidden, layers[2], layers[3]))
            loss = loss_of(torch.nn.functional.linear(hidden, layers[4], layers[5])[:, 0], y[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return [layer.detach().numpy().astype(np.float64) for layer in layers]
    finally:
        torch.set_num_threads(threads)


def _new(s: OracleSettings) -> NeuralOracle:
    return NeuralOracle(NeuralSettings(interactions=s.interactions, seed=s.seed, low=s.low, high=s.high))


ORACLE = Kind(_new, NeuralOracle.load)
