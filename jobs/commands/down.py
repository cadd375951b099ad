"""`derm down`: stop what `derm up` started, saving what Redis holds."""

import argparse

from jobs.console import out
from jobs.services import local
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm down`: none."""
    del parser


def main(_args: argparse.Namespace, settings: Settings) -> int:
    """Stop every service of this home."""
    local.stop(settings.model_copy(update={"home": settings.home.resolve()}))
    out("nothing of this home runs any more")
    return 0
