"""No two folders import each other, no arrow runs upward, no folder is a heap."""

import re

import pytest

from tests.architecture.floors import FLOORS, arrows, floor_of
from tests.architecture.sources import PACKAGES, ROOT, python_files

_MAX_FILES = 30


def test_no_arrow_runs_upward_and_none_runs_sideways() -> None:
    wrong = [
        line
        for (here, there), lines in sorted(arrows().items())
        if floor_of(here) <= floor_of(there)
        for line in sorted(lines)
    ]
    assert not wrong, "an import of a room that is not below:\n" + "\n".join(wrong)


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    rooms = {p.parent.relative_to(ROOT).as_posix() for p in python_files(*PACKAGES, "dags")}
    for room in rooms:
        floor_of(room)
    named = {room for floor in FLOORS for room in floor}
    assert named <= rooms, f"there is no room {named - rooms}"


def test_the_picture_in_the_docs_shows_these_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.search(r"```text\n(dags\n.*?)```", page, re.DOTALL)
    assert drawn, "docs/architecture.md has no picture of the floors"
    lines = [tuple(line.split()) for line in drawn[1].splitlines() if line.strip()]
    assert lines == list(FLOORS)


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks", "dags"])
def test_no_folder_is_a_heap(package: str) -> None:
    counts: dict[str, int] = {}
    for path in python_files(package):
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix()
            counts[folder] = counts.get(folder, 0) + 1
    heaps = {folder: count for folder, count in counts.items() if count > _MAX_FILES}
    assert not heaps, f"more than {_MAX_FILES} files: group them by concern"
