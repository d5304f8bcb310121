"""Every dependency has a lowest and a newest version, both of which are tested."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDS = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(n for extra in PROJECT["project"]["optional-dependencies"].values() for n in extra),
]
# What a dependency is installed with, as in moto[s3], makes no other version.
NEEDS = [n if n.startswith("coldrank[") else re.sub(r"\[[\w,]+\]", "", n) for n in NEEDS]


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("need", [n for n in NEEDS if not n.startswith("coldrank[")])
def test_a_dependency_is_bounded_on_both_sides(need: str) -> None:
    exact, low, high = re.fullmatch(r"[\w.-]+(?:==([\d.]+)(?:\.\*)?|>=([\d.]+),<([\d.]+))", need).groups()  # type: ignore[union-attr]
    if exact is None:
        assert version(low) < version(high)


@pytest.mark.parametrize("need", [n for n in PROJECT["project"]["dependencies"] if ">=" in n])
def test_what_is_installed_is_allowed(need: str) -> None:
    name, low, high = re.fullmatch(r"([\w.-]+)>=([\d.]+),<([\d.]+)", need).groups()  # type: ignore[union-attr]
    installed = tuple(int(n) for n in re.findall(r"\d+", importlib.metadata.version(name))[:3])
    assert version(low) <= installed < version(high)


def test_the_lowest_are_printed_for_pip() -> None:
    command = [sys.executable, ROOT / "packaging" / "lowest.py"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    low = dict(re.findall(r"([\w.-]+)>=([\d.]+),<", "\n".join(NEEDS)))
    del low["setuptools"]
    assert dict(line.split("==") for line in lines) == low and len(low) > 20
