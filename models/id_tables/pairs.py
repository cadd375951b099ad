"""What id tables read of a data set."""

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import PairInputs, names_in
from models.id_tables.config import IdTablesConfig


def pair_inputs(spec: DatasetSpec, config: IdTablesConfig) -> PairInputs:
    """The labels and actions that make a pair, and their weights.

    A name that is a label and an action is the label's: it may come later than its impression.

    Raises:
        InputError: a weight is no positive number, or the data set has none of the names.
    """
    where = f"dataset {spec.name}: id_tables, weights"
    wanted = dict(_weight(part, where) for part in names_in(config.weights))
    known = [*(x.name for x in spec.labels), *spec.actions]
    labels = {x.name: wanted[x.name] for x in spec.labels if x.name in wanted}
    actions = {a: wanted[a] for a in spec.actions if a in wanted and a not in labels}
    if not labels and not actions:
        raise InputError(
            "nothing that the data set has makes a pair for id tables",
            where=where,
            expected="some of " + " ".join(dict.fromkeys(known)),
            found=config.weights or "none",
        )
    return PairInputs(labels=labels, actions=actions)


def _weight(part: str, where: str) -> tuple[str, float]:
    name, _, number = part.partition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not weight > 0:
        raise InputError(
            "the weight of a pair is no positive number", where=where, expected="name=1", found=part
        )
    return name.strip(), weight
