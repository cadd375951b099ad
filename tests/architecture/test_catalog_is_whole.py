"""Every entry of the catalog has its module, its page, and a producer for all it reads."""

import ast
import inspect
import json
import re

import pytest

from feature_store.contracts.artifacts import Index, Mark, Raw, Reference, ReleaseMark, Rows
from jobs.pipelines import catalog, daily
from jobs.pipelines.declarations import Step
from tests.architecture.sources import ROOT, python_files, relative, tree
from tests.pipelines import PIPELINE, UPSTREAMS, WHOLE

_STEPS = pytest.mark.parametrize("step", daily.STEPS, ids=lambda s: s.name)


@_STEPS
def test_step_has_a_module_that_runs(step: Step) -> None:
    path = ROOT / "jobs" / "steps" / f"{step.name}.py"
    assert path.exists(), f"jobs/steps/{step.name}.py is missing"
    runs = [n for n in tree(path).body if isinstance(n, ast.FunctionDef) and n.name == "run"]
    assert runs, f"jobs/steps/{step.name}.py has no function run(ctx)"
    assert [a.arg for a in runs[0].args.args] == ["ctx"]
    assert ast.unparse(runs[0].returns) == "Outcome"


@_STEPS
def test_step_is_documented(step: Step) -> None:
    page = (ROOT / "docs" / "reference" / "steps.md").read_text()
    assert f"\n## {step.name}\n" in page, "run: derm docs"


@_STEPS
def test_what_a_step_reads_is_written_before_it(step: Step) -> None:
    order = [s.name for s in daily.STEPS]
    for upstream in WHOLE.upstreams_of(step):
        for ref in step.inputs:
            for name in WHOLE.expand(ref.what, upstream):
                producer, _ = WHOLE.producer(name)
                if ref.offset == 0:
                    assert order.index(producer.name) < order.index(step.name), name
                else:
                    assert ref.offset == -1, "a step reads its own day or the day before"
                    assert ref.optional, f"{step.name} could never run on the first day: {name}"


def test_every_artifact_has_one_producer() -> None:
    written = [
        name
        for step in daily.STEPS
        for upstream in WHOLE.upstreams_of(step)
        for template in step.outputs
        for name in WHOLE.expand(template, upstream)
    ]
    assert len(written) == len(set(written))
    for name in written:
        producer, upstream = WHOLE.producer(name)
        assert any(name in WHOLE.expand(t, upstream) for t in producer.outputs)


_TAKEN_APART = re.compile(
    r"""["'](lake:|snapshot:|index:|users:|verified:)|(starts|ends)with\(["'](lake|/pool|/raw|/daily)"""
)


def test_names_of_artifacts_are_made_and_read_in_one_place() -> None:
    found = [
        f"{relative(path)}:{number}: ask the reference"
        for path in python_files("jobs", "feature_store", "experiments")
        if relative(path) != "feature_store/contracts/artifacts.py"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if _TAKEN_APART.search(line)
    ]
    assert not found, "\n".join(found)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        PIPELINE.producer(Rows("nothing"))
    with pytest.raises(KeyError):
        catalog.step("nothing")


@pytest.mark.parametrize(
    ("template", "upstream", "expected"),
    [
        (ReleaseMark(), None, ["release"]),
        (Index(), "cvr", ["index:cvr"]),
        (Index(), None, [f"index:{u}" for u in UPSTREAMS]),
        (Raw(), "ctr",
         ["lake:embeddings/ctr/user/raw", "lake:embeddings/ctr/pin/raw"]),
        (Mark("{u}/{e}"), None, ["ctr/user", "ctr/pin", "cvr/user", "cvr/pin"]),
    ],
)  # fmt: skip
def test_references_expand(template: Reference, upstream: str | None, expected: list[str]) -> None:
    assert list(PIPELINE.expand(template, upstream)) == expected


def test_real_data_is_not_simulated() -> None:
    assert "simulate" in [s.name for s in catalog.steps_for("simulated")]
    assert "simulate" not in [s.name for s in catalog.steps_for("kuairand")]


@_STEPS
def test_an_operator_is_told_what_to_do(step: Step) -> None:
    assert step.failure.endswith(".")
    assert step.remedy.endswith(".")
    assert step.summary == step.summary.rstrip(".")
    assert json.dumps(step.summary).isascii()


def test_dag_files_are_short() -> None:
    for path in python_files("dags"):
        lines = len(path.read_text().splitlines())
        assert lines < 80, f"{relative(path)} has {lines} lines: a DAG is names and arrows"


def test_recipe_parts_are_fields_of_the_recipe() -> None:
    from jobs.recipes import Recipe

    fields = set(inspect.signature(Recipe).parameters)
    for step in daily.STEPS:
        assert set(step.recipe_parts) <= fields, f"{step.name}: {step.recipe_parts}"
