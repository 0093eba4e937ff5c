"""What the check of a log tells of: the kinds of findings, in words that say what to do, and how many there were.

A finding is of a kind and, where there are many of one kind, of a name: a feature, an action, a field. Names are the
log's, so their number is bounded; those beyond it are counted together.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Weight = Literal["refused", "differs", "told"]
WEIGHTS: tuple[Weight, ...] = ("refused", "differs", "told")
MOST_NAMES = 200
"""Names of a kind that are told apart; whatever comes later counts under `OTHERS`."""
OTHERS = "others"
_SHOWN = 160


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        weight: whether a request or a report like it is refused, answered or counted otherwise, or only worth telling.
        says: what was found, after its number.
        do: what to do about it.
    """

    weight: Weight
    says: str
    do: str


KINDS = {
    "not_read": Kind(
        "refused",
        "decisions that contradict themselves or are of a kind that is not read",
        "Leave these lines out of the import, or mend what wrote them: `decision import` refuses the log with them.",
    ),
    "damaged": Kind(
        "refused",
        "files that cannot be read to their end; nothing after this place was checked",
        "Fetch the file anew, or leave it out.",
    ),
    "too_many_actions": Kind(
        "refused",
        "requests with more actions than Personalizer's paths take, 50",
        "Offer fewer, or send these to /v1/loops/LOOP/decide, which takes 1,000.",
    ),
    "too_many_slots": Kind(
        "refused",
        "requests with more slots than Personalizer's paths take, 50",
        "Ask for fewer slots in a request.",
    ),
    "repeated_actions": Kind(
        "refused",
        "requests that offer an action id twice",
        "Give each action of a request an id of its own; the import takes their numbers for ids.",
    ),
    "repeated_slots": Kind(
        "refused",
        "requests that name a slot twice",
        "Give each slot of a request an id of its own.",
    ),
    "bad_id": Kind(
        "refused",
        "ids that are longer than 256 characters, or hold some that cannot be printed",
        "Shorten or clean them where they are made.",
    ),
    "features": Kind(
        "refused",
        "requests whose features pass a limit: 2,000 of them, names of 256 characters, texts of 1,024, numbers of 1e15",
        "Send fewer, shorter or smaller ones.",
    ),
    "reused_id": Kind(
        "refused",
        "event ids that come again with another request",
        "Make an id for each request, or leave eventId out; the second request gets 409.",
    ),
    "reward_range": Kind(
        "refused",
        "rewards out of -1 to 1",
        "Report them to /v1/loops/LOOP/outcomes, which takes any number, or scale them.",
    ),
    "reward_cut": Kind(
        "differs",
        "rewards out of the loop's reward.minimum to reward.maximum, which are cut",
        "Set both to the range that your rewards have, or leave them out.",
    ),
    "default_reward": Kind(
        "differs",
        "decisions without an outcome, whose reward there is not the loop's default",
        "Set reward.default to this number if it was the resource's default reward.",
    ),
    "aggregation": Kind(
        "differs",
        "decisions whose outcomes make another reward here",
        "Set reward.aggregation to what the resource had.",
    ),
    "late_outcome": Kind(
        "differs",
        "outcomes that came later than the loop waits",
        "Set reward.window_s to the resource's reward wait time.",
    ),
    "activated_by_reward": Kind(
        "differs",
        "decisions that were rewarded and never activated; here a reward activates",
        "Set reward.activates = false to keep them out.",
    ),
    "no_action_id": Kind(
        "differs",
        "decisions whose actions have no ids in the log; the import takes their numbers for ids",
        "Set policy.action_ids = false for the first training if your requests have other ids, or a version learns "
        "from the numbers.",
    ),
    "unknown_action": Kind(
        "differs",
        "decisions that offer an action the loop has not seen",
        "Import this log into the loop before you train, or expect it to start from its features.",
    ),
    "unknown_feature": Kind(
        "differs",
        "decisions with a feature the loop has not seen",
        "Import this log into the loop before you train, or send the features that the loop learned from.",
    ),
    "absent_feature": Kind(
        "differs",
        "features the loop has learned from that no line has",
        "Send them, too, or expect answers that know less than the loop does.",
    ),
    "other_shape": Kind(
        "differs",
        "decisions with a feature that the loop has as another kind of value",
        "Send it as the loop has it: a number and a text of one name are two features.",
    ),
    "two_shapes": Kind(
        "differs",
        "decisions with a feature that is another kind of value elsewhere in this log",
        "Send it as one kind: a number and a text of one name are two features.",
    ),
    "not_first": Kind(
        "differs",
        "decisions whose action was not the first one, which this loop's mode returns always",
        'Put the loop into mode = "online" to return what the version in charge draws.',
    ),
    "always_first": Kind(
        "differs",
        "decisions that took the first action with probability 1, which is all of them, as in apprentice mode",
        'Begin with mode = "apprentice"; an online loop returns other actions, too.',
    ),
    "zero_probability": Kind(
        "told",
        "decisions with actions of probability 0: excluded ones, or a policy that never draws them",
        "Nothing if they were excluded; else expect them to be drawn now and then.",
    ),
    "no_distribution": Kind(
        "told",
        "decisions with the probability of the drawn action alone",
        "Nothing: estimates use that one, and no export to dsjson holds these rows.",
    ),
    "hidden_feature": Kind(
        "told",
        "decisions with names that begin with _, which are no features",
        "Rename them if a policy should learn from them.",
    ),
    "never_activated": Kind(
        "told",
        "decisions that were never activated; they count for nothing here, too",
        "Nothing.",
    ),
    "sampled": Kind(
        "told",
        "lines of a log that was sampled down; each counts for those that it stands for",
        "Nothing.",
    ),
    "repeated": Kind(
        "told",
        "events that come again with the same request; they are answered as before and count once",
        "Nothing.",
    ),
    "dangling": Kind(
        "told",
        "outcomes whose decision is in no line: they came after the reward wait time, or files are missing",
        "Nothing if files are whole; else check those from before.",
    ),
    "skipped": Kind(
        "told",
        "lines that are left out, as Vowpal Wabbit does",
        "Nothing, unless there are many: `decision import dsjson --strict` names the first.",
    ),
}
"""All kinds, by weight."""


