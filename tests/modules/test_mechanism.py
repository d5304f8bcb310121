"""POSO's claim on planted teachers: where a few new users follow other gates, personalized modules learn them and
plain ones do not.

Both sides get the same samples, seeds, optimiser (Adam), batches (one pass), and the bucket of the accumulated view
count (AVC) as an ordinary input, so a gain is not the feature's. Of two to four learning rates the one taken is best
for the plain side, or as good within the spread of seeds. Criteria hold for the mean over five seeds, in percentage
points of AUC.

The bounds were set from other draws of the teachers. POSO minus plain there, new | regular users, +- standard deviation
of a seed:

- MLP, Eq. 11, 1% new users: +5.5 +- 2.4 | -.01 +- .02 (+3.9 +- .6 at a rate of .048; there with batches of 512, where
  the plain side is 1 better, +2.4 +- 2.2). The gain is one of scarce data: with 5% new users and 64 hidden units it is
  +1.2 +- .3 at the plain side's best rate, and +3.9 +- 1.7 at a quarter of it, where neither side has arrived.
- Attention, Eq. 14: +15 +- 8 | +.11 +- .09. A linear readout of plain attention cannot switch values by a feature.
- MMoE, Eq. 17-18: +.03 +- .24 | +.03 +- .03. The softmax gate W^t x of the plain MMoE reads AVC itself and weighs the
  experts by cohort, so nothing is left to gain.
- MMoE with AVC in the gates alone, against a plain MMoE without AVC: +15.8 +- 2.8 | +.07 +- .04. That is its test.

A teacher of the form of Eq. 17-18 where POSO(MMoE) gains 2 points with AVC as an input of both was searched for and not
found. Varied: 2 to 64 experts of one or two layers and width 1 to 16, in the teacher and, apart from it, in the
student; 1 to 32 tasks, also with 2% or 10% of the labels of all but one known; routes from flat to nearly one expert;
half the experts on in each cohort, all on for regular users, or a half of its own for every AVC bucket; 1, 2 and 5% new
users; inputs of width 8 to 32; AVC embeddings of scale 1 and .01; 150,000 and 600,000 rows; gates at .1, 1, 3 and 10
times the learning rate. Over two seeds each, the best gains were +2.1 +- 3.7 (2 experts as narrow as the teacher's; +.1
with wider ones) and +.9 +- 1.6, and most lay between -1 and +.5. With as few experts as the teacher's POSO often lost
one or two points, and with 1% new users up to 18 in a single seed; gates at a tenth of the rate neither lost nor
gained. Even with the teacher's gates given, and not learned, it gained at most 3.
"""

from collections.abc import Callable

import pytest
import torch
from sklearn.metrics import roc_auc_score
from teachers import BUCKETS, Draw, Samples, attention_teacher, mlp_teacher, mmoe_teacher, sample
from torch import Tensor, nn

from coldrank.modules import (
    MLP,
    MMoE,
    MultiheadAttention,
    PosoMLP,
    PosoMMoE,
    PosoMultiheadAttention,
    Towers,
)

pytestmark = pytest.mark.slow
SEEDS = range(5)
AVC_DIM = 8


class Student(nn.Module):
    """AVC embedding beside x, the module under test, a linear readout (of x too where the module is attention)."""

    def __init__(self, module: nn.Module, readout: nn.Module, avc_as_input: bool = True) -> None:
        super().__init__()
        self.module, self.readout, self.avc_as_input = module, readout, avc_as_input
        self.embedding = nn.Embedding(BUCKETS, AVC_DIM)

    def forward(self, samples: Samples, rows: Tensor) -> Tensor:
        pc = self.embedding(samples.avc[rows])
        x, *sequence = (tensor[rows] for tensor in samples.inputs)
        if self.avc_as_input:
            x = torch.cat([x, pc], 1)
        y = self.module(x, *sequence, pc)
        logits: Tensor = self.readout(torch.cat([x, y], 1) if sequence else y)
        return logits


