"""Backfill arithmetic, without a pipeline: which steps, in which order, from which state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import InputError, MissingInput
from jobs.engine.unfinished import BackfillPlan, What
from jobs.repair.plan import CORRUPTIONS, plan_repair, render
from jobs.repair.starting_points import Record, Survey
from tests.pipelines import DECLARED, UPSTREAMS

START = "2025-03-01"
DAYS = days_between(START, shift_day(START, 9))


def survey(
    pools: tuple[str, ...] = DAYS, dailies: tuple[str, ...] = DAYS, start: str = START
) -> Survey:
    record = Record(rows=10, seconds=2.0)
    names = ("train", "infer", "dedup", "merge", "verify", "index", "publish")
    return Survey(
        first_ds=START,
        origin=START,
        start=start,
        last=DAYS[-1],
        dataset="kuairand",
        upstreams=DECLARED,
        pools=dict.fromkeys(UPSTREAMS, pools),
        dailies=dict.fromkeys(UPSTREAMS, dailies),
        raws=dict.fromkeys(UPSTREAMS, dailies),
        snapshots=dict.fromkeys(UPSTREAMS, DAYS),
        counted=DAYS,
        records={f"{n}/{ds}/{u}": record for n in names for ds in DAYS for u in UPSTREAMS},
    )


def names(plan: BackfillPlan, ds: str) -> list[str]:
    return [s.step for s in plan.steps if s.ds == ds and s.upstream in (None, "ctr")]


def test_wrong_embeddings_are_inferred_again_and_merged_to_the_end() -> None:
    plan = plan_repair(survey(), [DAYS[7]], "embeddings")
    assert plan.base == DAYS[6]
    assert names(plan, DAYS[7]) == ["infer", "dedup", "merge", "verify"]
    assert names(plan, DAYS[8]) == ["merge", "verify"]
    ending = ["index", "publish", "release", "audit", "report"]
    assert names(plan, DAYS[9]) == ["merge", "verify", *ending]


def test_wrong_labels_are_learned_again_by_every_later_model() -> None:
    plan = plan_repair(survey(), [DAYS[8]], "labels")
    learned = ["train", "infer", "dedup", "merge", "verify", "count"]
    assert names(plan, DAYS[8]) == ["ingest", "validate", *learned]
    assert names(plan, DAYS[9])[:6] == learned
    assert not any(s.keep for s in plan.steps)


def test_without_retraining_models_are_kept_and_see_other_counts() -> None:
    plan = plan_repair(survey(), [DAYS[8]], "features", retrain=False)
    embedded = ["train", "infer", "dedup", "merge", "verify", "count"]
    assert names(plan, DAYS[8]) == ["ingest", "validate", *embedded]
    assert names(plan, DAYS[9])[:6] == embedded
    assert {s.step for s in plan.steps if s.keep} == {"train"}
    assert all(s.keep and not s.writes for s in plan.steps if s.step == "train")
    assert "train" not in render(plan)


def test_without_retraining_every_later_day_needs_its_snapshot() -> None:
    state = survey().model_copy(update={"snapshots": dict.fromkeys(UPSTREAMS, DAYS[:9])})
    with pytest.raises(MissingInput, match="snapshots"):
        plan_repair(state, [DAYS[8]], "labels", retrain=False)
    assert plan_repair(state, [DAYS[8]], "embeddings").first == DAYS[8]


def test_windows_are_recounted_from_all_the_counts_before() -> None:
    for lost in (DAYS[0], DAYS[7]):
        state = survey().model_copy(update={"counted": tuple(d for d in DAYS if d != lost)})
        with pytest.raises(MissingInput, match="counts"):
            plan_repair(state, [DAYS[8]], "labels")
        assert plan_repair(state, [DAYS[8]], "embeddings").first == DAYS[8]


def test_a_missing_pool_is_replayed_from_an_older_one() -> None:
    plan = plan_repair(survey(pools=(DAYS[2], *DAYS[6:])), [DAYS[5]], "embeddings")
    assert plan.base == DAYS[2]
    assert names(plan, DAYS[3]) == ["merge", "verify"]
    merged = [s.ds for s in plan.steps if s.step == "merge" and s.upstream == "ctr"]
    assert merged == list(DAYS[3:])


def test_it_refuses_when_the_state_is_gone_and_names_the_oldest_day() -> None:
    state = survey(pools=DAYS[6:])
    state = state.model_copy(update={"origin": "2025-02-01", "start": "2025-02-01"})
    with pytest.raises(MissingInput, match=f"oldest day that can be repaired is {DAYS[7]}"):
        plan_repair(state, [DAYS[3]], "embeddings")


def test_it_refuses_when_a_later_day_could_not_be_merged_again() -> None:
    """The pool to start from is there, but nothing of what a day since then was merged from."""
    state = survey(dailies=(*DAYS[:4], *DAYS[6:]))
    state = state.model_copy(update={"snapshots": dict.fromkeys(UPSTREAMS, DAYS[6:])})
    with pytest.raises(MissingInput, match=f"oldest day that can be repaired is {DAYS[6]}"):
        plan_repair(state, [DAYS[2]], "embeddings")
    assert plan_repair(state, [DAYS[7]], "embeddings").first == DAYS[7]


def test_wrong_embeddings_need_the_snapshot_that_infers_them_again() -> None:
    state = survey().model_copy(update={"snapshots": dict.fromkeys(UPSTREAMS, DAYS[8:])})
    with pytest.raises(MissingInput, match=f"oldest day that can be repaired is {DAYS[8]}"):
        plan_repair(state, [DAYS[5]], "embeddings")
    with pytest.raises(MissingInput, match="pools, counts and snapshots"):
        plan_repair(state, [DAYS[5]], "labels")


def test_days_outside_the_pipeline_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be repaired"):
        plan_repair(survey(), ["2024-01-01"], "labels")


def test_rows_and_time_come_from_the_records() -> None:
    plan = plan_repair(survey(), [DAYS[9]], "embeddings")
    counted = [s for s in plan.steps if s.upstream]
    assert {(s.rows, s.seconds) for s in counted} == {(10, 2.0)}
    assert plan.seconds == 2.0 * len(counted)
    assert "about 24 s" in render(plan)


@given(
    corrupted=st.sets(st.sampled_from(DAYS), min_size=1),
    what=st.sampled_from(CORRUPTIONS),
    pools=st.sets(st.sampled_from(DAYS)),
)
def test_a_plan_is_a_suffix_in_order_that_publishes_once(
    corrupted: set[str], what: What, pools: set[str]
) -> None:
    plan = plan_repair(survey(pools=tuple(sorted(pools))), corrupted, what)
    order = [s.ds for s in plan.steps]
    assert order == sorted(order)
    merged = [s.ds for s in plan.steps if s.step == "merge" and s.upstream == "cvr"]
    assert tuple(merged) == days_between(plan.first, DAYS[-1])
    assert plan.first <= min(corrupted)
    assert plan.base is None or plan.base in pools
    assert [s.ds for s in plan.steps if s.step == "release"] == [DAYS[-1]]


def test_after_a_new_space_began_only_the_days_after_it_are_repaired() -> None:
    seen = survey(start=DAYS[4])
    plan = plan_repair(seen, [DAYS[4]], "labels")
    assert (plan.base, plan.first) == (DAYS[3], DAYS[4])
    with pytest.raises(InputError, match="derm bootstrap"):
        plan_repair(seen, [DAYS[3]], "labels")
