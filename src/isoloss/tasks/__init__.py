"""Tasks: documents in, requests and metrics out."""

from isoloss.scoring.generation import Generation
from isoloss.tasks.load import load_task
from isoloss.tasks.prepared import Prepared, prepare
from isoloss.tasks.score import TaskScore, score_task
from isoloss.tasks.spec import TaskSpec
from isoloss.tasks.task import Document, Option, Response, Task

__all__ = [
    "Document",
    "Generation",
    "Option",
    "Prepared",
    "Response",
    "Task",
    "TaskScore",
    "TaskSpec",
    "load_task",
    "prepare",
    "score_task",
]
