"""Tasks: what a model is fed, how its texts are judged. The library itself knows them by their record only.

A new task is a file with its :class:`Task`, and an entry in :data:`TASKS`.
"""

from modtf.errors import ModtfError
from modtf.tasks.e2e import E2E
from modtf.tasks.examples import Example
from modtf.tasks.task import TEXT, Task

TASKS: dict[str, Task] = {task.name: task for task in (TEXT, E2E)}

__all__ = ["E2E", "TASKS", "TEXT", "Example", "Task", "task_named"]


def task_named(name: str) -> Task:
    """The record of a task; raises :class:`ModtfError` for a name that nobody gave."""
    if name not in TASKS:
        raise ModtfError(f'the task {name!r} is unknown; possible are {", ".join(TASKS)} ("text" fits any model)')
    return TASKS[name]
