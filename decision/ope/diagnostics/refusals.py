"""When a log cannot answer: reasons for which no estimate of a policy should be read from it, in words.

A doubt is said beside an estimate. These are more: a mean weight that is not 1, a policy that does what the log never
does, or one row that decides everything leave no number worth printing, however narrow its interval.
"""

from __future__ import annotations

from decision.ope.sums.means import Support

MEAN_ERRORS = 4.0
LEAST_ESS = 30.0
LARGEST_SHARE = 0.25
UNSUPPORTED = 0.01


def refusals(support: Support, unsupported: float) -> list[str]:
    """Return why the log cannot support estimates of the policy; empty when it can.

    The mean weight of a log that can is within 4 standard errors of 1 but with probability 6e-5, where few rows do not
    carry the tail; where they do, the limits on one row's share and on the effective sample size speak.

    Args:
        support: sums of the importance weights.
        unsupported: mean probability with which the policy does what the log never draws, 0 where that is not known.
    """
    if support.n < 2:
        return ["there are fewer than two decisions"]
    if support.ess <= 0:
        return ["the log has no support for this policy: every weight is 0"]
    reasons: list[str] = []
    if abs(support.mean - 1.0) > MEAN_ERRORS * support.mean_error + 1e-9:
        reasons.append(
            f"the mean weight is {support.mean:.4g}, not 1 (standard error {support.mean_error:.2g}): the logged "
            "propensities are not those of the draws, or the policy does what the log never does"
        )
    if unsupported > UNSUPPORTED:
        reasons.append(f"{unsupported:.1%} of what the policy would do, the log never does: nothing is known of it")
    if support.ess < LEAST_ESS:
        reasons.append(
            f"only {support.ess:.1f} of {support.n} decisions count (effective sample size), fewer than {LEAST_ESS:.0f}"
        )
    share = support.largest_share
    if share > LARGEST_SHARE and support.n >= LEAST_ESS:
        reasons.append(f"one decision carries {share:.0%} of all weight")
    return reasons
