"""Models that users of Vowpal Wabbit bring along: ``--cb_adf``, ``--cb_explore_adf``, read and asked as VW does it."""
