"""What a task can be: `RunConfig.tasks` holds the head of each. docs/tasks.md; one file a head."""

from coldrank.models.heads.binary import Binary
from coldrank.models.heads.head import Head, HeadModule
from coldrank.models.heads.ordinal import Ordinal
from coldrank.models.heads.regression import Regression

__all__ = ["Binary", "Head", "HeadModule", "Ordinal", "Regression"]
