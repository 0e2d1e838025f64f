"""The shell commands: demo, generate, evaluate, profile, plan, train, export."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtf.bundled import BUNDLED_MODELS
from modtf.errors import ModtfError
from modtf.strategies import QUALITY_FIRST, STRATEGIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.quality import Profile
    from modtf.tasks import Example, Task
    from modtf.tasks.task import Metric

_DATA_HELP = (
    "a file or a folder of JSON Lines, CSV, TSV or Parquet (also .gz), or a data set of the hub; for the bundled tasks the "
    "folder of their data (default: MODTF_E2E_DIR or MODTF_TATOEBA_DIR)"
)

_LIMITS = {
    "max_parameters": "parameters, embeddings included",
    "max_megabytes": "size on disk",
    "max_latency_ms": "time of one text of 32 tokens on the profile's machine",
    "min_quality": "percent of each of the full model's scores on dev: the fewest layers that keep it",
}

# `modtf --help` answers at once: whatever needs torch is imported by the command that needs it.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a :class:`ModtfError` ends it with one line on stderr and exit status 2."""
    from modtf.options_file import with_options_of_files

    parser = _parser()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser.parse_known_args(arguments)
    try:
        if "config" in options:
            command, *given = arguments
            options, rest = parser.parse_known_args([command, *with_options_of_files(options.parser, given)])
        if "train" in options:  # its options come from its dataclass, see modtf.training.options
            options.train(rest)
        elif rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        else:
            options.run(options)
    except ModtfError as error:
        print(f"modtf: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("modtf: stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from modtf import __version__

    parser = argparse.ArgumentParser(
        prog="modtf", description="Train once, slide to any size: flexible compression of encoder-decoders."
    )
    parser.add_argument("--version", action="version", version=f"modtf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="open the explorer in a browser")
    demo.add_argument(
        "--port", type=int, default=8866, help="on 127.0.0.1; the next free one if it is taken (default %(default)s)"
    )
    demo.add_argument("--no-browser", action="store_true", help="only print the address")
    demo.set_defaults(run=_demo)

    generate = commands.add_parser("generate", help="write a text with the full model and an assembled one")
    generate.add_argument(
        "text", help='for translator a German sentence; for pocket an MR such as "name[The Vaults], food[French]"'
    )
    _add_model(generate)
    _add_assembly(generate)
    generate.set_defaults(run=_generate)

    evaluate = commands.add_parser("evaluate", help="measure the quality of assemblies on data of the model's task")
    _add_model(evaluate)
    _add_config(evaluate)
    _add_data(evaluate)
    evaluate.add_argument("--split", help="such as dev, a file's name without extension (default: the test split)")
    evaluate.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="of the task's, for any text bleu, chrf, rouge_l (default: all)"
    )
    evaluate.add_argument("--ratios", type=float, nargs="+", default=[1, 2, 3, 4, 6])
    evaluate.add_argument(
        "--strategies", nargs="+", default=list(STRATEGIES), choices=(*STRATEGIES, QUALITY_FIRST), metavar="STRATEGY",
        help=f"of {', '.join(STRATEGIES)}, {QUALITY_FIRST} (default: the first two)",
    )  # fmt: skip
    evaluate.add_argument("--beams", type=int, default=1, help="beams of the search (default %(default)s: greedy)")
    evaluate.add_argument("--json", type=Path, help="file to which the scores are written as well")
    evaluate.set_defaults(run=_evaluate)

    profile = commands.add_parser(
        "profile", help=f"measure what each module of a kit costs, for the strategy {QUALITY_FIRST}"
    )
    _add_model(profile)
    _add_config(profile)
    _add_data(profile)
    profile.add_argument("--split", default="dev", help="a file's name without extension (default %(default)s)")
    profile.add_argument("--inputs", type=int, default=1000, help="number of its inputs (default %(default)s)")
    profile.add_argument("--seed", type=int, default=0, help="of the random assemblies (default %(default)s)")
    profile.add_argument("--times", action="store_true", help="keep the qualities of the kit's profile; time it here")
    profile.set_defaults(run=_profile)

    export = commands.add_parser("export", help="save an assembled model for plain transformers")
    export.add_argument("output", type=Path, help="a new folder")
    _add_model(export)
    _add_assembly(export)
    export.set_defaults(run=_export)

    plan = commands.add_parser("plan", help="what `modtf train kit` would cost, with the same options", add_help=False)
    plan.set_defaults(train=_plan)

    train = commands.add_parser("train", help="train an original, or a kit of modularized layers for it")
    what = train.add_subparsers(required=True, metavar="what")
    for name, run, words in (
        ("original", _train_original, "the model that a kit compresses"),
        ("kit", _train_kit, "the banks of modularized layers, in one phase"),
    ):
        what.add_parser(name, help=words, add_help=False).set_defaults(train=run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON with options; those of the shell count more")
    parser.set_defaults(parser=parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(BUNDLED_MODELS)
    parser.add_argument("--model", default="pocket", help=f"{names}, a folder or a hub id (default %(default)s)")
    parser.add_argument("--task", help="task of the model (default: the one saved with it)")


def _add_assembly(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ratio", type=float, help="original layers / assembled layers, from 1 to the kit's maximum (default 1)"
    )
    parser.add_argument(
        "--strategy", default="size_first", choices=(*STRATEGIES, QUALITY_FIRST), help="(default %(default)s)"
    )
    parser.add_argument("--assembly", help="instead of a ratio: an assembly such as 'encoder 6·6 | decoder 4·4·4'")
    limits = parser.add_argument_group(f"instead of a ratio, with --strategy {QUALITY_FIRST}")
    for name, words in _LIMITS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="N", help=words)


def _demo(options: argparse.Namespace) -> None:
    from modtf.views.serve import serve

    serve(port=options.port, open_browser=not options.no_browser)


def _generate(options: argparse.Namespace) -> None:
    from modtf.evaluation import measured_table
    from modtf.views.controller import Controller

    modular = _load(options)
    table, _ = measured_table(modular)
    controller = Controller(modular, table)
    try:
        assembly = _chosen(modular, options)
        controller.request(source=options.text, assembly=assembly)
        state = controller.wait(timeout=600, timed_in_turns=True)
    finally:
        controller.close()
    if state.problem or state.result is None:
        raise ModtfError(state.problem)
    result, task = state.result, controller.task
    for title, side in (("full", result.full), ("assembled", result.small)):
        size, shape = side.size, side.assembly.shape
        without = f"{size.without_embeddings:,} without embeddings"
        print(f"{title}: {shape} layers, {size.parameters:,} parameters ({without})")
        print(f"  {side.text}")
        marks: dict[str, list[str]] = {}
        for mark in side.judgement.marks:
            marks.setdefault(mark.kind, []).append(mark.name)
        if marks:
            print("  " + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in marks.items()))
        else:
            print(f"  {task.measure}: {side.judgement.value:.0f}{task.unit}")
        speed = side.latency
        print(f"  {speed.median_ms:.0f} ms, {speed.tokens_per_second:.0f} tokens/s, engine: {side.engine}")
    runs = len(result.small.latency.times_ms)
    print(
        f"{assembly}: ratio {assembly.ratio:.2f}, {result.speed_up:.2f}x the tokens per second "
        f"(medians of {runs} runs, taken in turns)"
    )
    row, exact = controller.measured(assembly, result.request.strategy)
    if row:
        where = "measured on the test set" if exact else f"the nearest measured assembly ({row['layers']})"
        scores = [
            f"{row[metric.key]} % {metric.name}"
            if metric.errors
            else f"{metric.name} {row[metric.key]} ({row[metric.field]} % of the full model's)"
            for metric in task.metrics[:2]
        ]
        print(f"{where}: {', '.join(scores)}, {row['speed_up']}x as fast")


def _evaluate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from modtf.evaluation import measure_quality
    from modtf.tasks import task_named

    if options.json and not options.json.absolute().parent.is_dir():
        raise ModtfError(f"there is no folder {options.json.absolute().parent}; create it first")
    if options.beams < 1:
        raise ModtfError(f"--beams is {options.beams}; give 1 or more")
    modular = _load(options).to(_device())
    task = task_named(modular.task)
    metrics = _metrics(task, options.metrics)
    split = options.split or task.test_split
    examples = _read(options, task, split, modular.model, modular.tokenizer, modular.prefix)
    chosen = dict.fromkeys(
        modular.choose(ratio, strategy) for ratio in options.ratios for strategy in options.strategies
    )
    rows = []
    print(f"{'layers':>7} {'ratio':>6} {''.join(f'{metric.name:>13}' for metric in metrics)}  assembly")
    for assembly in chosen:
        with tqdm(total=len(examples), desc=assembly.shape, leave=False, file=sys.stderr) as bar:
            scores = measure_quality(modular, assembly, examples, progress=_moving(bar), num_beams=options.beams)
        values = "".join(f"{scores[metric.key]:13.2f}" for metric in metrics)
        print(f"{assembly.shape:>7} {assembly.ratio:6.2f} {values}  {assembly}", flush=True)
        rows.append({"assembly": assembly.to_json(), "ratio": assembly.ratio, **scores})
    if options.json:
        record = {
            "model": options.model,
            "task": task.name,
            "split": split,
            "examples": len(examples),
            "beams": options.beams,
            "rows": rows,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _metrics(task: Task, keys: Sequence[str] | None) -> Sequence[Metric]:
    """The metrics of a task with these keys, or all of them."""
    known = {metric.key: metric for metric in task.metrics}
    for key in keys or ():
        if key not in known:
            raise ModtfError(f"--metrics {key} is no metric of the task {task.name!r}; it has {', '.join(known)}")
    return [known[key] for key in keys] if keys else task.metrics


def _profile(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from modtf.profile import machine, time_layers
    from modtf.quality import FILE
    from modtf.tasks import task_named
    from modtf.tasks.examples import spread

    if options.inputs < 1:
        raise ModtfError(f"--inputs is {options.inputs}; give 1 or more")
    modular = _load(options).to(_device())
    folder, task = modular.folder, task_named(modular.task)
    examples = spread(
        _read(options, task, options.split, modular.model, modular.tokenizer, modular.prefix), options.inputs
    )
    try:
        if options.times:
            times = time_layers(modular, examples)
            profile = replace(modular.profile, milliseconds=times, machine=machine(modular))
            profile.save(folder)
        else:
            profile = _measured_profile(modular, examples, options.seed, folder / f"{FILE}.part")
            profile.save(folder)
            (folder / f"{FILE}.part").unlink()
    except OSError as error:
        raise ModtfError(f"no profile can be written to {folder}: {error}; copy the kit to another folder") from error
    for assembly, kept in sorted(profile.kept.items(), key=lambda item: -item[0].layers):
        print(
            f"{assembly.ratio:5.2f}x  {profile.loss(assembly):.4f} nats a token, {kept:5.1f} % of the scores, "
            f"{profile.latency_ms(assembly):5.1f} ms  {assembly}"
        )
    print(f"{folder / FILE}; unseen assemblies: rank correlation {profile.held_out['rank_correlation']}")


def _measured_profile(modular: ModularModel, examples: Sequence[Example], seed: int, unfinished: Path) -> Profile:
    """Goes on with what an interrupted run left in the file ``unfinished``."""
    from tqdm import tqdm

    from modtf.profile import measure
    from modtf.saving import fingerprint_of

    inputs = hashlib.sha256(json.dumps([[e.source, *e.references] for e in examples]).encode()).hexdigest()
    banks, original = fingerprint_of(modular.bank_weights()), fingerprint_of(modular.original_weights())
    about = {"banks": banks, "original": original, "inputs": inputs, "seed": seed, "of": "losses"}
    known = _read_measured(unfinished, about)
    with unfinished.open("a", encoding="utf-8") as file, tqdm(initial=len(known), unit=" assemblies") as bar:

        def measured(assembly: Assembly, value: float) -> None:
            file.write(json.dumps([str(assembly), value], ensure_ascii=False) + "\n")
            file.flush()
            bar.update()

        return measure(modular, examples, seed=seed, known=known, progress=measured)


def _read_measured(path: Path, about: dict[str, Any]) -> dict[Assembly, float]:
    """The losses that an interrupted run with the same settings measured; begins a new file otherwise."""
    from modtf.mapping import Assembly

    first, *lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [""]
    if first != json.dumps(about):
        path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        return {}
    complete = [line for line in lines if line.endswith("]")]  # the last one may be cut off
    path.write_text("".join(f"{line}\n" for line in (first, *complete)), encoding="utf-8")
    return {Assembly.parse(text): value for text, value in map(json.loads, complete)}


def _export(options: argparse.Namespace) -> None:
    modular = _load(options)
    assembly = _chosen(modular, options)
    modular.export(options.output, assembly)
    print(f"{assembly} (ratio {assembly.ratio:.2f}) is in {options.output}. Load it with plain transformers:")
    print(f'  AutoModelForSeq2SeqLM.from_pretrained("{options.output}")')


# -- training ----------------------------------------------------------------------------------------------------------


def _train_original(arguments: Sequence[str]) -> None:
    from transformers import Seq2SeqTrainingArguments, set_seed

    from modtf.recipes import recipe_for
    from modtf.training.machine import use_cpu_well
    from modtf.training.options import check_model, parse_training
    from modtf.training.runs import load_original, load_tokenizer, set_dropout, train_original

    def add(parser: argparse.ArgumentParser) -> None:
        _add_task(parser)
        _add_data(parser)
        parser.add_argument(
            "--model", "--begin-with", dest="begin_with", metavar="MODEL",
            help="a model to train further, a folder or a hub id (default: the bundled task's new one)",
        )  # fmt: skip

    task = _task_of(arguments)
    recipe = recipe_for(task)
    args, options = parse_training(
        Seq2SeqTrainingArguments, recipe.original, add, arguments, prog="modtf train original"
    )
    check_model(options.begin_with)
    _hide_loading()
    if options.begin_with is None and recipe.new_original is None:
        raise ModtfError(
            f"no recipe makes a new model for the task {task.name!r}; give one to train further: --model, a folder or a hub id"
        )
    use_cpu_well(options.threads)
    set_seed(args.seed)
    started = time.monotonic()
    if options.begin_with is None:
        assert recipe.new_original is not None
        examples = _read(options, task, task.train_split)
        model, tokenizer = recipe.new_original(examples)
    else:
        model, tokenizer = load_original(options.begin_with), load_tokenizer(options.begin_with)
        most = _texts_seen(args, options)
        examples = _read(options, task, task.train_split, model, tokenizer, options.source_prefix, most, trains=True)
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    _write_options(args, options)
    train_original(model, tokenizer, task, examples, args, options.batch_size, options.adamw_learning_rate)
    print(f"the original is in {args.output_dir} after {(time.monotonic() - started) / 60:.1f} minutes")


def _plan(arguments: Sequence[str]) -> None:
    _train_kit(["--output", ".", *arguments], only_plan=True)  # where it would go; nothing is written


def _train_kit(arguments: Sequence[str], only_plan: bool = False) -> None:
    from modtf.modular import modularize
    from modtf.recipes import recipe_for
    from modtf.saving import read_index
    from modtf.tasks import TEXT
    from modtf.tasks.examples import Example, read_pairs, spread, without_faults
    from modtf.tasks.reading import cut_to
    from modtf.training import ModularTrainingArguments
    from modtf.training.machine import use_cpu_well
    from modtf.training.options import check_model, parse_training
    from modtf.training.runs import (
        last_checkpoint,
        load_original,
        load_tokenizer,
        plan_kit,
        set_dropout,
        train_kit,
        with_texts_of_the_original,
    )
    from modtf.training.trainer import check_training
    from modtf.training.watch import Watch

    task = _task_of(arguments)
    recipe = recipe_for(task)

    def add(parser: argparse.ArgumentParser) -> None:
        _add_task(parser)
        _add_data(parser)
        parser.add_argument(
            "--model", "--original", dest="original", required=True, metavar="MODEL",
            help="the trained original, a folder or a hub id",
        )  # fmt: skip
        parser.add_argument(
            "--pairs",
            type=int,
            default=recipe.pairs,
            help="number of texts that the original writes first; the kit learns from them and from people's "
            "(default %(default)s)",
        )
        parser.add_argument("--without-data", action="store_true", help="train on the original's texts alone")
        parser.add_argument(
            "--faultless",
            action="store_true",
            help="train only on texts that say all that their input does, and nothing else, as the task judges them",
        )
        parser.add_argument(
            "--granularities",
            type=int,
            nargs="+",
            help="(default: the divisors of each stack's depth, up to half of it)",
        )
        parser.add_argument(
            "--begin-with",
            type=Path,
            help="folder of a kit of the same original and granularities to train further; the texts that its original "
            "wrote are used again if they are as many (default: modules copied from the original)",
        )
        parser.add_argument(
            "--dev", help="file whose examples are written while it trains (default: the dev split of --data)"
        )
        parser.add_argument(
            "--watch-inputs", type=int, default=32, help="number of its examples; 0 for none (default %(default)s)"
        )
        parser.add_argument(
            "--report-inputs",
            type=int,
            default=100,
            help="number of those on which all sizes are measured at the end, for "
            "report.html; 0 for none (default %(default)s)",
        )
        parser.add_argument("--watch-steps", type=int, help="steps from one time to the next (default: a tenth of all)")

    prog = "modtf plan" if only_plan else "modtf train kit"
    args, options = parse_training(ModularTrainingArguments, recipe.kit, add, arguments, prog=prog)
    for name in ("watch_inputs", "watch_steps", "report_inputs"):
        if (given := getattr(options, name)) is not None and given < (name == "watch_steps"):
            raise ModtfError(f"--{name.replace('_', '-')} is {given}; give {int(name == 'watch_steps')} or more")
    # Check everything before the original writes its texts, which takes minutes.
    check_model(options.original)
    _hide_loading()
    if options.pairs < 0:
        raise ModtfError(f"--pairs is {options.pairs}; give 0 or more")
    if options.without_data and (task.draw is None or not options.pairs):
        reason = "--pairs is 0" if task.draw else "this task cannot draw inputs"
        raise ModtfError(f"without data there is nothing to train on: {reason}; leave out --without-data")
    if options.faultless and task.faultless is None:
        raise ModtfError(f"the task {task.name} cannot tell which texts have faults; leave out --faultless")
    original, tokenizer = load_original(options.original), load_tokenizer(options.original)
    modular = modularize(
        original, options.granularities, tokenizer=tokenizer, task=task.name,
        prefix=options.source_prefix,
    )  # fmt: skip
    if options.begin_with is not None:
        modular.load_banks(options.begin_with)
        earlier = read_index(options.begin_with).get("prefix", "")
        if options.source_prefix not in ("", earlier):
            raise ModtfError(
                f"--source-prefix is {options.source_prefix!r}, but {options.begin_with} has {earlier!r}; leave it out"
            )
        modular.prefix = earlier
    examples = []
    if not options.without_data:
        most = _texts_seen(args, options)
        examples = _read(options, task, task.train_split, modular.model, tokenizer, modular.prefix, most, trains=True)
    check_training(modular, args)
    measured_on = _dev(options, task, modular)
    dev = spread(measured_on, options.watch_inputs)
    use_cpu_well(options.threads)
    begins = args.world_size == 1 and last_checkpoint(args.output_dir) is None
    if only_plan or (begins and args.max_steps >= _WORTH_A_PLAN):
        inputs = examples or [Example(source, (source,)) for source in _draw(task, 200)]
        plan = plan_kit(modular, task, inputs, args, options.batch_size, options.adamw_learning_rate)
        print(plan)
        texts = options.pairs if task.draw is not None else min(options.pairs, len(inputs))
        if texts and not (Path(args.output_dir) / "pairs.jsonl").is_file():
            print(f"before that the original writes {texts:,} texts: {_time_of_texts(modular, inputs, texts)}")
        if shortage := plan.shortage(args.output_dir):
            raise ModtfError(shortage + "; free some, or give another --output")
    if only_plan:
        return
    started = time.monotonic()
    written = []
    if options.pairs:
        path = _texts_of_the_original(
            modular, examples, options.pairs, args.seed, Path(args.output_dir), options.begin_with
        )
        written = read_pairs(path)
        if task is TEXT:  # what an untrained original writes may have no end
            written = cut_to(written, tokenizer, *_lengths(options, original, tokenizer)).examples
    if options.faultless and task.faultless is not None:
        before = sum(len(example.references) for example in (*examples, *written))
        examples, written = (without_faults(texts, task.faultless) for texts in (examples, written))
        kept = sum(len(example.references) for example in (*examples, *written))
        if not kept:
            raise ModtfError(f"none of the {before:,} texts is without faults; leave out --faultless")
        print(f"{kept:,} of {before:,} texts are without faults")
    if written:
        examples = with_texts_of_the_original(examples, written)
    if options.dropout is not None:
        set_dropout(modular.model, options.dropout)
    _write_options(args, options)
    watch = Watch(modular, dev, options.watch_steps or max(1, args.max_steps // 10))
    train_kit(modular, task, examples, args, options.batch_size, options.adamw_learning_rate, watch=watch)
    print(f"the modular model is in {args.output_dir} after {(time.monotonic() - started) / 60:.1f} minutes")
    measured_on = spread(measured_on, options.report_inputs)
    if measured_on and os.environ.get("RANK", "0") == "0":
        print(f"how good each size is: {_report(modular, measured_on, args.output_dir)}")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", default="text", help="task whose data and recipe to use (default %(default)s: any text)"
    )
    parser.add_argument(
        "--source-prefix", default="", metavar="TEXT",
        help="what the model expects each source to begin with, such as 'summarize: '; saved with the kit",
    )  # fmt: skip


#: Options for data of one's own, and their defaults. The bundled tasks read their data in their own way.
_OWN: dict[str, tuple[Any, str]] = {
    "source_column": ("source", "column of what the model reads"),
    "target_column": ("target", "column of what it should write"),
    "data_config": (None, "configuration of a hub data set"),
    "max_source_length": (512, "tokens; the end of a longer source is cut off"),
    "max_target_length": (128, "tokens; the end of a longer target is cut off"),
}


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help=_DATA_HELP)
    for name, (default, words) in _OWN.items():
        kind = int if isinstance(default, int) else str
        shown = "" if default is None else f" (default {default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar="N" if kind is int else "NAME", help=words + shown
        )


def _read(
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

    given = {name: value for name in _OWN if (value := getattr(options, name)) is not None}
    if task is not TEXT:
        if getattr(options, "source_prefix", ""):
            given["source_prefix"] = options.source_prefix
        if given:
            name = next(iter(given)).replace("_", "-")
            raise ModtfError(
                f"--{name} has no effect on the task {task.name!r}, which reads its own data; leave it out"
            )
        return task.read_data(options.data or data_folder(task), split)
    assert model is not None and tokenizer is not None
    if options.data is None:
        raise ModtfError("--data is missing; give a file, a folder or a data set of the hub")
    asked = {name: default for name, (default, _) in _OWN.items()} | given
    lengths = _lengths(options, model, tokenizer)
    read = read_split(
        options.data, split, Columns(asked["source_column"], asked["target_column"], asked["data_config"]), most
    )
    _say(f"{split}: {read}")
    examples = [
        Example(one.source if one.source.startswith(prefix) else prefix + one.source, one.references)
        for one in read.examples
    ]
    cut = cut_to(examples, tokenizer, lengths[0], lengths[1] if trains else None)
    for number, what, tokens in zip((cut.sources, cut.targets), ("sources", "targets"), lengths, strict=True):
        if number:
            _say(f"{split}: {number:,} {what} are cut to {tokens} tokens")
    return cut.examples


def _say(words: str) -> None:
    """Once, however many processes train."""
    if os.environ.get("RANK", "0") == "0":
        print(words, file=sys.stderr)


def _dev(options: argparse.Namespace, task: Task, modular: ModularModel) -> list[Example]:
    """A slice of the dev split, to look at while a kit trains and afterwards; empty where there is none."""
    from modtf.tasks.examples import spread

    if not options.watch_inputs and not options.report_inputs:
        return []
    named = options.dev is not None
    of_dev = argparse.Namespace(**vars(options) | ({"data": options.dev} if named else {}))
    try:
        if not named and options.data is not None and Path(options.data).is_file():
            raise ModtfError(f"{options.data} is one file, so there is no dev split beside it")
        found = _read(of_dev, task, "dev", modular.model, modular.tokenizer, modular.prefix)
    except ModtfError as error:
        if named:
            raise
        _say(f"quality is not looked at while it trains ({error}); --dev names a file for that")
        return []
    return spread(found, max(options.report_inputs, options.watch_inputs))


def _lengths(
    options: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, int]:
    """The most source and target tokens: what the options say, but no more than the model can take."""
    from modtf.architectures import longest_texts

    asked = []
    for name, possible in zip(("source", "target"), longest_texts(model), strict=True):
        key = f"max_{name}_length"
        length = _OWN[key][0] if getattr(options, key) is None else getattr(options, key)
        if length < 4:
            raise ModtfError(f"--max-{name}-length is {length}; give 4 or more")
        asked.append(min(length, possible or length))
    return min(asked[0], tokenizer.model_max_length), asked[1]


def _texts_seen(args: Any, options: argparse.Namespace) -> int:
    """How many texts a training sees at most: there is no need to read more."""
    return args.max_steps * options.batch_size * args.gradient_accumulation_steps * args.world_size


def _task_of(arguments: Sequence[str]) -> Task:
    """The task, which is read first: the defaults of other options depend on it."""
    from modtf.options_file import read_options
    from modtf.tasks import task_named

    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--task")
    first.add_argument("--config", action="append", default=[])
    given = first.parse_known_args(arguments)[0]
    of_files = [read_options(file).get("task") for file in given.config]
    return task_named(next(task for task in (given.task, *reversed(of_files), "text") if task))


def _report(modular: ModularModel, examples: Sequence[Example], folder: str) -> Path:
    from tqdm import tqdm

    from modtf.views.report import measure, write_report

    modular.eval()
    with tqdm(desc="sizes measured", unit=" sizes", leave=False, file=sys.stderr) as bar:
        rows = measure(modular, examples, _moving(bar))
    return write_report(folder, modular, examples, rows)


#: A training of fewer steps is over before it is planned.
_WORTH_A_PLAN = 20


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
    modular.to(_device())
    began = time.perf_counter()
    write_texts(modular, modular.mapping.original, few)
    return duration((time.perf_counter() - began) * count / len(few))


def _write_options(args: Any, options: argparse.Namespace) -> None:
    from modtf.options_file import write_options

    if os.environ.get("RANK", "0") == "0":
        write_options(args.output_dir, options.record)


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
    from modtf.tasks.examples import read_pairs, write_pairs

    path = output / "pairs.jsonl"
    first = os.environ.get("RANK", "0") == "0"
    task = task_named(modular.task)
    count = count if task.draw is not None else min(count, len(examples))
    written = earlier / path.name if first and earlier is not None and not path.is_file() else None
    # If they are more or fewer, the original writes anew: a bundled kit comes with a few of its texts only.
    known = read_pairs(written) if written is not None and written.is_file() else []
    if earlier is not None and sum(len(example.references) for example in known) == count:
        output.mkdir(parents=True, exist_ok=True)
        for name in ("evaluation", "pairs"):
            if (earlier / f"{name}.jsonl").is_file():
                shutil.copyfile(earlier / f"{name}.jsonl", output / f"{name}.part")
                (output / f"{name}.part").replace(output / f"{name}.jsonl")
    if first and not path.is_file():
        device = modular.device
        modular.to(_device())
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
            with tqdm(total=len(sources), desc=f"{name} by the original") as bar:
                texts = write_texts(modular, modular.mapping.original, sources, progress=_moving(bar))
            unfinished = output / f"{name}.part"
            write_pairs(zip(sources, texts, strict=True), unfinished)
            unfinished.replace(output / f"{name}.jsonl")
        modular.to(device)
    while not path.is_file():
        time.sleep(1)
    return path


def _chosen(modular: ModularModel, options: argparse.Namespace) -> Assembly:
    """The assembly that the options ask for."""
    limits = {name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None}
    return modular.choose(options.ratio, options.strategy, options.assembly, **limits)


def _moving(bar: Any) -> Callable[[int], Any]:
    """A function that moves a progress bar to the number of texts written so far."""
    return lambda done: bar.update(done - bar.n)


def data_folder(task: Task) -> str:
    """The default folder of the task's data."""
    return os.environ.get(task.data_variable) or task.data_folder


def _load(options: argparse.Namespace) -> ModularModel:
    """The model that the options name."""
    from modtf.modular import load

    _hide_loading()
    return load(options.model, task=options.task)


def _hide_loading() -> None:
    """Turn off the progress bars with which transformers loads a model."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
