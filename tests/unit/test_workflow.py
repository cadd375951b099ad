from itertools import pairwise

import pytest

from feature_store.contracts.artifacts import Graph
from jobs.pipelines import catalog, daily, tasks
from tests.pipelines import DECLARED, PIPELINE, WHOLE

REAL = catalog.Pipeline(upstreams=DECLARED, steps=catalog.steps_for("movielens"))


def test_a_step_runs_once_for_each_upstream_or_once():
    found = [(s.name, t.upstream) for t in tasks.tasks(PIPELINE) for s in t.steps]
    for step in PIPELINE.steps:
        mine = [upstream for name, upstream in found if name == step.name]
        assert mine == ["ctr", "cvr"] if step.per_upstream else len(mine) == 1, step.name


def test_the_graph_is_a_task_where_an_upstream_learns_from_edges_and_nowhere_else():
    assert set(tasks.arrows(WHOLE)) - set(tasks.arrows(PIPELINE)) == {
        ("validate", "graph"),
        ("graph", "nodes.train"),
        ("nodes.train", "nodes.infer"),
        ("nodes.infer", "nodes.aggregate"),
        ("nodes.aggregate", "nodes.verify"),
    }
    assert "graph" not in {t.key for t in tasks.tasks(PIPELINE)}
    read = [(ref.offset, what) for ref, what in WHOLE.inputs_of(catalog.step("graph"), None)]
    assert (-1, Graph()) in read


def test_a_step_of_both_joins_the_first_upstream_where_its_task_is_divided():
    where = {s.name: t.key for t in tasks.tasks(PIPELINE) for s in t.steps if not s.per_upstream}
    assert where["count"] == "ctr.aggregate"
    assert all("." not in key for name, key in where.items() if name != "count")


@pytest.mark.parametrize("pipeline", [PIPELINE, REAL], ids=["simulated", "real data"])
def test_every_task_can_be_reached_from_the_gate_alone(pipeline):
    after: dict[str, set[str]] = {}
    for before, then in tasks.arrows(pipeline):
        after.setdefault(before, set()).add(then)
    reached, frontier = {tasks.FIRST}, [tasks.FIRST]
    while frontier:
        fresh = after.get(frontier.pop(), set()) - reached
        reached |= fresh
        frontier += fresh
    assert reached == {t.key for t in tasks.tasks(pipeline)}
    assert tasks.FIRST not in {then for _, then in tasks.arrows(pipeline)}
    assert ("gate", "ingest") in tasks.arrows(pipeline)


def test_what_a_task_reads_is_written_before_it_starts():
    before = _ancestors()
    writer = {a: t.key for t in tasks.tasks(PIPELINE) for a in t.outputs}
    for task in tasks.tasks(PIPELINE):
        assert {writer[a] for a in task.inputs} - {task.key} <= before[task.key], task.key


def test_no_arrow_is_implied_by_others():
    direct = set(tasks.arrows(PIPELINE))
    before = _ancestors()
    for first, last in direct:
        others = {b for b, a in direct if a == last} - {first}
        assert not any(first in before[o] for o in others), (first, last)


def test_nothing_is_visible_before_both_upstreams_are_ready():
    before = _ancestors()["release"]
    for upstream in ("ctr", "cvr"):
        assert {f"{upstream}.{n}" for n in ("verify", "index", "publish")} <= before


def test_a_single_step_is_its_own_command_and_fused_steps_are_a_run():
    by_key = {t.key: t for t in tasks.tasks(PIPELINE)}
    assert by_key["ctr.train"].arguments("2025-03-08") == "train --ds 2025-03-08 --upstream ctr"
    fused = next(t for t in tasks.tasks(PIPELINE) if len(t.steps) > 1 and t.upstream == "cvr")
    names = ",".join(s.name for s in fused.steps)
    expected = f"run --from 2025-03-08 --to 2025-03-08 --steps {names} --upstream cvr"
    assert fused.arguments("2025-03-08") == expected


def test_steps_of_a_task_follow_each_other_in_the_catalog():
    order = {s.name: i for i, s in enumerate(daily.STEPS)}
    for task in tasks.tasks(PIPELINE):
        positions = [order[s.name] for s in task.steps]
        assert all(a < b for a, b in pairwise(positions)), task.key


def _ancestors() -> dict[str, set[str]]:
    direct = tasks.arrows(PIPELINE)
    found: dict[str, set[str]] = {t.key: set() for t in tasks.tasks(PIPELINE)}
    for _ in found:
        for before, after in direct:
            found[after] |= {before} | found[before]
    return found
