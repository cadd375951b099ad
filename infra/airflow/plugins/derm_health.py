"""Inside Airflow's UI, behind its login: the report as it stands now, and the runbook.

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
_IMAGES = (".png", ".svg")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What Airflow mounts below PREFIX."""
    await _made()(scope, receive, send)


@functools.cache
def _made() -> "FastAPI":
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI
    from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

    from feature_store.contracts.errors import DermError, MissingInput
    from jobs.rendering.docs_page import docs_page
    from jobs.rendering.live import live_page
    from jobs.settings import PROJECT, Settings

    # A plugin's routes are open to everybody unless they ask; those of a schema would not ask.
    login = Depends(requires_access_view(AccessView.PLUGINS))
    app = FastAPI(dependencies=[login], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> HTMLResponse:
        return HTMLResponse(live_page(Settings.from_environment().home, _runs()))

    docs = PROJECT / "docs"
    images = {p.relative_to(docs).as_posix(): p for p in docs.rglob("*") if p.suffix in _IMAGES}

    @app.get("/docs/{name:path}", response_model=None)
    def page(name: str) -> HTMLResponse | FileResponse:
        if name in images:
            return FileResponse(images[name])
        return HTMLResponse(docs_page(docs, name))

    @app.exception_handler(DermError)
    def explain(_request: Any, error: DermError) -> PlainTextResponse:
        code = 404 if isinstance(error, MissingInput) else 503
        return PlainTextResponse(str(error), status_code=code)

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
    """The page and the runbook, as entries of the navigation and as tabs of each DAG."""

    name = "derm_health"
    fastapi_apps = [{"app": application, "url_prefix": PREFIX, "name": "derm"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": name,
            "href": f"{PREFIX}/{address}",
            "destination": destination,
            "url_route": f"{name.lower()}{suffix}",
        }
        for name, address in (("Embeddings", "health"), ("Runbook", "docs/runbook.md"))
        for destination, suffix in (("nav", ""), ("dag", "-of-dag"))
    ]
