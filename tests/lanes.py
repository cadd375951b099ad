"""How the suite is shared between processes: whole files, the dearest first.

`make test` runs the files in lanes (`LANES`), so that one works while another waits for a server
or a scheduler. A file stays in one lane: the chapters of a story run in order, on one home. A file
of minutes that came last would run alone, so those named here begin first.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
# Files that take longest, the dearest first: `make test PYTEST_ARGS=--durations=50`.
DEAREST = (
    "integration/test_daily.py",
    "integration/test_small_days.py",
    "integration/test_declared_upstreams.py",
    "integration/test_forget.py",
    "integration/test_lake_on_s3.py",
    "integration/test_days_end_to_end.py",
    "integration/test_chaos.py",
    "integration/test_bootstrap.py",
    "integration/test_backfill_faults.py",
    "integration/test_sequence_upstream.py",
    "integration/test_graph_upstream.py",
    "integration/test_experiment.py",
    "integration/test_backfill_processes.py",
    "integration/test_train_and_infer.py",
    "integration/test_unified_days.py",
    "integration/test_alerts.py",
    "integration/test_cluster.py",
    "integration/test_publish_steps.py",
    "integration/test_two_ranks.py",
    "integration/test_backfill.py",
    "integration/test_publish_readers.py",
    "integration/test_unified_programs.py",
    "integration/test_tampering.py",
    "integration/test_warm_process.py",
    "integration/test_torchrun.py",
    "integration/test_damaged_input.py",
    "integration/test_ends.py",
    "integration/test_health_plugin.py",
    "integration/test_real_data.py",
    "integration/test_store_losses.py",
    "integration/test_publish_faults.py",
    "integration/test_wheel.py",
)


def dearest_first(items: list[pytest.Item]) -> None:
    """Sort tests by their file's place among the dearest; all others stay as they were."""
    place = {ROOT / name: index for index, name in enumerate(DEAREST)}
    items.sort(key=lambda item: place.get(item.path, len(DEAREST)))
