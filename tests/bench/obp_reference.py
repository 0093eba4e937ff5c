"""OBP's own evaluation of the log in the file argv[1], timed; run by an environment that has obp 0.5.7, not ours."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from obp.ope import (  # pyright: ignore[reportMissingImports]
    DirectMethod,
    DoublyRobust,
    DoublyRobustWithShrinkage,
    InverseProbabilityWeighting,
    OffPolicyEvaluation,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobust,
)


def main() -> None:
    with np.load(sys.argv[1], allow_pickle=False) as file:
        log = {name: file[name] for name in file.files}
    replicates = int(sys.argv[2])
    n, k = log["policy"].shape
    feedback = {
        "n_rounds": n,
        "n_actions": k,
        "action": log["action"],
        "reward": log["reward"],
        "pscore": log["pscore"],
        "position": np.zeros(n, dtype=int),
        "context": np.zeros((n, 1)),
    }
    estimators = [
        InverseProbabilityWeighting(),
        SelfNormalizedInverseProbabilityWeighting(),
        InverseProbabilityWeighting(lambda_=10.0, estimator_name="clipped"),
        DirectMethod(),
        DoublyRobust(),
        SelfNormalizedDoublyRobust(),
        SwitchDoublyRobust(lambda_=10.0, estimator_name="switch"),
        DoublyRobustWithShrinkage(lambda_=100.0, estimator_name="dros"),
    ]
    evaluation = OffPolicyEvaluation(bandit_feedback=feedback, ope_estimators=estimators)
    given = {
        "action_dist": log["policy"][:, :, None],
        "estimated_rewards_by_reg_model": log["expected"][:, :, None],
    }
    started = time.perf_counter()
    values = evaluation.estimate_policy_values(**given)
    points = time.perf_counter() - started
    started = time.perf_counter()
    evaluation.estimate_intervals(**given, n_bootstrap_samples=replicates, random_state=1)
    intervals = time.perf_counter() - started
    print(json.dumps({"points": points, "intervals": intervals, "values": {k: float(v) for k, v in values.items()}}))


if __name__ == "__main__":
    main()
