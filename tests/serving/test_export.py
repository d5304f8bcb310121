"""`coldrank export` as a user types it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from served import request_of
from tiny import growing

from coldrank.cli.main import main
from coldrank.configs import base as parts
from coldrank.data.batches import DataFolder
from coldrank.serving.export import parity
from coldrank.serving.export.digests import verify
from coldrank.serving.export.trained import load_trained
from coldrank.serving.export.write import load_script
from coldrank.train.config import to_dict

# Loads the model and scores a request, in a process that can import torch and nothing of this project or of TorchRec.
ALONE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("coldrank", "torchrec", "fbgemm_gpu"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
model = torch.jit.load(sys.argv[1] + "/model.pt")
with torch.inference_mode():
    given = model(torch.load(sys.argv[2]))
torch.save(given, sys.argv[3])
"""


@pytest.fixture(scope="module")
def run(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "arm.json").write_text(json.dumps(to_dict(parts.poso(growing()))))
    command = ["train", "--config", str(folder / "arm.json"), "--data", str(data.path), "--out", str(folder / "run")]
    assert main([*command, "--set", "train.steps=8"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The run's export folder."""
    assert main(["export", "--run", str(run), "--out", str(run.parent / "export")]) == 0
    return run.parent / "export"


def test_the_folder_holds_what_a_fleet_needs(exported: Path, run: Path):
    verify(exported)
    told = json.loads((exported / "parity.json").read_text())
    assert told["rows"] == 200 and told["largest_difference"] < 1e-6
    assert abs(told["metrics"]["long_view"]["auc_change"]) < 1e-3
    assert json.loads((exported / "config.json").read_text()) == json.loads((run / "config.json").read_text())
    signature = json.loads((exported / "signature.json").read_text())
    entries = {e["name"]: e for e in signature["inputs"]}
    assert entries["user_id"] | {"meaning": ""} == {
        "name": "user_id",
        "dtype": "int64",
        "shape": ["Q"],
        "per": "request",
        "meaning": "",
        "default": 0,
    }
    assert entries["item_id"]["shape"] == ["C"] and entries["user_gap_h"]["default"] == "NaN"
    assert entries["hist_like"]["length"] == 6 and (entries["hist_like"]["low"], entries["hist_like"]["high"]) == (
        -1,
        1,
    )
    assert [o["task"] for o in signature["outputs"]] == ["long_view", "like"]


def test_the_signature_s_defaults_make_a_request(exported: Path):
    request = {}
    for e in json.loads((exported / "signature.json").read_text())["inputs"]:
        values = [] if e["default"] == [] else [float(e["default"]) if e["default"] == "NaN" else e["default"]]
        request[e["name"]] = torch.tensor(values, dtype=getattr(torch, e["dtype"]))
    given = load_script(exported / "model.pt")(request)
    assert all(p.shape == (1,) and 0 < float(p) < 1 for p in given.values())


def test_the_model_loads_where_there_is_torch_alone(exported: Path, run: Path, data: DataFolder, tmp_path: Path):
    trained = load_trained(run)
    raw = parity.sample(trained, data, "test", 200)
    request = parity.request_of(raw, trained.reads)
    torch.save(request, tmp_path / "request.pt")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, exported, tmp_path / "request.pt", tmp_path / "given.pt"],
        check=True,
        cwd=tmp_path,
    )
    given = torch.load(tmp_path / "given.pt")
    wanted = trained.scores(raw)
    torch.testing.assert_close(torch.stack([given[t] for t in trained.tasks], 1), wanted, rtol=0, atol=1e-6)
    once = load_script(exported / "model.pt")(request_of(trained, raw, 0, [0, 1, 2]))
    torch.testing.assert_close(once["like"][0], wanted[0, 1], rtol=0, atol=1e-6)


def test_a_later_checkpoint_is_a_delta_to_what_is_in_service(
    run: Path, exported: Path, data: DataFolder, tmp_path: Path
):
    later = tmp_path / "run"
    shutil.copytree(run, later)
    command = ["train", "--config", str(run / "config.json"), "--data", str(data.path), "--out", str(later)]
    assert main([*command, "--set", "train.steps=10"]) == 0
    export = ["export", "--run", str(later), "--out", str(tmp_path / "later"), "--delta", str(exported)]
    assert main(export) == 0
    served, whole = load_script(exported / "model.pt"), load_script(tmp_path / "later/model.pt")
    served.update(torch.load(tmp_path / "later/delta.pt"))
    assert int(served.version) == json.loads((tmp_path / "later/signature.json").read_text())["version"]
    raw = parity.sample(load_trained(later), data, "test", 50)
    request = parity.request_of(raw, [e["name"] for e in _inputs(exported)])
    assert served(request)["like"].tolist() == whole(request)["like"].tolist()


@pytest.mark.tried(
    "exports", "`--delta` of a run that read histories un-pooled", "leads to the scores of a whole export"
)
def test_a_delta_of_an_unpooled_run_leads_to_its_whole_export(data: DataFolder, tmp_path: Path, capsys):
    (tmp_path / "arm.json").write_text(json.dumps(to_dict(parts.poso(growing()))))
    train = ["train", "--config", str(tmp_path / "arm.json"), "--data", str(data.path), "--out", str(tmp_path / "run")]
    export = ["export", "--run", str(tmp_path / "run"), "--out"]
    for steps, name, flags in ((4, "base", []), (8, "whole", []), (8, "delta", ["--delta", str(tmp_path / "base")])):
        assert main([*train, "--set", f"train.steps={steps}", "sharding.sequences=unpooled"]) == 0
        assert main([*export, str(tmp_path / name), *flags]) == 0
    assert "sequences: un-pooled" in capsys.readouterr().out
    base, whole = (load_script(tmp_path / name / "model.pt") for name in ("base", "whole"))
    raw = parity.sample(load_trained(tmp_path / "run"), data, "test", 50)
    request = parity.request_of(raw, [e["name"] for e in _inputs(tmp_path / "base")])
    before = base(request)["like"].tolist()
    base.update(torch.load(tmp_path / "delta/delta.pt"))
    assert base(request)["like"].tolist() == whole(request)["like"].tolist() != before
    assert int(base.version) == int(whole.version)


def _inputs(folder: Path) -> list[dict[str, Any]]:
    found = json.loads((folder / "signature.json").read_text())["inputs"]
    return [e for e in found if not e["name"].endswith(".lengths")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "NONE", "--out", "OUT"], "none: holds no run (no config.json)"),
        (["--run", "RUN", "--out", "RUN"], "exists already; give a new folder"),
        (["--run", "RUN", "--out", "OUT", "--data", "NONE"], "none: not a prepared data folder"),
        (["--run", "RUN", "--out", "OUT", "--split", "later"], "no split 'later'; it has test, train, valid"),
        (["--run", "RUN", "--out", "OUT", "--candidate", "hour"], "--candidate hour: no such input; there are hist_"),
        (
            ["--run", "RUN", "--out", "OUT", "--candidate", "hist_like"],
            "--candidate hist_like: is of a sequence, which is given once",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, exported, tmp_path, capsys, arguments, message):
    names = {"RUN": run, "OUT": tmp_path / "out", "NONE": tmp_path / "none", "BASE": exported}
    assert main(["export", *(str(names.get(a, a)) for a in arguments)]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
