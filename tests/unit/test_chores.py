"""What the operators' DAGs run is what the command line understands, and does what they say."""

import re
import shlex

import pytest

from jobs.cli import build_parser
from jobs.scheduling.maintenance import MAINTENANCE, Chore


@pytest.mark.parametrize("chore", MAINTENANCE, ids=lambda c: c.name)
def test_every_chore_is_a_command(chore: Chore) -> None:
    arguments = shlex.split(re.sub(r"{{.*?}}", "2025-03-02", chore.arguments))
    assert build_parser(arguments[0]).parse_args(arguments)


def test_the_audit_of_the_maintenance_day_compares_although_nothing_changed() -> None:
    """The day's own audit is on record, and what is on record is not done again unless forced."""
    (audit,) = (c for c in MAINTENANCE if c.name == "audit")
    assert "--force" in audit.arguments.split()
