"""What a model file of ``--cb_adf`` may say of itself, and what of it concerns us; its weights are looked at, too.

VW takes the options of a file as if they had been typed. Those below are names and numbers that shape features,
interactions and steps; VW reads them itself. What names a file, or a learner whose scores are no expected costs of one
model, is refused by its name, with what to do.

References:
    Vowpal Wabbit 9.11, ``parse_regressor.cc``; ``cb_explore_adf_greedy.cc`` for the default of ``--epsilon``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from decision.errors import FieldError, Words
from decision.oracles.files.vw_body import check_body
from decision.oracles.files.vw_head import read_head

MAX_BITS = 24
"""Of a file's table: VW takes 16 bytes of memory for each of 2^bits weights as soon as it reads the file."""
EPSILON = 0.05
"""Of ``--cb_explore_adf`` where a file says nothing."""

_FLAGS = frozenset(
    (
        *("--cb_adf", "--cb_explore_adf", "--csoaa_rank", "--first_only", "--noconstant", "--chain_hash"),
        *("--leave_duplicate_interactions", "--sgd", "--adaptive", "--normalized", "--invariant"),
    )
)
_NUMBERS = frozenset(
    (
        *("--epsilon", "--learning_rate", "--power_t", "--initial_t", "--initial_weight", "--decay_learning_rate"),
        *("--l1", "--l2", "--random_seed", "--clip_p"),
    )
)
_SPACES = frozenset(["--quadratic", "--cubic", "--interactions", "--ignore", "--ignore_linear", "--keep"])
"""Options whose value is letters of namespaces."""
_WORDS = {
    "--cb_type": ("mtr",),
    "--csoaa_ldf": ("multiline", "m"),
    "--link": ("identity",),
    "--hash": ("all", "strings"),
}
_UNSAFE = frozenset("\"'\\#=$`")
_MAX_VALUE = 64
_MAX_TOGETHER = 4
"""Namespaces of an interaction: products of all their features are made at every prediction."""
_RULES = ("--squarecb", "--regcb", "--regcbopt", "--softmax", "--first", "--cover", "--bag", "--rnd", "--synthcover")
_SLOTS = ("--ccb_explore_adf", "--slates", "--cats", "--cats_pdf", "--cb_explore_pdf", "--cbify", "--cb_sample")
_TABLES = ("--cb", "--cb_explore", "--cb_force_legacy", "--oaa", "--csoaa", "--wap")
_HISTORY = "import its log instead (`decision import dsjson LOGS --into LOOP`) and train on it"


class AdfHead(NamedTuple):
    """What concerns us of a model file's head.

    Attributes:
        bits: the table has 2^bits weights.
        epsilon: share of uniform draws that the file says; None for ``--cb_adf``, which says nothing of drawing.
    """

    bits: int
    epsilon: float | None


def check_adf(name: str, data: bytes) -> AdfHead:
    """Return what the head of a model file says, or refuse the file.

    Args:
        name: of the file, for messages.
        data: its bytes.

    Raises:
        FieldError: it is no model file, damaged, too large, or of a kind that is not read; names what and what to do.
    """
    head = read_head(name, data)
    bits, words = head.bits, head.words
    if not 1 <= bits <= MAX_BITS:
        raise FieldError(f"{name}: -b", wanted=f"a table of at most 2^{MAX_BITS} weights", got=Words(f"2^{bits}"))
    given: dict[str, str] = {}
    left = iter(words)
    for option in left:
        if option in _FLAGS:
            given[option] = ""
            continue
        if option not in _NUMBERS and option not in _SPACES and option not in _WORDS:
            raise _refused(name, option)
        value = next(left, "")
        given[option] = value
        if option in _NUMBERS and not _is_number(value):
            raise FieldError(f"{name}: {option}", wanted="a number", got=value)
        if option in _SPACES and not _is_letters(value):
            raise FieldError(f"{name}: {option}", wanted="letters of namespaces", got=value)
        if option == "--interactions" and len(value) > _MAX_TOGETHER:
            wanted = f"at most {_MAX_TOGETHER} namespaces together"
            raise FieldError(f"{name}: {option}", wanted=wanted, got=value)
        if option in _WORDS and value not in _WORDS[option]:
            wanted = " or ".join(_WORDS[option])
            says = f"must be {wanted}, is {value[:_MAX_VALUE]!r}: {_HISTORY}"
            raise FieldError(f"{name}: {option}", wanted=wanted, got=value, says=says)
    if "--cb_adf" not in given:
        kinds = "a model of --cb_explore_adf or --cb_adf"
        raise FieldError(name, wanted=kinds, got=Words(" ".join(words) or "a model without options"))
    check_body(name, data, head)
    if "--cb_explore_adf" not in given:
        return AdfHead(bits, None)
    epsilon = float(f"{float(given.get('--epsilon', EPSILON)):.7g}")  # VW writes the digits of single precision
    if not 0.0 <= epsilon <= 1.0:
        raise FieldError(f"{name}: --epsilon", wanted="a number in [0, 1]", got=epsilon)
    return AdfHead(bits, epsilon)


def _is_number(text: str) -> bool:
    try:
        return len(text) <= _MAX_VALUE and text.isascii() and math.isfinite(float(text)) and text[:2] != "--"
    except ValueError:
        return False


def _is_letters(text: str) -> bool:
    return 0 < len(text) <= _MAX_VALUE and text.isprintable() and text[0] != "-" and not _UNSAFE & set(text)


def _refused(name: str, option: str) -> FieldError:
    shown = option[:_MAX_VALUE]
    if option in _RULES:
        why = (
            "this rule has another unit here or needs several models. Train it again with --epsilon in its place, "
            f"or {_HISTORY}"
        )
    elif option in _SLOTS:
        why = f"models of slots, slates and numbers are not read; {_HISTORY}"
    elif option in _TABLES:
        why = f"models of a fixed number of actions know no features of actions; {_HISTORY}"
    else:
        why = f"it is none of the options that are read; {_HISTORY}"
    return FieldError(f"{name}: {shown}", wanted="no such option", got=shown, says=f"a model with {shown}: {why}")
