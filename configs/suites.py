"""The suites of `coldrank benchmark` (docs/benchmark.md): which methods are held against a base, whatever its data.

A method is a function of the base's config; here are those that this package has, with what their trials draw.
"""

from collections.abc import Callable
from dataclasses import replace

from coldrank.configs import backbones, pam
from coldrank.configs import base as parts
from coldrank.experiments.benchmark.method import BenchmarkMethod, Suite
from coldrank.models.afn import AFN
from coldrank.models.dcn import DCN
from coldrank.models.deepfm import DeepFM
from coldrank.models.din import DIN
from coldrank.models.fm import FM
from coldrank.models.gru4rec import GRU4Rec
from coldrank.models.model import Model
from coldrank.models.pnn import PNN
from coldrank.models.ranker import Ranker
from coldrank.models.wide_deep import WideDeep
from coldrank.train.config import RunConfig
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.hook import Hook
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.sml import SML

_RATES = ("optim.dense.lr*3", "optim.tables.lr*3")
_GATES = ("optim.dense.gate_lr_scale=1|3|10",)
# Where a logit holds the sum over all pairs of fields, the tables' rate is so much lower (configs/backbones.py).
_PAIRS = 5


def _of_ranker(base: RunConfig) -> RunConfig:
    if isinstance(base.model, Ranker):
        return base
    raise ValueError(f"changes parts of the ranker; the base's model is {base.model.kind()}")


def _poso(base: RunConfig) -> RunConfig:
    return parts.poso(_of_ranker(base))


def _pepnet(base: RunConfig) -> RunConfig:
    return parts.pepnet(_of_ranker(base))


def _mwuf(base: RunConfig) -> RunConfig:
    return replace(base, hooks=(*base.hooks, Mwuf(max_views=base.cohorts.new_item_max_views)))


def _backbone(
    name: str, make: Callable[[float], Model], width: int = 0, *, pairs: bool = False
) -> Callable[[RunConfig], RunConfig]:
    """make: the model, of its dropout. width: of all fields; -1: a weight and three factors for each task."""

    def on(base: RunConfig) -> RunConfig:
        rate = base.optim.tables.lr / _PAIRS if pairs else 0.0
        model = make(getattr(base.model, "dropout", backbones.DROPOUT))
        return backbones.on(base, name, model, 4 * len(base.tasks) if width < 0 else width, rate)

    return on


_HIDDEN, _WIDTH = backbones.HIDDEN, backbones.WIDTH

