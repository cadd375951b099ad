"""The program of a surface: the same bits as the ranker, alone, without this repository."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch

from feature_store.contracts.errors import ContractViolation, ManifestCorrupt
from models.rankers.calibration import apply
from models.rankers.unified import artifact
from models.rankers.unified.program import SurfaceCalibration, SurfaceProgram
from tests.model_fixtures import unified

pytestmark = pytest.mark.integration

SEARCH = 2
HOST = """
import json, sys, torch
folder = sys.argv[1]
schema = json.load(open(f"{folder}/schema.json"))
program = torch.export.load(f"{folder}/program.pt2").module()
users, rows = (
    {i["name"]: torch.tensor(given[i["name"]], dtype=getattr(torch, i["dtype"]))
     for i in schema["inputs"][side]}
    for side, given in zip(("users", "rows"), json.load(open(f"{folder}/request.json")))
)
with torch.inference_mode():
    print(json.dumps([program(users, rows).tolist(), sorted(m for m in sys.modules if m in
        ("models", "jobs", "feature_store", "simulator"))]))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(4)
    ranker = unified.ranker().eval()
    fitted = torch.randn(2, 3, 2)
    program = SurfaceProgram(ranker, SEARCH, SurfaceCalibration(fitted[:, SEARCH]))
    folder = tmp_path_factory.mktemp("program")
    schema = artifact.schema_of(program, "search", ranker.inputs.tasks, {"ranker": "mine"})
    artifact.write(folder, program, schema)
    return ranker, fitted, folder, artifact.load(folder)


def _request(program, users, each, *, seed=1):
    """A batch of search with so many rows for each user, and the same as a program takes it."""
    rows = unified.batch(users * each, surfaces=(SEARCH,), seed=seed)
    sides = [[i["name"] for i in program.schema["inputs"][side]] for side in ("users", "rows")]
    at = torch.arange(users).repeat_interleave(each)
    batch = rows | {name: rows[name][:users] for name in sides[0]} | {"row:user": at}
    return batch, *({name: batch[name] for name in names} for names in sides)


def test_a_program_says_what_the_ranker_says_to_the_bit(exported):
    ranker, fitted, _, program = exported
    for users, each in ((1, 7), (3, 4), (2, 2)):
        batch, *request = _request(program, users, each)
        with torch.inference_mode():
            want = apply(fitted, ranker(batch)["logits"], batch["surface"])
        assert torch.equal(program.predict(*request), want)


def test_nothing_of_it_is_a_pickle(exported):
    _, _, folder, _ = exported
    with zipfile.ZipFile(folder / artifact.PROGRAM) as archive:
        held = {
            name: archive.read(name)
            for name in archive.namelist()
            if "/weight_" not in name  # plain numbers
        }
    assert any(held.values())
    assert not [name for name, data in held.items() if data.startswith((b"PK", b"\x80"))]


def test_other_trees_and_features_are_not_in_it(exported):
    ranker, _, folder, _ = exported
    weights = torch.export.load(folder / artifact.PROGRAM).state_dict
    assert not [name for name in weights if name.startswith("own.blocks.1")]
    assert sum(name.startswith("tree.") for name in weights) == len(ranker.trees[2].state_dict())
    assert not [name for name in weights if name.startswith("trees")]
    assert sum(w.numel() for w in weights.values()) < sum(
        w.numel() for w in ranker.state_dict().values()
    )
    read = {i["name"] for i in json.loads((folder / artifact.SCHEMA).read_text())["inputs"]["rows"]}
    assert "query" in read
    assert "position" not in read, "the home feed's"


def test_a_host_needs_torch_and_nothing_of_ours(exported, tmp_path):
    _, _, folder, program = exported
    _, users, rows = _request(program, 2, 3)
    given = [{n: x.tolist() for n, x in side.items()} for side in (users, rows)]
    (folder / "request.json").write_text(json.dumps(given))
    done = subprocess.run(
        [sys.executable, "-I", "-c", HOST, str(folder)],
        cwd=tmp_path, env={"PATH": "", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told, ours = json.loads(done.stdout)
    assert ours == []
    torch.testing.assert_close(
        torch.tensor(told), program.predict(users, rows).clone(), atol=1e-6, rtol=0
    )


def test_what_does_not_fit_is_refused(exported, tmp_path):
    _, _, folder, program = exported
    assert artifact.load(folder, expected=program.schema["digest"]).schema == program.schema
    _, users, rows = _request(program, 2, 3)
    with pytest.raises(ContractViolation, match="reads or says something else"):
        artifact.load(folder, expected="of another ranker")
    with pytest.raises(ContractViolation, match="not this surface's"):
        program.predict(users, rows | {"position": rows["query"].float()})
    with pytest.raises(ContractViolation, match="another shape or type"):
        program.predict(users, rows | {"query": rows["query"].float()})
    with pytest.raises(ContractViolation, match="as many rows"):
        program.predict(users, {n: x[:5] for n, x in rows.items()})
    for name in (artifact.PROGRAM, artifact.SCHEMA):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / artifact.PROGRAM).write_bytes(b"something else")
    with pytest.raises(ManifestCorrupt, match="damaged"):
        artifact.load(tmp_path)
    with pytest.raises(ManifestCorrupt, match="cannot be read"):
        artifact.load(tmp_path / "nowhere")
