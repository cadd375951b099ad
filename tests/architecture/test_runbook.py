"""Whoever is woken finds a section: one for each alert and each step, with commands that exist."""

import re

import pytest
import yaml

from feature_store.config import IndexConfig
from feature_store.contracts import errors
from jobs.pipelines import catalog
from jobs.recipes import GuardConfig
from jobs.scheduling.maintenance import CHORES
from tests.architecture.sources import ROOT

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "infra/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES}
PARTS = ("**Means.**", "**Look.**", "**Do.**", "**Escalate.**")


def sections(chapter: str) -> dict[str, str]:
    """The sections of a chapter by heading."""
    body = re.search(rf"^## {chapter}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert body, f"no chapter {chapter}"
    parts = re.split(r"^### (.+)\n", body[1], flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert list(sections("Alerts")) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_points_at_its_section(name: str) -> None:
    assert ALERTS[name]["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert ALERTS[name]["labels"]["severity"] in ("page", "ticket")


def test_every_step_has_a_section_in_the_order_of_a_day() -> None:
    assert list(sections("Steps")) == [step.name for step in catalog.every_step()]


def test_every_other_task_has_a_section() -> None:
    steps = {step.name for step in catalog.every_step()}
    others = {c.name for c in CHORES} - steps
    assert set(sections("Other tasks")) == others


def test_messages_are_quoted_as_they_are_printed() -> None:
    """The command line prints what is wrong, never the name of an error's class."""
    names = {c.__name__ for c in vars(errors).values() if isinstance(c, type)}
    assert set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", RUNBOOK)) & names == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [(n, t) for c in ("Alerts", "Steps", "Other tasks") for n, t in sections(c).items()],
    ids=lambda value: value if value.isidentifier() else "",
)
def test_a_section_answers_the_four_questions(name: str, text: str) -> None:
    assert [part for part in PARTS if part not in text] == []
    if name in {step.name for step in catalog.every_step()}:
        assert re.search(rf"derm {name}\b", text) or "derm status" in text or "derm run" in text


@pytest.mark.parametrize(
    ("alert", "pattern", "worst_that_passes"),
    [
        ("DermUnstable", r"cosine_updated < ([\d.]+)", GuardConfig().min_day_to_day_cosine),
        ("DermCoverageLow", r"coverage_rows < ([\d.]+)", GuardConfig().min_coverage),
        # A fall, and a width, are written as positive numbers: the smaller, the earlier.
        ("DermSearchWide", r"ef_search >= ([\d.]+)", -IndexConfig().ef_max),
        ("DermAucDropped", r"offset 1d - ([\d.]+)", -GuardConfig().max_auc_drop),
    ],
)
def test_an_alert_speaks_before_its_guard_stops_the_day(
    alert: str, pattern: str, worst_that_passes: float
) -> None:
    found = re.search(pattern, ALERTS[alert]["expr"])
    assert found
    bound = float(found[1])
    assert (-bound if worst_that_passes < 0 else bound) > worst_that_passes


def test_every_number_behind_an_alert_is_named_as_the_pipeline_writes_it() -> None:
    steps = {step.name for step in catalog.every_step()}
    state = (
        "release_day_end",
        "step_",
        "probe_",
        "store_",
        "disk_",
        "refused_",
        "dag_",
        "tables_",
        "ranker_",
    )
    for rule in RULES:
        for number in re.findall(r"\bderm_(\w+)", rule["expr"]):
            assert number.startswith(state) or number.split("_")[0] in steps, number
