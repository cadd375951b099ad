"""Whether the source of a day is whole. Airflow reads this while parsing: it imports nothing heavy.

A data set that declares `[ready]` is waited for, by a task that holds no slot meanwhile. Nothing is
wrong with a day that is not whole yet; what lies there all the same is not looked into.
"""

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from feature_store.contracts.base import Contract
from feature_store.contracts.errors import InputError


class Readiness(Contract):
    """When a day's source is whole, and how long it is waited for.

    Attributes:
        marker: a file that is written last, relative to the source folder; `{ds}` stands for the
            day. Empty: the files of the day are enough.
        min_events: rows that the day's file of events must have, by its footer.
        poke_minutes: how often it is looked.
        timeout_hours: when waiting becomes a failure, which stops the days after it.
    """

    marker: str = ""
    min_events: int = Field(default=0, ge=0)
    poke_minutes: int = Field(default=10, ge=1, le=24 * 60)
    timeout_hours: int = Field(default=24, ge=1)


def declared(dataset: str) -> Readiness | None:
    """What a data set declares; None where its days are not waited for.

    Args:
        dataset: a name, or the path of a declaration.

    Raises:
        InputError: the declaration cannot be read.
    """
    path = Path(dataset)
    if path.suffix != ".toml":
        return None
    try:
        content = tomllib.loads(path.read_text()).get("ready")
        return None if content is None else Readiness.model_validate(content)
    except (tomllib.TOMLDecodeError, ValidationError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the declaration of a data set is wrong",
            where=str(path),
            found=str(error),
            hint="docs/howto/own_dataset.md explains every key",
        ) from error
