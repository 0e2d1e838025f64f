"""The shell commands: demo, generate, evaluate, train, export."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from modtf import __version__
from modtf.errors import ModtfError
from modtf.modular import ModularModel, load
from modtf.strategies import STRATEGIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors of the input end in one line and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ModtfError as error:
        print(f"modtf: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("modtf: stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modtf", description="Train once, slide to any size: flexible compression of T5 and BART."
    )
    parser.add_argument("--version", action="version", version=f"modtf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="open the explorer in a browser")
    demo.add_argument(
        "--port", type=int, default=8866, help="on 127.0.0.1; the next free one where it is taken (default %(default)s)"
    )
    demo.add_argument("--no-browser", action="store_true", help="only print the address")
    demo.set_defaults(run=_demo)

    generate = commands.add_parser("generate", help="write a text with the full and with an assembled model")
    generate.add_argument("text", help='for pocket an MR such as "name[The Vaults], eatType[pub], food[French]"')
    _add_model(generate)
    _add_assembly(generate)
    generate.set_defaults(run=_generate)

    evaluate = commands.add_parser("evaluate", help="measure the quality of assemblies on E2E data")
    _add_model(evaluate)
    _add_data(evaluate)
    evaluate.add_argument(
        "--split", default="test", help="file name without ending: test, dev, dev-cleaned ... (default %(default)s)"
    )
    evaluate.add_argument("--ratios", type=float, nargs="+", default=[1, 2, 3, 4, 6])
    evaluate.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    evaluate.add_argument("--json", type=Path, help="also write the figures here")
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser("export", help="save an assembled model for plain transformers")
    export.add_argument("output", type=Path, help="a new folder")
    _add_model(export)
    _add_assembly(export)
    export.set_defaults(run=_export)

    train = commands.add_parser(
        "train", help="train the pocket original, or a kit of modularized layers for it"
    ).add_subparsers(required=True, metavar="what")
    original = train.add_parser("original", help="the 12 + 12 layer T5 that everything begins with")
    _add_data(original)
    original.add_argument(
        "--begin-with", type=Path, help="folder of a model whose training goes on (default: random weights)"
    )
    original.add_argument("--dropout", type=float, default=0.0, help="(default %(default)s)")
    _add_training(original, steps=3000, batch_size=128, learning_rate=8e-3)
    original.set_defaults(run=_train_original)
    kit = train.add_parser("kit", help="the banks of modularized layers, in one phase")
    _add_data(kit)
    kit.add_argument("--original", required=True, type=Path, help="folder of the trained original")
    kit.add_argument(
        "--pairs",
        type=int,
        default=4000,
        help="texts that the original writes first, to train on beside people's (default %(default)s)",
    )
    kit.add_argument("--without-data", action="store_true", help="train on the original's texts alone")
    kit.add_argument("--granularities", type=int, nargs="+", default=[2, 3, 4, 6])
    for loss, default in (("labels", 0.0), ("logits", 1.0), ("hidden", 0.2), ("attention", 0.0)):
        kit.add_argument(
            f"--{loss}-weight", type=float, default=default, help="of this loss; 0 turns it off (default %(default)s)"
        )
    _add_training(kit, steps=10_000, batch_size=64, learning_rate=5e-3)
    kit.set_defaults(run=_train_kit)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pocket", help="pocket, a folder or a hub id (default %(default)s)")


def _add_assembly(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ratio", type=float, help="original layers / assembled layers, from 1 to the kit's maximum (default 1)"
    )
    parser.add_argument("--strategy", default="size_first", choices=STRATEGIES, help="(default %(default)s)")
    parser.add_argument("--assembly", help="instead of a ratio, such as 'encoder 6·6 | decoder 3x4'")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default=os.environ.get("MODTF_E2E_DIR", "e2e"),
        help="folder of E2E CSV files, or hub (default: MODTF_E2E_DIR, else ./e2e)",
    )


def _add_training(parser: argparse.ArgumentParser, steps: int, batch_size: int, learning_rate: float) -> None:
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="folder for checkpoints and result; a run that was interrupted goes on here",
    )
    parser.add_argument("--steps", type=int, default=steps, help="(default %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help="texts a step, over all processes (default %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=learning_rate, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    parser.add_argument(
        "--threads",
        type=int,
        default=int(threads) if threads.isdecimal() else 1,
        help="of each process, on a CPU (default %(default)s)",
    )
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="bfloat16 autocast (default: where it is fast)",
    )


# What only one command needs is imported there.


def _demo(options: argparse.Namespace) -> None:
    from modtf.views.serve import serve

    serve(port=options.port, open_browser=not options.no_browser)


def _generate(options: argparse.Namespace) -> None:
    from modtf.views.controller import Controller, bundled_table

    modular = _load(options)
    table, _ = bundled_table(modular)
    controller = Controller(modular, table)
    try:
        controller.request(
            source=options.text, assembly=modular.choose(options.ratio, options.strategy, options.assembly)
        )
        state = controller.wait(timeout=600, timed_again=True)
    finally:
        controller.close()
    if state.problem or state.result is None:
        raise ModtfError(state.problem)
    result = state.result
    for title, side in (("full", result.full), ("assembled", result.small)):
        size = side.size
        print(
            f"{title}: {side.assembly.shape} layers, {size.parameters:,} parameters ({size.without_embeddings:,} without embeddings)"
        )
        print(f"  {side.text}")
        if side.report is not None:
            print(
                "  " + "; ".join(f"{kind}: {', '.join(slots)}" for kind, slots in asdict(side.report).items() if slots)
            )
        print(f"  {side.milliseconds:.0f} ms, {side.tokens_per_second:.0f} tokens/s, engine: {side.engine}")
    print(
        f"{result.small.assembly}: ratio {result.small.assembly.ratio:.2f}, {result.speed_up:.2f}x the tokens per second "
        f"(medians of {len(result.small.times_ms)} runs in turns)"
    )
    row, exact = controller.measured(result.small.assembly, result.request.strategy)
    if row:
        where = "measured on the test set" if exact else f"the nearest assembly that was measured ({row['layers']})"
        print(
            f"{where}: BLEU {row['bleu']} ({row['bleu_kept']} % of the full model's), SER {row['ser']} %, {row['speed_up']}x as fast"
        )


def _evaluate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from modtf.evaluation import measure_quality
    from modtf.tasks.e2e import read_data

    if options.json and not options.json.absolute().parent.is_dir():
        raise ModtfError(f"there is no folder {options.json.absolute().parent} for {options.json.name}; make it first")
    examples = read_data(options.data, options.split)
    modular = _load(options).to(_device())
    chosen = dict.fromkeys(
        modular.choose(ratio, strategy) for ratio in options.ratios for strategy in options.strategies
    )
    rows = []
    print(f"{'layers':>7} {'ratio':>6} {'BLEU':>6} {'SER %':>6} {'ROUGE-L':>8}  assembly")
    for assembly in chosen:
        with tqdm(total=len(examples), desc=assembly.shape, leave=False, file=sys.stderr) as bar:
            scores = measure_quality(
                modular, assembly, examples, progress=lambda done, bar=bar: bar.update(done - bar.n)
            )  # type: ignore[misc]
        print(
            f"{assembly.shape:>7} {assembly.ratio:6.2f} {scores.bleu:6.2f} {scores.ser:6.2f} {scores.rouge_l:8.2f}  {assembly}",
            flush=True,
        )
        rows.append({"assembly": assembly.to_json(), "ratio": assembly.ratio, **asdict(scores)})
    if options.json:
        options.json.write_text(
            json.dumps(
                {"model": options.model, "split": options.split, "examples": len(examples), "rows": rows}, indent=2
            )
            + "\n"
        )


def _export(options: argparse.Namespace) -> None:
    modular = _load(options)
    assembly = modular.choose(options.ratio, options.strategy, options.assembly)
    modular.export(options.output, assembly)
    print(f"{assembly} (ratio {assembly.ratio:.2f}) is in {options.output}. Load it with plain transformers:")
    print(f'  AutoModelForSeq2SeqLM.from_pretrained("{options.output}")')


def _train_original(options: argparse.Namespace) -> None:
    _check_training(options, options.begin_with)
    if not 0 <= options.dropout < 1:
        raise ModtfError(f"dropout {options.dropout:g} is not possible; give a probability from 0 to below 1")
    from modtf.pocket import train_original, use_cpu_well

    use_cpu_well(options.threads)
    started = time.monotonic()
    train_original(
        options.data, options.output, options.steps, options.batch_size, options.learning_rate, options.seed, options.bf16,
        options.begin_with, options.dropout,
    )  # fmt: skip
    print(f"the original is in {options.output} after {(time.monotonic() - started) / 60:.1f} minutes")


def _train_kit(options: argparse.Namespace) -> None:
    # What can be wrong is found before the texts are written, which takes minutes.
    _check_training(options, options.original)
    from transformers import AutoConfig

    from modtf.mapping import Mapping
    from modtf.pocket import train_kit, use_cpu_well
    from modtf.tasks.e2e import read_data

    depth = AutoConfig.from_pretrained(options.original)
    granularities = tuple(options.granularities)
    Mapping(depth.num_layers, depth.num_decoder_layers, granularities, granularities)
    if not options.without_data:
        read_data(options.data, "train-cleaned")
    use_cpu_well(options.threads)
    started = time.monotonic()
    pairs = _pairs(options) if options.pairs else None
    losses = {
        f"{loss}_weight": getattr(options, f"{loss}_weight") for loss in ("labels", "logits", "hidden", "attention")
    }
    train_kit(
        None if options.without_data else options.data, options.original, options.output, options.steps, options.batch_size,
        options.learning_rate, options.seed, options.bf16, pairs, granularities, **losses,
    )  # fmt: skip
    print(f"the modular model is in {options.output} after {(time.monotonic() - started) / 60:.1f} minutes")


def _check_training(options: argparse.Namespace, model: Path | None) -> None:
    for name in ("steps", "batch_size", "threads"):
        if getattr(options, name) < 1:
            raise ModtfError(f"--{name.replace('_', '-')} is {getattr(options, name)}; give 1 or more")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if options.batch_size % processes:
        raise ModtfError(
            f"{options.batch_size} texts a step cannot be shared evenly by {processes} processes; give a multiple of {processes}"
        )
    if model is not None and not (model / "config.json").is_file():
        raise ModtfError(f"{model} holds no model (no config.json); give the folder that `modtf train original` wrote")


def _pairs(options: argparse.Namespace) -> Path:
    """The file of texts by the original, written first where it is not there yet; of several processes the first writes it.

    Beside it evaluation.jsonl, 300 more: for those who measure without the real data.
    """
    from tqdm import tqdm

    path = options.output / "pairs.jsonl"
    if os.environ.get("RANK", "0") == "0" and not path.is_file():
        from transformers import AutoTokenizer

        from modtf.modular import modularize
        from modtf.pocket import draw_mrs, load_t5, write_pairs

        modular = modularize(
            load_t5(options.original).to(_device()), tokenizer=AutoTokenizer.from_pretrained(options.original)
        )
        options.output.mkdir(parents=True, exist_ok=True)
        for name, count, seed in (("evaluation", 300, options.seed + 1), ("pairs", options.pairs, options.seed)):
            with tqdm(total=count, desc=f"{name} by the original") as bar:
                unfinished = options.output / f"{name}.part"
                write_pairs(
                    modular, draw_mrs(count, seed), unfinished, lambda done, bar=bar: bar.update(done - bar.n) and None
                )  # type: ignore[misc]
                unfinished.replace(options.output / f"{name}.jsonl")
    while not path.is_file():
        time.sleep(1)
    return path


def _load(options: argparse.Namespace) -> ModularModel:
    """The model that the options name, without transformers' progress bars around what the command says."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return load(options.model)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
