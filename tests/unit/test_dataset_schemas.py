"""The tables of every built-in data set, as golden files: a changed column is seen in review.

DERM_GOLDEN_UPDATE=1 rewrites them.
"""

import json
import os
from pathlib import Path

import pytest

from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.contracts.tables import Table
from jobs.datasets.checks import day_tables
from jobs.datasets.registry import REAL, dataset_spec
from simulator.market.config import WORLDS
from tests.data_fixtures import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "schemas"


TABLES = [
    pytest.param(dataset, table, id=f"{dataset}-{table.name}")
    for dataset in (*WORLDS, *REAL)
    for table in day_tables(dataset_spec(dataset, ""))
]


@pytest.mark.parametrize(("dataset", "declared"), TABLES)
def test_a_schema_is_as_recorded(dataset: str, declared: Table) -> None:
    path: Path = GOLDEN / f"{dataset}.{declared.name}.json"
    found = json.loads(declared.delta_schema_json())
    if os.environ.get("DERM_GOLDEN_UPDATE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


@pytest.mark.parametrize("dataset", [*WORLDS, *REAL])
def test_a_label_of_two_upstreams_is_one_column(dataset: str) -> None:
    spec = dataset_spec(dataset, "")
    shared = {x.name for x in spec.labels_of("ctr")} & {x.name for x in spec.labels_of("cvr")}
    columns = [c.name for c in spec.events_table().columns]
    assert shared
    assert all(columns.count(name) == 1 for name in shared)
    assert next(iter(spec.labels_of("cvr"))).role == "primary"
    assert {x.role for x in spec.labels_of("cvr") if x.name in shared} == {"auxiliary"}


def _spec(*labels: Label) -> DatasetSpec:
    return DatasetSpec(
        name="x",
        description="",
        surfaces=("a",),
        actions=("a",),
        labels=labels,
        features=(
            Feature(name="f", scope="user", kind="numeric", meaning=""),
            Feature(name="g", scope="pin", kind="numeric", meaning=""),
        ),
    )


CTR = Label(name="click", upstream="ctr", role="primary", meaning="clicked")
CVR = Label(name="buy", upstream="cvr", role="primary", meaning="bought")


def test_a_label_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="a label has two meanings"):
        _spec(CTR, CVR, Label(name="click", upstream="cvr", role="auxiliary", meaning="other"))


def test_a_label_is_declared_once_for_an_upstream() -> None:
    with pytest.raises(ValueError, match=r"labels .*'click', 'ctr'.* are declared twice"):
        _spec(CTR, CVR, Label(name="click", upstream="ctr", role="task", meaning="clicked"))
