"""An export folder is what was written, or its file is named; and a delta leads to the very model that it comes
with."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served import CONFIGS, exported, random_model, rows_of
from tiny import changed

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.serving.export import lead, parity
from coldrank.serving.export.digests import verify, write_digests
from coldrank.serving.export.structure import load_script, structure
from coldrank.serving.export.trained import Trained
from coldrank.serving.export.triton import write_repository


@pytest.fixture(scope="module")
def two(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two exports of one config with other weights."""
    folder = tmp_path_factory.mktemp("two")
    for name, seed in (("a", 0), ("b", 1)):
        twin = exported(random_model(CONFIGS["base"](), data, seed), folder / name)
        write_repository(twin, folder / name / "triton")
        torch.save({"sum": torch.tensor(seed)}, folder / name / "delta.pt")
        write_digests(folder / name)
    return folder / "a", folder / "b"


@pytest.fixture
def folder(two: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first."""
    return Path(shutil.copytree(two[0], tmp_path / "export"))


FILES = (
    "model.pt",
    "signature.json",
    "config.json",
    "delta.pt",
    "triton/coldrank/1/model.pt",
    "triton/coldrank/config.pbtxt",
)


def tried(given: str, answer: str = "the file is named, before anything is loaded") -> pytest.MarkDecorator:
    return pytest.mark.tried("exports", given, answer)


@tried("a whole export folder", "taken, by `sha256sum -c` as well")
def test_a_whole_folder_is_verified(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "--verify", str(folder)]) == 0
    assert "every file is as it was written" in capsys.readouterr().out
    listed = (folder / "sha256sums.txt").read_text().splitlines()
    assert sorted(line[66:] for line in listed) == sorted(FILES)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "sha256sums.txt"], cwd=folder, check=True)


@pytest.mark.parametrize("name", FILES)
@tried("a flipped bit in any file of an export, Triton's copy and a delta as well")
def test_a_flipped_bit_is_found_wherever_it_is(name: str, folder: Path):
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    for at in (0, len(whole) - 1, *rng.integers(0, len(whole), 3).tolist()):
        content = bytearray(whole)
        content[at] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: is damaged, or of another export, by sha256sums.txt"):
            verify(folder)
    (folder / name).write_bytes(whole)
    verify(folder)


def harmed(given: str, harm: Callable[[Path, Path], object], message: str) -> Any:
    """harm: what is done to an export, which may take from another one."""
    return pytest.param(harm, message, marks=tried(given))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        harmed("a missing file", lambda a, b: (a / "config.json").unlink(), "config.json: is missing"),
        harmed("a file too many", lambda a, b: (a / "new.pt").touch(), "new.pt: is not of this export"),
        harmed(
            "a file cut off",
            lambda a, b: (a / "model.pt").write_bytes((a / "model.pt").read_bytes()[:-9]),
            "model.pt: is damaged",
        ),
        harmed("an empty file", lambda a, b: (a / "model.pt").write_bytes(b""), "model.pt: is damaged"),
        harmed(
            "another export's model",
            lambda a, b: shutil.copy(b / "model.pt", a),
            "model.pt: is damaged, or of another export",
        ),
        harmed(
            "another export's signature",
            lambda a, b: shutil.copy(b / "signature.json", a),
            "signature.json: is damaged, or of another",
        ),
        harmed(
            "another export's digests",
            lambda a, b: shutil.copy(b / "sha256sums.txt", a),
            "delta.pt: is damaged, or of another export",
        ),
        harmed(
            "no digests", lambda a, b: (a / "sha256sums.txt").unlink(), "no export folder .sha256sums.txt: No such file"
        ),
        harmed(
            "digests that are none",
            lambda a, b: (a / "sha256sums.txt").write_text("x"),
            "sha256sums.txt, line 1: is no digest of a file",
        ),
        harmed(
            "digests of no file",
            lambda a, b: (a / "sha256sums.txt").write_text(""),
            "sha256sums.txt: lists no signature.json",
        ),
        harmed(
            "digests that are no text",
            lambda a, b: (a / "sha256sums.txt").write_bytes(b"\xff"),
            "sha256sums.txt: is no text",
        ),
        harmed("no folder", lambda a, b: shutil.rmtree(a), "no export folder"),
    ],
)
def test_what_is_not_as_it_was_written_is_named(two, folder, data, tmp_path, capsys, harm, message):
    harm(folder, two[1])
    with pytest.raises(UserError, match=message) as refused:
        verify(folder)
    assert "\n" not in str(refused.value)
    source = data.files(("test",))[0]
    for command in (
        ["score", "--artifact", str(folder), "--input", str(source), "--out", str(tmp_path / "y.parquet")],
        ["export", "--verify", str(folder)],
    ):
        assert main(command) == 2
        assert str(refused.value) in capsys.readouterr().err
    assert not (tmp_path / "y.parquet").exists()


@tried("`--delta` from a damaged export", "refused, the file named, before any work")
def test_a_delta_from_a_damaged_export_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "config.json").write_text("{}")
    command = ["export", "--run", str(tmp_path / "no-run"), "--out", str(tmp_path / "out"), "--delta", str(folder)]
    assert main(command) == 2
    assert "config.json: is damaged, or of another export" in capsys.readouterr().err


@tried("`export --verify` with an option of writing", "refused, for it has no effect")
@tried("`export` without `--out`", "refused")
def test_options_that_do_not_go_together(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "--verify", str(folder), "--tables", "int8"]) == 2
    assert "--tables: has no effect with --verify" in capsys.readouterr().err
    assert main(["export", "--run", str(folder)]) == 2
    assert "--out: is missing" in capsys.readouterr().err


ARM = "poso_pam_mwuf_metacf"
Change = Callable[[Trained], Trained]


def requests(trained: Trained, data: DataFolder) -> list[parity.Request]:
    raw = rows_of(trained, data)
    return [parity.request_of(part, trained.reads) for part in parity.in_batches(raw, 50)]


@pytest.fixture(scope="module")
def base(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained, int]:
    """An export with every hook, its run, and its version."""
    trained = random_model(CONFIGS[ARM](), data)
    folder = tmp_path_factory.mktemp("base") / "export"
    return folder, trained, int(exported(trained, folder).version)


def other(**fields: object) -> Callable[[DataFolder], Trained]:
    """A run of the same weights with other numbers in its config: `mwuf__max_views=7`."""
    config = CONFIGS[ARM]()
    for name, value in fields.items():
        part, _, field = name.partition("__")
        config = changed(config, part, **{field: value})
    return lambda data: random_model(config, data)


CONSTANTS = {
    "mwuf.max_views": other(mwuf__max_views=37),
    "metacf.max_views": other(metacf__max_views=7),
    "metacf.steps": other(metacf__steps=1),
    "metacf.fraction": other(metacf__fraction=0.5),
}


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(field, marks=tried(f"`--delta` to a run with another {field}", "refused, the field named"))
        for field in CONSTANTS
    ],
)
def test_a_delta_between_models_with_other_constants_is_refused(field: str, base, data: DataFolder, tmp_path: Path):
    folder, _, version = base
    trained = CONSTANTS[field](data)
    assert int(exported(trained, tmp_path / "new").version) != version
    assert structure(folder / "model.pt") != structure(tmp_path / "new/model.pt")
    with pytest.raises(UserError, match=f"its config differs .{field}: .* -> .*, which a delta does not change"):
        lead.write_delta(folder, tmp_path / "new", requests(trained, data))
    assert not (tmp_path / "new/delta.pt").exists()


@tried("`--delta` to a model that answers otherwise, were it not noticed in its code", "refused after scoring")
def test_a_delta_is_held_against_the_new_model_s_answers(base, data: DataFolder, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(lead, "structure", lambda path: "as if equal")
    for field in ("mwuf.max_views", "metacf.max_views"):
        trained, folder = CONSTANTS[field](data), tmp_path / field
        exported(trained, folder)
        with pytest.raises(UserError, match="an updated model answers .* otherwise than the new one; export it whole"):
            lead.write_delta(base[0], folder, requests(trained, data))


@tried("a delta after which one of many requests is answered otherwise", "refused")
def test_every_request_is_held_against_the_new_model(base, data: DataFolder, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(lead, "structure", lambda path: "as if equal")
    trained = CONSTANTS["mwuf.max_views"](data)
    exported(trained, tmp_path / "new")
    raw = rows_of(trained, data)
    alike = np.flatnonzero((raw["item_views"] > 100) | (raw["item_views"] < 30))  # warm by neither limit, or by both
    others = np.flatnonzero((raw["item_views"] > 40) & (raw["item_views"] < 90))
    of = lambda rows: parity.request_of(parity.take_rows(raw, rows), trained.reads)
    lead.write_delta(base[0], tmp_path / "new", [of(alike)])
    with pytest.raises(UserError, match="an updated model answers .* otherwise than the new one"):
        lead.write_delta(base[0], tmp_path / "new", [of(alike), of(alike), of(np.append(alike[:50], others[:1]))])


@tried("a model that answers NaN after a delta", "refused")
def test_nan_is_no_answer():
    whole = {"like": torch.tensor([0.5, 0.25])}
    lead.check_answers(whole, whole, "--delta x")
    for wrong in ([0.5, float("nan")], [0.5, 0.2501]):
        with pytest.raises(UserError, match="--delta x: an updated model answers like otherwise"):
            lead.check_answers({"like": torch.tensor(wrong)}, whole, "--delta x")
        with pytest.raises(UserError, match="--delta x: an updated model answers like otherwise"):
            lead.check_answers(whole, {"like": torch.tensor(wrong)}, "--delta x")


@tried("`--delta` between runs with other hooks", "refused, the field named")
@tried("`--delta` between exports with other --tables", "refused, the tensor named")
def test_a_delta_between_other_models_is_refused(data: DataFolder, tmp_path: Path):
    plain, pam = (random_model(CONFIGS[n](), data) for n in ("base", "base_pam"))
    exported(plain, tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    assert config["hooks"] == {}
    exported(pam, tmp_path / "pam")
    with pytest.raises(UserError, match="signature.json has other inputs|its config differs .(hooks|tables)"):
        lead.write_delta(tmp_path / "base", tmp_path / "pam", [])
    mwuf, both = (random_model(CONFIGS[n](), data) for n in ("poso_metacf_mwuf", ARM))
    exported(mwuf, tmp_path / "mwuf")
    exported(both, tmp_path / "both")
    with pytest.raises(UserError, match="its config differs .hooks: "):
        lead.write_delta(tmp_path / "mwuf", tmp_path / "both", [])
    exported(plain, tmp_path / "int8", "int8")
    with pytest.raises(UserError, match="tensor core.stage.stores.0.rows.weight has another shape or type there"):
        lead.write_delta(tmp_path / "base", tmp_path / "int8", [])


@tried("`--delta` to later weights of the same run", "an updated model is the new one, its version as well")
def test_a_delta_to_other_weights_leads_there(base, data: DataFolder, tmp_path: Path):
    folder, trained, version = base
    later = random_model(trained.config, data, seed=3)
    twin = exported(later, tmp_path / "new")
    lead.write_delta(folder, tmp_path / "new", requests(later, data))
    served = load_script(folder / "model.pt")
    served.update(torch.load(tmp_path / "new/delta.pt", weights_only=True))
    assert (
        int(served.version) == int(twin.version) == json.loads((tmp_path / "new/signature.json").read_text())["version"]
    )
    assert int(served.version) != version
    request = requests(later, data)[0]
    torch.testing.assert_close(served(request), twin(request), rtol=0, atol=1e-6)


@tried(
    "`--delta` to a run with other pam.cuts, which are a tensor of the model",
    "carried; the updated model is the new one",
)
def test_a_delta_carries_what_is_a_tensor(base, data: DataFolder, tmp_path: Path):
    later = other(pam__cuts=(10, 30, 60))(data)
    twin = exported(later, tmp_path / "new")
    lead.write_delta(base[0], tmp_path / "new", requests(later, data))
    served, request = load_script(base[0] / "model.pt"), requests(later, data)[0]
    before = served(request)["like"]
    served.update(torch.load(tmp_path / "new/delta.pt", weights_only=True))
    torch.testing.assert_close(served(request)["like"], twin(request)["like"], rtol=0, atol=1e-6)
    assert (served(request)["like"] - before).abs().max() > 1e-3 and int(served.version) != base[2]


@tried("models of equal code from processes that scripted other things before", "one version")
def test_the_structure_is_that_of_the_model_alone(base, data: DataFolder, tmp_path: Path, monkeypatch):
    # As in another process, types get other numbers in their names.
    monkeypatch.setattr(torch.jit._recursive, "concrete_type_store", torch.jit._recursive.ConcreteTypeStore())
    exported(random_model(CONFIGS["dcn"](), data), tmp_path / "between")
    again = random_model(CONFIGS[ARM](), data)
    assert int(exported(again, tmp_path / "again").version) == base[2]


class Toy(torch.nn.Module):
    """What `structure` reads of a model."""

    state: dict[str, torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.state, self.version = {"x": torch.ones(2)}, torch.tensor(0)

    @torch.jit.export
    def update(self, delta: torch.Tensor) -> None:
        self.version.copy_(delta)


class Doubles(Toy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Trebles(Toy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


@tried("`--delta` to a model of other code with the same state", "another version, so refused")
def test_the_structure_tells_code_apart(tmp_path: Path):
    found = {}
    for kind in (Doubles, Trebles):
        kind.__name__ = kind.__qualname__ = "Same"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            torch.jit.save(torch.jit.script(kind()), str(tmp_path / "model.pt"))
        found[kind] = structure(tmp_path / "model.pt")
    assert found[Doubles] != found[Trebles]


@tried("a delta that lacks a row that no recorded sample reads", "refused")
def test_every_tensor_is_held_against_the_new_model_s(base, data: DataFolder, tmp_path: Path, monkeypatch):
    folder, trained, _ = base
    later = random_model(trained.config, data, seed=3)
    exported(later, tmp_path / "new")
    made = lead.delta

    def lacking(before: dict[str, torch.Tensor], version: torch.Tensor, *after: Any) -> dict[str, torch.Tensor]:
        new = dict(after[0])
        name = "core.stage.stores.0.rows.weight"
        new[name] = torch.cat([before[name][:1], new[name][1:]])
        return made(before, version, new, after[1])

    monkeypatch.setattr(lead, "delta", lacking)
    with pytest.raises(UserError, match="leads to another core.stage.stores.0.rows.weight than the new model's"):
        lead.write_delta(folder, tmp_path / "new", [])
