"""Arms as people write them, in a module of their own: what is found, and what is said of what is none."""

import json
import sys
from pathlib import Path

import pytest
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.models.dcn import DCN
from coldrank.models.deepfm import DeepFM
from coldrank.models.model import Model
from coldrank.models.two_tower import TwoTower
from coldrank.train.config import RunConfig, component, to_dict
from coldrank.train.former import with_new_names
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.load import arms, load

HEAD = """from dataclasses import replace
from functools import cache, partial
from coldrank.train.config import RunConfig
from tiny import sample_base
called = []
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module; its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def text(body: str, name: str = "my_arms") -> str:
        (tmp_path / f"{name}.py").write_text(HEAD + body)
        return name

    return text


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("configs and runs", given, answer)


def of(body: str, given: str, answer: str, identity: str) -> object:
    return pytest.param(body, marks=tried(given, answer), id=identity)


@pytest.mark.parametrize(
    "body",
    [
        of("def mine():\n    return replace(sample_base(), seed=7)", "an arm without annotation", "the arm", "bare"),
        of(
            "def mine() -> 'RunConfig':\n    return replace(sample_base(), seed=7)",
            "one in quotes",
            "the arm",
            "string",
        ),
        of("mine = lambda: replace(sample_base(), seed=7)", "an arm that is a lambda", "the arm", "lambda"),
        of("mine = partial(replace, sample_base(), seed=7)", "an arm that is a partial", "the arm", "partial"),
        of(
            "def mine(seed=7):\n    return replace(sample_base(), seed=seed)",
            "an arm with defaults",
            "the arm",
            "default",
        ),
        of(
            "def mine(*, seed: int = 7, **more):\n    return replace(sample_base(), seed=seed)",
            "keywords",
            "the arm",
            "kw",
        ),
        of(
            "@cache\ndef mine():\n    return replace(sample_base(), seed=7)",
            "an arm that is cached",
            "the arm",
            "cache",
        ),
        of(
            "def plain(f):\n    def wrapped(*a, **k):\n        return f(*a, **k)\n    return wrapped\n"
            "@plain\ndef mine():\n    return replace(sample_base(), seed=7)",
            "an arm under a decorator without wraps",
            "the arm",
            "decorated",
        ),
        of(
            "def _mine():\n    return replace(sample_base(), seed=7)\nmine = _mine",
            "an arm by another name",
            "it",
            "alias",
        ),
    ],
)
def test_what_returns_a_config_is_an_arm(write, body):
    module = write(body)
    assert load(f"{module}:mine").seed == 7
    write(f"from {module} import mine", "their_arms")
    assert load("their_arms:mine").seed == 7, "imported into another module"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            "def mine():\n    replace(sample_base(), seed=7)",
            r"my_arms:mine: mine\(\) returned nothing, not a RunConfig",
            marks=tried("an arm that forgets to return", "one line: it returned nothing"),
        ),
        pytest.param(
            "def mine():\n    return {'name': 'x'}",
            r"mine\(\) returned dict \{'name': 'x'\}, not a RunConfig",
            marks=tried("an arm that returns something else", "one line with what it returned"),
        ),
        pytest.param(
            "mine = sample_base()",
            "mine is a RunConfig; an arm is a function that returns a RunConfig",
            marks=tried("a config in the place of a function", "one line: an arm is a function"),
        ),
        pytest.param(
            "def mine(base, *, scale):\n    return base",
            "mine needs base, scale; an arm is a function without required arguments",
            marks=tried("an arm with required arguments", "one line that names them"),
        ),
        pytest.param(
            "def mine():\n    return replace(sample_base(), sed=7)",
            r"mine\(\) raised TypeError: .*'sed' \(my_arms.py, line 7\)",
            marks=tried("an arm that sets a field that is not there", "one line with field, file and line"),
        ),
        pytest.param(
            "def mine():\n    import sys\n    sys.exit('no')",
            r"mine\(\) raised SystemExit: no \(my_arms.py, line 8\)",
            marks=tried("an arm that ends the process", "one line"),
        ),
        pytest.param(
            "def mine():\n    return replace(sample_base(), seed={1})",
            "a field holds what a config.json cannot: .*set",
            marks=tried("a set in a field", "one line"),
        ),
        pytest.param(
            "def mien():\n    return sample_base()",
            "my_arms has no arm 'mine'; it has mien, sample_base; did you mean 'mien'\\?",
            marks=tried("a misspelt arm", "did you mean, and the arms that there are"),
        ),
        pytest.param("DEFAULT = 3", "no arm 'mine'; it has sample_base", id="none"),
        pytest.param(
            "1 / 0",
            r"importing my_arms raised ZeroDivisionError: division by zero \(my_arms.py, line 6\)",
            marks=tried("a config module that raises on import", "one line with the error, file and line"),
        ),
        pytest.param(
            "def mine(:",
            r"importing my_arms raised SyntaxError: .* \(my_arms.py, line 6\)",
            marks=tried("a config module with a syntax error", "one line with file and line"),
        ),
        pytest.param(
            "import not_installed_here",
            r"importing my_arms raised ModuleNotFoundError: "
            r"No module named 'not_installed_here' \(my_arms.py, line 6\)",
            marks=tried("a config module that imports what is missing", "one line that names the missing one"),
        ),
        pytest.param("raise SystemExit(3)", "importing my_arms raised SystemExit: 3", id="exit"),
    ],
)
def test_what_is_no_arm_is_named(write, body, message):
    with pytest.raises(UserError, match=message) as error:
        load(f"{write(body)}:mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "my_arms.py:mine",
            "my_arms.py is a file's path; write my_arms:arm",
            marks=tried("a file in the place of a module", "one line: the module's name"),
        ),
        ("./teams/my_arms.py:mine", "write teams.my_arms:arm"),
        ("teams/my_arms:mine", "write teams.my_arms:arm"),
        ("my arms:mine", "write package.module:function"),
        (":mine", "write package.module:function"),
        ("..mine", "write package.module:function"),
        ("my_nowhere.deeper:mine", "no module 'my_nowhere'"),
    ],
)
def test_sources_that_are_no_modules(source, message):
    with pytest.raises(UserError, match=message):
        load(source)


@tried("helpers beside the arms that write files or fail", "not called, and not among the arms")
def test_only_the_arm_that_is_asked_for_is_called(write):
    other = "def stray():\n    called.append('stray')\n"
    write(other, "their_helpers")
    body = (
        "from their_helpers import stray\nfrom os import getcwd\n"
        "def mine():\n    called.append('mine')\n    return sample_base()\n"
        "def other():\n    called.append('other')\n"
        "def number() -> int:\n    called.append('number')\n    return 1\n"
        "def _hidden():\n    called.append('hidden')\n"
        "class Team:\n    pass\n"
    )
    module = write(body)
    load(f"{module}:mine")
    assert sys.modules[module].called == ["mine"] and sys.modules["their_helpers"].called == []
    assert list(arms(sys.modules[module])) == ["mine", "other", "sample_base"]


def test_a_default_is_a_name(write):
    with pytest.raises(UserError, match="my_arms.DEFAULT is a int; write the arm's name, in quotes"):
        load(write("DEFAULT = 3"))
    assert load(write("DEFAULT = 'mine'\nmine = lambda: replace(sample_base(), seed=9)", "my_second")).seed == 9


@tried("a number that is NaN or infinite", "refused, with the field")
@pytest.mark.parametrize("value", ["nan", "NaN", "Infinity", "-inf", "1e999"])
def test_numbers_are_finite(write, value):
    module = write("def mine():\n    return sample_base()")
    for field in ("optim.dense.lr", "tasks.like", "cold_weight", "model.gate_scale"):
        with pytest.raises(UserError, match=f"{field}.*=.*: input should be a finite number"):
            load(f"{module}:mine", [f"{field}={value}"])


def test_a_number_is_not_a_switch(write):
    with pytest.raises(UserError, match="--set train.epochs=true: train.epochs takes a number"):
        load(write("def mine():\n    return sample_base()") + ":mine", ["train.epochs=true"])


@tried("a config.json with mwuf.below_views=50", "read as mwuf.max_views=49: the same items")
@pytest.mark.parametrize("hooks", [(), ("mwuf",), ("metacf", "mwuf")])
def test_a_config_of_before_counts_as_it_did(tmp_path, hooks):
    values = to_dict(sample_base()) | {"hooks": hooks, "two_tower": None}
    for hook, below in ((Mwuf(), 50), (MetaCF(), 11), (Pam(), None)):
        section = values[hook.short_name()] = hook.to_json()
        del section["kind"]
        if below:
            del section["max_views"]
            section["below_views"] = below
    values["model"]["crosses"] = 3
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = load(str(tmp_path / "config.json"))
    assert config.hook_names == list(hooks) and config.model == sample_base().model
    assert [hook.max_views for hook in config.hooks] == [{"mwuf": 49, "metacf": 10}[name] for name in hooks]
    if "mwuf" in hooks:
        changed = load(str(tmp_path / "config.json"), ["mwuf.max_views=30"])
        assert changed.hook(Mwuf).max_views == 30


@tried("--set mwuf.below_views=50", "refused: write mwuf.max_views=49")
def test_a_field_s_former_name_is_told():
    with pytest.raises(UserError, match="no field 'mwuf'; .* is mwuf.max_views=49 now, views of at most so"):
        load("coldrank.configs.kuairand:base", ["mwuf.below_views=50"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no config: a list"),
        ("{}", ": name: field required"),
        ("{", "Expecting property name"),
        ("\udcff", "invalid start byte"),
    ],
)
def test_files_that_are_no_config(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        load(str(path))
    assert len(str(error.value)) < 300


def test_several_fields_after_one_set(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict(sample_base())))
    command = ["plan", "--config", str(config), "--world-size", "1", "--hbm", "1GiB"]
    assert main([*command, "--set", "model.heads=0", "seed=2", "--set", "seed=3"]) == 2
    assert "model.heads=0: must be above 0" in capsys.readouterr().err
    assert main([*command, "--set", "seed=2", "model.heads=0"]) == 2
    assert "model.heads=0: must be above 0" in capsys.readouterr().err


def test_every_arm_of_this_package_declares_what_it_returns():
    folder = Path(sys.modules[RunConfig.__module__].__file__).parents[1] / "configs"
    for path in folder.glob("*.py"):
        module = __import__(f"coldrank.configs.{path.stem}", fromlist=["x"])
        assert all(f.__annotations__["return"] is RunConfig for f in arms(module).values()), path


@pytest.mark.parametrize(
    ("model", "two_tower", "expected"),
    [
        (
            {"kind": "deepfm", "tower_hidden": [8], "dropout": 0.2, "heads": 4, "crosses": 3},
            None,
            DeepFM(tower_hidden=(8,), dropout=0.2),
        ),
        (
            {"kind": "dcn", "tower_hidden": [8], "dropout": 0.2, "heads": 4, "crosses": 2},
            None,
            DCN(tower_hidden=(8,), dropout=0.2, crosses=2),
        ),
        ({"kind": "ranker", "heads": 4}, {"widths": [6], "temperature": 0.1}, TwoTower(widths=(6,), temperature=0.1)),
    ],
)
def test_a_model_of_before_is_read(model, two_tower, expected):
    values = with_new_names({"model": model, "two_tower": two_tower, "hooks": []})
    assert component(Model, values["model"], "config: model") == expected
