"""References of artifacts: equal to the names on record, and they know what they are."""

import copy

import pytest

from feature_store.contracts.artifacts import (
    Counts,
    Daily,
    Events,
    Index,
    Mark,
    Pool,
    Raw,
    Reference,
    ReleaseMark,
    Rows,
    Snapshot,
    Users,
    Verified,
    in_lake,
    reference,
)
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import daily_table, pool_table, raw_table

ONE_OF_EACH: list[tuple[Reference, str]] = [
    (Rows("users"), "lake:users"),
    (Events(), "lake:events"),
    (Counts("user"), "lake:counts/user"),
    (Raw("ctr", "pin"), "lake:embeddings/ctr/pin/raw"),
    (Daily("ctr", "pin"), "lake:embeddings/ctr/pin/daily"),
    (Pool("ctr", "user"), "lake:embeddings/ctr/user/pool"),
    (Snapshot("ctr"), "snapshot:ctr"),
    (Verified("ctr"), "verified:ctr"),
    (Index("ctr"), "index:ctr"),
    (Users("ctr"), "users:ctr"),
    (Mark("source"), "source"),
    (ReleaseMark(), "release"),
]


@pytest.mark.parametrize(("made", "name"), ONE_OF_EACH, ids=str)
def test_a_reference_is_its_name_and_is_read_back_from_it(made: Reference, name: str) -> None:
    assert made == name
    assert {made: 1}[name] == 1
    found = reference(name)
    assert (type(found), found, found.upstream, found.entity) == (
        type(made),
        name,
        made.upstream,
        made.entity,
    )
    assert in_lake(made.table) == made if made.table else not made.startswith("lake:")


def test_the_tables_of_upstreams_have_these_names() -> None:
    for kind, declare in ((Raw, raw_table), (Daily, daily_table), (Pool, pool_table)):
        assert kind("cvr", "pin").table == declare("cvr", "pin").name


def test_a_reference_without_an_owner_stands_for_all() -> None:
    assert Pool().of("ctr", ("user", "pin")) == (Pool("ctr", "user"), Pool("ctr", "pin"))
    assert Pool(entity="pin").of("ctr", ("user", "pin")) == (Pool("ctr", "pin"),)
    assert Counts().of(None, ("user",)) == (Counts("user"),)
    assert Events().of("ctr", ("user",)) == (Events(),)
    assert Pool().of("ctr", ("user",))[0].begins == "pools"
    assert Pool().per_upstream
    assert not Pool("ctr").per_upstream


def test_where_yesterday_is_not_is_declared() -> None:
    begins = {type(made): made.begins for made, _ in ONE_OF_EACH if made.begins != "pipeline"}
    assert begins == {Counts: "data", Snapshot: "training", Pool: "pools"}
    assert [made for made, _ in ONE_OF_EACH if made.shared] == [
        "lake:events",
        "lake:embeddings/ctr/user/pool",
        "release",
    ]


def test_a_copy_is_the_same_kind() -> None:
    found = copy.deepcopy(Pool("ctr", "user"))
    assert (type(found), found.begins) == (Pool, "pools")


def test_a_record_takes_a_reference_as_its_name() -> None:
    recorded = Artifact(name=Pool("ctr", "user"), ds="2025-03-01", digest="d")
    assert (
        recorded.model_dump_json()
        == Artifact(
            name="lake:embeddings/ctr/user/pool", ds="2025-03-01", digest="d"
        ).model_dump_json()
    )
    assert recorded.reference.begins == "pools"
