"""`derm init`: declare a pipeline, once, by writing its home."""

import argparse
import datetime as dt
from pathlib import Path

from feature_store.contracts.base import shift_day
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from feature_store.contracts.rankers import RankerDeclaration, check_rankers, usual_rankers
from jobs.console import day, out
from jobs.datasets.registry import REAL, dataset_spec, open_adapter
from jobs.pipelines import catalog
from jobs.recipes import RECIPES, Recipe, absolute, recipe_digest
from jobs.recipes import recipe as recipe_named
from jobs.settings import Home, Settings
from simulator.market.config import WORLDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm init`."""
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME|PATH",
        help=f"{', '.join((*WORLDS, *REAL))}, or the path of a declaration (*.toml)",
    )
    parser.add_argument(
        "--recipe",
        default="toy",
        metavar="NAME|FILE.py:FUNCTION",
        help=f"{', '.join(RECIPES)}, or a function of your own file; default: toy",
    )
    parser.add_argument("--source", default="", metavar="DIR", help="folder of the data's files")
    parser.add_argument("--first", type=day, help="first day with events; default: the data's own")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--start", type=day, help="first day that is published")
    start.add_argument("--days", type=int, help="or: days of history before it")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default: 0")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Write the home and say what comes next.

    Raises:
        InputError: the data set, its source or the days are wrong, or the home is another one's.
    """
    asked = ("dataset", "recipe", "source", "first", "start", "days", "seed")
    home = make(settings, **{name: getattr(args, name) for name in asked})
    if args.json:
        out(home.model_dump_json())
    else:
        tell(home, settings)
    return 0


def make(
    settings: Settings,
    *,
    dataset: str,
    recipe: str = "toy",
    source: str = "",
    first: str | None = None,
    start: str | None = None,
    days: int | None = None,
    seed: int = 0,
) -> Home:
    """Declare a home and write it.

    Args:
        first: first day with events; None: the data's own.
        start: first day that is published; None: after `days` of history, or the data set's own.

    Raises:
        InputError: the data set, its source or the days are wrong, or the home is another one's.
    """
    source = str(Path(source).resolve()) if source else ""
    if dataset.endswith(".toml"):
        dataset = str(Path(dataset).resolve())
    name = absolute(recipe)
    chosen = recipe_named(name)
    adapter = open_adapter(dataset, source, settings.home, chosen.world(dataset))
    first = first or adapter.first_day()
    start = start or shift_day(first, adapter.history_days if days is None else days)
    if start < first:
        raise InputError(
            "the pipeline would start before its data",
            expected=f"--start on or after {first}",
            found=start,
        )
    spec = dataset_spec(dataset, source, chosen.world(dataset), chosen.upstreams)
    home = Home(
        upstreams=spec.declared_upstreams,
        rankers=rankers_of(chosen, spec),
        tables=tuple(table.name for table in spec.tables),
        dataset=dataset,
        source=source,
        recipe=name,
        recipe_digest=recipe_digest(name),
        first_ds=first,
        start_ds=start,
        seed=seed,
    )
    home.save(settings.home)
    return home


def rankers_of(chosen: Recipe, spec: DatasetSpec) -> tuple[RankerDeclaration, ...]:
    """The rankers of a recipe on a data set.

    Raises:
        InputError: they do not fit the data set, its upstreams, or the sizes of the recipe.
    """
    taught = tuple(dict.fromkeys(x.upstream for x in spec.labels))
    declared = chosen.rankers
    if declared is None:
        declared = usual_rankers(spec.declared_upstreams, taught)
    try:
        found = check_rankers(declared, spec.declared_upstreams, taught)
    except ValueError as error:
        raise InputError(
            "these rankers do not fit the data set", where=spec.name, found=str(error)
        ) from error
    for ranker in found:
        chosen.of_ranker(ranker)
    return found


def tell(home: Home, settings: Settings) -> None:
    """Say what was made, and what comes next."""
    history = (dt.date.fromisoformat(home.start_ds) - dt.date.fromisoformat(home.first_ds)).days
    before = shift_day(home.start_ds, -1)
    out(f"{settings.home} is now a home: {home.dataset}, recipe {home.recipe}, seed {home.seed}")
    out(f"data begins {home.first_ds}, published from {home.start_ds}, {history} days of history")
    if history:
        steps = ",".join(s.name for s in catalog.pipeline_of(home).steps if s.history)
        out(f"next: derm run --from {home.first_ds} --to {before} --steps {steps}")
    else:
        out("models that begin without history never learn from counts: --days 1 or more")
    out(f"then: derm run --from {home.start_ds} --to DAY")
