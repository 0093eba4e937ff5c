"""The governance of fairness panels: people, tasks, judgements, verdicts, and the audit log they leave."""
