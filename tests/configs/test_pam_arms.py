"""PAM's arms: valid, and what parts them from PF."""

import pytest
from tiny import hook_of

from coldrank.configs import pam, pam_kuairand
from coldrank.train.checks import validate
from coldrank.train.difference import difference
from coldrank.train.hooks.make import make_hooks
from coldrank.train.load import arms

ARMS = {f"{m.__name__}:{name}": arm for m in (pam, pam_kuairand) for name, arm in arms(m).items()}


@pytest.mark.parametrize("name", ARMS)
def test_arms_are_valid_and_named_after_themselves(name):
    config = ARMS[name]()
    assert config.name == name.partition(":")[2]
    assert set(make_hooks(config, validate(config))) == set(config.hook_names)


@pytest.mark.parametrize("module", [pam, pam_kuairand])
def test_arms_differ_from_pf_in_the_hook_alone(module):
    for name, arm in arms(module).items():
        if name.startswith(("pf", "pam")):
            changed = {line.partition(":")[0] for line in difference(arm(), module.pf()).splitlines()}
            assert all(field in ("name", "hooks.pam") or field.startswith("pam.") for field in changed), name


def test_the_control_weighs_the_tasks_as_pam_does():
    control, meta = hook_of(pam.pf_balanced(), "pam"), hook_of(pam.pam_m(), "pam")
    assert (control.lambdas, control.cuts, control.query_average) == (meta.lambdas, meta.cuts, meta.query_average)
    assert control.steps == 0


@pytest.mark.parametrize("module", [pam, pam_kuairand])
def test_the_enhancer_is_the_paper_s(module):
    """Eq. 12 and 18: L_S and L_A train the embeddings, and all popular items are dressed."""
    enhanced = [hook for arm in arms(module).values() for hook in arm().hooks if any(getattr(hook, "gamma", ())[1:])]
    assert len(enhanced) >= 3
    assert {(hook.enhancer_trains, hook.dress) for hook in enhanced} == {("all", "all")}


@pytest.mark.parametrize("name", ["base", "poso"])
def test_the_ranker_s_arms_adapt_its_towers(name):
    plain, adapted = getattr(pam_kuairand, name)(), getattr(pam_kuairand, f"{name}_pam")()
    (hook,) = make_hooks(adapted, validate(adapted)).values()
    assert not plain.hooks and hook.names and all(n.startswith("towers.") for n in hook.names)
