"""`modtf train original`, `modtf train kit` and `modtf plan`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtf.commands.data import (
    add_data,
    check_configuration,
    check_writable,
    dev_examples,
    device,
    hide_loading,
    is_first,
    longest,
    moving,
    read_examples,
    say,
)
from modtf.errors import ModtfError

if TYPE_CHECKING:
    from modtf.modular import ModularModel
    from modtf.tasks import Example, Task

#: A training of fewer steps is over before it is planned.
_WORTH_A_PLAN = 20


def original(_: argparse.Namespace, arguments: Sequence[str]) -> None:
    """`modtf train original`."""
    from transformers import Seq2SeqTrainingArguments, set_seed

    from modtf.recipes import recipe_for
    from modtf.training.machine import use_cpu_well
    from modtf.training.options import check_model, parse_training
    from modtf.training.runs import (
        check_original_training,
        load_original,
        load_tokenizer,
        set_dropout,
        train_original,
        write_in,
    )

    def add(parser: argparse.ArgumentParser) -> None:
        _add_task(parser)
        add_data(parser)
        parser.add_argument(
            "--model", "--begin-with", dest="begin_with", metavar="MODEL",
            help="a model to train further, a folder or a hub id (default: the bundled task's new one)",
        )  # fmt: skip

    prog = "modtf train original"
    task = _task_of(arguments, prog)
    recipe = recipe_for(task)
    args, options = parse_training(Seq2SeqTrainingArguments, recipe.original, add, arguments, prog=prog)
    check_model(options.begin_with)
    check_configuration(options)
    _check_output(args.output_dir, "config.json", options.record)
    hide_loading()
    if options.begin_with is None and recipe.new_original is None:
        raise ModtfError(
            f"no recipe makes a new model for the task {task.name!r}; give one to train further: --model, a folder or a hub id"
        )
    use_cpu_well(options.threads)
    set_seed(args.seed)
    if options.begin_with is None:
        assert recipe.new_original is not None
        examples = read_examples(options, task, task.train_split)
        model, tokenizer = recipe.new_original(examples)
        check_original_training(model, args, options.adamw_learning_rate)
    else:
        model = load_original(options.begin_with)
        tokenizer = load_tokenizer(options.begin_with, options.source_language, options.target_language)
        write_in(model, tokenizer)
        check_original_training(model, args, options.adamw_learning_rate)
        most = _texts_seen(args, options)
        examples = read_examples(
            options, task, task.train_split, model, tokenizer, options.source_prefix, most, trains=True
        )
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    _write_options(args, options)
    train_original(model, tokenizer, task, examples, args, options.batch_size, options.adamw_learning_rate)
    _say_where("the original", args.output_dir)


def plan(_: argparse.Namespace, arguments: Sequence[str]) -> None:
    """`modtf plan`."""
    _train_kit(["--output", ".", *arguments], "modtf plan", only_plan=True)  # where it would go; nothing is written


def kit(_: argparse.Namespace, arguments: Sequence[str], earlier: Path | None = None) -> None:
    """`modtf train kit`; the texts that the original wrote for an ``earlier`` kit are used again, if they are as many."""
    _train_kit(arguments, earlier=earlier)


def parse_kit(arguments: Sequence[str], prog: str = "modtf train kit") -> tuple[Any, argparse.Namespace, Task]:
    """The arguments of a kit's training, the other options, and the task; checked as far as no model is needed."""
    from modtf.recipes import recipe_for
    from modtf.training import ModularTrainingArguments
    from modtf.training.options import check_model, parse_training

    task = _task_of(arguments, prog)
    recipe = recipe_for(task)

    def add(parser: argparse.ArgumentParser) -> None:
        _add_task(parser)
        add_data(parser)
        parser.add_argument(
            "--model", "--original", dest="original", required=True, metavar="MODEL",
            help="the trained original, a folder or a hub id",
        )  # fmt: skip
        parser.add_argument(
            "--pairs", type=int, default=recipe.pairs, metavar="N",
            help="number of texts that the original writes first; the kit learns from them and from people's "
            "(default %(default)s)",
        )  # fmt: skip
        parser.add_argument("--without-data", action="store_true", help="train on the original's texts alone")
        parser.add_argument(
            "--faultless", action="store_true",
            help="train only on texts that say all that their input does, and nothing else, as the task judges them",
        )  # fmt: skip
        parser.add_argument(
            "--granularities", type=int, nargs="+",
            help="(default: the divisors of each stack's depth, up to half of it)",
        )  # fmt: skip
        parser.add_argument(
            "--begin-with", type=Path, metavar="KIT",
            help="folder of a kit of the same original and granularities to train further; the texts that its original "
            "wrote are used again if they are as many (default: modules copied from the original)",
        )  # fmt: skip
        parser.add_argument(
            "--dev", help="file whose examples are written while it trains (default: the dev split of --data)"
        )
        parser.add_argument(
            "--watch-inputs", type=int, default=32, metavar="N",
            help="number of its examples; 0 for none (default %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--report-inputs", type=int, default=100, metavar="N",
            help="number of those on which all sizes are measured at the end, for report.html; 0 for none "
            "(default %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--watch-steps", type=int, metavar="N", help="steps from one time to the next (default: a tenth of all)"
        )

    args, options = parse_training(ModularTrainingArguments, recipe.kit, add, arguments, prog=prog)
    for name, least in {"watch_inputs": 0, "watch_steps": 1, "report_inputs": 0, "pairs": 0}.items():
        if (given := getattr(options, name)) is not None and given < least:
            raise ModtfError(f"--{name.replace('_', '-')} is {given}; give {least} or more")
    check_model(options.original)
    check_configuration(options)
    if options.without_data and (task.draw is None or not options.pairs):
        reason = "--pairs is 0" if task.draw else f"the task {task.name!r} cannot draw inputs"
        raise ModtfError(f"without data there is nothing to train on: {reason}; leave out --without-data")
    if options.faultless and task.faultless is None:
        raise ModtfError(f"the task {task.name} cannot tell which texts have faults; leave out --faultless")
    return args, options, task


