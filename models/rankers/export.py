"""A ranker outside of the pipeline: weights, sizes and calibration in one folder, by digest.

Weights are safetensors, everything else is JSON: nothing in it can be executed.

Shapes: B rows, T tasks, S surfaces.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from feature_store.contracts.base import Contract, Day
from feature_store.contracts.datasets import Feature
from feature_store.contracts.digests import file_sha256
from feature_store.contracts.errors import ContractViolation, ManifestCorrupt
from feature_store.contracts.sealed import sealed, unsealed
from models.nn.config import DhenConfig, ExpertsConfig, IdFacetsConfig, SequenceConfig
from models.protocol import Batch
from models.rankers import calibration
from models.rankers.calibration import Floats
from models.rankers.config import CtrConfig, CvrConfig, RankerConfig
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.rankers.parts.sizes import RelationsConfig
from models.rankers.unified.config import HistoryConfig, TreeConfig, UnifiedConfig
from models.training.checkpoint import Tensors, read_tensors, write_tensors

MODEL, CALIBRATION, DESCRIPTION = "model.safetensors", "calibration.safetensors", "ranker.json"
_KINDS: dict[str, type[CtrConfig | CvrConfig | UnifiedConfig]] = {
    "ctr": CtrConfig,
    "cvr": CvrConfig,
    "unified": UnifiedConfig,
}
_PARTS: dict[str, Any] = {
    "sequence": SequenceConfig,
    "relations": RelationsConfig,
    "experts": ExpertsConfig,
    "dhen": DhenConfig,
    "ids": IdFacetsConfig,
    "history": HistoryConfig,
    "tree": TreeConfig,
}


class Description(Contract):
    """What an exported ranker is.

    Attributes:
        ds: the newest day that it has learned from.
        features: by scope, and the vectors that it reads from pools.
        own: of each surface, the context features that it alone fills.
        spaces: by upstream, where the embedding space begins whose vectors it has learned.
        files: SHA-256 of each file beside this one.
    """

    ranker: str
    ds: Day
    kind: str
    config: dict[str, Any]
    features: dict[str, tuple[Feature, ...]]
    tasks: tuple[str, ...]
    surfaces: tuple[str, ...]
    own: tuple[tuple[str, ...], ...] = ()
    spaces: dict[str, Day]
    files: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedRanker:
    """A ranker that was read back."""

    description: Description
    objective: RankingObjective
    calibration_TS2: Tensor

    @torch.inference_mode()
    def predict(self, batch: Batch, spaces: Mapping[str, str]) -> Tensor:
        """The probabilities_BT of its tasks.

        Args:
            batch: see `feature_store.reading.examples`; zeros where a pool knows nobody.
            spaces: where the spaces of the vectors in the batch begin, by upstream.

        Raises:
            ContractViolation: vectors are of another space or width than it has learned.
        """
        self._check(batch, spaces)
        logit_BT = self.objective.predict(batch)
        return calibration.apply(self.calibration_TS2, logit_BT, batch["surface"])

    def _check(self, batch: Batch, spaces: Mapping[str, str]) -> None:
        learned = self.description.spaces
        if dict(spaces) != learned:
            raise ContractViolation(
                f"the vectors are of other spaces than ranker {self.description.ranker} learned",
                expected=json.dumps(learned),
                found=json.dumps(dict(spaces)),
                hint="the ranker's next day begins anew: derm rank --ds DAY",
            )
        for feature in self.description.features["vectors"]:
            shape = tuple(batch[feature.name].shape)
            if shape[1:] != (feature.dim,):
                raise ContractViolation(
                    "vectors are of another width than the ranker learned",
                    where=feature.name,
                    expected=f"[rows, {feature.dim}]",
                    found=str(list(shape)),
                )


def describe(
    *, name: str, ds: str, config: RankerConfig, inputs: RankingInputs,
    surfaces: tuple[str, ...], spaces: Mapping[str, str],
) -> Description:  # fmt: skip
    """A ranker in words, without the digests of its files."""
    kind = next(k for k, cls in _KINDS.items() if isinstance(config, cls))
    scopes = ("user", "pin", "context", "vectors")
    return Description(
        ranker=name,
        ds=ds,
        kind=kind,
        config=dataclasses.asdict(config),
        features={scope: getattr(inputs, scope) for scope in scopes},
        tasks=inputs.tasks,
        surfaces=surfaces,
        own=inputs.own,
        spaces=dict(spaces),
        files={},
    )


def write(
    folder: Path, description: Description, weights: Tensors, calibration_TS2: Floats
) -> Description:
    """Write a ranker into a folder, its description last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / MODEL, dict(weights))
    calibration.write(folder / CALIBRATION, calibration_TS2)
    files = {name: file_sha256(folder / name) for name in (MODEL, CALIBRATION)}
    complete = description.model_copy(update={"files": files})
    (folder / DESCRIPTION).write_text(sealed(complete.model_dump_json()))
    return complete


def read_description(folder: Path) -> Description:
    """What is said of an exported ranker.

    Raises:
        ManifestCorrupt: it cannot be read, or is not what was written.
    """
    try:
        text = unsealed(folder / DESCRIPTION, hint="export the ranker again")
        return Description.model_validate_json(text)
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise ManifestCorrupt(
            "the description of a ranker cannot be read",
            where=str(folder / DESCRIPTION),
            found=str(error),
        ) from error


def load(folder: Path) -> ExportedRanker:
    """Read a ranker back.

    Raises:
        ManifestCorrupt: a file is missing, or is not the one that was written.
    """
    description = read_description(folder)
    for name, expected in description.files.items():
        path = folder / name
        found = file_sha256(path) if path.exists() else "no file"
        if found != expected:
            raise ManifestCorrupt(
                "a file of an exported ranker is damaged",
                where=str(path),
                expected=expected,
                found=found,
                hint="export the ranker again",
            )
    inputs = RankingInputs(
        **description.features,
        tasks=description.tasks,
        surfaces=description.surfaces,
        own=description.own,
    )
    objective = RankingObjective(inputs, _config_of(description))
    objective.load_state_dict(read_tensors(folder / MODEL)[0])
    objective.eval()
    fitted = torch.from_numpy(calibration.read(folder / CALIBRATION)).float()
    return ExportedRanker(description=description, objective=objective, calibration_TS2=fitted)


def _config_of(description: Description) -> RankerConfig:
    fields = {
        name: _PARTS[name](**_tuples(value)) if name in _PARTS else _tuple(value)
        for name, value in description.config.items()
    }
    return _KINDS[description.kind](**fields)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuple(value) for name, value in fields.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value
