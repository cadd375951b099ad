"""A day of the world as Arrow tables: events with their truth, and the snapshots of entities."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.filing import in_filing_order
from feature_store.lake.schemas import arrow_schema, pack
from simulator.behaviour import DayLog
from simulator.config import ATTRIBUTIONS, CONVERSION_TYPES, SURFACES
from simulator.history import History
from simulator.outcomes import ACTIONS, DAY_US, Codes, Flags
from simulator.population import Floats, Ints, Population
from simulator.spec import typed_label

_AFFINITY_DIMS = 32  # of the content, which is a random view: enough for a cosine, and cheap
TIMES = pa.timestamp("us", tz="UTC")
_LISTS = pa.list_(pa.field("element", pa.string(), nullable=False))
CREATIVES = ("image", "video", "carousel", "collection")
AGES = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
GENDERS = ("female", "male", "unspecified")
DEVICES = ("iphone", "android", "web", "tablet")
TRUTH = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("p_click", pa.float32(), nullable=False),
        pa.field("p_good_click", pa.float32(), nullable=False),
        pa.field("p_conversion", pa.float32(), nullable=False),
    ]
)


class Labelled(Protocol):
    """Impressions [N] and what followed them, as a day's log has them."""

    @property
    def click(self) -> Flags:
        """Whether each was clicked."""

    @property
    def good_click(self) -> Flags:
        """Whether the visit lasted."""

    @property
    def conversion(self) -> Codes:
        """Index into `CONVERSION_TYPES`, -1 for none."""

    @property
    def attribution(self) -> Codes:
        """Index into `ATTRIBUTIONS`."""


class LoggedChances(Protocol):
    """Impressions [N] with their hidden probabilities, as a day's log has them."""

    @property
    def p_click(self) -> Floats:
        """Of a click."""

    @property
    def p_good_click(self) -> Floats:
        """Of one whose visit lasts."""

    @property
    def p_conversion(self) -> Floats:
        """Of an attributed conversion."""


