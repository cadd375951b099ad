"""What decides the last bits of a result beside its inputs: CPU, threads, device, libraries.

Not part of any digest: the same day may run on another machine, and what was made there stands. It
is recorded, so that whoever compares two results knows whether equal bits may be expected.
"""

import functools
import importlib.metadata
import platform
from pathlib import Path

from feature_store.contracts.manifests import MadeOn
from jobs.settings import Settings

_LIBRARIES = ("derm", "numpy", "pyarrow", "torch", "faiss-cpu")
# Kernels are chosen by the widest of these that a CPU has.
_VECTORS = ("avx512f", "avx2", "asimd")


def made_on(settings: Settings, device: str = "cpu") -> MadeOn:
    """This machine, as far as it decides bits."""
    return MadeOn(
        cpu=_cpu(),
        device=device,
        threads=settings.threads,
        processes=settings.train_processes,
        libraries=_versions(),
    )


def differences(then: MadeOn | None, settings: Settings) -> str:
    """How a machine differs from this one; empty when it does not, or is not known.

    The device is not compared: which one is there is known only where something computes.
    """
    if then is None:
        return ""
    now = made_on(settings)
    pairs = [
        (f"{name} {was}", f"{name} {is_now}")
        for name, was, is_now in (
            ("cpu", then.cpu, now.cpu),
            ("threads", then.threads, now.threads),
            ("processes", then.processes, now.processes),
            *((n, v, now.libraries.get(n, "-")) for n, v in sorted(then.libraries.items())),
        )
        if was != is_now
    ]
    return ", ".join(f"{was} (now {is_now.split(' ', 1)[1]})" for was, is_now in pairs)


@functools.cache
def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    flags = (known.get("flags") or known.get("Features") or "").split()
    widest = next((v for v in _VECTORS if v in flags), "")
    return " ".join(filter(None, (known.get("model name", platform.machine()), widest)))


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
