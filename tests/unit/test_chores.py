"""What the operators' DAGs run is what the command line understands, and does what they say."""

import re
import shlex

import pytest

from jobs.cli import build_parser
from jobs.scheduling.maintenance import MAINTENANCE, Chore


@pytest.mark.parametrize("chore", MAINTENANCE, ids=lambda c: c.name)
def test_every_chore_is_a_command(chore: Chore) -> None:
    filled = re.sub(r"{{.*?}}", "2025-03-02", chore.arguments)
    arguments = shlex.split(re.sub(r"{%.*?%}", "", filled))
    assert build_parser(arguments[0]).parse_args(arguments)


def test_the_audit_of_the_maintenance_dag_is_of_what_is_current() -> None:
    """Not of the calendar day, which may not be released: then a good release would be blamed."""
    (audit,) = (c for c in MAINTENANCE if c.name == "audit")
    assert "interval" not in audit.arguments
    by_itself = re.sub(r"{% if.*?endif %}", "", audit.arguments)
    assert by_itself.split() == ["audit"]
