"""Measure the README's table of exports: what each format and precision keeps, and what it costs.

    python benchmarks/exports.py [--inputs 100]

For each bundled kit, each size and each format: the share of its texts that are the assembly's own in float32, its
scores and how far they are from the assembly's, megabytes on disk, and the median time of a text, one by one. All
engines take turns on each text, with one thread, and generate in float32 at 1x is what the others are compared with. A
format whose packages are missing is left out and named. The table goes between its markers in README.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from pages import grid, insert
from table import cpu_name

import modtf
from modtf.bundled import BUNDLED_MODELS
from modtf.errors import ModtfError
from modtf.exports import format_named
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks import Example, task_named
from modtf.tasks.examples import spread

ROOT = Path(__file__).parent.parent
SIZES = (1, 3, 6)
FORMATS = (
    ("transformers", "float32"), ("transformers", "bfloat16"), ("ctranslate2", "float32"), ("ctranslate2", "int8"),
    ("onnx", "float32"), ("onnx", "int8"), ("gguf", "float32"), ("gguf", "int8"),
)  # fmt: skip
#: Of each engine, beside torch and transformers.
ENGINES = ("ctranslate2", "onnxruntime", "gguf")

#: (assembly, format, precision)
Key = tuple[Assembly, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    lines = [line for name in BUNDLED_MODELS for line in measure(modtf.load(name), options.inputs)]
    engines = ", ".join(f"{name} {version(name)}" for name in ENGINES if find_spec(name))
    about = (
        f"{options.inputs} bundled inputs of each kit, greedy, one by one and in turns, whole texts. {cpu_name()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {engines}; threads: 1."
    )
    text = f"{grid(lines)}\n\n{about}\n"
    print(text)
    insert(ROOT / "README.md", "benchmarks/exports.py", text)


def measure(modular: ModularModel, inputs: int) -> list[dict[str, str]]:
    """The lines of one kit."""
    task = task_named(modular.task)
    examples = spread(task.bundled_examples("evaluation"), inputs)
    assemblies = [modular.choose(ratio, "speed_first") for ratio in SIZES]
    with tempfile.TemporaryDirectory() as temporary:
        readers: dict[Key, Any] = {}
        megabytes: dict[Key, float] = {}
        for assembly in assemblies:
            for to, precision in FORMATS:
                folder = Path(temporary) / f"{assembly.shape}-{to}-{precision}"
                try:
                    made = format_named(to, precision, modular.architecture.model_type)
                    engine = getattr(made, "ENGINE", None)
                    if engine and not find_spec(engine):
                        raise ModtfError(f"{engine} is not installed")
                    started = time.perf_counter()
                    made.write(modular.assemble(assembly=assembly), modular.tokenizer, folder, precision)
                    seconds = time.perf_counter() - started
                except ModtfError as error:
                    print(f"left out: {modular.source} {assembly.shape} {to} {precision}: {error}")
                    continue
                key = assembly, to, precision
                readers[key] = made.reader(folder, modular.longest)
                megabytes[key] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
                print(f"{modular.source} {assembly.shape} {to} {precision}: written in {seconds:.0f} s", flush=True)
        texts, times = written(readers, examples)
    own = {assembly: modular.generate([one.source for one in examples], assembly=assembly) for assembly in assemblies}
    baseline = times[assemblies[0], "transformers", "float32"]
    lines = []
    for key, of_key in texts.items():
        assembly, to, precision = key
        scores, full = (task.score(examples, these) for these in (of_key, own[assembly]))
        equal = sum(one == other for one, other in zip(of_key, own[assembly], strict=True))
        lines.append(
            {
                "kit": str(modular.source),
                "size": f"{assembly.ratio:g}x, {assembly.shape}",
                "format": f"{to}, {precision}",
                "equal texts %": f"{100 * equal / len(examples):.0f}",
                **{
                    "scores (change)": ", ".join(
                        f"{metric.name} {scores[metric.key]:.2f} ({scores[metric.key] - full[metric.key]:+.2f})"
                        for metric in task.metrics[:2]
                    )
                },
                "MB": f"{megabytes[key]:.1f}",
                "ms a text (speed-up)": f"{times[key]:.1f} ({baseline / times[key]:.1f}x)",
            }
        )
    return lines


def written(readers: dict[Key, Any], examples: list[Example]) -> tuple[dict[Key, list[str]], dict[Key, float]]:
    """The texts of each reader, and its median milliseconds a text; the first text only warms up."""
    texts: dict[Key, list[str]] = {key: [] for key in readers}
    times: dict[Key, list[float]] = {key: [] for key in readers}
    for number, example in enumerate([examples[0], *examples]):
        for key, read in readers.items():
            started = time.perf_counter()
            (text,) = read([example.source])
            if number:
                times[key].append(1000 * (time.perf_counter() - started))
                texts[key].append(text)
    return texts, {key: statistics.median(of_key) for key, of_key in times.items()}


if __name__ == "__main__":
    main()
