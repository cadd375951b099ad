"""The table of docs/reliability.md, from the results that tests/chaos/run.py wrote.

python -m tests.chaos.table process.json airflow.json cluster.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_HEAD = """\
| through | run | struck | cases | while under way | commands given | survived |
| --- | --- | --- | ---: | --- | ---: | ---: |"""


def table(cases: list[dict[str, Any]]) -> str:
    """A row per way, run and victims: how many cases, when they were struck, what survived."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        victims = ", then ".join(blow["victim"] for blow in case["struck"])
        groups[case["through"], case["run"], victims].append(case)
    rows = [_HEAD]
    for (through, run, victims), group in groups.items():
        steps = dict.fromkeys(blow["during"] for case in group for blow in case["struck"])
        commands = sorted({case["commands"] for case in group})
        survived = sum(case["survived"] for case in group)
        rows.append(
            f"| {through} | {run} | {victims} | {len(group)} | {', '.join(steps)} | "
            f"{_span(commands)} | {survived} |"
        )
    total, survived = len(cases), sum(case["survived"] for case in cases)
    rows.append(f"| | | **all** | **{total}** | | | **{survived}** |")
    return "\n".join(rows)


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


if __name__ == "__main__":
    read = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    sys.stdout.write(table([case for document in read for case in document["cases"]]) + "\n")
