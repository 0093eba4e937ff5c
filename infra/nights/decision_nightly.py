"""The nights of an installation for Apache Airflow 2.8 or later: one task a loop, each tried again by itself.

Copy it to Airflow's folder of DAGs and name the loops. A worker needs the package and the installation's addresses.
Exit status 3, the gate's refusal, is shown as skipped; 1 and 2 are tried again, and go on where the night stopped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow import DAG  # pyright: ignore[reportMissingImports]

try:
    from airflow.providers.standard.operators.bash import BashOperator  # pyright: ignore[reportMissingImports]
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator  # pyright: ignore[reportMissingImports]

LOOPS = ["news"]

with DAG(
    dag_id="decision_nightly",
    schedule="15 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10), "execution_timeout": timedelta(hours=8)},
) as dag:
    for name in LOOPS:
        BashOperator(task_id=name, bash_command=f"decision nightly {name} --json", skip_on_exit_code=3)
