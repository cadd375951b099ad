"""What PinnerFormer reads of a data set."""

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import SequenceInputs, names_in
from models.pinnerformer.config import PinnerFormerConfig


def sequence_inputs(spec: DatasetSpec, config: PinnerFormerConfig) -> SequenceInputs:
    """The actions that sequences hold, those that are targets, and what stands for a Pin.

    Raises:
        InputError: the data set has no such action, or no content of Pins.
    """
    sampling = config.sampling
    ignored = {name for name in names_in(sampling.ignored) if name in spec.actions}
    default = tuple(name for name in spec.actions[1:] if name not in ignored)
    chosen = names_in(sampling.positives) or default
    if unknown := sorted(set(chosen) - set(spec.actions)) or not chosen:
        raise InputError(
            "the positives of a sequence model are no actions of the data set",
            where=f"dataset {spec.name}",
            expected=" ".join(spec.actions),
            found=str(unknown),
        )
    contents = [f for f in spec.features_of("pin") if f.kind == "embedding"]
    named = [f for f in contents if config.content in ("", f.name)]
    if not named:
        raise InputError(
            "the data set has no content of Pins for a sequence model",
            where=f"dataset {spec.name}",
            expected="a Pin feature of kind embedding"
            + (f" called {config.content}" if config.content else ""),
            found=" ".join(f.name for f in contents) or "none",
        )
    return SequenceInputs(
        read=tuple(i for i, name in enumerate(spec.actions, 1) if name not in ignored),
        positive=tuple(spec.actions.index(name) + 1 for name in chosen),
        content=named[0],
        sampling=sampling,
        max_len=config.max_len,
        max_timeline=config.max_timeline,
        actions=len(spec.actions),
        surfaces=len(spec.surfaces),
    )