def mlp_student(poso: bool) -> Student:
    width = 32 + AVC_DIM
    return Student(PosoMLP(width, (128,), pc_dim=AVC_DIM) if poso else MLP(width, (128,)), nn.Linear(128, 1))


def attention_student(poso: bool) -> Student:
    """Twice the teacher's heads: with as many, some seeds end in a worse minimum, which is noise on both sides."""
    width = 8 + AVC_DIM
    module = PosoMultiheadAttention(width, 8, 8, 4, pc_dim=AVC_DIM) if poso else MultiheadAttention(width, 8, 8, 4)
    return Student(module, nn.Linear(width + 32, 1))


def mmoe_student(poso: bool, avc_as_input: bool = True) -> Student:
    """Four times the teacher's experts: with as many, the student seldom finds the teacher's, nor POSO their gates."""
    width = 8 + AVC_DIM * avc_as_input
    module = PosoMMoE(width, 16, (12, 16), 2, pc_dim=AVC_DIM) if poso else MMoE(width, 16, (12, 16), 2)
    return Student(module, Towers(16, (), 2), avc_as_input)


def train(build: Callable[[], Student], samples: Samples, seed: int, learning_rate: float, batch: int) -> Student:
    """One pass, the learning rate falling linearly to 0; the seed fixes weights and order, and gives both sides the
    same."""
    torch.manual_seed(seed)
    student = build()
    optimizer = torch.optim.Adam(student.parameters(), learning_rate)
    order = torch.randperm(len(samples.avc), generator=torch.Generator().manual_seed(seed))
    batches = torch.split(order, batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(batches))
    for rows in batches:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(student(samples, rows), samples.labels[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return student


@torch.no_grad()
def auc(student: Student, samples: Samples) -> Tensor:
    """AUC in percent, mean over tasks, of new and of regular users."""
    scores = student(samples, torch.arange(len(samples.avc)))
    cohorts = [samples.new, ~samples.new]
    tasks = range(scores.shape[1])
    by_task = [[roc_auc_score(samples.labels[c, t], scores[c, t]) for t in tasks] for c in cohorts]
    return 100 * torch.tensor(by_task).mean(1)


def gain(
    teacher: Callable[[int], Draw],
    student: Callable[[bool], Student],
    *,
    rows: int,
    learning_rate: float,
    batch: int,
    new_rate: float = 0.05,
) -> tuple[float, float]:
    """AUC of the personalized minus the plain student, mean over SEEDS: on new users and on regular users."""
    gains = []
    for seed in SEEDS:
        draw = teacher(seed)
        samples, test = sample(draw, rows, new_rate, 2 * seed), sample(draw, 80_000, 0.5, 2 * seed + 1)
        plain, poso = (
            auc(train(lambda p=p: student(p), samples, seed, learning_rate, batch), test)  # type: ignore[misc]
            for p in (False, True)
        )
        gains.append(poso - plain)
    print(f"gain per seed (new, regular): {[g.tolist() for g in gains]}")
    new, regular = torch.stack(gains).mean(0).tolist()
    return new, regular


def test_mlp_eq_11() -> None:
    new, regular = gain(mlp_teacher, mlp_student, rows=150_000, learning_rate=0.034, batch=1024, new_rate=0.01)
    assert new >= 2 and regular >= -0.1


def test_attention_eq_14() -> None:
    new, regular = gain(attention_teacher, attention_student, rows=200_000, learning_rate=2e-2, batch=1024)
    assert new >= 2 and regular >= -0.1


def test_mmoe_eq_17_with_avc_in_the_gates_alone() -> None:
    new, regular = gain(
        mmoe_teacher, lambda poso: mmoe_student(poso, False), rows=150_000, learning_rate=4e-2, batch=512
    )
    assert new >= 2 and regular >= -0.1


def test_mmoe_eq_17_with_avc_as_an_input_of_both() -> None:
    """No gain is expected, and no loss: the bound on new users is two standard deviations of a seed."""
    new, regular = gain(mmoe_teacher, mmoe_student, rows=150_000, learning_rate=4e-2, batch=512)
    assert new >= -0.5 and regular >= -0.1