RANKER = Suite(
    name="ranker",
    about="rankers and training methods for new users and items, on passes over the data",
    protocol="passes",
    methods=(
        BenchmarkMethod(name="poso", about="gates by the personalization code in every part", make=_poso, vary=_GATES),
        BenchmarkMethod(
            name="pepnet", about="gates by the code and the ids of user and item", make=_pepnet, vary=_GATES
        ),
        BenchmarkMethod(
            name="posterior",
            about="ID embeddings of cold items are posterior means",
            make=parts.posterior,
            vary=("posterior.strength*3",),
        ),
        BenchmarkMethod(name="mwuf", about="warm ID embeddings for cold items", make=_mwuf, vary=("mwuf.lr_scale*3",)),
        BenchmarkMethod(
            name="metacf",
            about="ID embeddings of new users are adapted to their events",
            make=parts.metacf,
            vary=("metacf.rate*3",),
        ),
        BenchmarkMethod(name="cold_pass", about="a last pass over the samples of new users", make=parts.cold_pass),
        BenchmarkMethod(
            name="cold_weighted",
            about="samples of new users weigh more",
            make=parts.cold_weighted,
            vary=("cold_weight=1.5|2|4",),
        ),
        BenchmarkMethod(
            name="wide_deep",
            about="a linear map beside an MLP",
            make=_backbone("wide_deep", lambda d: WideDeep(tower_hidden=_HIDDEN, dropout=d)),
        ),
        BenchmarkMethod(
            name="dcn",
            about="cross layers beside an MLP (DCN-v2)",
            make=_backbone("dcn", lambda d: DCN(tower_hidden=_HIDDEN, dropout=d)),
        ),
        BenchmarkMethod(
            name="deepfm",
            about="Wide & Deep, and an FM",
            make=_backbone("deepfm", lambda d: DeepFM(tower_hidden=_HIDDEN, dropout=d), _WIDTH, pairs=True),
        ),
        BenchmarkMethod(
            name="fm", about="inner products of all pairs", make=_backbone("fm", lambda _: FM(), -1, pairs=True)
        ),
        BenchmarkMethod(
            name="pnn",
            about="a product layer under an MLP",
            make=_backbone("pnn", lambda d: PNN(tower_hidden=_HIDDEN, dropout=d), _WIDTH),
        ),
        BenchmarkMethod(
            name="afn",
            about="crosses to powers that are learnt, under an MLP",
            make=_backbone("afn", lambda d: AFN(tower_hidden=_HIDDEN, dropout=d), _WIDTH),
        ),
        BenchmarkMethod(
            name="gru4rec",
            about="the history through a GRU",
            make=_backbone("gru4rec", lambda d: GRU4Rec(tower_hidden=_HIDDEN, dropout=d)),
        ),
        BenchmarkMethod(
            name="din",
            about="the history weighed by the candidate",
            make=_backbone("din", lambda d: DIN(tower_hidden=_HIDDEN, dropout=d)),
        ),
    ),
    vary=_RATES,
    by="auc",
    cohort="new_user",
)


def _stream(
    name: str, about: str, make: Callable[[RunConfig], RunConfig], vary: tuple[str, ...] = ("pam.rate=1e-3..1e-1",)
) -> BenchmarkMethod:
    """PAM's arms take the place of whatever hooks there are."""

    def on(base: RunConfig) -> RunConfig:
        if base.hooks:
            raise ValueError(f"is for a base without hooks; it has {', '.join(base.hook_names)}")
        return make(base)

    return BenchmarkMethod(name=name, about=about, make=on, vary=vary)


def _enhanced(*gamma: float) -> Callable[[RunConfig], RunConfig]:
    return lambda base: pam.meta(base, "pam", gamma=gamma)


def _with(hook: Callable[[], Hook]) -> Callable[[RunConfig], RunConfig]:
    return lambda base: replace(base, hooks=(hook(),))


STREAMS = Suite(
    name="streams",
    about="methods for streams of periods, against fine-tuning period by period",
    protocol="periods",
    methods=(
        _stream(
            "pf_balanced",
            "losses weighed by popularity group, nothing adapted",
            pam.balanced,
            ("pam.cold_weight=1|2|4",),
        ),
        _stream("pf_towers", "towers of its own for every popularity group", pam.own_towers, ()),
        _stream("pam_m", "PAM: tasks by popularity and the inner loop", _enhanced(1.0, 0.0, 0.0)),
        _stream("pam_s", "PAM with the self-supervised instructor", _enhanced(1.0, 3.0, 0.0)),
        _stream("pam_a", "PAM with data augmentation", _enhanced(1.0, 0.0, 2.0)),
        _stream("pam_f", "PAM with both", _enhanced(1.0, 3.0, 2.0)),
        _stream("pam_previous", "PAM that adapts to the batch before, equal weights", pam.previous),
        _stream("incctr", "the model of the period before teaches the present one", _with(IncCTR), ()),
        _stream("sml", "a transfer network makes the tables that serve", _with(SML), ()),
        _stream("asmg", "a generator makes the model that serves of the last three", _with(ASMG), ()),
    ),
    vary=_RATES,
    by="recall@5_of_all",
    cohort="cold_item,popular_item",
)

SUITES = {suite.name: suite for suite in (RANKER, STREAMS)}