def _new_kit(options: argparse.Namespace, task: Task) -> ModularModel:
    """The kit before its training: modules copied from the original, or those of an earlier kit."""
    from modtf.modular import modularize
    from modtf.saving import read_index
    from modtf.training.runs import load_original, load_tokenizer, write_in

    original = load_original(options.original)
    tokenizer = load_tokenizer(options.original, options.source_language, options.target_language)
    write_in(original, tokenizer)
    modular = modularize(
        original, options.granularities, tokenizer=tokenizer, task=task.name, prefix=options.source_prefix
    )
    if options.begin_with is not None:
        modular.load_banks(options.begin_with)
        earlier = read_index(options.begin_with).get("prefix", "")
        if options.source_prefix not in ("", earlier):
            raise ModtfError(
                f"--source-prefix is {options.source_prefix!r}, but {options.begin_with} has {earlier!r}; leave it out"
            )
        modular.prefix = earlier
    return modular


#: What the names of options begin with that change nothing of what a training learns: it may go on with other ones.
_FREE = (
    "output_dir", "dev", "watch_", "report_", "threads", "disable_tqdm", "log_", "logging_", "save_", "dataloader_", "ddp_", "hub_",
    "push_to_hub", "run_name", "project", "trackio_", "use_cpu", "gradient_checkpointing", "activation_checkpointing",
    "torch_empty_cache_steps", "skip_memory_metrics",
    "gradient_accumulation_steps",  # another number of processes
)  # fmt: skip
#: Options on which the texts depend that the original writes first.
_OF_TEXTS = {
    "task", "original", "data", "data_config", "source_column", "target_column", "source_prefix", "source_language",
    "target_language", "max_source_length", "pairs", "seed",
}  # fmt: skip
_PATHS = {"data", "original", "begin_with", "deepspeed"}
#: How options are typed whose fields have other names.
_TYPED = {"max_steps": "steps", "original": "model"}


