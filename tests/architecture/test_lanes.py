"""The order in which the suite is handed out names files that are there."""

from tests import lanes


def test_the_dearest_files_are_there_and_named_once() -> None:
    assert [name for name in lanes.DEAREST if not (lanes.ROOT / name).is_file()] == []
    assert len(set(lanes.DEAREST)) == len(lanes.DEAREST)
