"""Services of a cluster struck one after the other, while days and repairs go through it.

One cluster lives through all cases, as in production: each day is struck once, and what died comes
back by itself. An operator only clears what failed for good.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jobs.services.airflow_api import AirflowApi, Unreachable
from tests.chaos.case import Result, under_way
from tests.chaos.lane import Lane, Run
from tests.chaos.state import differences, observe
from tests.cluster.compose import Compose
from tests.cluster.native import Cluster, running

T = TypeVar("T")

VICTIMS = ("worker-cpu", "worker-gpu", "spark-worker", "store", "airflow-scheduler", "postgres")
DAGS: dict[Run, str] = {"daily": "derm_daily", "backfill": "derm_backfill"}

# About as long as a day, and a repair, take on two cores.
_SPANS_S: dict[Run, float] = {"daily": 60.0, "backfill": 25.0}
_CASE_WITHIN_S = 1500.0
_POLL_S = 0.5


@dataclass(frozen=True)
class Campaign:
    """So many days through one cluster, each struck once, and then so many repairs of the first."""

    folder: Path
    days: int
    repairs: int
    seed: int

    def play(self) -> Iterator[Result]:
        """Play the cases, in order."""
        undisturbed = Lane(
            folder=self.folder / "undisturbed", through="process", days=self.days - 1
        )
        expected = undisturbed.prepare()
        repaired = [expected["backfill"], *(undisturbed.repair() for _ in range(self.repairs - 1))]
        lane = Lane(folder=self.folder, through="process", days=self.days - 1)
        lane.begin()
        own = (("DERM_LAST_DS", lane.day),)
        compose = Compose(lane.home, self.folder / "cluster", own)
        with running(compose) as (cluster, api):
            patiently(lambda: api.has_read(DAGS["daily"], lane.day))
            api.set_paused(DAGS["daily"], paused=False)
            for number in range(self.days):
                yield self._case(cluster, api, number, "daily", expected["daily"])
            for number, wanted in enumerate(repaired[: self.repairs], start=self.days):
                lane.spoil(DERM_REDIS_URL=compose.store_url)
                yield self._case(cluster, api, number, "backfill", wanted)

    def _case(
        self, cluster: Cluster, api: AirflowApi, number: int, run: Run, expected: dict[str, str]
    ) -> Result:
        """Wait for the run, strike, see it to its end, compare."""
        started = time.monotonic()
        rng = random.Random(f"{self.seed} cluster {number}")
        victim, after_s = VICTIMS[number % len(VICTIMS)], rng.uniform(0, _SPANS_S[run])
        lane = Lane(folder=self.folder, through="process", days=min(number, self.days - 1))
        run_id = self._begin(api, lane, run)
        time.sleep(after_s)
        during = under_way(lane, run)
        died = cluster.kill(victim)
        state, commands = self._to_its_end(api, DAGS[run], run_id)
        last = run == "backfill" or number == self.days - 1
        found = observe(lane.home, cluster.compose.store_url)
        wanted = expected if last else _of_day(expected, lane.day)
        found = found if last else _of_day(found, lane.day)
        return Result(
            number=number,
            through="cluster",
            run=run,
            struck=({"victim": victim, "after_s": round(after_s, 2), "during": during},)
            if died
            else (),
            commands=commands,
            exit_codes=(0 if state == "success" else 1,),
            differing=tuple(differences(wanted, found)),
            seconds=round(time.monotonic() - started, 1),
        )

    def _begin(self, api: AirflowApi, lane: Lane, run: Run) -> str:
        """The id of the run, once it is running."""
        if run == "daily":

            def scheduled() -> str | None:
                runs = [r for r in api.runs(DAGS[run]) if r.ds == lane.day]
                return runs[0].run_id if runs and runs[0].state != "queued" else None

            return str(patiently(scheduled))
        conf = {
            "first_day": lane.wrong,
            "last_day": lane.wrong,
            "what": "embeddings",
            "models": "as needed",
        }
        return str(patiently(lambda: api.trigger(DAGS[run], conf)))

    def _to_its_end(self, api: AirflowApi, dag_id: str, run_id: str) -> tuple[str, int]:
        """Wait until a run has succeeded, clearing what failed for good at most twice."""
        commands = 1
        while (state := _ended(api, dag_id, run_id)) == "failed" and commands < 3:
            api.clear_unfinished(dag_id, run_id)
            api.set_paused(dag_id, paused=False)
            commands += 1
        return state, commands


def patiently(ask: Callable[[], T | None]) -> T:
    """What an answer is once there is one: services that were struck do not answer for a while."""
    deadline = time.monotonic() + _CASE_WITHIN_S
    while True:
        try:
            if answer := ask():
                return answer
        except Unreachable:
            pass
        assert time.monotonic() < deadline, "no answer"
        time.sleep(_POLL_S)


def _ended(api: AirflowApi, dag_id: str, run_id: str) -> str:
    def end() -> str | None:
        state = api.run_state(dag_id, run_id)
        return state if state in ("success", "failed") else None

    return patiently(end)


def _of_day(found: dict[str, str], ds: str) -> dict[str, str]:
    """What one day made: not what is published, which the next day is already changing."""
    made = ("table", "manifest", "snapshot")
    return {k: v for k, v in found.items() if ds in k and k.startswith(made)}
