"""The panels over HTTP: tasks, judgements, reports, adjudication, appeals, export."""
