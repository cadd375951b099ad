"""AdamW over one flat tensor: a step costs a handful of operations, however many parameters.

The parameters of a module become views of the flat tensor, decayed ones first, so that clipping,
both moments and the update are one pass over memory each. Element by element it is AdamW.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from models.training.checkpoint import Tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"


class FlatAdamW:
    """AdamW that decays the weights of linear layers, and nothing else.

    Args:
        module: lies on its device already; loading a state dict into it is fine later.
        max_norm: gradients are clipped to this norm, all together.
        apart: names of parameters that another optimizer trains.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        max_norm: float,
        apart: Collection[str] = (),
    ) -> None:
        named = {p: name for name, p in module.named_parameters() if name not in apart}
        decayed = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
        self._parameters = sorted(named, key=lambda p: id(p) not in decayed)
        self._names = [named[p] for p in self._parameters]
        self._sizes = [p.numel() for p in self._parameters]
        self._max_norm = max_norm
        flat = torch.cat([p.detach().flatten() for p in self._parameters])
        parts = flat.split_with_sizes(self._sizes)
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        first = sum(p.numel() for p in self._parameters if id(p) in decayed)
        self._halves = [first, len(flat) - first]
        self._flat = [nn.Parameter(half) for half in flat.split_with_sizes(self._halves)]
        groups = [
            {"params": [half], "weight_decay": decay}
            for half, decay in zip(self._flat, (weight_decay, 0.0), strict=True)
        ]
        self._adamw = torch.optim.AdamW(groups, lr=learning_rate, fused=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another rate from now on."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Clip and apply the gradients; a parameter that was not used has a gradient of 0."""
        gradient = torch.cat(
            [
                p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten()
                for p in self._parameters
            ]
        )
        norm = torch.linalg.vector_norm(gradient)
        gradient *= (self._max_norm / (norm + 1e-6)).clamp(max=1.0)
        for half, part in zip(self._flat, gradient.split_with_sizes(self._halves), strict=True):
            half.grad = part
        self._adamw.step()

    def tensors(self) -> Tensors:
        """The state on the CPU, named `<kind>/<parameter>`; none before the first step."""
        states = [self._adamw.state.get(half, {}) for half in self._flat]
        if not all(states):
            return {}
        found = {f"{_STEP}/{name}": states[0][_STEP].cpu().clone() for name in self._names}
        for kind in _MOMENTS:
            flat = torch.cat([state[kind] for state in states]).cpu()
            parts = zip(
                self._names, self._parameters, flat.split_with_sizes(self._sizes), strict=True
            )
            found |= {f"{kind}/{n}": x.view(p.shape).clone() for n, p, x in parts}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved state; parameters without one start afresh."""
        device = self._flat[0].device
        steps = [tensors[f"{_STEP}/{n}"] for n in self._names if f"{_STEP}/{n}" in tensors]
        if not steps:
            return
        named = list(zip(self._names, self._parameters, strict=True))
        for half in self._flat:
            # The fused kernel wants its step counter beside the parameter.
            self._adamw.state[half] = {_STEP: max(steps).to(device, copy=True)}
        for kind in _MOMENTS:
            saved = [tensors.get(f"{kind}/{name}", torch.zeros_like(p)) for name, p in named]
            flat = torch.cat([x.to(device).flatten() for x in saved])
            for half, part in zip(self._flat, flat.split_with_sizes(self._halves), strict=True):
                self._adamw.state[half][kind] = part.clone()
