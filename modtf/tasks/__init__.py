"""Tasks: what a model reads and how its texts are judged. The rest of modtf knows a task only by its record.

A new task is a file with its :class:`Task`, and an entry in :data:`TASKS`.
"""

from modtf.errors import ModtfError
from modtf.tasks.e2e import E2E
from modtf.tasks.examples import Example
from modtf.tasks.task import TEXT, Task
from modtf.tasks.translation import TRANSLATION

TASKS: dict[str, Task] = {task.name: task for task in (TEXT, E2E, TRANSLATION)}

__all__ = ["E2E", "TASKS", "TEXT", "TRANSLATION", "Example", "Task", "task_named"]


def task_named(name: str) -> Task:
    """The record of a task; raises :class:`ModtfError` for an unknown name."""
    if name not in TASKS:
        raise ModtfError(f'the task {name!r} is unknown; choose from {", ".join(TASKS)} ("text" fits any model)')
    return TASKS[name]