def _check_output(folder: str, own: str, record: dict[str, Any]) -> None:
    """Raise :class:`ModtfError` for a folder with another model or another training, whose files this one would replace.

    ``own`` is the file that the training itself leaves there, ``record`` its options.
    """
    from modtf.options_file import FILE, read_options
    from modtf.saving import INDEX
    from modtf.training.runs import last_checkpoint, step_of

    check_writable("--output", Path(folder))
    last, options = last_checkpoint(folder), Path(folder) / FILE
    begun = (Path(folder) / "training.json").is_file() or last is not None
    for name in ("config.json", INDEX):
        if (Path(folder) / name).is_file() and not (name == own and begun):
            raise ModtfError(f"--output {folder} holds another model ({name}); give a folder for this training alone")
    if options.is_file() and (begun or (Path(folder) / "pairs.jsonl").is_file()):
        before = read_options(options)
        names = {name for name in before.keys() | record.keys() if not name.startswith(_FREE)}
        changed = [
            f"--{_TYPED.get(name, name).replace('_', '-')} was {_shown(before.get(name))} and is {_shown(record.get(name))}"
            for name in sorted(names if begun else names & _OF_TEXTS)
            if not _alike(name, before.get(name), record.get(name))
        ]
        if changed:
            raise ModtfError(
                f"--output {folder} holds a training with other options: {'; '.join(changed)}. Repeat those of {options}, "
                "or give another folder"
            )
    if last is not None:
        done = step_of(last) >= record["max_steps"]
        say(f"the training in {folder} " + ("is complete" if done else f"goes on from step {step_of(last):,}"))


def _alike(name: str, before: Any, now: Any) -> bool:
    if name not in _PATHS or None in (before, now):
        return str(before) == str(now)
    was, is_now = Path(str(before)), Path(str(now))
    # What is there no more may have moved.
    return was.resolve() == is_now.resolve() or (was.name == is_now.name and not was.exists())


def _shown(value: Any) -> str:
    return "not given" if value is None else repr(value) if isinstance(value, str) else str(value)


