"""Does the online store still hold what a release names? Asked with a few round trips.

What a store loses, it loses silently: after a restart without its data, an eviction, or a change
of the server behind a name it answers as before, with nothing.
"""

from dataclasses import dataclass

from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.manifests import Release
from feature_store.online.codec import CURRENT_KEY
from feature_store.online.store import OnlineStore, SlotState, slot_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What a store holds of a release.

    Attributes:
        pointer: the release that readers are led to; empty when there is no pointer.
        keys: keys of the whole store.
        least_keys: the users of the release; 0 where they may expire by themselves.
        broken_slots: what is wrong with a slot of the release, by upstream.
    """

    pointer: str
    keys: int
    least_keys: int
    broken_slots: dict[str, str]

    def losses(self, release: Release) -> tuple[str, ...]:
        """What is not as the release says, in words; empty when all is."""
        said = []
        if self.pointer != release.release_id:
            said.append(f"the pointer names {self.pointer or 'nothing'}")
        said += [f"slot of {u}: {wrong}" for u, wrong in self.broken_slots.items()]
        if self.keys < self.least_keys:
            said.append(f"{self.keys} keys in all, fewer than {self.least_keys} users")
        return tuple(said)


def look(store: OnlineStore, release: Release) -> Held:
    """What the store holds of a release: the pointer, the slots' states, how many keys.

    Raises:
        StoreError: the store does not answer.
    """
    pointer = store.get(CURRENT_KEY)
    broken, expiring = {}, False
    for entry in release.upstreams:
        state = _state(store, entry.users_prefix)
        expiring |= bool(state and state.expire_days)
        if wrong := _wrong(state, entry.pool_digest):
            broken[entry.upstream] = wrong
    return Held(
        pointer=pointer.decode(errors="replace") if pointer else "",
        keys=store.keys(),
        least_keys=0 if expiring else sum(e.users for e in release.upstreams),
        broken_slots={str(u): wrong for u, wrong in broken.items()},
    )


def _state(store: OnlineStore, prefix: str) -> SlotState | None:
    try:
        return slot_state(store, prefix)
    except ManifestCorrupt:
        return None


def _wrong(state: SlotState | None, pool_digest: str) -> str:
    if state is None:
        return "holds nothing that can be relied on"
    if state.state != "complete":
        return f"is half written, of {state.ds}"
    return "" if state.pool_digest == pool_digest else f"holds another pool, of {state.ds}"
