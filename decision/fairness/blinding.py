"""What an auditor may see of a person: allowed features, but no identity and no outcome.

Features are shown by their path in the request's context. A hidden name takes every feature with that name anywhere in
its path, and a text that holds an identifier is hidden wherever it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from decision.errors import FieldError

Shown = dict[str, "str | float | bool"]
"""Features as shown: path -> value."""

# fmt: off
ALWAYS_HIDDEN = frozenset(
    (
        "id", "ids", "uuid", "guid", "name", "names", "firstname", "lastname", "first_name", "last_name", "fullname",
        "full_name", "surname", "username", "user_name", "email", "e_mail", "mail", "phone", "telephone", "mobile",
        "address", "street", "ssn", "passport", "iban", "subject", "subject_id", "user_id", "customer_id",
        "person_id", "account_id", "event_id", "episode_id", "session_id", "device_id", "cookie", "ip", "ip_address",
        "action", "action_id", "action_ids", "chosen", "decision", "outcome", "outcomes", "reward", "label",
        "propensity", "pmf",
    )
)
# fmt: on
"""Names that identify a person or tell what was decided, hidden in every loop."""

MAX_SHOWN = 200
_MAX_TEXT = 200


def visible(context: Mapping[str, Any], *, protected: Iterable[str], identifiers: Iterable[str] = ()) -> Shown:
    """Return the features of `context` that auditors may see, in its order.

    Args:
        context: JSON object.
        protected: names hidden beside `ALWAYS_HIDDEN`; ``user.age`` hides that path and what is below it, ``age`` every
            feature with ``age`` in its path. Case does not count.
        identifiers: texts (ids of the person and the decision) that no shown value may contain.

    Raises:
        FieldError: the context is no object of features, or has more than 200 to show.
    """
    hidden = {name.casefold() for name in protected} | ALWAYS_HIDDEN
    secret = [text for text in identifiers if text]
    shown: Shown = {}
    _walk(context, (), hidden, secret, shown)
    if len(shown) > MAX_SHOWN:
        raise FieldError("context", wanted=f"at most {MAX_SHOWN} features to show", got=len(shown))
    return shown


def _walk(value: Mapping[str, Any], path: tuple[str, ...], hidden: set[str], secret: list[str], shown: Shown) -> None:
    for key, item in value.items():
        # A key may itself hold dots: hidden names are looked for in its parts as well.
        here = (*path, key)
        if is_hidden([part for step in here for part in step.split(".")], hidden):
            continue
        if any(text in ".".join(here) for text in secret):
            continue
        _put(item, here, hidden, secret, shown)


def _put(item: Any, path: tuple[str, ...], hidden: set[str], secret: list[str], shown: Shown) -> None:
    name = ".".join(path)
    if isinstance(item, dict):
        _walk(cast("dict[str, Any]", item), path, hidden, secret, shown)
    elif isinstance(item, list):
        entries = cast("list[Any]", item)
        if all(isinstance(entry, str) for entry in entries):
            _put(", ".join(cast("list[str]", entries)), path, hidden, secret, shown)
        else:
            for index, entry in enumerate(entries):
                _put(entry, (*path, str(index)), hidden, secret, shown)
    elif isinstance(item, str):
        if item and not any(text in item for text in secret):
            shown[name] = item[:_MAX_TEXT]
    elif isinstance(item, bool | int | float) and not any(text == str(item) for text in secret):
        shown[name] = item if isinstance(item, bool) else float(item)


def is_hidden(path: Sequence[str], protected: Collection[str]) -> bool:
    """Return whether a feature's path holds a hidden name, whole or as a run of its parts.

    Args:
        path: the parts of the feature's name.
        protected: hidden names beside `ALWAYS_HIDDEN`, in lower case.
    """
    parts = [part.casefold() for part in path]
    runs = (".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
    return any(run in protected or run in ALWAYS_HIDDEN for run in runs)


def payload(first: Shown, second: Shown, probabilities: tuple[float, float], *, treatment: str) -> dict[str, Any]:
    """Return what an auditor judges: two cards, their probabilities, and which features differ.

    Args:
        first: features of the person on the left.
        second: of the person on the right.
        probabilities: of the compared treatment, in the same order.
        treatment: the compared treatment in words.
    """
    names = [*first, *(name for name in second if name not in first)]
    return {
        "treatment": treatment,
        "cards": [
            {"probability": probability, "features": {name: person.get(name) for name in names}}
            for person, probability in zip((first, second), probabilities, strict=True)
        ],
        "differs": [name for name in names if first.get(name) != second.get(name)],
    }
