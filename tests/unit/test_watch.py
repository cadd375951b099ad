"""When Airflow counts as having stopped working, and when it is only slow."""

import pytest

from feature_store.contracts.errors import DermError
from jobs.scheduling import watch
from jobs.services.airflow_api import AirflowApi, Refused, Unreachable


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


def look(health: watch.Health, error: Unreachable | None = None) -> None:
    with health.watched():
        if error:
            raise error


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
    clock.now = 299.0
    look(health)
    clock.now = 301.0
    with pytest.raises(DermError, match="Airflow stopped working") as caught:
        look(health)
    assert "scheduler" in str(caught.value)
    assert "the same command again" in str(caught.value)


def test_a_component_that_comes_back_in_time_is_not(
    api: Components, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = watch.Health(api)
    for missing, now in ((("scheduler",), 250.0), ((), 255.0), (("scheduler",), 550.0)):
        monkeypatch.setattr(Components, "missing", missing)
        clock.now = now
        look(health)


def test_an_airflow_that_answers_too_late_on_a_busy_machine_is_waited_for(
    api: Components, clock: Clock
) -> None:
    health, late = watch.Health(api), Unreachable("Airflow does not answer", found="timed out")
    clock.now = 200.0
    look(health, late)
    look(health)
    clock.now = 450.0
    look(health, late)
    clock.now = 501.0
    with pytest.raises(DermError, match="Airflow stopped working") as caught:
        look(health, late)
    assert "timed out" in str(caught.value)


def test_what_airflow_refuses_is_said_at_once(api: Components) -> None:
    with pytest.raises(Refused):
        look(watch.Health(api), Refused("Airflow refused GET", found="401"))
