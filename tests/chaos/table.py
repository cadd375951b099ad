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


def of_faults(cases: list[dict[str, Any]]) -> str:
    """What tests/chaos/faults.py played: a table of what was tampered with, and one of the rest."""
    tampered = [case for case in cases if case["kind"] == "tamper"]
    return "\n\n".join([_faults(cases), *([_tampered(tampered)] if tampered else [])])


def _faults(cases: list[dict[str, Any]]) -> str:
    """A row per kind of fault and what it was done to."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        what = case["name"].partition(", ")[0] if case["kind"] != "pair" else "every two commands"
        groups[case["kind"], what].append(case)
    rows = ["| fault | of | seeds | cases | survived |", "| --- | --- | --- | ---: | ---: |"]
    for (kind, what), group in groups.items():
        seeds = _span(sorted({case["seed"] for case in group}))
        survived = sum(case["survived"] for case in group)
        rows.append(f"| {kind} | {what} | {seeds} | {len(group)} | {survived} |")
    survived = sum(case["survived"] for case in cases)
    rows.append(f"| | **all** | | **{len(cases)}** | **{survived}** |")
    return "\n".join(rows)


def _tampered(cases: list[dict[str, Any]]) -> str:
    """Kind of file by kind of damage: who notices."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        kind, _, way = case["name"].partition(", ")
        cells[kind].setdefault(way, case["noticed"] + ("" if case["survived"] else " **(no)**"))
    ways = ("deleted", "cut", "flipped", "swapped")
    rows = [f"| file | {' | '.join(ways)} |", "| --- " * (len(ways) + 1) + "|"]
    rows += [
        f"| {kind} | {' | '.join(row.get(way, '') for way in ways)} |"
        for kind, row in cells.items()
    ]
    return "\n".join(rows)


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


if __name__ == "__main__":
    read = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    sys.stdout.write(table([case for document in read for case in document["cases"]]) + "\n")
