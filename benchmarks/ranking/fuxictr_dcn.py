"""FuxiCTR's DCNv2 as its model zoo puts it together, for train.py: embeddings, crosses, layers.

Runs in an environment of its own (`requirements/bench-fuxictr.in`):

    PYTHONPATH=. .venv-fuxictr/bin/python -m benchmarks.ranking.fuxictr_dcn SHAPE
"""

import sys
from collections import OrderedDict

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from torch import Tensor, nn

from benchmarks.ranking.rounds import Shape, batch, serve


class Rival(nn.Module):
    """DCNv2, stacked: the vectors as they are, or projected together, beside all embeddings.

    A number has two of the inputs, as with ours, where the second says whether it is missing.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        features = FeatureMap("bench", ".")
        features.features = OrderedDict(
            [
                *(
                    (f"number_{i}", {"type": "numeric", "source": "", "embedding_dim": 2})
                    for i in range(shape.numbers)
                ),
                *(
                    (
                        f"kind_{i}",
                        {"type": "categorical", "source": "", "vocab_size": shape.vocabulary},
                    )
                    for i in range(shape.kinds)
                ),
            ]
        )
        self.names, self.vectors = tuple(features.features), shape.vectors
        self.embedding = FeatureEmbedding(features, shape.width)
        block = shape.dim * len(shape.vectors)
        self.project = nn.Linear(block, shape.projection, bias=False) if shape.projection else None
        width = 2 * shape.numbers + shape.kinds * shape.width + (shape.projection or block)
        self.cross = CrossNetV2(width, shape.layers)
        self.deep = MLP_Block(width, list(shape.hidden), output_dim=1)

    def forward(self, told: dict[str, Tensor]) -> Tensor:
        """The logits of a batch."""
        own = {name: told[name] for name in self.names}
        embedded = self.embedding(own, flatten_emb=True)
        vectors = torch.cat([told[name] for name in self.vectors], dim=1)
        if self.project is not None:
            vectors = self.project(vectors)
        logit_B1: Tensor = self.deep(self.cross(torch.cat([embedded, vectors], dim=1)))
        return logit_B1.squeeze(1)


def main() -> None:
    """Serve rounds until the standard input ends."""
    shape = Shape.told(sys.argv[1])
    torch.set_num_threads(shape.threads)
    torch.manual_seed(0)
    told = {name: torch.from_numpy(array) for name, array in batch(shape).items()}
    model = Rival(shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.BCEWithLogitsLoss()

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        loss_of(model(told), told["label"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    @torch.inference_mode()
    def score() -> None:
        model.eval()
        model(told)

    serve(shape, train, score)


if __name__ == "__main__":
    main()
