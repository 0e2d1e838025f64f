"""Checkpoints that a training can go on from, whatever ended it: a kill at any moment, or a disk that is full."""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from filelock import Timeout
from safetensors import SafetensorError
from torch import nn
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from modtf.errors import ModtfError
from modtf.saving import lock_of, remove_left_over

#: What a disk answers that has no room, or no more for this user or this file.
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

#: Seconds for which the workers of a killed training, who load its data, may outlive it with its lock.
_PATIENCE = 10.0


class NotWritten(ModtfError):
    """What the disk refused in the middle of a training: why, what to do, and what is left."""

    def __init__(self, what: str, output: str | Path, error: BaseException) -> None:
        reason: Any = error.__cause__ if isinstance(error, ModtfError) and error.__cause__ else error
        words = " ".join(str(getattr(reason, "strerror", None) or reason).split())
        with suppress(OSError):  # torch.save says nothing but "unexpected pos 320 vs 214"
            words += f"; {shutil.disk_usage(output).free / 1e6:,.0f} MB are free there"
        last = last_checkpoint(output)
        left = f"it goes on from the last complete checkpoint, {last}" if last else "no checkpoint is complete yet"
        super().__init__(
            f"{what} could not be written to {output} ({words}); free some room and run the same command again: {left}"
        )


class WholeCheckpoints(Seq2SeqTrainer):
    """A trainer that writes ``trainer_state.json`` last: a checkpoint that has it is complete.

    Raises :class:`ModtfError` for a checkpoint that cannot be written, of which nothing is left then.
    """

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # It is the last file before that one; each of several processes writes its own.
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output, step = Path(self._get_output_dir(trial)), self.state.global_step
        try:
            super()._save_checkpoint(model, trial)
        except BaseException as error:
            folder = output / f"checkpoint-{step}"
            if _is_complete(folder):  # what failed came later, such as an upload
                raise
            said = NotWritten(f"the checkpoint of step {step:,}", output, error) if is_of_disk(error) else None
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            if said is None:
                raise
            raise said from error


class Elapsed(ExportableState, TrainerCallback):
    """The seconds of a training, with those before it was interrupted, which a checkpoint keeps."""

    def __init__(self) -> None:
        self._before, self._began, self._ended = 0.0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        return self._before + (self._ended or time.perf_counter()) - self._began

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"_before": self.seconds if self._began else 0.0}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kept = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self._before, self._began, self._ended = kept["attributes"]["_before"], time.perf_counter(), 0.0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ended = time.perf_counter()


def last_checkpoint(output: str | Path) -> str | None:
    """The newest complete checkpoint, or None."""
    for path in reversed(_checkpoints(output)):
        with suppress(OSError):
            if _is_complete(path):
                return str(path)
    return None


def step_of(checkpoint: str | Path | None) -> int:
    return int(str(checkpoint).rpartition("-")[2]) if checkpoint else 0


@contextmanager
def alone_in(output: str | Path) -> Iterator[None]:
    """Refuses a second training in the folder of one that still runs: it would remove what that one is writing."""
    lock = lock_of(Path(output), "training")
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise ModtfError(f"another process trains in {output}; wait for its end, or give another --output") from error
    except (OSError, NotImplementedError):  # some disks have no locks
        pass
    try:
        yield
    finally:
        lock.release()


def tidy(output: str | Path, limit: int | None) -> None:
    """Remove what a killed training has left: what is half-written, and checkpoints above ``limit``, half-removed perhaps.

    For the one training that :func:`alone_in` lets in.
    """
    for path in _checkpoints(output):
        with suppress(OSError):  # one that cannot be read may be complete
            if not _is_complete(path):
                shutil.rmtree(path, ignore_errors=True)
    if limit is not None and limit > 0:
        for path in _checkpoints(output)[:-limit]:
            shutil.rmtree(path, ignore_errors=True)
    remove_left_over(Path(output))


def is_of_disk(error: BaseException) -> bool:
    """Whether this, met while writing, comes from the disk, or is a :class:`ModtfError` about such an error."""
    cause = error.__cause__ if isinstance(error, ModtfError) else error
    if isinstance(cause, RuntimeError):  # so torch.save says it, in words of its own
        return any(
            frame.f_code.co_filename == torch.serialization.__file__ for frame, _ in walk_tb(cause.__traceback__)
        )
    return isinstance(cause, OSError | SafetensorError)


def has_no_room(error: BaseException) -> bool:
    """Whether this, met anywhere, is the answer of a full disk, or a :class:`ModtfError` about one."""
    cause = error.__cause__ if isinstance(error, ModtfError) else error
    return isinstance(cause, OSError) and cause.errno in _NO_ROOM


def _checkpoints(output: str | Path) -> list[Path]:
    """The folders of checkpoints, by their steps."""
    found = [path for path in Path(output).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True
