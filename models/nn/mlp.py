"""A plain multi-layer perceptron.

Shapes: B rows (any leading dimensions), I inputs, O outputs.
"""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with LeakyReLU(0.2) between them.

    Args:
        in_dim: I.
        hidden_dims: width of each hidden layer; may be empty.
        out_dim: O.
        dropout: after each activation.

    Source: the merge of same-typed features in Pinterest's InteractRank.
    Deviations: none; the leaky slope also keeps every unit trainable in tiny models.
    """

    def __init__(
        self, in_dim: int, hidden_dims: tuple[int, ...], out_dim: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        dims = (in_dim, *hidden_dims)
        layers: list[nn.Module] = []
        for before, after in pairwise(dims):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(dims[-1], out_dim)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Map x_BI to out_BO."""
        out_BO: Tensor = self.output(self.hidden(x_BI))
        return out_BO
