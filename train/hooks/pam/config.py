"""Settings of PAM."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from coldrank.models.two_tower import TwoTower
from coldrank.train.hooks.hook import Hook, Settings


@dataclass(kw_only=True, slots=True)
class PamConfig(Hook):
    """docs/pam.md explains them with the paper's symbols."""

    reads: ClassVar[tuple[str, ...]] = ("item_views",)
    cuts: tuple[int, ...] = (5, 50, 200, 1000, 5000)
    """Views of the item before the event at which the popularity groups part."""
    quantiles: int = 0
    """Takes as many groups, of equally many rows of the first period or of the passes' `data.fit`, in their place (0:
    the cuts)."""
    cold: int = 1
    """The group (0-based) of cold items."""
    cold_weight: float = 2.0
    """Lambda of its loss."""
    other_weight: float = 0.5
    """Lambda of the losses of the other groups."""
    steps: NonNegativeInt = 2
    """Of the inner loop; without steps the hook only weighs the groups' losses."""
    rate: float = 1e-3
    """Of an inner step, as it begins: it is trained."""
    second_order: bool = True
    """Gradients pass through the inner steps."""
    support: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of a group's rows in a batch, which come first; the others are query."""
    support_of: Literal["batch", "previous"] = "batch"
    """previous: the support rows are the last of the batch before, as in serving, and every row of a batch is query."""
    query: Literal["rest", "all"] = "rest"
    """all: every row is query, those of the support set too."""
    support_average: Literal["batch", "group"] = "group"
    """Of the support loss: the sum over a group's rows divided by the rows of the batch, or the mean over its own
    rows."""
    query_average: Literal["batch", "group"] = "batch"
    """Of the query loss, likewise."""
    candidates: Literal["set", "batch"] = "batch"
    """The users that a row's own user competes with in the softmax. set: those of the same support or query set. batch:
    all."""
    step_weights: tuple[float, ...] = ()
    """Of the query losses after 0, 1, ... inner steps (empty: that of the last alone)."""
    adapt: tuple[str, ...] = ("towers",)
    """What of the model is adapted, by the beginning of its parameters' names."""
    across: Literal["rank", "ranks"] = "rank"
    """Whether every rank adapts to its own rows or all to those of all ranks."""
    serve_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Omega of the groups in the next period is Theta plus the moving mean, with this decay, of what their batches'
    inner loops added (0: of the last batch)."""
    own: bool = False
    """Groups also have offsets of their own, learned like Theta."""
    gamma: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 0.0, 0.0)
    """Weights of the losses L_M, L_S, L_A."""
    behaviour: tuple[str, ...] = ("item_id", "item_hist_user_id")
    """Features of the item that the store keeps, its id first."""
    store: Literal["last", "spread"] = "last"
    """Keeps a cold item as it was last, or at a number of views that differs from item to item."""
    dress: Literal["all", "next"] = "all"
    """The groups whose rows are dressed as cold for L_A: all popular ones (the paper's), or the one next to the cold
    one."""
    enhancer_trains: Literal["all", "towers"] = "all"
    """What L_S and L_A train: all that the loss trains, embeddings as well (the paper's Eq. 18), or the towers
    alone."""
    adapt_on_test_labels: bool = False
    """Evaluation adapts on the labels under test, as the authors' released code does; a leak, for comparison with
    published figures alone."""

    @property
    def groups(self) -> int:
        """N."""
        return self.quantiles or len(self.cuts) + 1

    @property
    def lambdas(self) -> list[float]:
        """Weight of each group."""
        return [self.cold_weight if n == self.cold else self.other_weight for n in range(self.groups)]

    def problem(self, config: Settings) -> str:
        wrong = [(broken, f"pam.{message}") for broken, message in self._settings()]
        wrong += self._company(config) + self._model(config)
        return next((message for broken, message in wrong if broken), "")

    def _company(self, config: Settings) -> list[tuple[bool, str]]:
        """What PAM leaves no room for in the rest of a config."""
        still = any(getattr(hook, "mode", "") == "warm_up" for hook in config.hooks)
        weight, column, precision = config.cold_weight, config.data.weight_column, config.train.precision
        return [
            (weight != 1, f"cold_weight={weight}: 'pam' weighs by pam.cold_weight alone; must be 1"),
            (column != "", f"data.weight_column={column!r}: 'pam' weighs by its own groups alone; must be empty"),
            (precision != "float32", "train.precision='bf16': 'pam' adapts in float32; must be float32"),
            (
                still,
                "mwuf.mode='warm_up' holds the model still, and 'pam' adapts its towers at every step; leave one out",
            ),
        ]

    def _model(self, config: Settings) -> list[tuple[bool, str]]:
        """What asks for a model that compares rows."""
        if config.model.compares_rows:
            over_items = isinstance(config.model, TwoTower) and config.model.candidates == "items"
            return [
                (over_items, "model.candidates='items': 'pam' has a softmax over users of its own; must be 'users'")
            ]
        settings = f"gamma={list(self.gamma)} and support_of={self.support_of!r}"
        candidates = "pam.candidates='set' needs model=two_tower: the ranker's rows have no candidates"
        return [
            (any(self.gamma[1:]) or self.support_of != "batch", f"'pam' with {settings} needs model=two_tower"),
            (self.candidates == "set", candidates),
        ]

    def _settings(self) -> list[tuple[bool, str]]:
        """What cannot work by itself."""
        return [
            (list(self.cuts) != sorted(set(self.cuts)), f"cuts={list(self.cuts)}: must ascend"),
            (self.quantiles == 1 or self.quantiles < 0, f"quantiles={self.quantiles}: must be 0, or 2 or more"),
            (not 0 <= self.cold < self.groups, f"cold={self.cold}: must be one of the groups 0 to {self.groups - 1}"),
            (min(self.lambdas, default=0.0) < 0, f"weights={self.lambdas}: must not be below 0"),
            (
                (self.support == 0) != (self.steps == 0) or (self.support == 1 and self.support_of == "batch"),
                f"support={self.support}: must be between 0 and 1; 0 goes with steps=0",
            ),
            (
                len(self.step_weights) not in (0, self.steps + 1),
                f"step_weights={list(self.step_weights)}: give steps + 1 = {self.steps + 1}, or none",
            ),
            (not self.adapt, "adapt is empty: name what is adapted, as towers"),
            (
                any(self.gamma[1:]) and self.cold == self.groups - 1,
                f"cold={self.cold}: gamma={list(self.gamma)} dresses items of groups above the cold one: there is none",
            ),
            *((broken, f"{what} has no effect {where}") for broken, what, where in self._idle),
        ]

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