class Finding(msgspec.Struct, kw_only=True):
    """What was found, and how often.

    Attributes:
        kind: of `KINDS`.
        weight: of the kind.
        name: the feature, action, field or reason that it is about; "" where it is about none.
        count: how often.
        first: file and line of the first.
        example: what stood there.
        says: the kind's words.
        do: what to do about it.
    """

    kind: str
    weight: Weight
    name: str
    count: int
    first: str
    example: str
    says: str
    do: str


class Tally:
    """Counts findings."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}
        self._names: dict[str, int] = {}

    def add(self, kind: str, place: str, example: object = "", name: str = "", *, count: int = 1) -> None:
        """Count one more of a kind, or `count`, of which the first stands at `place`."""
        found = self._found.get((kind, name))
        if found is None and name:
            if self._names.get(kind, 0) >= MOST_NAMES:
                name = OTHERS
                found = self._found.get((kind, name))
            self._names[kind] = self._names.get(kind, 0) + 1
        if found is None:
            weight, says, do = KINDS[kind]
            shown = str(example)
            self._found[kind, name] = Finding(
                kind=kind,
                weight=weight,
                name=name[:_SHOWN],
                count=count,
                first=place,
                example=shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "...",
                says=says,
                do=do,
            )
        else:
            found.count += count

    def drop(self, kind: str) -> None:
        """Forget a kind that turned out to say nothing."""
        for key in [key for key in self._found if key[0] == kind]:
            del self._found[key]

    def findings(self) -> list[Finding]:
        """Return what was found: by weight, then in the order of the kinds, the most frequent first."""
        order = {kind: at for at, kind in enumerate(KINDS)}
        key = {weight: at for at, weight in enumerate(WEIGHTS)}
        return sorted(self._found.values(), key=lambda one: (key[one.weight], order[one.kind], -one.count, one.name))
