"""Embedding health inside Airflow's UI: the report as it stands now, behind Airflow's login.

Every process of Airflow loads its plugins, tasks included, and only the API server answers
requests: so the application is made when the first one arrives.
"""

import functools
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFIX = "/derm"
DAILY = "derm_daily"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What Airflow mounts below PREFIX."""
    await _made()(scope, receive, send)


@functools.cache
def _made() -> "FastAPI":
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI
    from fastapi.responses import HTMLResponse, PlainTextResponse

    from feature_store.contracts.errors import DermError
    from jobs.rendering.live import live_page
    from jobs.settings import Settings

    # A plugin's routes are open to everybody unless they ask; those of a schema would not ask.
    login = Depends(requires_access_view(AccessView.PLUGINS))
    app = FastAPI(dependencies=[login], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> HTMLResponse:
        return HTMLResponse(live_page(Settings.from_environment().home, _runs()))

    @app.exception_handler(DermError)
    def explain(_request: Any, error: DermError) -> PlainTextResponse:
        return PlainTextResponse(str(error), status_code=503)

    return app


def _runs() -> dict[str, str]:
    """Where the UI shows the latest run of each day, as seen from the page."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    days = (
        select(DagRun.data_interval_start, DagRun.run_id)
        .where(DagRun.dag_id == DAILY, DagRun.data_interval_start.is_not(None))
        .order_by(DagRun.run_after)
    )
    with create_session() as session:
        return {
            begin.date().isoformat(): f"../dags/{DAILY}/runs/{urllib.parse.quote(run_id, safe='')}"
            for begin, run_id in session.execute(days)
        }


class DermHealth(AirflowPlugin):
    """The page, as an entry of the navigation and as a tab of each DAG."""

    name = "derm_health"
    fastapi_apps = [{"app": application, "url_prefix": PREFIX, "name": "derm"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Embeddings",
            "href": f"{PREFIX}/health",
            "destination": destination,
            "url_route": f"embeddings{suffix}",
        }
        for destination, suffix in (("nav", ""), ("dag", "-of-dag"))
    ]
