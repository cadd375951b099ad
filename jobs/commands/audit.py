"""`derm audit`: compare what readers see with the lake; a day's own, or what is current now."""

import argparse

from jobs.console import out
from jobs.engine import step_command
from jobs.rendering.published import read_published
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing beside the day: without one, what is current is compared, whatever is on record."""


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Audit a day, or the day of the current release.

    Raises:
        GuardFailed: what is published differs from the lake.
    """
    if not args.ds:
        Home.load(settings.home)
        published = read_published(settings.home)
        if published is None:
            out("nothing was ever published: nothing to compare")
            return 0
        args.ds, args.force = published.release.ds, True
    return step_command.main(args, settings)
