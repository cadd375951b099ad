"""Photograph the DAG in the Airflow UI that `make up` left running, for the documentation.

Needs a Chromium: the variable CHROMIUM, or one on PATH. Writes docs/images/derm_daily_*.png.
"""

import os
import shutil
import sys

from playwright.sync_api import Page, sync_playwright

from feature_store.contracts.errors import DermError, InputError
from jobs.services import airflow
from jobs.services.airflow_api import AirflowApi
from jobs.settings import PROJECT, Settings

DAG_ID = "derm_daily"
IMAGES = PROJECT / "docs" / "images"
SIZES = {"Grid": (900, 720), "Graph": (1600, 720)}


def main() -> int:
    """Log in, open the grid and the graph, write both images."""
    try:
        settings = Settings.from_environment()
        home = settings.home.resolve()
        api = airflow.connect(settings.model_copy(update={"home": home}))
        for path in photograph(api, chromium()):
            sys.stdout.write(f"{path}\n")
    except DermError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def chromium() -> str:
    """Path of a Chromium.

    Raises:
        InputError: there is none.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    if found := os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None):
        return found
    raise InputError(
        "no Chromium was found",
        expected=f"the variable CHROMIUM, or one of {', '.join(names)} on PATH",
        hint="CHROMIUM=/path/to/chromium make screenshot",
    )


def photograph(api: AirflowApi, browser: str) -> list[str]:
    """The paths of the images taken."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page(color_scheme="light")
        _log_in(page, api)
        page.goto(f"{api.url}/dags/{DAG_ID}")
        page.get_by_text("release").first.wait_for()
        page.get_by_label("Collapse Details Panel").click()
        page.get_by_label("Expand all task groups").click()
        taken = [_take(page, view) for view in SIZES]
        window.close()
    return taken


def _log_in(page: Page, api: AirflowApi) -> None:
    page.goto(f"{api.url}/auth/login")
    page.fill("input[name=username]", api.user)
    page.fill("input[name=password]", api.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/auth/" not in url)


def _take(page: Page, view: str) -> str:
    width, height = SIZES[view]
    page.set_viewport_size({"width": width, "height": height})
    page.get_by_label(f"Show {view}").click()
    page.wait_for_timeout(2000)  # the graph lays itself out
    path = IMAGES / f"{DAG_ID}_{view.lower()}.png"
    page.screenshot(path=path)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
