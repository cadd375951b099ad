"""Reads commands and variables of the cluster profile as Airflow would; a program of its own.

Standard input: {"commands": [[...]], "variables": [...]}. Standard output: what is wrong, as JSON.
"""

import contextlib
import io
import json
import sys


def main() -> int:
    """Parse every command, look every variable up."""
    from airflow.cli.cli_parser import get_parser
    from airflow.configuration import conf

    asked = json.load(sys.stdin)
    wrong = []
    for command in asked["commands"]:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                get_parser().parse_args(command)
        except SystemExit:
            wrong.append(f"airflow {' '.join(command)}: {said.getvalue()[-300:]}")
    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, described in conf.configuration_description.items()
        for option in described["options"]
    }
    wrong += [name for name in asked["variables"] if name not in known]
    sys.stdout.write(json.dumps(wrong) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
