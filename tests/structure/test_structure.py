"""The shape of the project: import direction, one import name, files that read."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import spec_fields

ROOT = Path(__file__).parents[2]
# Each imports from those before it.
ROOMS = ["modules", "models", "data", "metrics", "train", "serving", "analysis", "experiments", "configs", "cli"]
FILES = [p for layer in ROOMS for p in sorted((ROOT / layer).rglob("*.py"))]


# The names that torchx starts; what they start lies in cli.
STARTS = [ROOT / "train/main.py", ROOT / "train/component.py"]


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, for types alone as well: coldrank's by their own files."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{a.name}" for a in node.names}
            names |= (inside & MODULES.keys()) or {node.module or ""}
    return names


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("coldrank", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module(path): path for path in FILES}


@pytest.mark.parametrize("path", [f for f in FILES if f not in STARTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        first, _, rest = name.partition(".")
        assert first not in ROOMS, f"{name}: import it as coldrank.{name}"
        if first == "coldrank" and rest:
            assert ROOMS.index(rest.split(".")[0]) <= ROOMS.index(room), f"{room} imports {name}"


def test_no_circle_between_files():
    left = {name: imports(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while free := [name for name, of in left.items() if not of & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_a_path_is_never_a_pattern():
    # polars takes brackets, stars and question marks in a path for a pattern, unless it is told not to.
    readers = {f"{verb}_{kind}" for verb in ("read", "scan") for kind in ("parquet", "csv", "ipc", "ndjson", "json")}
    for path in [*FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in readers:
                told = [ast.unparse(k) for k in node.keywords]
                assert "glob=False" in told, f"{path}, line {node.lineno}: {ast.unparse(node.func)} without glob=False"


def test_packages_are_those_on_disk():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {p.parent for layer in ROOMS for p in (ROOT / layer).rglob("__init__.py")}
    assert sorted(listed) == sorted(["coldrank", *(f"coldrank.{'.'.join(f.relative_to(ROOT).parts)}" for f in folders)])
    for layer in ROOMS:
        assert (ROOT / "src/coldrank" / layer).resolve() == ROOT / layer


def test_test_files_have_names_of_their_own():
    # pytest imports them by their names alone.
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


def test_a_public_class_has_a_name_of_its_own():
    # The module of a method, or the experiment's, and the hook that trains it bear the method's name.
    methods = {"Mwuf", "MetaCF", "Posterior"}
    names = [n.name for p in FILES for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.ClassDef)]
    assert {n for n in names if names.count(n) > 1 and not n.startswith("_")} == methods


def test_pages_are_short_and_their_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text()
        assert page.name == "inputs.md" or text.count("\n") < 200, page
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.slow
def test_the_page_of_inputs_is_what_the_tests_say(tmp_path):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", f"--write-inputs={tmp_path}/inputs.md"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    page = (ROOT / "docs" / "inputs.md").read_text()
    assert page == (tmp_path / "inputs.md").read_text(), "make inputs writes it anew"
    assert sum(line.endswith("` |") for line in page.splitlines()) >= 60


def test_the_page_of_a_specs_fields_is_what_the_code_says():
    assert spec_fields.PAGE.read_text() == spec_fields.page(), "make inputs writes it anew"
