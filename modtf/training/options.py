"""The shell options of a training: the fields of its dataclass of arguments, and a few of our own."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from httpx import HTTPError
from huggingface_hub import HfApi
from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from modtf.errors import ModtfError
from modtf.options_file import FILE, Parser, read_options, with_options_of_files
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.machine import fast_bf16
from modtf.training.trainer import check_processes

#: The default of --optim: Muon for the matrices, AdamW for the rest.
MUON = "muon_with_adamw"

_SAMPLING = (
    "auto_find_batch_size", "data_seed", "dataloader_drop_last", "ignore_data_skip", "length_column_name",
    "remove_unused_columns", "sortish_sampler", "train_sampling_strategy",
)  # fmt: skip
_EVALUATION = (
    "batch_eval_metrics", "bf16_full_eval", "do_eval", "do_predict", "eval_accumulation_steps", "eval_delay",
    "eval_do_concat_batches", "eval_on_start", "eval_steps", "eval_strategy", "eval_use_gather_object",
    "fp16_full_eval", "generation_config", "generation_max_length", "generation_num_beams", "greater_is_better",
    "include_for_metrics", "load_best_model_at_end", "metric_for_best_model", "per_device_eval_batch_size",
    "predict_with_generate", "prediction_loss_only",
)  # fmt: skip
#: Fields of the dataclasses that cannot take effect here, so they are no options; and what to do instead.
NOT_OFFERED = {
    "num_train_epochs": "give the number of steps, --steps",
    "save_only_model": "a checkpoint without its optimizer could not be resumed; leave it out",
    "resume_from_checkpoint": "run the same command again: it resumes from the last checkpoint in --output",
    # Müller, Kornblith, Hinton (2019): When Does Label Smoothing Help?
    "label_smoothing_factor": "a kit learns worse from the probabilities of a smoothed original; leave it out",
    "parallelism_config": "no text can say it; leave it out, or start the training with `accelerate launch`",
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"), "Liger has no kernels for encoder-decoders; leave it out"
    ),
    **dict.fromkeys(_SAMPLING, "--batch-size and --seed decide what the batches hold; leave it out"),
    **dict.fromkeys(_EVALUATION, "a training does not evaluate; run `modtf evaluate` on the finished kit"),
}
#: Options of AdamW alone, which have a fixed value beside Muon.
_ADAMW = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "optim_target_modules")
#: Which numbers are possible, and for which options; transformers takes many others, and fails with them later.
_POSSIBLE: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "1 or more": (
        lambda number: number >= 1,
        ("max_steps", "batch_size", "threads", "gradient_accumulation_steps", "per_device_train_batch_size", "ddp_timeout",
         "ddp_bucket_cap_mb"),
    ),
    "0 or more": (
        lambda number: 0 <= number < math.inf,
        ("warmup_steps", "max_grad_norm", "weight_decay", "adam_epsilon", "save_total_limit", "dataloader_num_workers"),
    ),
    "a number above 0": (
        lambda number: 0 < number < math.inf,
        ("learning_rate", "adamw_learning_rate", "logging_steps", "save_steps", "neftune_noise_alpha"),
    ),
    "a number of at least 0 and below 1": (lambda number: 0 <= number < 1, ("dropout", "adam_beta1", "adam_beta2")),
    f"a number from 0 to {2**32 - 1}": (lambda number: 0 <= number < 2**32, ("seed",)),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """The default settings of one training; ``batch_size`` counts the texts of one step, over all processes."""

    steps: int
    batch_size: int
    learning_rate: float
    adamw_learning_rate: float


class _Parser(Parser, HfArgumentParser):
    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        if options.get("dest", names[0].lstrip("-")) in NOT_OFFERED:
            # Neither in the help nor, unless it is given, whatever its value, in the namespace.
            options |= {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
            options = {name: value for name, value in options.items() if name not in ("type", "choices")}
        return super().add_argument(*names, **options)


def parse_training(
    kind: type[Seq2SeqTrainingArguments],
    settings: Settings,
    add: Callable[[argparse.ArgumentParser], Any],
    arguments: Sequence[str],
    **texts: str,
) -> tuple[Any, argparse.Namespace]:
    """The arguments of a training, and the namespace of our own options; see `modtf train kit --help`.

    ``add`` adds the options that only one command has. In the namespace, ``batch_size`` is the number of texts in one
    batch of one process, and ``record`` what :func:`modtf.options_file.write_options` writes. Raises :class:`ModtfError` for values that are not possible, and for options that could not
    take effect.
    """
    parser = _Parser(kind, **texts, usage="%(prog)s [options]", formatter_class=argparse.HelpFormatter)
    parser._optionals.title = "options of transformers' trainer"
    own: Any = parser.add_argument_group("options of modtf")
    parser._action_groups.insert(0, parser._action_groups.pop())  # first in the help
    add(own)
    own.add_argument(
        "--batch-size",
        type=int,
        default=settings.batch_size,
        help="texts per step, all processes (default %(default)s)",
    )
    own.add_argument(
        "--adamw-learning-rate",
        type=float,
        default=settings.adamw_learning_rate,
        help="for all but the matrices; independent of --learning-rate (default %(default)s)",
    )
    own.add_argument("--dropout", type=float, help="probability in all layers that train (default: the model's)")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    own.add_argument(
        "--threads",
        type=int,
        default=int(threads) if threads.isdecimal() else 1,
        help="CPU threads per process (default %(default)s)",
    )
    # Short names for options of the dataclass.
    own.add_argument(
        "--output", dest="output_dir", default=argparse.SUPPRESS, help="--output-dir; a training resumes from it"
    )
    own.add_argument("--steps", dest="max_steps", type=int, default=argparse.SUPPRESS, help="--max-steps")
    own.add_argument("--config", metavar="FILE", help="YAML or JSON with options; those of the shell count more")
    own.add_argument("--no-bf16", dest="bf16", action="store_false", default=argparse.SUPPRESS, help="--bf16 false")
    parser.set_defaults(
        output_dir=None,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        optim=MUON,
        **dict.fromkeys(
            (
                "per_device_train_batch_size",
                "bf16",
                "use_cpu",
                "save_steps",
                "warmup_steps",
                "logging_steps",
                "report_to",
            )
        ),
        seed=0,
        max_grad_norm=1.0,
        lr_scheduler_type="linear",
        save_total_limit=1,
    )
    settled = set(parser._defaults) | {action.dest for action in own._group_actions}
    arguments = with_options_of_files(parser, arguments)
    options = parser.parse_args(arguments)
    for name, instead in NOT_OFFERED.items():
        if name in options:
            raise ModtfError(f"--{name.replace('_', '-')} has no effect here: {instead}")
    usual = {field.name: field.default for field in dataclasses.fields(kind)}
    if options.optim == MUON:
        for name in _ADAMW:
            if getattr(options, name) != usual[name]:
                raise ModtfError(
                    f"--{name.replace('_', '-')} has no effect on the default optimizer, Muon with AdamW; give another one, "
                    "such as --optim adamw_torch, or leave it out"
                )
    options.record = {
        name: value if isinstance(value, bool | int | float | list | dict) else str(value)
        for name, value in vars(options).items()
        if value not in (None, "", MUON)
        and (name in settled or value != usual.get(name))
        and name != "config"
        and not name.endswith("_token")  # a secret
    }
    offered = [field.name for field in dataclasses.fields(kind) if field.init and field.name not in NOT_OFFERED]
    args = _checked(kind, {name: getattr(options, name) for name in offered}, options)
    options.record["bf16"] = args.bf16
    return args, options


def _checked(kind: type[Seq2SeqTrainingArguments], values: dict[str, Any], options: argparse.Namespace) -> Any:
    """The arguments, with what depends on the machine and on other arguments filled in."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accumulated = values["gradient_accumulation_steps"]
    if not values["output_dir"]:
        raise ModtfError("--output is missing; give a folder for the checkpoints and the result")
    if Path(values["output_dir"]).is_file():
        raise ModtfError(f"--output {values['output_dir']} is a file; give a folder for the checkpoints and the result")
    for words, (is_possible, names) in _POSSIBLE.items():
        for name in names:
            value = getattr(options, name)
            if value is not None and not is_possible(value):
                name = "steps" if name == "max_steps" else name.replace("_", "-")
                raise ModtfError(f"--{name} is {value:.12g}; give {words}")
    if values["ddp_backend"] is not None and "LOCAL_RANK" not in os.environ:
        raise ModtfError("--ddp-backend has no effect on one process; start several with torchrun, or leave it out")
    if values["save_strategy"] == "best":
        raise ModtfError("--save-strategy is best, but a training does not evaluate; give steps, epoch or no")
    for name in kind._VALID_DICT_FIELDS:
        if values.get(name) is not None:
            _check_json(name, values[name])
    if values["per_device_train_batch_size"] is None:
        if options.batch_size % (processes * accumulated):
            raise ModtfError(
                f"{options.batch_size} texts per step cannot be shared evenly by {processes} processes "
                f"with {accumulated} batches each; give a multiple of {processes * accumulated}"
            )
        options.batch_size //= processes * accumulated
    else:
        options.batch_size = values["per_device_train_batch_size"]
    steps, cpu = values["max_steps"], not torch.cuda.is_available()
    measured = cpu and values["bf16"] is None
    defaults = {
        "bf16": _computed_in_bf16(Path(values["output_dir"])),
        "use_cpu": cpu,
        "save_steps": max(steps // 20, 1),
        "warmup_steps": min(100, steps // 10),
        "logging_steps": min(50, max(steps // 20, 1)),  # 20 points of a curve at least
        "disable_tqdm": not sys.stderr.isatty(),  # a bar in a file hides the lines between
        "report_to": "tensorboard" if importlib.util.find_spec("tensorboard") else "none",
    }
    values |= {name: value for name, value in defaults.items() if values[name] is None}
    if cpu:
        values["dataloader_pin_memory"] = False
        if "LOCAL_RANK" in os.environ and values["ddp_backend"] is None:
            values["ddp_backend"] = "gloo"
    if values["optim"] == MUON:
        del values["optim"]
    else:
        options.adamw_learning_rate = None
    try:
        args = kind(**(values | WHOLE_BATCHES))
        if measured and args.world_size > 1:  # each process measured it for itself: the first one's counts
            bf16 = torch.tensor(int(args.bf16))
            dist.broadcast(bf16, 0)
            args = kind(**(values | WHOLE_BATCHES | {"bf16": bool(bf16)}))
    except ModtfError:
        raise
    except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
        raise refused(error) from error
    check_processes(args)  # before a model is loaded, of which FSDP would give most processes no weights
    # Errors here, not after minutes of work, where a package or the way to the hub is missing.
    try:
        for callback in get_reporting_integration_callbacks(args.report_to):
            callback()
    except (ValueError, ImportError, RuntimeError) as error:
        raise refused(error, "give another --report-to, such as none") from error
    try:
        if args.push_to_hub:
            HfApi(token=args.hub_token).whoami()
    except (OSError, ValueError, HTTPError) as error:
        raise refused(error, "log in with `hf auth login`, or leave out --push-to-hub") from error
    return args


def _computed_in_bf16(output: Path) -> bool:
    """As the training did that goes on; a new one in whatever is faster here, which another moment may measure otherwise."""
    begun = output / FILE
    if begun.is_file() and any(output.glob("checkpoint-*")):
        return bool(read_options(begun).get("bf16", fast_bf16()))
    return fast_bf16()


def _check_json(name: str, text: str) -> None:
    """Raise :class:`ModtfError` unless it is a JSON object or, where transformers reads files, names one."""
    of_file = not name.endswith("_kwargs")
    try:
        read = Path(text).read_text(encoding="utf-8") if of_file and not text.startswith("{") else text
        if not isinstance(json.loads(read), dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise ModtfError(
            f"--{name.replace('_', '-')} {text} cannot be read as JSON: {error}; give an object, such as '{{\"name\": 1}}'"
            + (", or a file that holds one" if of_file else "")
        ) from error


def refused(error: Exception, instead: str = "") -> ModtfError:
    """The error of transformers about options that it cannot combine or that this machine lacks, in one line."""
    words = f"these options are not possible: {' '.join(str(error).split())}"
    return ModtfError(f"{words.rstrip('.')}; {instead}" if instead else words)


def check_model(name: str | None) -> None:
    """Raise :class:`ModtfError` for what can be no model: a folder without one, or a path that is not there."""
    if name == "":
        raise ModtfError("--model is empty; give a folder that holds a model, or a hub id")
    if name is None or (Path(name) / "config.json").is_file():
        return
    if Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/")):  # no hub id
        raise ModtfError(f"{name} holds no model (no config.json); give a folder that holds one, or a hub id")
