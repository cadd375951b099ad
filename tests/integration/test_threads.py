"""What a command makes does not depend on how many cores the libraries would take by themselves."""

from pathlib import Path

import pytest

from feature_store.lake.lake import Lake
from tests.brief_recipe import BRIEF
from tests.derm_process import derm

DAY = "2025-03-01"


@pytest.mark.integration
def test_the_simulated_world_is_the_same_on_any_number_of_cores(tmp_path: Path) -> None:
    found = []
    for cores in ("1", "2", "3"):
        home = tmp_path / cores
        derm(home, "init", "--dataset", "simulated", "--recipe", BRIEF)
        around = {"OMP_NUM_THREADS": cores, "OPENBLAS_NUM_THREADS": cores}
        derm(home, "run", "--from", DAY, "--to", DAY, "--steps", "simulate,ingest", **around)
        lake = Lake(home / "lake")
        found.append([lake.artifact(name, DAY).digest for name in ("events", "users", "pins")])
    assert found[0] == found[1] == found[2]
