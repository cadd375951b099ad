"""The same promises with real shard processes: killed, stopped, on damaged files.

Less is decided by the seed here, because processes take their own time: the faults and their order
are, the moments are not.
"""

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from feature_store.client.follower import Follower
from feature_store.client.tables import TableClient
from feature_store.contracts.errors import DermError
from feature_store.tables.fetching import Fetched
from feature_store.tables.ledger import FileLedger, Pointer
from jobs.services import processes, tables
from jobs.settings import Settings
from tests.chaos.tables.world import ASKED, NUMBERS, SHARDS, TABLES, Broken, judge
from tests.table_versions import write_small

_WITHIN_S = 20.0
_STEPS = 4
_PUBLISH = (
    "import sys; from pathlib import Path; from feature_store.client.tables import TableClient; "
    "from jobs.services import tables; root, version, *at = sys.argv[1:]; "
    "tables.publish(Path(root), TableClient(at), version, within_s=20)"
)
FAULTS = ("shard killed", "shard stopped", "file damaged", "publisher killed", "rollback", "none")


class Ranker(threading.Thread):
    """Asks without pause, with the weights and tables of one version, and judges each answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        client = TableClient(tables.addresses(settings, SHARDS), timeout_s=0.5)
        self.follower = Follower(client, load=lambda version: version)
        self.met: Counter[str] = Counter()
        self.broken: list[str] = []
        self.version = ""
        self.over = threading.Event()

    def run(self) -> None:
        """Ask until `over`."""
        ids = dict.fromkeys(TABLES, ASKED)

        def finish(dense: str, _early: None, fetched: Fetched) -> None:
            judge(dense, fetched, ids, forgotten=False)
            self.version = dense
            self.met["responses"] += 1
            self.met["with defaults"] += bool(fetched.defaulted)

        while not self.over.is_set():
            try:
                self.follower.refresh()
                for _ in range(10):
                    self.follower.rank(ids, finish, meanwhile=lambda _: None)
            except Broken as broken:
                self.broken.append(str(broken))
            except DermError:
                self.met["refused"] += 1
                time.sleep(0.02)
        self.follower.client.close()


class Processes:
    """Two shards of a home of their own, and what was published on them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.root = settings, settings.paths.tables
        for version, number in NUMBERS.items():
            write_small(self.root, version, number, shards=SHARDS, tables=TABLES)
        self.met: Counter[str] = Counter()
        self.acked: list[Pointer] = []
        tables.start_shards(settings, SHARDS)
        self._publish("v1")

    def schedule(self, seed: int) -> None:
        """Some publications, each with a fault; then calm, and the judgement.

        Raises:
            Broken: a response was mixed, or a publication that was reported is lost.
        """
        rng = random.Random(seed)
        ranker = Ranker(self.settings)
        ranker.start()
        try:
            for _ in range(_STEPS):
                fault = rng.choice(FAULTS)
                self.met[fault] += 1
                with contextlib.suppress(DermError):
                    self._step(fault, rng.choice(list(NUMBERS)), rng)
                tables.start_shards(self.settings, SHARDS)
            self._publish(last := rng.choice(list(NUMBERS)))
            self._await(ranker, last)
        finally:
            ranker.over.set()
            ranker.join(30)
        self.met += ranker.met
        if ranker.broken:
            raise Broken(f"{len(ranker.broken)} responses: {ranker.broken[0]}")

    def _step(self, fault: str, version: str, rng: random.Random) -> None:
        if fault == "rollback":
            client = tables.open_tables(self.settings, SHARDS)
            with contextlib.closing(client):
                served = tables.roll_back(
                    self.root, client, within_s=_WITHIN_S, said=lambda _: None
                )
            self.acked.append(served.pointer)
            return
        if fault == "publisher killed":
            at = [str(a) for a in tables.addresses(self.settings, SHARDS)]
            words = [sys.executable, "-c", _PUBLISH, str(self.root), version, *at]
            publisher = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.2, 1.5))
            publisher.kill()
            publisher.wait()
            return
        with self._hurt(fault, version, rng):
            self._publish(version)

    @contextlib.contextmanager
    def _hurt(self, fault: str, version: str, rng: random.Random) -> Iterator[None]:
        """A fault for as long as a publication lasts."""
        shard = rng.randrange(SHARDS)
        path = self.root / version / "users" / f"{shard:05d}.0.rows"
        whole = path.read_bytes()
        timer = threading.Timer(rng.uniform(0, 0.2), self._signal, (fault, shard))
        if fault == "file damaged":
            _replace(path, whole[:-9] + bytes([whole[-9] ^ 16]) + whole[-8:])
        timer.start()
        try:
            yield
        finally:
            timer.join()
            if fault == "file damaged":
                _replace(path, whole)

    def _signal(self, fault: str, shard: int) -> None:
        words = ["--shard", str(shard)]
        for process in processes.marked(self.settings.home.absolute()):
            line = process.cmdline()
            if words[0] in line and line[line.index(words[0]) + 1] == words[1]:
                if fault == "shard killed":
                    process.kill()
                    psutil.wait_procs([process], 10)
                    tables.start_shards(self.settings, SHARDS)
                elif fault == "shard stopped":
                    process.send_signal(signal.SIGSTOP)
                    time.sleep(0.7)
                    process.send_signal(signal.SIGCONT)

    def _publish(self, version: str) -> None:
        client = tables.open_tables(self.settings, SHARDS)
        with contextlib.closing(client):
            served = tables.publish(self.root, client, version, within_s=_WITHIN_S)
        self.acked.append(served.pointer)

    def _await(self, ranker: Ranker, version: str) -> None:
        end = time.monotonic() + _WITHIN_S
        while ranker.version != version or not ranker.is_alive():
            if time.monotonic() > end:
                raise Broken(f"the ranker does not follow to {version}: it has {ranker.version}")
            time.sleep(0.02)
        live = FileLedger(self.root).pointer()
        if live is None or live != self.acked[-1]:
            raise Broken(f"{self.acked[-1]} was reported, and {live} is live")
        epochs = [p.epoch for p in self.acked]
        if epochs != sorted(set(epochs)):
            raise Broken(f"publications were reported out of order: {epochs}")


def _replace(path: Path, content: bytes) -> None:
    """As a copy that goes wrong would: whoever has the old file mapped keeps it."""
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)


def play_processes(schedules: int, first: int = 0) -> Counter[str]:
    """Play schedules on one set of processes; what was met.

    Raises:
        Broken: with the seed that showed it.
    """
    with tempfile.TemporaryDirectory(prefix="derm-tables-") as folder:
        settings = Settings(home=Path(folder))
        try:
            real = Processes(settings)
            for seed in range(first, first + schedules):
                try:
                    real.schedule(seed)
                except Broken as broken:
                    raise Broken(f"seed {seed}: {broken}") from broken
        finally:
            processes.stop(settings.home.absolute())
    return real.met
