"""How fast the full model writes its own words with drafts of a small assembly.

    python benchmarks/drafting.py [--inputs 100] [--threads 1] [--write]

The inputs are those of the bundled evaluation files. All ways take turns on each of them, so all see the same machine:
the loop at 1x, with drafts of the smallest decoder, with "auto", the loop at 2x, 3x and 6x, transformers' assisted
generation with the smallest decoder, and CTranslate2, if it is installed. Then the first three write eight texts at
once. Times are those of decoding, the encoder included; a ratio is the median over inputs of the ratios within an
input. For "auto", the classes of inputs are quarters by the length of the full model's text.

--write puts the table into README.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from pages import grid, insert
from table import compile_assembly, cpu_name, tokenize

import modtf
from modtf.bundled import BUNDLED_MODELS
from modtf.decoding import GENERATE
from modtf.mapping import Assembly
from modtf.modular import AUTO, ModularModel
from modtf.tasks import task_named

README = Path(__file__).parent.parent / "README.md"
LOOP_1X, DRAFTS, BY_AUTO = "loop, 1x", "loop, 1x, drafts by the smallest decoder", 'loop, 1x, `draft="auto"`'
AT_ONCE = 8


@dataclass
class Timed:
    """What one way wrote of some sources."""

    seconds: float
    texts: list[str]
    tokens: int = 0  # the longest text's
    tokens_a_pass: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables = []
    for name in BUNDLED_MODELS:
        modular = modtf.load(name)
        sources = [example.source for example in task_named(modular.task).bundled_examples("evaluation")]
        tables.append(measure(name, modular, sources[: options.inputs], options.threads))
    about = f"{options.inputs} inputs, {options.threads} thread(s): {cpu_name()}, torch {torch.__version__}."
    text = "\n".join([*tables, about, ""])
    print(text)
    if options.write:
        insert(README, "benchmarks/drafting.py", text)


def measure(name: str, modular: ModularModel, sources: list[str], threads: int) -> str:
    """The table of one model, and two sentences: on eight texts at once, and on classes of inputs."""
    full, smallest = modular.mapping.original, modular.mapping.coarsest
    ways = ways_to_write(modular, threads)
    singly = in_turns(ways, [[source] for source in sources])
    together = [sources[i : i + AT_ONCE] for i in range(0, len(sources) - AT_ONCE + 1, AT_ONCE)]
    at_once = in_turns({way: ways[way] for way in (LOOP_1X, DRAFTS, BY_AUTO)}, together)

    rows = []
    for way in ways:
        passes = [timed.tokens_a_pass for timed in singly[way] if timed.tokens_a_pass is not None]
        batch = at_once.get(way)
        rows.append(
            {
                name: way,
                "ms a text": f"{1000 * median(timed.seconds for timed in singly[way]):.1f}",
                "times as fast as the loop at 1x": f"{median(ratios(singly, way)):.2f}",
                f"{AT_ONCE} texts at once": f"{median(ratios(at_once, way)):.2f}" if batch else "",
                "tokens a pass": f"{mean(passes):.1f}" if passes else "",
                "same text": f"{100 * mean(a.texts == b.texts for a, b in zip(singly[way], singly[LOOP_1X], strict=True)):.0f} %",
            }
        )
    lengths = [timed.tokens for timed in singly[LOOP_1X]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    quarters = [order[len(order) * q // 4 : len(order) * (q + 1) // 4] for q in range(4)]
    of_auto = ratios(singly, BY_AUTO)
    classes = ", ".join(
        f"{median(of_auto[i] for i in quarter):.2f} ({lengths[quarter[0]]} to {lengths[quarter[-1]]})"
        for quarter in quarters
    )
    shape = f"{len(full.encoder)}-{len(full.decoder)}, drafts by {len(smallest.decoder)} of its decoder's layers"
    return f"{grid(rows)}\n\n`{name}`: {shape}. `auto` by quarters of inputs (tokens of their texts): {classes}.\n"


def ways_to_write(modular: ModularModel, threads: int) -> dict[str, Callable[[list[str]], Timed]]:
    full, smallest = modular.mapping.original, modular.mapping.coarsest
    small = Assembly(full.encoder, smallest.decoder)

    def by_modtf(assembly: Assembly = full, **options: Any) -> Callable[[list[str]], Timed]:
        def write(sources: list[str]) -> Timed:
            written = modular.write(sources, assembly, **options)
            passes = written.draft.tokens_a_pass if written.draft else None
            return Timed(written.seconds, written.texts, written.tokens.shape[1], passes)

        return write

    def assisted(sources: list[str]) -> Timed:
        encoded, model = modular.encode(sources), modular.assembled(full)
        began = time.perf_counter()
        with torch.inference_mode():
            tokens = model.generate(
                **encoded, assistant_model=modular.assembled(small), do_sample=False, max_new_tokens=modular.longest
            )
        seconds = time.perf_counter() - began
        return Timed(seconds, modular.tokenizer.batch_decode(tokens, skip_special_tokens=True))

    ways = {
        LOOP_1X: by_modtf(),
        DRAFTS: by_modtf(draft=smallest),
        BY_AUTO: by_modtf(draft=AUTO),
        **{f"loop, {ratio}x": by_modtf(modular.choose(ratio)) for ratio in (2, 3, 6)},
        "`generate`, 1x": by_modtf(engine=GENERATE),
        "`generate`, 1x, `assistant_model`": assisted,
    }
    if find_spec("ctranslate2"):
        translator = compile_assembly(modular, full, threads)["float32"]

        def compiled(sources: list[str]) -> Timed:
            tokens = tokenize(modular, sources)
            began = time.perf_counter()
            results = translator.translate_batch(tokens, beam_size=1, max_decoding_length=modular.longest)
            seconds = time.perf_counter() - began
            ids = [modular.tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
            return Timed(seconds, modular.tokenizer.batch_decode(ids, skip_special_tokens=True))

        ways["CTranslate2, float32, 1x"] = compiled
    return ways


def in_turns(ways: dict[str, Callable[[list[str]], Timed]], batches: list[list[str]]) -> dict[str, list[Timed]]:
    for way in ways.values():  # weights are laid out, and the pace is found
        for batch in batches[:3]:
            way(batch)
    found: dict[str, list[Timed]] = {label: [] for label in ways}
    for batch in batches:
        for label, way in ways.items():
            found[label].append(way(batch))
    return found


def ratios(found: dict[str, list[Timed]], way: str) -> list[float]:
    return [loop.seconds / timed.seconds for loop, timed in zip(found[LOOP_1X], found[way], strict=True)]


if __name__ == "__main__":
    main()
