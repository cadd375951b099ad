"""The programs of an exported ranker's surfaces, cut out of it as it was read back.

Shapes: T tasks, S surfaces.
"""

from pathlib import Path
from urllib.parse import quote

from models.rankers import export
from models.rankers.unified import artifact
from models.rankers.unified.model import UnifiedRanker
from models.rankers.unified.program import SurfaceCalibration, SurfaceProgram

FOLDER = "surfaces"


def folder_of(number: int, surface: str) -> str:
    """The folder of a surface, whatever its name holds."""
    return f"{number}-{quote(surface, safe='')}"


def write(folder: Path) -> int:
    """Write a program for each surface of the ranker in a folder, below `surfaces/` of it.

    Returns:
        How many there are; 0 for a ranker whose surfaces are one, or whose recipe wants none.

    Raises:
        ManifestCorrupt: the ranker cannot be read back.
    """
    read = export.load(folder)
    ranker, said = read.objective.model, read.description
    if not isinstance(ranker, UnifiedRanker) or not ranker.config.programs:
        return 0
    facts = {"ranker": said.ranker, "ds": said.ds, "spaces": said.spaces}
    for number, surface in enumerate(said.surfaces, 1):
        calibrated = SurfaceCalibration(read.calibration_TS2[:, number])
        program = SurfaceProgram(ranker, number, calibrated)
        schema = artifact.schema_of(program, surface, said.tasks, facts)
        artifact.write(folder / FOLDER / folder_of(number, surface), program, schema)
    return len(said.surfaces)
