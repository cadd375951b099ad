"""Features that a single surface fills."""

from collections.abc import Collection, Mapping


def check_surface_features(
    dataset: str,
    declared: Mapping[str, tuple[str, ...]],
    surfaces: Collection[str],
    context: Collection[str],
) -> None:
    """Check which features are said to be a surface's own.

    Args:
        context: names of the data set's context features.

    Raises:
        ValueError: a surface or a feature does not exist, or a feature has two surfaces.
    """
    owned = [name for names in declared.values() for name in names]
    for strange, what in (
        (set(declared) - set(surfaces), "are no surfaces"),
        (set(owned) - set(context), "are no context features"),
        ({name for name in owned if owned.count(name) > 1}, "belong to more than one surface"),
    ):
        if strange:
            raise ValueError(f"dataset {dataset}: surface_features: {sorted(strange)} {what}")
