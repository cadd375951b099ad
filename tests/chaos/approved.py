"""A repair that waits for a person in a real Airflow: nothing is overwritten before the yes.

    python -m tests.chaos.approved --folder /tmp/approved

On the little home, whose data set is declared: a day through Airflow, `derm up`, `derm backfill
--approval`, a look at every bit while it waits, a no (the run ends red, every bit stays, no repair
has begun), the same command again, and a yes.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from jobs.engine import unfinished
from jobs.services import airflow
from jobs.services.airflow_api import AirflowApi
from jobs.services.redis import ensure_redis
from jobs.settings import Settings
from tests.chaos import little
from tests.chaos.state import differences, observe
from tests.derm_process import derm, start

_PATIENCE_S = 600.0
_WORDS = ("backfill", "--from", little.DAYS[2], "--to", little.DAYS[3], "--what", "embeddings")


def main(arguments: list[str]) -> int:
    """Play it; 0 when every bit stayed until the yes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args(arguments).folder
    home, settings = folder / "home", Settings(home=folder / "home")
    declaration = little.deliver(folder / "shop")
    if not home.exists():
        recipe = f"{Path(little.__file__)}:recipe"
        derm(home, "init", "--dataset", str(declaration), "--recipe", recipe)
        derm(home, "run", "--from", little.HISTORY, "--to", little.DAYS[-1])
    derm(home, "daily", "--days", str(len(little.DAYS) + 1))
    _say(f"through Airflow: {json.loads(derm(home, 'status', '--json'))['published']['ds']}")
    before = observe(home)
    _say(f"{len(before)} tables of days, files and keys before")
    derm(home, "up")
    try:
        refused = _answered(home, settings, before, "Reject")
        approved = _answered(home, settings, before, "Approve")
    finally:
        derm(home, "down")
    same = differences(before, observe(home))
    _say(f"after the yes: {len(same)} differ from before (the days were right)")
    return int((refused, approved) != (1, 0) or bool(same))


def _answered(home: Path, settings: Settings, before: dict[str, str], answer: str) -> int:
    """Begin the repair, wait until it asks, look, answer; how the command ended."""
    process, begun = start(home, *_WORDS, "--approval"), time.monotonic()
    api = airflow.connect(settings)
    run_id = _asking(api)
    waited = time.monotonic() - begun
    began = unfinished.load(home)
    _say(f"it asks after {waited:.0f} s; a repair has begun: {began is not None}")
    # The embedded store runs: looking must not stop it.
    changed = differences(before, observe(home, ensure_redis(settings)))
    assert began is None, "a repair began before the yes"
    assert not changed, f"overwritten before the yes: {changed}"
    path = f"dags/derm_backfill/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    api._call("PATCH", path, {"chosen_options": [answer]})
    printed, said = process.communicate(timeout=_PATIENCE_S)
    _say(f"{answer}: exit code {process.returncode}")
    for line in [*printed.splitlines()[-3:], *said.splitlines()[-1:]]:
        _say(f"  {line}")
    return process.returncode


def _asking(api: AirflowApi) -> str:
    """The run whose task `approve` waits for a person."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        active: tuple[str, dict[str, Any]] | None = api.active_run("derm_backfill")
        if active:
            states = {t.key: t.state for t in api.tasks("derm_backfill", active[0])}
            if states.get("approve") in ("deferred", "awaiting_input"):
                assert states.get("plan") == "success"
                return active[0]
        time.sleep(0.5)
    raise TimeoutError("nobody asked")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
