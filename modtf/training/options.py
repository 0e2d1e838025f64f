"""The options of a training in the shell: those of its dataclass of arguments, and a few of our own."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from modtf.errors import ModtfError
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.machine import fast_bf16

#: The default of --optim: Muon for the matrices, AdamW for the rest.
MUON = "muon_with_adamw"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one training, unless the shell says otherwise. ``batch_size`` texts a step, over all processes."""

    steps: int
    batch_size: int
    learning_rate: float
    adamw_learning_rate: float


class _Parser(HfArgumentParser):
    def error(self, message: str) -> Any:
        raise ModtfError(f"{message}; see {self.prog} --help")  # the usage of so many options would fill the screen


def parse_training(
    kind: type[Seq2SeqTrainingArguments],
    settings: Settings,
    add: Callable[[argparse.ArgumentParser], Any],
    arguments: Sequence[str],
    **texts: str,
) -> tuple[Any, argparse.Namespace]:
    """The arguments of a training, and the namespace of our own options; see `modtf train kit --help`.

    ``add`` adds what only one command has. In the namespace, ``batch_size`` is that of one process and batch.
    Raises :class:`ModtfError` for values that are not possible.
    """
    parser = _Parser(kind, **texts, usage="%(prog)s [options]", formatter_class=argparse.HelpFormatter)
    own = parser.add_argument_group("modtf")
    add(own)
    own.add_argument(
        "--batch-size",
        type=int,
        default=settings.batch_size,
        help="texts a step, over all processes (default %(default)s)",
    )
    own.add_argument(
        "--adamw-learning-rate",
        type=float,
        default=settings.adamw_learning_rate,
        help="of all but the matrices (default %(default)s)",
    )
    threads = os.environ.get("OMP_NUM_THREADS", "")
    own.add_argument(
        "--threads",
        type=int,
        default=int(threads) if threads.isdecimal() else 1,
        help="of each process, on a CPU (default %(default)s)",
    )
    # Short names for options of the dataclass.
    own.add_argument(
        "--output", dest="output_dir", default=argparse.SUPPRESS, help="--output-dir: an interrupted run goes on here"
    )
    own.add_argument("--steps", dest="max_steps", type=int, default=argparse.SUPPRESS, help="--max-steps")
    own.add_argument("--no-bf16", dest="bf16", action="store_false", default=argparse.SUPPRESS, help="--bf16 false")
    parser.set_defaults(
        output_dir=None,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        optim=MUON,
        **dict.fromkeys(("per_device_train_batch_size", "bf16", "use_cpu", "save_steps", "warmup_steps", "report_to")),
        seed=0,
        max_grad_norm=1.0,
        lr_scheduler_type="linear",
        logging_steps=50,
        save_total_limit=1,
    )
    options = parser.parse_args(arguments)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(kind) if field.init}
    return _checked(kind, values, options), options


def _checked(kind: type[Seq2SeqTrainingArguments], values: dict[str, Any], options: argparse.Namespace) -> Any:
    """The arguments, with what depends on the machine and on other arguments filled in."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accumulated = values["gradient_accumulation_steps"]
    if not values["output_dir"]:
        raise ModtfError("--output is missing; give a folder for checkpoints and result")
    if Path(values["output_dir"]).is_file():
        raise ModtfError(f"--output {values['output_dir']} is a file; give a folder for checkpoints and result")
    for name, value in (
        ("steps", values["max_steps"]),
        ("batch-size", options.batch_size),
        ("threads", options.threads),
        ("gradient-accumulation-steps", accumulated),
        ("per-device-train-batch-size", values["per_device_train_batch_size"]),
    ):
        if value is not None and value < 1:
            raise ModtfError(f"--{name} is {value}; give 1 or more")
    for name, value in (
        ("learning-rate", values["learning_rate"]),
        ("adamw-learning-rate", options.adamw_learning_rate),
    ):
        if not 0 < value < float("inf"):
            raise ModtfError(f"--{name} is {value:g}; give a number above 0")
    if not 0 <= values["seed"] < 2**32:
        raise ModtfError(f"--seed is {values['seed']}; give a number from 0 to {2**32 - 1}")
    if values["per_device_train_batch_size"] is None:
        if options.batch_size % (processes * accumulated):
            raise ModtfError(
                f"{options.batch_size} texts a step cannot be shared evenly by {processes} processes "
                f"with {accumulated} batches each; give a multiple of {processes * accumulated}"
            )
        options.batch_size //= processes * accumulated
    else:
        options.batch_size = values["per_device_train_batch_size"]
    steps, cpu = values["max_steps"], not torch.cuda.is_available()
    defaults = {
        "bf16": fast_bf16(),
        "use_cpu": cpu,
        "save_steps": max(steps // 20, 1),
        "warmup_steps": min(100, steps // 10),
        "report_to": "tensorboard" if importlib.util.find_spec("tensorboard") else "none",
    }
    values |= {name: value for name, value in defaults.items() if values[name] is None}
    if cpu and "LOCAL_RANK" in os.environ and values["ddp_backend"] is None:
        values["ddp_backend"] = "gloo"
    if values["optim"] == MUON:
        del values["optim"]
    else:
        options.adamw_learning_rate = None
    try:
        return kind(**(values | WHOLE_BATCHES | {"dataloader_pin_memory": values["dataloader_pin_memory"] and not cpu}))
    except (ValueError, TypeError, ImportError) as error:
        if isinstance(error, ModtfError):
            raise
        raise refused(error) from error


def refused(error: Exception) -> ModtfError:
    """What transformers says of options that do not go together, or not here, in one line."""
    return ModtfError(f"these options are not possible: {' '.join(str(error).split())}")


def check_model_folder(folder: Path | None) -> None:
    """Raise :class:`ModtfError` where the folder holds no model."""
    if folder is not None and not (folder / "config.json").is_file():
        raise ModtfError(f"{folder} holds no model (no config.json); give the folder that `modtf train original` wrote")
