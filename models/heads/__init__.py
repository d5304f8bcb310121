"""What a task can be: `RunConfig.tasks` holds the head of each. docs/tasks.md; one file a head."""

from coldrank.models.heads.binary import Binary
from coldrank.models.heads.head import Head, HeadModule

__all__ = ["Binary", "Head", "HeadModule"]
