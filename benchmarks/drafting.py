"""How fast the full model writes its own words with drafts of a small assembly, one text at a time.

    python benchmarks/drafting.py [--inputs 100] [--threads 1]

Each input of the bundled evaluation files is written by all in turns: by the loop at 1x, with drafts of the smallest
decoder, with "auto", by the loop at 2x, 3x and 6x, and by transformers' assisted generation with the smallest decoder.
The seconds are those of decoding, the encoder included; the ratios are medians over inputs of ratios within an input.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import mean, median
from typing import Any

import torch
from table import cpu_name

import modtf
from modtf.bundled import BUNDLED_MODELS
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks import task_named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{cpu_name()}, torch {torch.__version__}, {options.threads} thread(s), {options.inputs} inputs")
    for name in BUNDLED_MODELS:
        modular = modtf.load(name)
        sources = [example.source for example in task_named(modular.task).bundled_examples("evaluation")]
        measure(name, modular, sources[: options.inputs])


def measure(name: str, modular: ModularModel, sources: list[str]) -> None:
    full, smallest = modular.mapping.original, modular.mapping.coarsest
    small = Assembly(full.encoder, smallest.decoder)

    def by_loop(source: str, **options: Any) -> tuple[list[int], float, float | None]:
        written = modular.write([source], options.pop("assembly", full), **options)
        return written.tokens[0].tolist(), written.seconds, written.draft and written.draft.tokens_a_pass

    def assisted(source: str) -> tuple[list[int], float, None]:
        encoded, model = modular.encode([source]), modular.assembled(full)
        began = time.perf_counter()
        with torch.inference_mode():
            tokens = model.generate(
                **encoded, assistant_model=modular.assembled(small), do_sample=False, max_new_tokens=modular.longest
            )
        return tokens[0, 1:].tolist(), time.perf_counter() - began, None

    ways: dict[str, Callable[[str], tuple[list[int], float, float | None]]] = {
        "loop, 1x": by_loop,
        f"loop, 1x, drafts of {smallest.shape.split('-')[1]} layers": lambda source: by_loop(source, draft=smallest),
        'loop, 1x, draft="auto"': lambda source: by_loop(source, draft="auto"),
        **{
            f"loop, {ratio}x": lambda source, ratio=ratio: by_loop(source, assembly=modular.choose(ratio))
            for ratio in (2, 3, 6)
        },
        "generate, 1x": lambda source: by_loop(source, engine="generate"),
        "generate, 1x, assistant_model": assisted,
    }
    for way in ways.values():  # lay out weights
        for source in sources[:3]:
            way(source)
    found = [{label: way(source) for label, way in ways.items()} for source in sources]
    print(
        f"\n{name}: {len(found[0]['loop, 1x'][0])} tokens ...\n| | ms a text | times as fast | slowest | tokens a pass | same text |"
    )
    print("|---|---|---|---|---|---|")
    for label in ways:
        ratios = [row["loop, 1x"][1] / row[label][1] for row in found]
        passes = [row[label][2] for row in found if row[label][2] is not None]
        same = mean(row[label][0] == row["loop, 1x"][0] for row in found)
        milliseconds = 1000 * median(row[label][1] for row in found)
        print(
            f"| {label} | {milliseconds:.1f} | {median(ratios):.2f} | {min(ratios):.2f} | "
            f"{f'{mean(passes):.2f}' if passes else ''} | {100 * same:.0f} % |"
        )


if __name__ == "__main__":
    main()
