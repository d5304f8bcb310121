"""Arms on MovieLens, after POSO's section 5.3: tasks Favorite (5 stars) and Satisfied (>= 4), histories of 30, PC is AVC."""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.models.features import Feature, Table
from coldrank.models.ranker import RankerConfig
from coldrank.train.config import DataConfig, OptimConfig, RunConfig, TrainConfig

HISTORY = 30
TASKS = ("favorite", "satisfied")
