"""One pass of PyKEEN's ComplEx over some triples; runs in an environment of its own.

    python pykeen_pass.py TRIPLES.npy NODES RELATIONS WIDTH NEGATIVES ROWS

Its own training loop over sampled negatives, as many for a triple as both sides of ours together.
Prints a line of JSON: seconds of the pass (what comes before it is not counted), and its triples.
"""

import json
import logging
import sys
import time

import numpy as np
import torch
from pykeen.models import ComplEx
from pykeen.sampling import BasicNegativeSampler
from pykeen.training import SLCWATrainingLoop
from pykeen.triples import CoreTriplesFactory


def main() -> None:
    """A pass to warm up on a few triples, then the one that counts."""
    path, *numbers = sys.argv[1:]
    nodes, relations, width, negatives, rows = map(int, numbers)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    triples = torch.from_numpy(np.load(path))
    factory = CoreTriplesFactory(triples, num_entities=nodes, num_relations=relations)
    few = CoreTriplesFactory(triples[:rows], num_entities=nodes, num_relations=relations)
    model = ComplEx(triples_factory=factory, embedding_dim=width // 2, random_seed=0)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)

    def one_pass(some: CoreTriplesFactory) -> tuple[float, float]:
        loop = SLCWATrainingLoop(
            model=model,
            triples_factory=some,
            optimizer=optimizer,
            negative_sampler=BasicNegativeSampler,
            negative_sampler_kwargs={"num_negs_per_pos": negatives},
        )
        wall, cpu = time.perf_counter(), time.process_time()
        loop.train(
            some, num_epochs=1, batch_size=rows, use_tqdm=False, use_tqdm_batch=False, num_workers=0
        )
        return time.perf_counter() - wall, time.process_time() - cpu

    one_pass(few)
    wall, cpu = one_pass(factory)
    sys.stdout.write(json.dumps({"cpu_s": cpu, "wall_s": wall, "triples": len(triples)}) + "\n")


if __name__ == "__main__":
    main()