def _train_kit(
    arguments: Sequence[str], prog: str = "modtf train kit", only_plan: bool = False, earlier: Path | None = None
) -> None:
    from modtf.saving import INDEX
    from modtf.tasks.examples import spread
    from modtf.training.machine import use_cpu_well
    from modtf.training.runs import check_kit_training, last_checkpoint, set_dropout, train_kit
    from modtf.training.watch import Watch

    # Check everything before the original writes its texts, which takes minutes.
    args, options, task = parse_kit(arguments, prog)
    options.earlier = options.begin_with or earlier
    if not only_plan:
        _check_output(args.output_dir, INDEX, options.record)
    hide_loading()
    modular = _new_kit(options, task)
    check_kit_training(modular, args, options.adamw_learning_rate)
    examples = []
    if not options.without_data:
        examples = read_examples(
            options, task, task.train_split, modular.model, modular.tokenizer, modular.prefix,
            most=_texts_seen(args, options), trains=True,
        )  # fmt: skip
    measured_on = dev_examples(options, task, modular)
    use_cpu_well(options.threads)
    begins = args.world_size == 1 and last_checkpoint(args.output_dir) is None
    if only_plan or (begins and args.max_steps >= _WORTH_A_PLAN):
        _show_plan(modular, task, examples, args, options)
    if only_plan:
        return
    _write_options(args, options)
    examples = _with_texts_of_the_original(modular, task, examples, args, options)
    if options.dropout is not None:
        set_dropout(modular.model, options.dropout)
    watch = Watch(
        modular, spread(measured_on, options.watch_inputs), options.watch_steps or max(1, args.max_steps // 10)
    )
    train_kit(modular, task, examples, args, options.batch_size, options.adamw_learning_rate, watch=watch)
    _say_where("the modular model", args.output_dir)
    measured_on = spread(measured_on, options.report_inputs)
    if measured_on and is_first():
        print(f"how good each size is: {_report(modular, measured_on, args.output_dir)}")


def _say_where(what: str, folder: str) -> None:
    """Where the result of a training is, and how long it took, interruptions aside."""
    from modtf.training.plan import duration

    if is_first():
        record = json.loads((Path(folder) / "training.json").read_text(encoding="utf-8"))
        print(f"{what} is in {folder} after {duration(record['seconds'])}")


def _show_plan(
    modular: ModularModel, task: Task, examples: list[Example], args: Any, options: argparse.Namespace
) -> None:
    """What the training will cost; raises :class:`ModtfError` where the disk is too small."""
    from modtf.tasks.examples import Example
    from modtf.training.runs import plan_kit

    inputs = examples or [Example(source, (source,)) for source in _draw(task, 200)]
    cost = plan_kit(modular, task, inputs, args, options.batch_size, options.adamw_learning_rate)
    print(cost)
    texts = options.pairs if task.draw is not None else min(options.pairs, len(inputs))
    if texts and not (Path(args.output_dir) / "pairs.jsonl").is_file() and not _wrote(options.earlier, texts):
        print(f"before that the original writes {texts:,} texts: {_time_of_texts(modular, inputs, texts)}")
    if shortage := cost.shortage(args.output_dir):
        raise ModtfError(shortage + "; free some, or give another --output")


def _with_texts_of_the_original(
    modular: ModularModel, task: Task, examples: list[Example], args: Any, options: argparse.Namespace
) -> list[Example]:
    """What the kit trains on: people's texts, and those that the original writes first, as the options say."""
    from modtf.tasks import TEXT
    from modtf.tasks.examples import read_pairs, without_faults
    from modtf.tasks.reading import cut_to
    from modtf.training.runs import with_texts_of_the_original

    written = []
    if options.pairs:
        path = _texts_of_the_original(
            modular, examples, options.pairs, args.seed, Path(args.output_dir), options.earlier
        )
        written = read_pairs(path)
        if task is TEXT:  # what an untrained original writes may have no end
            assert modular.tokenizer is not None
            written = cut_to(written, modular.tokenizer, *longest(options, modular.model, modular.tokenizer)).examples
    if options.faultless and task.faultless is not None:
        before = sum(len(example.references) for example in (*examples, *written))
        examples, written = (without_faults(texts, task.faultless) for texts in (examples, written))
        kept = sum(len(example.references) for example in (*examples, *written))
        if not kept:
            raise ModtfError(f"none of the {before:,} texts is without faults; leave out --faultless")
        say(f"{kept:,} of {before:,} texts are without faults", sys.stdout)
    return with_texts_of_the_original(examples, written) if written else examples


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", default="text", help="task whose data and recipe to use (default %(default)s: any text)"
    )
    parser.add_argument(
        "--source-prefix", default="", metavar="TEXT",
        help="what the model expects each source to begin with, such as 'summarize: '; saved with the kit",
    )  # fmt: skip
    for name, words in (("source", "of the sources"), ("target", "of the targets")):
        parser.add_argument(
            f"--{name}-language", metavar="CODE",
            help=f"language {words}, for tokenizers that write its code (mBART, M2M100, NLLB), such as eng_Latn; saved with them",
        )  # fmt: skip


def _texts_seen(args: Any, options: argparse.Namespace) -> int:
    """How many texts a training sees at most: there is no need to read more."""
    return args.max_steps * options.batch_size * args.gradient_accumulation_steps * args.world_size


def _task_of(arguments: Sequence[str], prog: str) -> Task:
    """The task, which is read first: the defaults of other options depend on it."""
    from modtf.options_file import Parser, read_options
    from modtf.tasks import task_named

    first = Parser(add_help=False, prog=prog)
    first.add_argument("--task")
    first.add_argument("--config", action="append", default=[])
    given = first.parse_known_args(arguments)[0]
    of_files = [read_options(file).get("task") for file in given.config]
    return task_named(next(task for task in (given.task, *reversed(of_files), "text") if task is not None))


