"""The servable form of a policy with memory that was taught on a log's responses: numbers, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decision.oracles.session import SessionOracle, SessionSettings
from simulators.learned.trajectories import Catalogue, Scale
from simulators.sim2rec.network import ContextPolicy, arrays_of


def served(
    policy: ContextPolicy,
    catalogue: Catalogue,
    scale: Scale,
    offered: Sequence[int],
    *,
    grouped_by: str = "",
    groups: Mapping[str, Sequence[float]] | None = None,
) -> SessionOracle:
    """Return the oracle of `policy`, which needs no torch.

    Args:
        policy: of inputs 1, response, d features of the last action, and the group's embedding, by itself and times
            them; a logit per action offered.
        catalogue: of the log it was taught on.
        scale: likewise.
        offered: code of the action of each of its outputs.
        grouped_by: name of the context's feature that says which group a user is of.
        groups: embedding of each, for a policy that sees it; others have their mean.
    """
    features = catalogue.features[list(offered)].tolist()
    one = len(features[0]) == 1
    known = {name: tuple(map(float, row)) for name, row in (groups or {}).items()}
    settings = SessionSettings(
        actions=[catalogue.ids[code] for code in offered],
        levels=tuple(row[0] for row in features) if one else (),
        features=() if one else tuple(tuple(row) for row in features),
        response=scale.form,
        usual=scale.usual,
        spread=scale.spread,
        group=grouped_by if known else "",
        groups=known,
        elsewhere=tuple(sum(each) / len(known) for each in zip(*known.values(), strict=True)),
        **({"least": scale.least} if scale.form == "log" else {}),
    )
    return SessionOracle(settings, arrays_of(policy))
