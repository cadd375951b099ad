"""A day of a market as Arrow tables: events with their truth, snapshots, pages and campaigns.

Legend: N rows, U users, P Pins, K topics, R requests, C candidates.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.filing import in_filing_order
from feature_store.lake.schemas import arrow_schema, pack
from simulator.market.behaviour import MarketDay, MarketLog
from simulator.market.config import (
    ACTIONS,
    ATTRIBUTIONS,
    CONVERSION_TYPES,
    OBJECTIVES,
    OFFSITE_TYPES,
    SURFACES,
)
from simulator.market.history import MarketHistory
from simulator.market.luck import Draw, uniform
from simulator.market.offsite import VISIT
from simulator.market.population import MarketPopulation
from simulator.outcomes import DAY_US
from simulator.population import Floats, Ints, unit
from simulator.tables import (
    AGES,
    CREATIVES,
    DEVICES,
    GENDERS,
    TIMES,
    event_ids,
    identifiers,
    ids_by_day,
    impression_labels,
    late_ids,
    late_labels,
    list_array,
    truth_table,
    typed_table,
)

_MATCHED_DIMS = 32  # of the content, which is a random view: enough for a cosine, and cheap
_VISIT_AFTER_US = 5_000_000
_CONVERSION_LABELS = ("conversion", *CONVERSION_TYPES)

Columns = dict[str, npt.NDArray | pa.Array]


class MarketWriter:
    """Turns what happened on a day, and the conversions that arrive on it, into rows."""

    def __init__(self, spec: DatasetSpec, world: MarketPopulation, epoch_us: int) -> None:
        self._spec, self._world, self._epoch_us = spec, world, epoch_us
        self._seen_PD = unit(world.content[:, :_MATCHED_DIMS])
        self._topics_KD = _topic_contents(world, self._seen_PD)
        config = world.config
        self._users = identifiers("u", np.arange(len(world.users.born)), 7)
        self._pins = identifiers("p", np.arange(len(world.pins.born)), 7)
        self._topics = identifiers("topic_", np.arange(config.taste.topics), 2)
        self._advertisers = identifiers("a", np.arange(config.advertisers), 5)
        self._items = identifiers("i", np.arange(config.advertisers * config.items), 6)
        self._hours = identifiers("h", np.arange(24), 2)

    def events(self, day: int, log: MarketLog, history: MarketHistory) -> pa.Table:
        """Impressions and late conversions of a day, ordered by time and id."""
        arriving = history.heard_day == day
        late, origin = history.converted.take(arriving), history.converted_day[arriving]
        shown = ids_by_day(origin, history.converted_row[arriving])
        today, number = np.full(len(log.user), day), np.arange(len(log.user))
        same_day = (log.conversion >= 0) & (log.arrival < DAY_US)
        paid = self._world.pin_is_ad[log.pin]
        labels = {
            name: pa.array(values, mask=~paid) if name.startswith(_CONVERSION_LABELS) else values
            for name, values in impression_labels(log, same_day).items()
        }
        now = {
            "event_id": event_ids(day, number),
            "action": pc.take(pa.array(ACTIONS), log.action),
            "arrived_at": pa.nulls(len(number), TIMES),
            "impression_id": pa.nulls(len(number), pa.string()),
        }
        then = {
            "event_id": late_ids(shown),
            "action": pa.array(["conversion"] * len(late.user), pa.string()),
            "arrived_at": self._times(late.arrival, origin),
            "impression_id": shown,
        }
        schema = arrow_schema(self._spec.events_table())
        tables = [
            typed_table(self._rows(log, today, history) | now | labels, schema),
            typed_table(self._rows(late, origin, history) | then | late_labels(late), schema),
        ]
        return in_filing_order(pa.concat_tables(tables)).combine_chunks()

    def truth(self, day: int, log: MarketLog, history: MarketHistory) -> pa.Table:
        """The hidden probabilities of the rows of `events`."""
        arriving = history.heard_day == day
        origin = ids_by_day(history.converted_day[arriving], history.converted_row[arriving])
        shown = event_ids(day, np.arange(len(log.user)))
        return truth_table((shown, log), (origin, history.converted.take(arriving)))

    def requests(self, day: int, happened: MarketDay) -> pa.Table:
        """The pages that users asked for, with the ads that each may show."""
        requests, world = happened.requests, self._world
        there = requests.candidates_RC >= 0
        offsets = np.append(0, np.cumsum(there.sum(axis=1)))
        columns: Columns = {
            "request_id": _request_ids(np.full(len(requests), day), np.arange(len(requests))),
            "ts": self._times(requests.ts, np.full(len(requests), day)),
            "user_id": pc.take(self._users, requests.user),
            "surface": pc.take(pa.array(SURFACES), requests.surface),
            "query_topic": self._topic(requests.query),
            "related_topic": self._topic(_topic_of(world, requests.source)),
            "page": requests.page,
            "pin_ids": list_array(offsets, pc.take(self._pins, requests.candidates_RC[there])),
        }
        return typed_table(columns, self._schema("requests"))

    def campaigns(self, day: int) -> pa.Table:
        """The ads that exist on a day."""
        world, alive = self._world, self._world.pins.alive(day)
        pin = alive[world.pin_is_ad[alive]]
        columns: Columns = {
            "pin_id": pc.take(self._pins, pin),
            "advertiser_id": pc.take(self._advertisers, world.pin_advertiser[pin]),
            "item_id": pc.take(self._items, world.pin_item[pin]),
            "objective": pc.take(pa.array(OBJECTIVES), world.pin_objective[pin]),
            "bid": world.pin_bid[pin],
            "daily_budget": world.advertiser_budget[world.pin_advertiser[pin]],
        }
        return typed_table(columns, self._schema("campaigns"))

    def offsite(self, day: int, happened: MarketDay, history: MarketHistory) -> pa.Table:
        """What users did on pages: after ads, as far as it is heard of today, and of themselves."""
        log, world, own = happened.log, self._world, happened.offsite
        clicked = np.flatnonzero(log.click & world.pin_is_ad[log.pin])
        luck = uniform(
            world.seed, Draw.VISIT, day, log.request[clicked], log.slot[clicked], log.pin[clicked]
        )
        came = clicked[luck < world.config.conversion.visit]
        sold = np.flatnonzero((log.conversion >= 0) & (log.arrival < DAY_US))
        arriving = history.heard_day == day
        late = history.converted.take(arriving)
        gap = (day - history.converted_day[arriving]) * DAY_US
        shown = event_ids(day, np.arange(len(log.user)))
        visits = np.minimum(log.ts[came] + _VISIT_AFTER_US, DAY_US - 1)
        late_shown = ids_by_day(history.converted_day[arriving], history.converted_row[arriving])
        click = ATTRIBUTIONS.index("click")
        parts = (
            (own.user, own.item, own.ts, own.kind, ATTRIBUTIONS.index("none"), None),
            (log.user[came], world.pin_item[log.pin[came]], visits, VISIT, click, shown.take(came)),
            _sales(world, log.take(sold), 0, shown.take(sold)),
            _sales(world, late, gap, late_shown),
        )
        return typed_table(self._pages(day, parts), self._schema("offsite"))

    def _pages(self, day: int, parts: tuple) -> Columns:
        sizes = [len(part[0]) for part in parts]
        user, item, ts, kind, said = (
            np.concatenate(
                [np.broadcast_to(part[i], size) for part, size in zip(parts, sizes, strict=True)]
            )
            for i in range(5)
        )
        shown = pa.concat_arrays(
            [
                pa.nulls(size, pa.string()) if part[5] is None else part[5]
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
        order = np.argsort(ts, kind="stable")
        advertiser = item[order] // self._world.config.items
        return {
            "offsite_id": ids_by_day(np.full(len(order), day), np.arange(len(order)), "o"),
            "ts": self._times(ts[order], np.full(len(order), day)),
            "user_id": pc.take(self._users, user[order]),
            "advertiser_id": pc.take(self._advertisers, advertiser),
            "item_id": pc.take(self._items, item[order]),
            "kind": pc.take(pa.array(OFFSITE_TYPES), kind[order]),
            "attribution": pc.take(pa.array(ATTRIBUTIONS), said[order]),
            "impression_id": shown.take(pa.array(order)),
        }

    def _rows(self, log: MarketLog, origin: Ints, history: MarketHistory) -> Columns:
        """What a row says about its impression, wherever it stands."""
        world, user, pin = self._world, log.user.astype(np.int64), log.pin.astype(np.int64)
        paid = world.pin_is_ad[pin]
        advertisers = history.engagements(world.pin_advertiser, user[paid], pin[paid], origin[paid])
        with_advertiser = np.full(len(pin), np.nan, "f4")
        with_advertiser[paid] = advertisers
        feed = np.where(log.surface == 0, log.position // world.config.page, np.nan)
        match = self._matches(log, pin)
        return {
            "request_id": _request_ids(origin, log.request),
            "is_ad": paid,
            "ts": self._times(log.ts, origin),
            "user_id": pc.take(self._users, log.user),
            "pin_id": pc.take(self._pins, log.pin),
            "surface": pc.take(pa.array(SURFACES), log.surface),
            "duration_s": log.duration,
            "hour": pc.take(self._hours, log.ts // (DAY_US // 24)),
            "query_topic": self._topic(log.query),
            "related_topic": self._topic(_topic_of(world, log.source)),
            "position": log.position.astype("f4"),
            "feed_page": pa.array(feed, from_pandas=True),
            "query_match": pa.array(np.where(log.query >= 0, match, np.nan), from_pandas=True),
            "related_match": pa.array(np.where(log.source >= 0, match, np.nan), from_pandas=True),
            "user_advertiser_engagements": pa.array(with_advertiser, from_pandas=True),
            "user_interest_engagements": history.engagements(world.pin_topic, user, pin, origin),
        }

    def _matches(self, log: MarketLog, pin: Ints) -> Floats:
        """Cosine [N] of a Pin's content and what was asked for; 0 where nothing was."""
        match = np.zeros(len(pin), "f4")
        for asked, vectors in ((log.query, self._topics_KD), (log.source, self._seen_PD)):
            rows = np.flatnonzero(asked >= 0)
            left, right = vectors[asked[rows]], self._seen_PD[pin[rows]]
            match[rows] = np.einsum("nd,nd->n", left, right)
        return match

    def _topic(self, topic: npt.NDArray) -> pa.Array:
        return pc.take(self._topics, pa.array(topic, mask=topic < 0))

    def _times(self, clock: Ints, day: Ints) -> pa.Array:
        return pa.array(clock + day * DAY_US + self._epoch_us, TIMES)

    def _schema(self, name: str) -> pa.Schema:
        return arrow_schema(next(t for t in self._spec.tables if t.name == name))

    def users(self, history: MarketHistory) -> pa.Table:
        """Everybody who exists on the history's day, with features as of its start."""
        world, user = self._world, self._world.users.alive(history.day)
        declared = world.user_topics[user, :3]
        thirds = np.arange(len(user) + 1) * declared.shape[1]
        columns: Columns = {
            "user_id": pc.take(self._users, user),
            "country": identifiers("country_", world.user_country[user], 2),
            "age_bucket": pc.take(pa.array(AGES), world.user_age[user]),
            "gender": pc.take(pa.array(GENDERS), world.user_gender[user]),
            "device": pc.take(pa.array(DEVICES), world.user_device[user]),
            "interests": list_array(thirds, pc.take(self._topics, declared.reshape(-1))),
            "tenure_days": history.day - world.users.born[user],
            "user_saves_30d": history.saves("user")[user],
            **self._sequences(history, user),
        }
        return typed_table(columns, arrow_schema(self._spec.users_table()))

    def _sequences(self, history: MarketHistory, user: Ints) -> Columns:
        offsets, engaged = history.recent_engaged(user)
        page_offsets, items = history.recent_pages(user)
        sold_offsets, advertisers = history.recent_sales(user)
        return {
            "engaged_pins": list_array(offsets, pc.take(self._pins, engaged.pin)),
            "engaged_actions": list_array(offsets, pc.take(pa.array(ACTIONS), engaged.action)),
            "engaged_surfaces": list_array(offsets, pc.take(pa.array(SURFACES), engaged.surface)),
            "visited_items": list_array(page_offsets, pc.take(self._items, items)),
            "converted_advertisers": list_array(
                sold_offsets, pc.take(self._advertisers, advertisers)
            ),
        }

    def pins(self, history: MarketHistory) -> pa.Table:
        """Every Pin that exists on the history's day, with features as of its start."""
        world, pin = self._world, self._world.pins.alive(history.day)
        organic, price = ~world.pin_is_ad[pin], world.pin_price[pin]
        group = np.log2(1 + price).astype(np.int64)
        named = pc.take(self._advertisers, pa.array(world.pin_advertiser[pin], mask=organic))
        columns: Columns = {
            "pin_id": pc.take(self._pins, pin),
            "content": pack(world.content[pin]),
            "promoted": pc.take(pa.array(("ad", "organic")), organic.astype(np.int8)),
            "primary_interest": pc.take(self._topics, world.pin_topic[pin]),
            "advertiser": named,
            "creative_type": pc.take(pa.array(CREATIVES), world.pin_creative[pin]),
            "price_bucket": pc.if_else(organic, None, identifiers("price_", group, 2)),
            "price": pa.array(price, mask=organic),
            "pin_age_days": history.day - world.pins.born[pin],
            "pin_saves_30d": history.saves("pin")[pin],
        }
        return typed_table(columns, arrow_schema(self._spec.pins_table()))


def _sales(world: MarketPopulation, log: MarketLog, gap: Ints | int, shown: pa.Array) -> tuple:
    """Conversions as actions on pages; `gap`: microseconds from their day to the one heard of."""
    item, ts = world.pin_item[log.pin], log.arrival - gap
    return (log.user, item, ts, log.conversion, log.attribution, shown)


def _topic_of(world: MarketPopulation, pin: npt.NDArray) -> npt.NDArray:
    return np.where(pin >= 0, world.pin_topic[pin], -1)


def _topic_contents(world: MarketPopulation, seen_PD: Floats) -> Floats:
    """The mean content [K, D] of each topic's Pins."""
    topics = world.config.taste.topics
    sums = np.zeros((topics, seen_PD.shape[1]), "f4")
    np.add.at(sums, world.pin_topic, seen_PD)
    return unit(sums)


def _request_ids(days: Ints, numbers: npt.NDArray) -> pa.Array:
    return ids_by_day(days, numbers, "r")
