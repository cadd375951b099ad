"""A publish in a process of its own, for tests that kill it: publish both upstreams, release."""

import sys
from pathlib import Path

from tests.pipelines import UPSTREAMS
from tests.publishing_fixtures import World

if __name__ == "__main__":
    world = World(Path(sys.argv[1]))
    world.with_publishing(bytes_per_s=int(sys.argv[3]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for upstream in UPSTREAMS:
        world.step("publish", sys.argv[2], upstream)
    world.step("release", sys.argv[2])
