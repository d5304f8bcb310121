"""The command line: help that answers at once, and one file a command."""

import subprocess
import sys
from pathlib import Path

import pytest

from coldrank.cli.main import parser

ROOT = Path(__file__).parents[2]
NO_COMMANDS = {"__init__", "engine", "main", "options", "spec_options"}
LOADED = """
import sys
before = set(sys.modules)
from coldrank.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["prepare", "kuairand", "--help"]])
def test_help_loads_no_library(arguments):
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "coldrank" in loaded
    assert loaded - sys.stdlib_module_names == {"coldrank"}


def test_each_command_has_a_file_of_its_name():
    (commands,) = (action.choices for action in parser()._actions if action.dest == "command")
    files = {path.stem for path in (ROOT / "cli").glob("*.py")}
    assert files - NO_COMMANDS == commands.keys()
