"""Conservative learners of contextual bandits, for the study of StepMix."""
