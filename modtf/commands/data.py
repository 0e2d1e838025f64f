"""What several commands share: options for a model, an assembly and data, and reading what they name."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from modtf.bundled import BUNDLED_MODELS
from modtf.errors import ModtfError
from modtf.strategies import QUALITY_FIRST, STRATEGIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.tasks import Example, Task

# `modtf --help` answers at once: whatever needs torch is imported by the function that needs it.

_DATA_HELP = (
    "a file or a folder of JSON Lines, CSV, TSV or Parquet (also .gz), or a data set of the hub; for the bundled tasks the "
    "folder of their data (default: MODTF_E2E_DIR or MODTF_TATOEBA_DIR)"
)


#: Limits other than a ratio, see :meth:`ModularModel.choose`.
LIMITS = {
    "max_parameters": "parameters, embeddings included",
    "max_megabytes": "size on disk",
    "max_latency_ms": "time of one text of 32 tokens on the profile's machine",
    "min_quality": "percent of each of the full model's scores on dev: the fewest layers that keep it",
}


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON with options; those of the shell count more")
    parser.set_defaults(parser=parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(BUNDLED_MODELS)
    parser.add_argument("--model", default="pocket", help=f"{names}, a folder or a hub id (default %(default)s)")
    parser.add_argument("--task", help="task of the model (default: the one saved with it)")


def add_assembly(parser: argparse.ArgumentParser, **words: str) -> None:
    """``words`` explain limits that are another thing to this command."""
    parser.add_argument(
        "--ratio", type=float, help="original layers / assembled layers, from 1 to the kit's maximum (default 1)"
    )
    parser.add_argument(
        "--strategy", default="size_first", choices=(*STRATEGIES, QUALITY_FIRST), help="(default %(default)s)"
    )
    parser.add_argument("--assembly", help="instead of a ratio: an assembly such as 'encoder 6·6 | decoder 4·4·4'")
    limits = parser.add_argument_group(f"instead of a ratio, with --strategy {QUALITY_FIRST}")
    for name, meant in (LIMITS | words).items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="N", help=meant)


#: Options for data of one's own, and their defaults. The bundled tasks read their data in their own way.
OWN: dict[str, tuple[Any, str]] = {
    "source_column": ("source", "column of what the model reads"),
    "target_column": ("target", "column of what it should write"),
    "data_config": (None, "configuration of a hub data set"),
    "max_source_length": (512, "tokens; the end of a longer source is cut off"),
    "max_target_length": (128, "tokens; the end of a longer target is cut off"),
}


#: What a training leaves in ``options.yaml`` that other commands of its kit read again.
_RECORDED = ("data", *OWN)


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help=_DATA_HELP)
    for name, (default, words) in OWN.items():
        kind = int if isinstance(default, int) else str
        shown = "" if default is None else f" (default {default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar="N" if kind is int else "NAME", help=words + shown
        )


def recorded_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those that the training of the options' model left beside it; none where it is no folder, or of another maker."""
    from modtf.options_file import FILE, read_options

    file = Path(options.model) / FILE
    return read_options(file) if file.is_file() and options.model not in BUNDLED_MODELS else {}


def as_in_training(options: argparse.Namespace) -> None:
    """Fill in what the options do not say of the data with what the model's own training said of it."""
    from modtf.options_file import FILE

    recorded = recorded_options(options)
    if options.data:
        recorded.pop("data_config", None)  # of other data
    found = {name: recorded[name] for name in _RECORDED if getattr(options, name) is None and name in recorded}
    if Path(found.get("data") or "").is_file():
        raise ModtfError(f"--data is missing: the model was trained on {found['data']}; give other examples")
    if found:
        vars(options).update(found)
        say(f"as in {Path(options.model) / FILE}: {', '.join(f'{name} {value}' for name, value in found.items())}")


