"""Settings of PAM."""

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True, slots=True)
class PamConfig:
    """docs/pam.md explains them with the paper's symbols.

    cuts: views of the item before the event at which the tasks part; quantiles: take as many tasks, of equally many rows of the
    first period or of the passes' `data.fit`, in their place (0: the cuts). cold: the task (0-based) of cold items. cold_weight, other_weight: lambda, of
    its loss and of those of the others.
    steps, rate, second_order: of the inner loop; without steps the hook only weighs the tasks' losses. support: share of a task's
    rows in a batch, which come first; the others are query, or with query=all every row is. support_of=previous: the support rows
    are the last of the batch before, as in serving, and every row of a batch is query. support_average, query_average:
    a task's loss is the sum over its rows divided by the rows of the batch, or the mean over its own rows. candidates: of a row of
    a support or query set: the users of that set's rows, or of the whole batch. step_weights: of the query losses after 0, 1, ... inner steps (empty: that of the last alone).
    adapt: what of the model is adapted, by the beginning of its parameters' names. across: whether every rank adapts to its
    own rows or all to those of all ranks.
    serve_decay: Omega of the tasks in the next period is Theta plus the moving mean, with this decay, of what their batches'
    inner loops added (0: of the last batch). own: tasks also have offsets of their own, learned like Theta.
    gamma: weights of the losses L_M, L_S, L_A. behaviour: features of the item that the store keeps, its id first. store:
    keep a cold item as it was last, or at a number of views that differs from item to item. dress: the tasks whose rows are
    dressed as cold for L_A, all popular ones (the paper's) or the one next to the cold one. enhancer_trains: what L_S and L_A
    train, all that the loss trains, embeddings as well (the paper's Eq. 18), or the towers alone.
    adapt_on_test_labels: evaluation adapts on the labels under test, as the authors' released code does; a leak, for
    comparison with published figures alone.
    """

    cuts: tuple[int, ...] = (5, 50, 200, 1000, 5000)
    quantiles: int = 0
    cold: int = 1
    cold_weight: float = 2.0
    other_weight: float = 0.5
    steps: int = 2
    rate: float = 1e-3
    second_order: bool = True
    support: float = 0.25
    support_of: Literal["batch", "previous"] = "batch"
    query: Literal["rest", "all"] = "rest"
    support_average: Literal["batch", "task"] = "task"
    query_average: Literal["batch", "task"] = "batch"
    candidates: Literal["set", "batch"] = "batch"
    step_weights: tuple[float, ...] = ()
    adapt: tuple[str, ...] = ("towers",)
    across: Literal["rank", "ranks"] = "rank"
    serve_decay: float = 0.0
    own: bool = False
    gamma: tuple[float, float, float] = (1.0, 0.0, 0.0)
    behaviour: tuple[str, ...] = ("item_id", "item_hist_user_id")
    store: Literal["last", "spread"] = "last"
    dress: Literal["all", "next"] = "all"
    enhancer_trains: Literal["all", "towers"] = "all"
    adapt_on_test_labels: bool = False

    @property
    def tasks(self) -> int:
        """N."""
        return self.quantiles or len(self.cuts) + 1

    @property
    def lambdas(self) -> list[float]:
        """Weight of each task."""
        return [self.cold_weight if n == self.cold else self.other_weight for n in range(self.tasks)]

    @property
    def problem(self) -> str:
        """What cannot work, in words; '' if nothing."""
        wrong = [
            (list(self.cuts) != sorted(set(self.cuts)), f"cuts={list(self.cuts)}: must ascend"),
            (self.quantiles == 1 or self.quantiles < 0, f"quantiles={self.quantiles}: must be 0, or 2 or more"),
            (not 0 <= self.cold < self.tasks, f"cold={self.cold}: must be one of the tasks 0 to {self.tasks - 1}"),
            (min(self.lambdas, default=0.0) < 0, f"weights={self.lambdas}: must not be below 0"),
            (self.steps < 0, f"steps={self.steps}: must not be below 0"),
            (
                not 0 <= self.support <= 1
                or (self.support == 0) != (self.steps == 0)
                or (self.support == 1 and self.support_of == "batch"),
                f"support={self.support}: must be between 0 and 1; 0 goes with steps=0",
            ),
            (
                len(self.step_weights) not in (0, self.steps + 1),
                f"step_weights={list(self.step_weights)}: give steps + 1 = {self.steps + 1}, or none",
            ),
            (not 0 <= self.serve_decay < 1, f"serve_decay={self.serve_decay}: must be in [0, 1)"),
            (min(self.gamma) < 0, f"gamma={list(self.gamma)}: must not be below 0"),
            (not self.adapt, "adapt is empty: name what is adapted, as towers"),
            (
                any(self.gamma[1:]) and self.cold == self.tasks - 1,
                f"cold={self.cold}: gamma={list(self.gamma)} dresses items of the tasks above the cold one, and there is none",
            ),
            *((broken, f"{what} has no effect {where}") for broken, what, where in self._idle),
        ]
        return next((message for broken, message in wrong if broken), "")

    @property
    def _idle(self) -> list[tuple[bool, str, str]]:
        """Settings that change nothing: whether they are there, what, and beside what."""
        of_steps = {
            "second_order": (self.second_order, True),
            "serve_decay": (self.serve_decay, 0.0),
            "across": (self.across, "rank"),
            "support_of": (self.support_of, "batch"),
            "adapt_on_test_labels": (self.adapt_on_test_labels, False),
        }
        of_enhancer = {"store": (self.store, "last"), "enhancer_trains": (self.enhancer_trains, "all")}
        gamma = f"with gamma={list(self.gamma)}"
        return [
            *(
                (not self.steps and value != plain, f"{n}={value!r}", "with steps=0")
                for n, (value, plain) in of_steps.items()
            ),
            *(
                (not any(self.gamma[1:]) and value != plain, f"{n}={value!r}", gamma)
                for n, (value, plain) in of_enhancer.items()
            ),
            (not self.gamma[2] and self.dress != "all", f"dress={self.dress!r}", gamma),
        ]
