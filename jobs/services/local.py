"""Everything one machine runs beside the pipeline, as a whole: Redis, PostgreSQL, Airflow."""

from feature_store.contracts.errors import InputError
from jobs.services import airflow, redis
from jobs.services.airflow_api import AirflowApi
from jobs.settings import Settings


def check_stopped(settings: Settings) -> None:
    """Make sure that no Airflow of this home runs.

    Raises:
        InputError: one does.
    """
    if airflow.is_running(settings):
        raise InputError(
            "Airflow of this home is already running",
            where=str(settings.home),
            hint="stop it: make down (or derm down)",
        )


def start(settings: Settings) -> AirflowApi:
    """Start what is not configured elsewhere; return once Airflow is healthy.

    Whoever catches an error of this stops what did start: `stop`.

    Raises:
        DermError: one of them does not start.
    """
    redis.ensure_redis(settings)
    return airflow.start(settings)


def stop(settings: Settings) -> None:
    """Stop them all, saving what Redis holds; do nothing where nothing runs."""
    airflow.stop(settings)
    redis.stop_redis(settings.home)
