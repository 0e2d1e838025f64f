"""An assembly for those who serve it: `modtf export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtf.commands.data import (
    LIMITS,
    OWN,
    add_assembly,
    add_data,
    add_model,
    as_in_training,
    check_configuration,
    chosen,
    load_model,
    read_examples,
    say,
)
from modtf.errors import ModtfError

if TYPE_CHECKING:
    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.tasks import Example

# `modtf --help` answers at once: whatever needs torch is imported by the function that needs it.


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument(
        "--to", default="transformers", help="transformers, ctranslate2, onnx or gguf (default %(default)s)"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--precision", default="float32", help="such as float16 or int8 (default %(default)s)")
    precision.add_argument(
        "--half", action="store_const", dest="precision", const="bfloat16", help="short for --precision bfloat16"
    )
    add_model(parser)
    add_assembly(
        parser, max_latency_ms="time of one text, measured here with the engine of the export; no strategy is asked"
    )
    parser.add_argument("--ratios", type=float, nargs="+", help="several sizes, each in a folder of its own")
    parser.add_argument(
        "--check", type=int, default=20, metavar="N",
        help="inputs with which the export is compared with the assembly (default %(default)s; 0 for none)",
    )  # fmt: skip
    add_data(parser)
    parser.add_argument(
        "--push-to-hub", metavar="REPOSITORY", help="upload it to this one of the hub, such as user/name"
    )
    parser.add_argument("--private", action="store_true", help="make that repository a private one")
    parser.set_defaults(run=export, parser=parser)


def export(options: argparse.Namespace) -> None:
    limit = _checked_limit(options)
    from modtf.exports import export as export_one
    from modtf.exports import export_sizes, format_named, push_to_hub
    from modtf.saving import check_new_folder, check_repository

    made = format_named(options.to, options.precision)
    if limit and hasattr(made, "ENGINE"):
        raise ModtfError(f"--max-latency-ms cannot be measured with --to {options.to}; choose another format")
    check_new_folder(options.output)
    if options.push_to_hub is not None:
        check_repository(options.push_to_hub)
    modular = load_model(options)
    format_named(options.to, options.precision, modular.architecture.model_type)
    sizes = _sizes(options, modular)
    assembly = None if limit or sizes else chosen(modular, options)
    examples = _examples(options, modular) if options.check or limit else []
    if limit:
        assembly = _within(limit, modular, made, options.precision, examples)
    how = {"to": options.to, "precision": options.precision, "examples": examples, "check": options.check}
    if assembly is None:
        written = export_sizes(modular, sizes, options.output, **how)
    else:
        written = [export_one(modular, assembly, options.output, **how)]
    for size in written:
        place = options.output / size.name if sizes else options.output
        print(
            f"{size.assembly} (ratio {size.assembly.ratio:.2f}) is in {place}: {size.to}, {size.precision}, "
            f"{size.megabytes:.1f} MB"
        )
        print(f"  {size.check or f'not checked: {size.unchecked}'}")
    print(f"How to load it is in {options.output / 'README.md'}")
    if options.push_to_hub is not None:
        print(push_to_hub(options.output, options.push_to_hub, private=options.private or None))


def _checked_limit(options: argparse.Namespace) -> float | None:
    """The limit of time, if there is one; raises :class:`ModtfError` for options that cannot be, before anything is loaded."""
    given = [name for name in ("ratio", "assembly", *LIMITS) if getattr(options, name) is not None]
    if options.ratios and given:
        raise ModtfError(f"both --ratios and --{given[0].replace('_', '-')} were given; give one of them")
    if options.check < 0:
        raise ModtfError(f"--check is {options.check}; give 0 or more")
    if options.private and options.push_to_hub is None:
        raise ModtfError("--private has no effect without --push-to-hub; leave it out")
    limit: float | None = options.max_latency_ms
    if limit is None:
        return None
    if len(given) > 1:
        other = next(name for name in given if name != "max_latency_ms").replace("_", "-")
        raise ModtfError(f"both --max-latency-ms and --{other} were given; give one of them")
    if not limit > 0:
        raise ModtfError(f"max_latency_ms is {limit}; give a number above 0")
    return limit


def _sizes(options: argparse.Namespace, modular: ModularModel) -> dict[str, Assembly]:
    """Those of ``--ratios``, by the names of their folders."""
    sizes = {f"{ratio:g}x": modular.choose(ratio, options.strategy) for ratio in options.ratios or ()}
    if len(set(sizes.values())) < len(sizes):
        raise ModtfError(
            f"two of the ratios are one assembly: {', '.join(f'{name} is {one}' for name, one in sizes.items())}"
        )
    return sizes


def _within(limit: float, modular: ModularModel, made: Any, precision: str, examples: list[Example]) -> Assembly:
    """The best assembly that takes at most ``limit`` milliseconds; says what was measured."""
    from modtf.exports.limit import INPUTS, REPEATS, time_of, within
    from modtf.profile import machine

    if not examples:
        raise ModtfError("--max-latency-ms needs inputs to measure; give --data")
    sources = [example.source for example in examples]

    def timed(one: Assembly) -> float:
        took = time_of(modular, one, made, precision, sources)
        say(f"measured: {one} takes {took:.1f} ms for a text")
        return took

    assembly, took = within(modular, limit, timed)
    say(
        f"{assembly} takes {took:.1f} ms for a text, the median of {len(sources[:INPUTS])} inputs, of each that of "
        f"{REPEATS} runs ({machine(modular)})"
    )
    return assembly


def _examples(options: argparse.Namespace, modular: ModularModel) -> list[Example]:
    """Inputs to compare with: given ones, those bundled for the task, or those of the kit's training."""
    from modtf.tasks import task_named

    task = task_named(modular.task)
    if options.data is None and task.model:
        return task.bundled_examples("evaluation")
    named = any(getattr(options, name) is not None for name in ("data", *OWN))
    try:
        as_in_training(options)
        check_configuration(options)
        return read_examples(options, task, task.test_split, modular.model, modular.tokenizer, modular.prefix)
    except ModtfError as error:
        if named:
            raise
        say(f"no inputs to check it with ({error})")
        return []
