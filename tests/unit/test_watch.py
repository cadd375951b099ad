"""When Airflow counts as having stopped working, and when it is only slow."""

import pytest

from feature_store.contracts.errors import DermError
from jobs.scheduling import watch
from jobs.services.airflow_api import AirflowApi, Unreachable


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Components(AirflowApi):
    """An Airflow of which some components are missing."""

    missing: tuple[str, ...] = ()

    def unhealthy(self) -> tuple[str, ...]:
        return self.missing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Components:
    monkeypatch.setattr(Components, "missing", ())
    return Components(url="http://127.0.0.1:1", user="admin", password="", token="")


def test_a_component_that_is_missing_for_minutes_is_reported(
    api: Components, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = watch.Health(api)
    monkeypatch.setattr(Components, "missing", ("scheduler",))
    clock.now = 179.0
    health.check()
    clock.now = 181.0
    with pytest.raises(DermError, match="Airflow stopped working") as caught:
        health.check()
    assert "scheduler" in str(caught.value)
    assert "the same command again" in str(caught.value)


def test_a_component_that_comes_back_in_time_is_not(
    api: Components, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = watch.Health(api)
    for missing, now in ((("scheduler",), 150.0), ((), 155.0), (("scheduler",), 330.0)):
        monkeypatch.setattr(Components, "missing", missing)
        clock.now = now
        health.check()


def test_a_question_without_an_answer_is_borne_for_minutes(api: Components, clock: Clock) -> None:
    health = watch.Health(api)
    clock.now = 100.0
    with health.patience():
        raise Unreachable("Airflow does not answer", where="/runs", found="timed out")
    clock.now = 200.0
    with pytest.raises(DermError, match="Airflow stopped working") as caught, health.patience():
        raise Unreachable("Airflow does not answer", where="/runs", found="timed out")
    assert "timed out at /runs" in str(caught.value)


def test_a_fault_of_ours_is_not_borne(api: Components, clock: Clock) -> None:
    with pytest.raises(KeyError), watch.Health(api).patience():
        raise KeyError("dag_runs")
