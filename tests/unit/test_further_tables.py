"""Tables that a data set declares beside events, users and Pins: checked, recorded, forgotten."""

from pathlib import Path

import pyarrow as pa
import pytest

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.lake import Lake
from jobs.datasets.base import DayTables
from jobs.datasets.checks import Problems
from jobs.pipelines.catalog import Pipeline, step
from jobs.steps.ingest import checked, conformed
from jobs.upkeep.scrub import lists_of, prove_gone, scrub_day, tables_of
from simulator.market.spec import market_spec
from tests.market_fixtures import DAYS, market_days, tiny_market

DS = DAYS[9]


def _spec() -> DatasetSpec:
    return market_spec("market", tiny_market())


def _checked(**changed: pa.Table) -> dict[str, pa.Table]:
    day, spec, problems = market_days()[DS], _spec(), Problems(DS)
    more = dict(day.more) | changed
    tables = DayTables(events=day.events, users=day.users, pins=day.pins, more=more)
    return checked(spec, conformed(spec, tables, problems), problems)


def test_they_are_ordered_by_their_key() -> None:
    ids = _checked()["campaigns"]["pin_id"].to_pylist()
    assert ids == sorted(ids)


def test_a_quiet_day_of_one_is_a_day() -> None:
    assert not _checked(offsite=market_days()[DS].more["offsite"].slice(0, 0))["offsite"].num_rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns("item_id"), "offsite.item_id of 2025-03-10: expected the column"),
        (lambda t: pa.concat_tables([t, t]), "offsite.offsite_id of 2025-03-10: expected unique"),
        (lambda _: market_days()[DAYS[8]].more["offsite"], "a time within the day"),
        (
            lambda t: t.set_column(5, "kind", pa.array(["stolen"] * len(t))),
            "offsite.kind of 2025-03-10: expected one of checkout",
        ),
        (lambda _: pa.table({}), "offsite.ts of 2025-03-10: expected the column"),
    ],
)
def test_they_are_held_to_their_declaration(change, said: str) -> None:
    with pytest.raises(ContractViolation) as refused:
        _checked(offsite=change(market_days()[DS].more["offsite"]))
    assert said in str(refused.value)


def test_the_catalog_knows_what_ingest_writes() -> None:
    pipeline = Pipeline(upstreams=(), tables=("offsite", "requests"))
    written = pipeline.outputs_of(step("ingest"), None)
    assert written[-2:] == ("lake:offsite", "lake:requests")
    assert Pipeline(upstreams=()).outputs_of(step("ingest"), None) == written[:-2]


@pytest.mark.parametrize(("entity", "table"), [("user", "offsite"), ("pin", "requests")])
def test_who_is_forgotten_is_in_none_of_them(tmp_path: Path, entity: str, table: str) -> None:
    spec, lake, tables = _spec(), Lake(tmp_path), _checked()
    for declared in spec.tables:
        lake.overwrite(declared, DS, tables[declared.name])
    column = tables[table]["user_id" if entity == "user" else "pin_ids"].combine_chunks()
    flat = column.flatten() if pa.types.is_list(column.type) else column
    gone, lists = flat.slice(0, 1), lists_of(spec, entity)  # type: ignore[arg-type]
    known = [t for t in tables_of(lake, spec, entity) if t in spec.tables]  # type: ignore[arg-type]
    assert {t.name for t in known} == {"offsite", "requests", "campaigns"}
    removed = {t.name: scrub_day(lake, t, DS, entity, gone, lists) for t in known}  # type: ignore[arg-type]
    assert removed[table] == flat.to_pylist().count(gone[0].as_py()) > 0
    for declared in known:
        rows = lake.read(declared, DS)
        assert gone[0].as_py() not in str(rows.to_pylist())
    fresh = Lake(tmp_path / "fresh")
    for declared in known:
        fresh.overwrite(declared, DS, lake.read(declared, DS))
    prove_gone(fresh, known, entity, gone, lists)  # type: ignore[arg-type]