def _report(modular: ModularModel, examples: Sequence[Example], folder: str) -> Path:
    from tqdm import tqdm

    from modtf.views.report import measure, write_report

    modular.eval()
    with tqdm(desc="sizes measured", unit=" sizes", leave=False, file=sys.stderr, disable=None) as bar:
        rows = measure(modular, examples, moving(bar))
    return write_report(folder, modular, examples, rows)


def _draw(task: Task, count: int) -> list[str]:
    from random import Random

    rng = Random(0)
    return [task.draw(rng) for _ in range(count)] if task.draw is not None else []


def _time_of_texts(modular: ModularModel, examples: Sequence[Example], count: int) -> str:
    """How long the original will write so many texts, from a few of them."""
    from modtf.evaluation import write_texts
    from modtf.tasks.examples import spread
    from modtf.training.plan import duration

    few = [example.source for example in spread(examples, 16)]
    modular.to(device())
    began = time.perf_counter()
    write_texts(modular, modular.mapping.original, few)
    return duration((time.perf_counter() - began) * count / len(few))


def _write_options(args: Any, options: argparse.Namespace) -> None:
    from modtf.options_file import write_options

    if is_first():
        write_options(args.output_dir, options.record)


def _copy_whole(file: Path, to: Path) -> None:
    """Copy a file, if it is there; the copy is never there in part."""
    if is_first() and file.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to.with_suffix(".part"))
        to.with_suffix(".part").replace(to)


def _wrote(earlier: Path | None, count: int) -> bool:
    """Whether the original wrote as many texts for an earlier kit: a bundled one comes with a few of them only."""
    from modtf.tasks.examples import read_pairs

    if earlier is None or not (earlier / "pairs.jsonl").is_file():
        return False
    return sum(len(example.references) for example in read_pairs(earlier / "pairs.jsonl")) == count


def _texts_of_the_original(
    modular: ModularModel, examples: Sequence[Any], count: int, seed: int, output: Path, earlier: Path | None
) -> Path:
    """The file with the original's texts; if it is missing, the first process writes it and the others wait.

    If the task can draw inputs, evaluation.jsonl beside it holds 300 more, for measuring without real data. Both are
    copied from the folder of an ``earlier`` training that wrote as many.
    """
    from random import Random

    from tqdm import tqdm

    from modtf.evaluation import write_texts
    from modtf.tasks import task_named
    from modtf.tasks.examples import write_pairs

    path = output / "pairs.jsonl"
    first = is_first()
    task = task_named(modular.task)
    count = count if task.draw is not None else min(count, len(examples))
    if first and earlier is not None and not path.is_file() and _wrote(earlier, count):
        for name in ("evaluation.jsonl", "pairs.jsonl"):
            _copy_whole(earlier / name, output / name)
    if first and not path.is_file():
        before = modular.device
        modular.to(device())
        output.mkdir(parents=True, exist_ok=True)
        rng = Random(seed)
        if task.draw is None:
            chosen = rng.sample(list(examples), count)
            files = {"pairs": [example.source for example in chosen]}
        else:
            other = Random(f"evaluation {seed}")  # not what a later part, of another seed, trains on
            files = {"evaluation": [task.draw(other) for _ in range(300)]}
            files["pairs"] = [task.draw(rng) for _ in range(count)]
        for name, sources in files.items():  # pairs.jsonl comes last: where it is, both are complete
            with tqdm(total=len(sources), desc=f"{name} by the original", disable=None) as bar:
                texts = write_texts(modular, modular.mapping.original, sources, progress=moving(bar))
            unfinished = output / f"{name}.part"
            write_pairs(zip(sources, texts, strict=True), unfinished)
            unfinished.replace(output / f"{name}.jsonl")
        modular.to(before)
    while not path.is_file():
        time.sleep(1)
    return path
