"""The base of every declaration: frozen, closed and strictly typed."""

import datetime as dt
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Contract(BaseModel):
    """A declaration: immutable, without unknown fields, without silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def check_day(ds: str) -> str:
    """Return `ds` unchanged when it is an ISO date (YYYY-MM-DD).

    Raises:
        ValueError: it is not.
    """
    if not _ISO_DAY.fullmatch(ds):
        raise ValueError(f"expected a day as YYYY-MM-DD, found {ds!r}")
    dt.date.fromisoformat(ds)
    return ds


def shift_day(ds: str, days: int) -> str:
    """The ISO date `days` after `ds` (before it, when negative)."""
    return (dt.date.fromisoformat(ds) + dt.timedelta(days=days)).isoformat()


def day_number(ds: str) -> int:
    """Days since 1970-01-01."""
    return (dt.date.fromisoformat(ds) - dt.date(1970, 1, 1)).days


def days_between(first: str, last: str) -> tuple[str, ...]:
    """Every ISO date from `first` to `last`, both included; empty when `last` is earlier."""
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return tuple(shift_day(first, i) for i in range((end - start).days + 1))


Day = Annotated[str, AfterValidator(check_day)]
# The name of an upstream; what it is, says its declaration (`contracts/upstreams.py`).
Upstream = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Entity = Literal["user", "pin"]
ENTITIES: tuple[Entity, ...] = ("user", "pin")
