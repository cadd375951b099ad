"""`derm up`: Airflow's UI and Redis on loopback, until `derm down`."""

import argparse

from rich.console import Console

from jobs.commands import daily, preparation
from jobs.console import out
from jobs.services import local
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm up`."""
    preparation.configure(parser)


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Start the services and say where they are. The DAG stays as paused as it was."""
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    local.check_stopped(settings)
    home = preparation.open_home(args, settings)
    daily.prepare(settings, home, Console(highlight=False))
    try:
        api = local.start(settings)
        daily.await_dag(api, settings.last_ds)
    except BaseException:
        local.stop(settings)
        raise
    out(f"Airflow   {api.url}")
    out(f"login     {api.user} / {api.password}")
    out(f"days run  when {daily.DAG_ID} is unpaused there; stop with: make down")
    return 0
