"""The shell commands: demo, generate, evaluate, profile, export, plan, train, versus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modtf.commands import exporting, measuring, training, versus
from modtf.commands.data import add_assembly, add_config, add_data, add_model, chosen, load_model
from modtf.errors import ModtfError
from modtf.options_file import Parser, with_options_of_files
from modtf.strategies import QUALITY_FIRST, STRATEGIES

# `modtf --help` answers at once: whatever needs torch is imported by the command that needs it.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a :class:`ModtfError` ends it with one line on stderr and exit status 2."""
    parser = _parser()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options, rest = parser.parse_known_args(arguments)
        if "config" in options:
            command, *given = arguments
            options, rest = parser.parse_known_args([command, *with_options_of_files(options.parser, given)])
        if "train" in options:  # the options of a training come from its dataclass, see modtf.training.options
            options.train(options, rest)
        elif rest:
            options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
        else:
            options.run(options)
    except ModtfError as error:
        print(f"modtf: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("modtf: stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    from modtf import __version__

    parser = Parser(
        prog="modtf", description="Train once, slide to any size: flexible compression of encoder-decoders."
    )
    parser.add_argument("--version", action="version", version=f"modtf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="open the explorer in a browser")
    demo.add_argument(
        "--port", type=int, default=8866, help="on 127.0.0.1; the next free one if it is taken (default %(default)s)"
    )
    demo.add_argument("--no-browser", action="store_true", help="only print the address")
    demo.add_argument(
        "--quiet", action="store_true", help="for a class: no scores until the button is pressed that shows them"
    )
    demo.set_defaults(run=_demo, parser=demo)

    generate = commands.add_parser("generate", help="write a text with the full model and an assembled one")
    generate.add_argument(
        "text", help='for translator a German sentence; for pocket an MR such as "name[The Vaults], food[French]"'
    )
    add_model(generate)
    add_assembly(generate)
    generate.add_argument(
        "--engine", default="", metavar="ENGINE",
        help="loop, generate, ctranslate2 or ctranslate2-int8, for both models (default: the loop where possible)",
    )  # fmt: skip
    generate.set_defaults(run=_generate, parser=generate)

    evaluate = commands.add_parser("evaluate", help="measure the quality of assemblies on data of the model's task")
    add_model(evaluate)
    add_config(evaluate)
    add_data(evaluate)
    evaluate.add_argument("--split", help="such as dev, a file's name without extension (default: the test split)")
    evaluate.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="of the task's, for any text bleu, chrf, rouge_l (default: all)"
    )
    evaluate.add_argument(
        "--ratios", type=float, nargs="+", help="(default: of 1, 2, 3, 4 and 6 those that the kit can be assembled to)"
    )
    evaluate.add_argument(
        "--strategies", nargs="+", default=list(STRATEGIES), choices=(*STRATEGIES, QUALITY_FIRST), metavar="STRATEGY",
        help=f"of {', '.join(STRATEGIES)}, {QUALITY_FIRST} (default: the first two)",
    )  # fmt: skip
    evaluate.add_argument("--beams", type=int, default=1, help="beams of the search (default %(default)s: greedy)")
    evaluate.add_argument("--json", type=Path, help="file to which the scores are written as well")
    evaluate.set_defaults(run=measuring.evaluate)

    profile = commands.add_parser(
        "profile", help=f"measure what each module of a kit costs, for the strategy {QUALITY_FIRST}"
    )
    add_model(profile)
    add_config(profile)
    add_data(profile)
    profile.add_argument("--split", default="dev", help="a file's name without extension (default %(default)s)")
    profile.add_argument("--inputs", type=int, default=1000, help="number of its inputs (default %(default)s)")
    profile.add_argument("--seed", type=int, default=0, help="of the random assemblies (default %(default)s)")
    profile.add_argument("--times", action="store_true", help="keep the qualities of the kit's profile; time it here")
    profile.set_defaults(run=measuring.profile)

    export = commands.add_parser(
        "export", help="save an assembled model for transformers, CTranslate2, ONNX Runtime or llama.cpp"
    )
    exporting.add_options(export)

    plan = commands.add_parser("plan", help="what `modtf train kit` would cost, with the same options", add_help=False)
    plan.set_defaults(train=training.plan)

    train = commands.add_parser("train", help="train an original, or a kit of modularized layers for it")
    what = train.add_subparsers(required=True, metavar="what")
    for name, run, words in (
        ("original", training.original, "the model that a kit compresses"),
        ("kit", training.kit, "the banks of modularized layers, in one phase"),
    ):
        what.add_parser(name, help=words, add_help=False).set_defaults(train=run)

    against = commands.add_parser(
        "versus", help="is a kit as good as students that are each trained alone, on your data?"
    )
    versus.add_options(against)
    against.set_defaults(train=versus.versus)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from modtf.views.serve import serve

    serve(port=options.port, open_browser=not options.no_browser, quiet=options.quiet)


def _generate(options: argparse.Namespace) -> None:
    from modtf.evaluation import measured_table
    from modtf.tasks import task_named
    from modtf.views.controller import Controller

    modular = load_model(options)
    task_named(modular.task).read(options.text)  # the explorer takes an empty one for none yet
    table, _ = measured_table(modular)
    controller = Controller(modular, table)
    try:
        assembly = chosen(modular, options)
        controller.request(source=options.text, assembly=assembly, engine=options.engine)
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
    if row and table:
        where = "measured on the test set" if exact else f"the nearest measured assembly ({row['layers']})"
        scores = [
            f"{row[metric.key]} % {metric.name}"
            if metric.errors
            else f"{metric.name} {row[metric.key]} ({row[metric.field]} % of the full model's)"
            for metric in task.metrics[:2]
        ]
        print(f"{where}: {', '.join(scores)}, {row['speed_up']}x as fast (engine: {table['engine']})")


if __name__ == "__main__":
    sys.exit(main())
