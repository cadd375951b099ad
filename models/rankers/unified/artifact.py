"""The program of a surface as files: what a host loads that has torch, and none of this code.

A folder holds `program.pt2`, a `torch.export` program, and `schema.json`: what it reads, in which
shape and type, what it says, and a digest of all that by which a host knows whether it fits.

Shapes: U users, B rows, T tasks.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_store.contracts.datasets import Feature
from feature_store.contracts.digests import content_digest, file_sha256
from feature_store.contracts.errors import ContractViolation, ManifestCorrupt
from models.rankers.unified.program import SurfaceProgram

PROGRAM, SCHEMA = "program.pt2", "schema.json"
# A user has two rows or more: a host repeats the only one.
MIN_ROWS = 2
_MAX_ROWS = 2**20
_DTYPES = {"numeric": "float32", "embedding": "float32"}
_TORCH = {"float32": torch.float32, "float64": torch.float64, "int32": torch.int32}


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program that was read back.

    Attributes:
        schema: see `schema_of`.
    """

    schema: dict[str, Any]
    run: torch.nn.Module

    @torch.inference_mode()
    def predict(self, users: dict[str, Tensor], rows: dict[str, Tensor]) -> Tensor:
        """The calibrated probabilities_BT.

        Raises:
            ContractViolation: the features are not those that it reads.
        """
        _check(self.schema, users, rows)
        # By position: the program knows its inputs in the order in which the schema names them.
        read = self.schema["inputs"]
        sides = (("users", users), ("rows", rows))
        ordered = ({i["name"]: given[i["name"]] for i in read[side]} for side, given in sides)
        found: Tensor = self.run(*ordered)
        return found


def schema_of(
    program: SurfaceProgram, surface: str, tasks: tuple[str, ...], said: dict[str, Any]
) -> dict[str, Any]:
    """What a program reads and says.

    Args:
        said: further facts that a host may want, such as the day; no part of the digest.

    Returns:
        `surface`, `tasks`, `inputs` (by side, `users` and `rows`: name, whose it is, the upstream
        whose pool holds it, type, shape of one, kind and cardinality), `digest` of these, and what
        is said.
    """
    time = Feature(name="ts", scope="context", kind="numeric", meaning="UTC seconds")
    inputs = {
        "users": [_input(f, program.vectors) for f in program.users_read],
        "rows": [_input(f, program.vectors) for f in (time, *program.rows_read)],
    }
    inputs["rows"][0]["dtype"] = "float64"
    read = {"surface": surface, "tasks": list(tasks), "inputs": inputs, "min_rows": MIN_ROWS}
    return {**read, "digest": content_digest(json.dumps(read, sort_keys=True)), **said}


def write(folder: Path, program: SurfaceProgram, schema: dict[str, Any]) -> dict[str, Any]:
    """Export a program into a folder, its schema last.

    Returns:
        The schema with the digest of the program's file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    users, rows = (_example(schema["inputs"][side], n) for side, n in (("users", 2), ("rows", 6)))
    many = torch.export.Dim("users", min=1, max=_MAX_ROWS)
    more = torch.export.Dim("rows", min=1, max=_MAX_ROWS)
    shapes = ({name: {0: many} for name in users}, {name: {0: more} for name in rows})
    with torch.no_grad():
        exported = torch.export.export(
            program,
            (users, rows),
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    # They would be the one pickle of the file, and nobody reads them.
    exported.example_inputs = None
    with warnings.catch_warnings():
        # Tensors of no elements have no storage, and are taken for parts of one another.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(exported, folder / PROGRAM)
    complete = {**schema, "sha256": file_sha256(folder / PROGRAM)}
    (folder / SCHEMA).write_text(json.dumps(complete, indent=2) + "\n")
    return complete


def load(folder: Path, *, expected: str = "") -> Program:
    """Read a program back.

    Args:
        expected: digest of the schema that the caller was built for; empty takes any.

    Raises:
        ManifestCorrupt: a file is missing, or is not the one that was written.
        ContractViolation: it is of another schema.
    """
    try:
        schema = json.loads((folder / SCHEMA).read_text())
        found = hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()
    except (OSError, json.JSONDecodeError) as error:
        raise ManifestCorrupt(
            "the program of a surface cannot be read", where=str(folder), found=str(error)
        ) from error
    if found != schema["sha256"]:
        raise ManifestCorrupt(
            "the program of a surface is damaged",
            where=str(folder / PROGRAM),
            expected=schema["sha256"],
            found=found,
            hint="export the ranker again",
        )
    if expected and schema["digest"] != expected:
        raise ContractViolation(
            f"the program of {schema['surface']} reads or says something else than expected",
            where=str(folder / SCHEMA),
            expected=expected,
            found=schema["digest"],
            hint="compare the inputs of both schemas; the export before this one still fits",
        )
    return Program(schema=schema, run=torch.export.load(folder / PROGRAM).module())


def _input(feature: Feature, vectors: frozenset[str]) -> dict[str, Any]:
    width = {"embedding": feature.dim}.get(feature.kind, feature.max_len)
    pool = feature.name.removeprefix(f"{feature.scope}_").removesuffix("_vector")
    return {
        "name": feature.name,
        "entity": feature.scope,
        "pool": pool if feature.name in vectors else "",
        "dtype": _DTYPES.get(feature.kind, "int32"),
        "shape": [width] if width else [],
        "kind": feature.kind,
        "cardinality": feature.cardinality if feature.kind not in _DTYPES else 0,
    }


def _example(inputs: list[dict[str, Any]], rows: int) -> dict[str, Tensor]:
    return {i["name"]: torch.ones(rows, *i["shape"], dtype=_TORCH[i["dtype"]]) for i in inputs}


def _check(schema: dict[str, Any], users: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
    where = f"program of {schema['surface']}"
    for side, given in (("users", users), ("rows", rows)):
        declared = {i["name"]: i for i in schema["inputs"][side]}
        if wrong := sorted(declared.keys() ^ given.keys()):
            raise ContractViolation(
                "a request has features that are not this surface's, or lacks some",
                where=f"{where}: {side}",
                expected=" ".join(declared),
                found=f"differs in {' '.join(wrong)}",
            )
        for name, x in given.items():
            shape, dtype = declared[name]["shape"], declared[name]["dtype"]
            if list(x.shape[1:]) != shape or x.dtype != _TORCH[dtype]:
                raise ContractViolation(
                    "a feature of a request has another shape or type",
                    where=f"{where}: {name}",
                    expected=f"{dtype} [{side}, {', '.join(map(str, shape))}]",
                    found=f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}",
                )
    count, total = (len(next(iter(side.values()))) for side in (users, rows))
    if not count or total % count or total < MIN_ROWS * count:
        raise ContractViolation(
            "every user of a request needs as many rows, and two at least",
            where=where,
            expected=f"{count} users x R rows, R >= {MIN_ROWS}",
            found=f"{total} rows",
        )