def read_examples(
    options: argparse.Namespace,
    task: Task,
    split: str,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prefix: str = "",
    most: int | None = None,
    trains: bool = False,
) -> list[Example]:
    """The examples of a split, of one's own data at most ``most`` rows; what was left out or cut is said.

    Texts of one's own are cut to what the options say, and to what ``model`` and ``tokenizer`` can take; those that texts
    are scored against stay whole.
    """
    from modtf.tasks import TEXT
    from modtf.tasks.examples import Example
    from modtf.tasks.reading import Columns, cut_to, read_split

    given = {name: value for name in OWN if (value := getattr(options, name)) is not None}
    if task is not TEXT:
        for name in ("source_prefix", "source_language", "target_language"):
            if getattr(options, name, None):
                given[name] = getattr(options, name)
        if given:
            name = next(iter(given)).replace("_", "-")
            raise ModtfError(
                f"--{name} has no effect on the task {task.name!r}, which reads its own data; leave it out"
            )
        return task.read_data(options.data or data_folder(task), split)
    assert model is not None and tokenizer is not None
    if not options.data:
        raise ModtfError("--data is missing; give a file, a folder or a data set of the hub")
    asked = {name: default for name, (default, _) in OWN.items()} | given
    lengths = longest(options, model, tokenizer)
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # what it logs, it raises, too
    read = read_split(
        options.data, split, Columns(asked["source_column"], asked["target_column"], asked["data_config"]), most
    )
    name = Path(options.data).name if Path(options.data).is_file() else split
    say(f"{name}: {read}")
    examples = [
        Example(one.source if one.source.startswith(prefix) else prefix + one.source, one.references)
        for one in read.examples
    ]
    cut = cut_to(examples, tokenizer, lengths[0], lengths[1] if trains else None)
    for number, what, tokens in zip((cut.sources, cut.targets), ("source", "target"), lengths, strict=True):
        if number:
            say(f"{name}: {number:,} {what}{' is' if number == 1 else 's are'} cut to {tokens} tokens")
    return cut.examples


def check_configuration(options: argparse.Namespace) -> None:
    """Raise :class:`ModtfError` for a configuration of data that can have none."""
    if options.data_config and options.data and Path(options.data).exists():
        raise ModtfError(
            f"--data-config has no effect on {options.data}, which is no data set of the hub; leave it out"
        )


def check_writable(option: str, folder: Path) -> None:
    """Raise :class:`ModtfError` unless files can be written to a folder, or one made there; before hours of work."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".modtf-", dir=place):
            pass
    except OSError as error:
        raise ModtfError(
            f"{option} {folder}: nothing can be written to {place} ({error.strerror}); give another one"
        ) from error


def is_first() -> bool:
    """Whether this is the first of the processes that train together."""
    return os.environ.get("RANK", "0") == "0"


def say(words: str, file: TextIO | None = None) -> None:
    """Once, however many processes train; on stderr unless ``file`` says otherwise."""
    if is_first():
        print(words, file=file or sys.stderr)


def dev_examples(options: argparse.Namespace, task: Task, modular: ModularModel) -> list[Example]:
    """A slice of the dev split, to look at while a kit trains and afterwards; empty where there is none."""
    from modtf.tasks.examples import spread

    if not options.watch_inputs and not options.report_inputs:
        return []
    named = options.dev is not None
    of_dev = argparse.Namespace(**vars(options) | ({"data": options.dev} if named else {}))
    try:
        if not named and options.data is not None and Path(options.data).is_file():
            raise ModtfError(f"{options.data} is one file, so no dev split is looked for")
        found = read_examples(of_dev, task, "dev", modular.model, modular.tokenizer, modular.prefix)
    except ModtfError as error:
        if named:
            raise
        say(f"quality is not looked at while it trains ({error}); --dev names a file for that")
        return []
    return spread(found, max(options.report_inputs, options.watch_inputs))


def longest(options: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The most source and target tokens: what the options say, but no more than the model can take."""
    from modtf.architectures import longest_texts

    asked = []
    for name, possible in zip(("source", "target"), longest_texts(model), strict=True):
        key = f"max_{name}_length"
        length = OWN[key][0] if getattr(options, key) is None else getattr(options, key)
        if length < 4:
            raise ModtfError(f"--max-{name}-length is {length}; give 4 or more")
        asked.append(min(length, possible or length))
    return min(asked[0], tokenizer.model_max_length), asked[1]


def chosen(modular: ModularModel, options: argparse.Namespace) -> Assembly:
    """The assembly that the options ask for."""
    limits = {name: getattr(options, name) for name in LIMITS if getattr(options, name) is not None}
    return modular.choose(options.ratio, options.strategy, options.assembly, **limits)


def moving(bar: Any) -> Callable[[int], Any]:
    """A function that moves a progress bar to the number of texts written so far."""
    return lambda done: bar.update(done - bar.n)


def data_folder(task: Task) -> str:
    """The default folder of the task's data."""
    return os.environ.get(task.data_variable) or task.data_folder


def load_model(options: argparse.Namespace) -> ModularModel:
    """The model that the options name."""
    from modtf.modular import load
    from modtf.tasks import task_named

    if options.task is not None:
        task_named(options.task)
    hide_loading()
    return load(options.model, task=options.task)


def hide_loading() -> None:
    """Turn off the progress bars with which transformers loads a model."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
