"""The warm process of a home: it has imported what steps import, and each task is a copy of it.

Importing torch, Arrow and Delta costs a process seconds, and a day has a dozen and a half of them.
This process pays once. A copy (`fork`) of it is a process of its own, with the environment, output
and session that the task would have had, and it ends as a command ends.

Nothing depends on it. It refuses what it cannot do exactly as a new process would: another program,
another environment, files that changed since it read them. Whoever asked then starts the command
(`jobs.services.running`), as when there is no warm process at all. Once a copy runs it needs its
parent no more.

One line of JSON each way, over a socket below the home that only its owner may open:

    asked       {"arguments": [...], "environment": {...}, "folder": "..."} and a pipe for output
    answered    {"pid": 1234}, or {"refused": "why"}
    asked       {"go": true}: an asker that is gone by now has begun the command itself
    answered    {"code": 0} when it has ended
"""

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jobs import cli, console, exits
from jobs.pipelines import catalog
from jobs.services import warm_socket
from jobs.services.private import make_private
from jobs.settings import Settings

# What steps would otherwise import on their way: the optimizer, joins, the store, an address.
_MODULES = (
    *("torch._dynamo", "pyarrow.acero", "feature_store.online.stores.redis", "encodings.idna"),
    *("jobs.commands.run", "jobs.engine.step_command"),
)
# The allocator's own threads; it starts them again in a copy. Any other would be missing there.
_HARMLESS_THREADS = {"jemalloc_bg_thd"}
_UNREAD = {*console.THREAD_VARIABLES, "_", "PWD", "OLDPWD", "SHLVL"}
# How often it looks whether its home is still there.
_LOOK_EVERY_S = 30.0
_PATIENCE_S = 5.0

Sources = dict[str, tuple[int, int]]


def main() -> int:
    """Import everything; serve until the home is gone or a file has changed."""
    settings, environment = Settings.from_environment(), dict(os.environ)
    console.bind_threads()
    steps = [
        name for step in catalog.every_step() for name in (f"jobs.steps.{step.name}", step.command)
    ]
    for name in (*_MODULES, *steps):
        importlib.import_module(name)
    sources = _sources()
    if threads := sorted(set(_threads()) - _HARMLESS_THREADS):
        _say(f"cannot be copied: it has threads {' '.join(threads)}")
        return 0
    # What is there now is never looked at by the collector, so copies go on sharing its memory.
    gc.collect()
    gc.freeze()
    path = warm_socket.path(settings.home)
    make_private(path.parent)
    server = warm_socket.listen(path)
    _say(f"ready: {len(sources)} files, as process {os.getpid()}")
    _Parent(server, path, sources, environment).serve()
    return 0


class _Parent:
    """Makes copies, and says how those ended that could not say it themselves."""

    def __init__(
        self, server: socket.socket, path: Path, sources: Sources, environment: dict[str, str]
    ) -> None:
        self._server, self._path, self._sources = server, path, sources
        self._environment = environment
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        self._selector.register(self._server, selectors.EVENT_READ)
        serving = True
        while serving or len(self._selector.get_map()):
            for key, _ in self._selector.select(_LOOK_EVERY_S):
                if key.fileobj is self._server:
                    serving = self._answer()
                else:
                    self._reap(int(key.fd), *key.data)
            serving = serving and self._path.exists()
            if not serving and self._server in self._selector.get_map():
                self._selector.unregister(self._server)
                self._server.close()

    def _answer(self) -> bool:
        """Take a request; False when no other should come."""
        asker, _ = self._server.accept()
        asker.settimeout(_PATIENCE_S)
        try:
            request, (pipe,) = warm_socket.receive(asker)
        except (OSError, EOFError, ValueError) as error:
            _say(f"a request that cannot be read: {error!r}")
            asker.close()
            return True
        changed = self._changed()
        if refusal := changed or self._refusal(request):
            _say(f"refused: {refusal}")
            with asker, contextlib.suppress(OSError):
                warm_socket.send(asker, {"refused": refusal})
        else:
            self._copy(asker, pipe, request)
        os.close(pipe)
        return not changed

    def _changed(self) -> str:
        """A file that is not what was imported."""
        now = _sources()
        return next(
            (f"{f} has changed" for f, was in self._sources.items() if now.get(f) != was), ""
        )

    def _refusal(self, request: Mapping[str, Any]) -> str:
        program = Path(request["arguments"][0])
        if program.name != "derm" or program.parent != Path(sys.executable).parent:
            return f"{program} is another program"
        given, own = request["environment"], self._environment
        names = sorted(n for n in given.keys() | own.keys() if is_read_early(n))
        different = [n for n in names if given.get(n) != own.get(n)]
        return f"another environment: {' '.join(different)}" if different else ""

    def _copy(self, asker: socket.socket, pipe: int, request: Mapping[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._server.close()
            _become(asker, pipe, request)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, asker))

    def _reap(self, descriptor: int, pid: int, asker: socket.socket) -> None:
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        with asker, contextlib.suppress(OSError):
            warm_socket.send(asker, {"code": os.waitstatus_to_exitcode(status)})


def _become(asker: socket.socket, pipe: int, request: Mapping[str, Any]) -> NoReturn:
    """In the copy: turn into the command, run it, end."""
    code = 1
    try:
        os.setsid()
        warm_socket.send(asker, {"pid": os.getpid()})
        # Raises where nobody is left to say it.
        warm_socket.receive(asker)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (pipe, 1), (pipe, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(pipe)
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["folder"])
        sys.argv = list(request["arguments"])
        _rename([sys.executable, *sys.argv])
        code = run_to_its_end(sys.argv[1:])
    finally:
        with contextlib.suppress(OSError):
            warm_socket.send(asker, {"code": code})
        os._exit(code)


def run_to_its_end(arguments: Sequence[str]) -> int:
    """The command, to the end of a process: what was registered for it, and flushed output."""
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    exits.finish()
    return code


def _rename(words: Sequence[str]) -> None:
    """Show the command where `ps` looks, in place of this program's own arguments."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # After the name in brackets the third field follows; 48 and 49 are where arguments lie.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[48 - 3]), int(fields[49 - 3])
        text = b"\0".join(word.encode() for word in words)[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def is_read_early(name: str) -> bool:
    """Whether a variable may have been read while modules were imported, or before.

    Our own are read when a command begins, but for the number of threads, which a command sets for
    the libraries by itself; Airflow's never.
    """
    if name.startswith("DERM_"):
        return name == "DERM_THREADS"
    return not name.lstrip("_").startswith("AIRFLOW") and name not in _UNREAD


def _sources() -> Sources:
    """Size and time of every file that a module came from."""
    modules = list(sys.modules.values())
    files = {str(f) for module in modules if (f := getattr(module, "__file__", None))}
    found: Sources = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = Path(file).stat()
            found[file] = (status.st_mtime_ns, status.st_size)
    return found


def _threads() -> list[str]:
    """Names of this process's threads, but for the first."""
    others = [t for t in Path("/proc/self/task").iterdir() if t.name != str(os.getpid())]
    return [(thread / "comm").read_text().strip() for thread in others]


def _say(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} warm process: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