class EventWriter:
    """Turns a day's log, and the conversions that arrive on it, into rows of `events`."""

    def __init__(self, spec: DatasetSpec, population: Population, epoch_us: int) -> None:
        self._schema = arrow_schema(spec.events_table())
        self._population = population
        self._epoch_us = epoch_us
        self._vectors_PD = population.content[:, :_AFFINITY_DIMS]
        self._topics = identifiers("topic_", np.arange(population.config.taste.topics), 2)
        self._hours = identifiers("h", np.arange(24), 2)

    def events(self, day: int, log: DayLog, history: History) -> pa.Table:
        """Impressions and late conversions of a day, ordered by time and id."""
        arriving = history.heard_day == day
        late, origin = history.converted.take(arriving), history.converted_day[arriving]
        impressions = self._rows(
            log, np.full(len(log.user), day), history, event_ids(day, np.arange(len(log.user)))
        )
        shown = ids_by_day(origin, history.converted_row[arriving])
        conversions = self._rows(late, origin, history, late_ids(shown))
        same_day = (log.conversion >= 0) & (log.arrival < DAY_US)
        now = {
            "action": pc.take(pa.array(ACTIONS), log.action),
            "arrived_at": pa.nulls(len(log.user), TIMES),
            "impression_id": pa.nulls(len(log.user), pa.string()),
        }
        then = {
            "action": pa.array(["conversion"] * len(late.user), pa.string()),
            "arrived_at": self._times(late.arrival, origin),
            "impression_id": shown,
        }
        tables = [
            self._table(impressions | now | impression_labels(log, same_day)),
            self._table(conversions | then | late_labels(late)),
        ]
        return in_filing_order(pa.concat_tables(tables)).combine_chunks()

    def truth(self, day: int, log: DayLog, history: History) -> pa.Table:
        """The hidden probabilities of the rows of `events`."""
        arriving = history.heard_day == day
        origin = ids_by_day(history.converted_day[arriving], history.converted_row[arriving])
        shown = event_ids(day, np.arange(len(log.user)))
        return truth_table((shown, log), (origin, history.converted.take(arriving)))

    def _rows(
        self, log: DayLog, origin: Ints, history: History, ids: pa.Array
    ) -> dict[str, npt.NDArray | pa.Array]:
        """What a row says about its impression, wherever it stands."""
        queried = pa.array(log.query, mask=log.query < 0)
        return {
            "event_id": ids,
            "ts": self._times(log.ts, origin),
            "user_id": identifiers("u", log.user, 7),
            "pin_id": identifiers("p", log.pin, 7),
            "surface": pc.take(pa.array(SURFACES), log.surface),
            "duration_s": log.duration,
            "hour": pc.take(self._hours, log.ts // (DAY_US // 24)),
            "query_topic": pc.take(self._topics, queried),
            "position": log.position.astype("f4"),
            "user_advertiser_engagements": history.engagements_with("advertiser", log, origin),
            "user_interest_engagements": history.engagements_with("interest", log, origin),
            "affinity": pa.array(history.affinity(log, origin, self._vectors_PD), from_pandas=True),
        }

    def _times(self, clock: Ints, day: Ints) -> pa.Array:
        """Times on the clock of a day's midnight, in microseconds, as timestamps."""
        return pa.array(clock + day * DAY_US + self._epoch_us, TIMES)

    def _table(self, columns: dict[str, npt.NDArray | pa.Array]) -> pa.Table:
        return typed_table(columns, self._schema)


def truth_table(
    shown: tuple[pa.Array, LoggedChances], late: tuple[pa.Array, LoggedChances]
) -> pa.Table:
    """The hidden probabilities of a day's impressions, then of its late labels.

    Args:
        shown: ids of the impressions, and their log.
        late: ids of the impressions that the late labels repeat, and their log of then.
    """
    parts = (shown, (late_ids(late[0]), late[1]))
    tables = [
        pa.table([ids, log.p_click, log.p_good_click, log.p_conversion], schema=TRUTH)
        for ids, log in parts
    ]
    return pa.concat_tables(tables).combine_chunks()


def users_table(spec: DatasetSpec, population: Population, history: History) -> pa.Table:
    """Everybody who exists on the history's day, with features as of its start."""
    user = population.users.alive(history.day)
    columns = {
        "user_id": identifiers("u", user, 7),
        "country": identifiers("country_", population.user_country[user], 2),
        "age_bucket": pc.take(pa.array(AGES), population.user_age[user]),
        "gender": pc.take(pa.array(GENDERS), population.user_gender[user]),
        "device": pc.take(pa.array(DEVICES), population.user_device[user]),
        "interests": _interests(population, user),
        "tenure_days": history.day - population.users.born[user],
        "user_saves_30d": history.actions("user", "save", 30)[user],
        **_sequences(population, history, user),
    }
    return typed_table(columns, arrow_schema(spec.users_table()))


def pins_table(spec: DatasetSpec, population: Population, history: History) -> pa.Table:
    """Every Pin that exists on the history's day, with features as of its start."""
    pin = population.pins.alive(history.day)
    price = population.pin_price[pin]
    columns = {
        "pin_id": identifiers("p", pin, 7),
        "content": pack(population.content[pin]),
        "primary_interest": identifiers("topic_", population.pin_topics[pin, 0], 2),
        "advertiser": identifiers("a", population.pin_advertiser[pin], 5),
        "creative_type": pc.take(pa.array(CREATIVES), population.pin_creative[pin]),
        "price_bucket": identifiers("price_", np.log2(1 + price).astype(np.int64), 2),
        "price": price,
        "pin_age_days": history.day - population.pins.born[pin],
        "pin_saves_30d": history.actions("pin", "save", 30)[pin],
    }
    return typed_table(columns, arrow_schema(spec.pins_table()))


def identifiers(prefix: str, numbers: npt.NDArray, width: int) -> pa.Array:
    """Ids such as `u0000042` from numbers [N]."""
    values, inverse = np.unique(numbers, return_inverse=True)
    digits = pc.utf8_lpad(pa.array(values).cast(pa.string()), width, "0")
    return pc.take(pc.binary_join_element_wise(prefix, digits, ""), pa.array(inverse))


def event_ids(day: int, rows: Ints) -> pa.Array:
    """Ids of impressions from their numbers within the day."""
    return ids_by_day(np.full(len(rows), day), rows)


def late_ids(impressions: pa.Array) -> pa.Array:
    """Ids of the rows that bring the late labels of impressions."""
    return pc.binary_join_element_wise(impressions, "late", "-")


def ids_by_day(days: Ints, rows: Ints, prefix: str = "e") -> pa.Array:
    """Ids of impressions, or of what else has another prefix, from their days and numbers [N]."""
    number = pc.utf8_lpad(pa.array(rows).cast(pa.string()), 9, "0")
    return pc.binary_join_element_wise(identifiers(prefix, days, 4), number, "-")


def typed_table(columns: dict[str, npt.NDArray | pa.Array], schema: pa.Schema) -> pa.Table:
    """Columns by name as a table of a schema."""
    arrays = [pa.array(columns[f.name]).cast(f.type, safe=False) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def impression_labels(
    log: "Labelled", converted: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray | pa.Array]:
    """The labels of impressions, of which some are known to have converted."""
    return {"click": log.click, "good_click": log.good_click, "conversion": converted} | {
        typed_label(kind, attribution): converted & (log.conversion == k) & (log.attribution == a)
        for k, kind in enumerate(CONVERSION_TYPES)
        for a, attribution in enumerate(ATTRIBUTIONS)
    }


def late_labels(late: "Labelled") -> dict[str, npt.NDArray | pa.Array]:
    """The labels of conversions that were heard of late."""
    num = len(late.conversion)
    ones, nothing = np.ones(num, np.int8), pa.nulls(num, pa.int8())
    return {"click": nothing, "good_click": nothing, "conversion": ones} | {
        typed_label(kind, attribution): pa.array(
            ones, mask=(late.conversion != k) | (late.attribution != a)
        )
        for k, kind in enumerate(CONVERSION_TYPES)
        for a, attribution in enumerate(ATTRIBUTIONS)
    }


def _interests(population: Population, user: Ints) -> pa.Array:
    topics = population.user_topics[user, :3]
    offsets = np.arange(len(user) + 1, dtype=np.int32) * topics.shape[1]
    return list_array(offsets, identifiers("topic_", topics.reshape(-1), 2))


def _sequences(population: Population, history: History, user: Ints) -> dict[str, pa.Array]:
    longest = population.config.sequence_len
    engaged = history.engaged.take(history.engaged_day >= history.first)
    offsets, rows = history.recent(user, engaged.user, longest)
    heard = history.heard_day
    converted = np.flatnonzero((heard < history.day) & (heard >= history.first))
    arrival = history.converted.arrival + history.converted_day * DAY_US
    order = np.lexsort((arrival[converted], history.converted.user[converted]))
    converted = converted[order]
    sales_offsets, sales = history.recent(user, history.converted.user[converted], longest)
    advertisers = history.converted.advertiser[converted][sales]
    return {
        "engaged_pins": list_array(offsets, identifiers("p", engaged.pin[rows], 7)),
        "engaged_actions": list_array(offsets, pc.take(pa.array(ACTIONS), engaged.action[rows])),
        "engaged_surfaces": list_array(offsets, pc.take(pa.array(SURFACES), engaged.surface[rows])),
        "converted_advertisers": list_array(sales_offsets, identifiers("a", advertisers, 5)),
    }


def list_array(offsets: Ints, values: pa.Array) -> pa.Array:
    """Lists of strings from offsets [N + 1] into values."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=_LISTS)
