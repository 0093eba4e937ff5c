"""What follows the head of a VW model file, read before VW reads it.

VW trusts these bytes: numbers that are none become expected rewards that are none, and what is left over at the end is
a weight in part. So a body may hold what VW writes and nothing else: a learner's state, then weights in the order of
their places, every weight of a size that predictions bear.

References:
    Vowpal Wabbit 9.11, ``gd.cc``, ``save_load_online_state_gd`` and ``save_load_regressor_gd``; ``cb_adf.cc``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

import numpy as np

from decision.errors import FieldError, Words
from decision.oracles.files.vw_head import VwHead

_SUMS = struct.Struct("<QQ")
"""Events and actions so far, of a learner of ``--cb_adf``."""
_STATE = struct.Struct("<f4d3f3d2Q2dQ")
"""A learner's numbers, from ``initial_t`` to ``current_pass``."""
_REGULARIZED = struct.Struct("<2d")
"""What ``--l1`` and ``--l2`` came to; in the file since VW 9."""
_MOST = 1e18
"""Size of a weight, and of what ``--l1`` came to; sums of products are numbers then. Beside a weight stand sums of
squares and largest sizes. VW lets them grow to infinity where features are large, and takes no prediction from them."""
_STEPS = frozenset(("--sgd", "--adaptive", "--normalized", "--invariant"))


def check_body(name: str, data: bytes, head: VwHead) -> None:
    """Refuse a model file whose state or weights are not such as VW writes.

    Args:
        name: of the file.
        data: its bytes.
        head: what `read_head` found in it.

    Raises:
        FieldError: a number is none or too large, a place is beyond the table or not after the one before, or the file
            ends within a weight.
    """
    try:
        _check(data[head.size :], head)
    except (ValueError, struct.error) as error:
        raise FieldError(name, wanted="a VW model", got=Words(str(error))) from error


def _check(body: bytes, head: VwHead) -> None:
    at = _SUMS.size if "--cb_adf" in head.words and head.version >= (8, 3, 2) else 0
    resumes = body[at : at + 1]
    at += 1
    if resumes == b"\x01":
        numbers: list[float] = [*_STATE.unpack_from(body, at)]
        at += _STATE.size
        if head.version >= (9, 0, 0):
            gravity, contraction = _REGULARIZED.unpack_from(body, at)
            at += _REGULARIZED.size
            if not (0.0 <= gravity <= _MOST and 0.0 < contraction <= 1.0):
                raise ValueError("what l1 and l2 came to is beyond what they can come to")
        if not np.isfinite(np.array(numbers, np.float64)).all():
            raise ValueError("its state has a number that is none")
    elif resumes != b"\x00":  # of those that only predict
        raise ValueError("it does not say whether it goes on learning")
    each = np.dtype([("place", "<u4"), ("numbers", "<f4", (_width(head.words) if resumes == b"\x01" else 1,))])
    if (len(body) - at) % each.itemsize:
        raise ValueError("it ends within a weight")
    weights = np.frombuffer(body, each, offset=at)
    places = weights["place"].astype(np.int64)
    if places.size and places[-1] >= 1 << head.bits:
        raise ValueError(f"a weight at {places[-1]} of 2^{head.bits}")
    if (np.diff(places) <= 0).any():
        raise ValueError("its weights are out of order")
    sizes, beside = np.abs(weights["numbers"][:, 0]), weights["numbers"][:, 1:]
    if not (sizes <= _MOST).all():
        raise ValueError(f"a weight is no number, or larger than {_MOST:g}")
    if not (beside >= 0.0).all():
        raise ValueError("what is kept beside a weight is no number, or below 0")


def _width(words: Collection[str]) -> int:
    """Return how many numbers a learner keeps of each weight: itself, and what adaptive and normalized steps need."""
    named = _STEPS.intersection(words)
    return 1 + len(named & {"--adaptive", "--normalized"}) if named else 3
