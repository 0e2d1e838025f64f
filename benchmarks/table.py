"""Measure the tables of docs/results.md: size, quality, speed and memory of assemblies, all in one run.

    python benchmarks/table.py --model pocket --data <folder of the data of the model's task>

writes data/<model>/table.json, and the tables between the model's markers in docs/results.md and in its model card, and
a few lines where README.md has a place for them (translator's). The untrained kit (the same paths before training) is
measured too, as the floor from which training starts. Speed-ups compare times of this run only: models and engines take
turns on each sentence, after a warm-up, so all see the same machine.

--speed-only keeps the quality in data/<model>/table.json and measures everything else anew: for other code or another
machine, but the same weights. --quality-only keeps everything else, which is a matter of how many layers there are: for
other weights, where this machine is not quiet enough for times; it leaves out assemblies of which the old table has no
row with as many layers, and says so. --ctranslate2 also times that compiled engine, to show what is possible without
Python between the tokens.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import transformers
from pages import grid, insert

import modtf
from modtf.bundled import BUNDLED_MODELS
from modtf.commands.data import data_folder
from modtf.decoding import GENERATE, LOOP, decode
from modtf.errors import ModtfError
from modtf.evaluation import Latency, Size, in_turns, measure_quality, size_of, write_texts
from modtf.mapping import Assembly
from modtf.modular import ModularModel, modularize
from modtf.saving import fingerprint_of
from modtf.tasks import Example, Task, task_named
from modtf.tasks.examples import spread
from modtf.tasks.task import Metric

ROOT = Path(__file__).parent.parent
#: Length of every timed text in tokens: with free lengths, a model that writes more would look slower.
TOKENS = 32
RATIOS = (1, 1.09, 1.33, 1.5, 2, 3, 4, 6)
BATCH = 32
#: What :func:`latencies` and :func:`sizes` measure of an assembly.
COSTS = (
    "latency_ms", "speed_up", "batch_latency_ms", "batch_speed_up", "generate", "ctranslate2", "parameters",
    "parameters_without_embeddings", "assemble_ms", "peak_memory_mb",
)  # fmt: skip
#: Precisions in which CTranslate2 computes, and the number of inputs for which its texts are compared with ours.
PRECISIONS = ("float32", "int8")
COMPARED = 100

#: (strategy, wanted ratio, what it becomes)
Wanted = list[tuple[str, float, Assembly]]
#: CTranslate2's translators by precision
Translators = dict[str, Any]

# Run in a fresh process (Linux): the peak memory of an exported checkpoint beyond that of Python and its libraries.
MEMORY_PROBE = """
import sys, torch
from pathlib import Path
from transformers import AutoModelForSeq2SeqLM

def memory_mb(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(1)
inputs = torch.load(sys.argv[2], weights_only=True)
before = memory_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(memory_mb("VmHWM") - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    parser.add_argument("--sentences", type=int, default=40, help="number of sentences that time the latency of one")
    parser.add_argument("--batches", type=int, default=5, help="number of runs that time the latency of a batch")
    parser.add_argument("--threads", type=int, default=1)
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument(
        "--speed-only",
        action="store_true",
        help="keep the quality in data/<model>/table.json, which must be of the same weights",
    )
    keep.add_argument(
        "--quality-only",
        action="store_true",
        help="keep times and memory in data/<model>/table.json, and leave out what it has no times of",
    )
    parser.add_argument("--ctranslate2", action="store_true", help="time CTranslate2, too; it must be installed")
    parser.add_argument(
        "--output",
        type=Path,
        help="the pages change only if this is left out (default: data/<model>/table.json)",
    )
    options = parser.parse_args()
    if options.ctranslate2 and find_spec("ctranslate2") is None:
        parser.error(
            f'--ctranslate2 needs a package that is not installed: {sys.executable} -m pip install "modtf[ctranslate2]"'
        )
    torch.set_num_threads(options.threads)

    folder = ROOT / "data" / options.model
    modular = modtf.load(options.model)
    task = task_named(modular.task)
    wanted = [(strategy, ratio, modular.choose(ratio, strategy)) for strategy in modular.strategies for ratio in RATIOS]
    known = timed = None
    if options.speed_only:  # refused here, not after hours of measuring
        known = known_rows(folder / "table.json", wanted, task.metrics)
    if options.quality_only:
        every = [assembly for _, _, assembly in wanted]
        timed = known_costs(folder / "table.json", every, options.threads, options.ctranslate2)
        if unknown := sorted({assembly.shape for assembly in every} - {assembly.shape for assembly in timed}):
            print(f"left out, since the times of so many layers are not known: {', '.join(unknown)}")
        wanted = [row for row in wanted if row[2] in timed]
    chosen = list(dict.fromkeys(assembly for _, _, assembly in wanted))
    examples = task.read_data(options.data or data_folder(task), task.test_split)
    sources = [example.source for example in examples]

    likeness = measure_likeness(modular, chosen)
    compiled = {
        assembly: compile_assembly(modular, assembly, options.threads) for assembly in chosen if options.ctranslate2
    }
    same = {
        assembly: same_texts(modular, assembly, compiled[assembly], spread(sources, COMPARED)) for assembly in compiled
    }
    costs = timed or latencies(modular, chosen, sources, options.sentences, options.batches, compiled)
    for assembly in chosen:
        for precision, share in same.get(assembly, {}).items():
            costs[assembly]["ctranslate2"][precision]["same_text"] = share
        if not timed:
            costs[assembly] |= sizes(modular, assembly, spread(sources, BATCH))
        costs[assembly] |= {"bundled": likeness[assembly]}
        print(f"{assembly.shape}: {costs[assembly]}", flush=True)
    rows, count = known or (measure_rows(modular, wanted, examples), len(examples))
    for row in rows:
        if row["trained"]:
            row |= costs[Assembly.from_json(row["assembly"])]

    training = folder / "training.json"
    about = {
        "machine": f"{cpu_name()}, torch {torch.__version__}, transformers {transformers.__version__}",
        "engine": LOOP, **({"ctranslate2": version("ctranslate2")} if compiled else {}),
        "threads": options.threads,
    }  # fmt: skip
    if timed:
        before = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        about = {name: before[name] for name in about}
    table = {
        "made_by": "benchmarks/table.py",
        "banks": fingerprint_of(modular.bank_weights(), torch.float16),
        **about, "examples": count, "rows": rows,
        "training": json.loads(training.read_text()) if training.exists() else {},
    }  # fmt: skip
    (options.output or folder / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    text = markdown(table, task)
    print(text)
    if options.output is None:
        for page in (ROOT / "docs" / "results.md", folder / "README.md"):
            if page.is_file():
                insert(page, f"benchmarks/table.py --model {options.model}", text)
        insert(ROOT / "README.md", f"benchmarks/table.py --model {options.model}, in short", in_short(table, task))


# -- quality -----------------------------------------------------------------------------------------------------------


def untrain(modular: ModularModel) -> ModularModel:
    """The same original with an untrained kit."""
    return modularize(
        copy.deepcopy(modular.assemble()),
        modular.mapping.encoder.granularities,
        decoder_granularities=modular.mapping.decoder.granularities,
        tokenizer=modular.tokenizer,
        task=modular.task,
    )


def measure_rows(modular: ModularModel, wanted: Wanted, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Each wanted assembly with its scores: of the trained kit, then of the untrained one."""
    rows = []
    for trained, model in (True, modular), (False, untrain(modular)):
        measured = {}
        for assembly in dict.fromkeys(assembly for _, _, assembly in wanted):
            started = time.perf_counter()
            measured[assembly] = measure_quality(model, assembly, examples)
            seconds = time.perf_counter() - started
            print(
                f"{'trained' if trained else 'untrained'} {assembly.shape}: {measured[assembly]} in {seconds:.0f} s",
                flush=True,
            )
        full = measured[modular.mapping.original]
        for strategy, ratio, assembly in wanted:
            scores = measured[assembly]
            rows.append({
                "trained": trained, "strategy": strategy, "wanted_ratio": ratio, "ratio": round(assembly.ratio, 4),
                "assembly": assembly.to_json(), "layers": assembly.shape,
                **{key: round(value, 2) for key, value in scores.items()},
                **{
                    f"{metric.key}_kept": share_of(full[metric.key], scores[metric.key], metric)
                    for metric in task_named(modular.task).metrics
                },
            })  # fmt: skip
    return rows


def share_of(full: float, score: float, metric: Metric) -> float | None:
    """The score in percent of the full model's, errors without decimals; None where the full model has 0."""
    if not full:
        return None
    return round(100 * score / full) if metric.errors else round(100 * score / full, 1)


def measure_likeness(modular: ModularModel, chosen: Sequence[Assembly]) -> dict[Assembly, dict[str, Any]]:
    """Scores against the full model's texts for the bundled inputs: what the explorer measures, too."""
    task = task_named(modular.task)
    sources = [example.source for example in task.bundled_examples("evaluation")]
    full = write_texts(modular, modular.mapping.original, sources)
    examples = [Example(source, (text,)) for source, text in zip(sources, full, strict=True)]
    record = {}
    for assembly in chosen:
        scores = measure_quality(modular, assembly, examples)
        shown = {metric.key: round(scores[metric.key], 2) for metric in task.metrics[:2]}
        record[assembly] = {**shown, "examples": len(examples)}
    return record


def known_rows(path: Path, wanted: Wanted, metrics: Sequence[Metric]) -> tuple[list[dict[str, Any]], int]:
    """The rows of :func:`measure_rows` from a table that holds them, and the number of examples behind them."""
    if not path.exists():
        raise ModtfError(f"{path} is missing, so no quality is known; measure it, too: leave out --speed-only")
    table = json.loads(path.read_text(encoding="utf-8"))
    here = [
        (trained, strategy, ratio, assembly.to_json())
        for trained in (True, False)
        for strategy, ratio, assembly in wanted
    ]
    there = [(row["trained"], row["strategy"], row["wanted_ratio"], row["assembly"]) for row in table["rows"]]
    for ours, theirs in zip_longest(here, there):
        if ours != theirs:
            raise ModtfError(
                f"{path} holds other assemblies ({theirs} instead of {ours}); "
                "measure their quality: leave out --speed-only"
            )
    fields = (
        "trained", "strategy", "wanted_ratio", "ratio", "assembly", "layers",
        *(metric.key for metric in metrics), *(f"{metric.key}_kept" for metric in metrics),
    )  # fmt: skip
    return [{field: row[field] for field in fields} for row in table["rows"]], table["examples"]


# -- speed -------------------------------------------------------------------------------------------------------------


def known_costs(
    path: Path, chosen: Sequence[Assembly], threads: int, ctranslate2: bool
) -> dict[Assembly, dict[str, Any]]:
    """Times, sizes and memory from a table: of the same assembly, or else one of as many layers, with any weights.

    Assemblies for which it has no row are left out.
    """
    if not path.exists():
        raise ModtfError(f"{path} is missing, so no times are known; measure them, too: leave out --quality-only")
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = {Assembly.from_json(row["assembly"]): row for row in table["rows"] if row["trained"]}
    by_shape = {assembly.shape: row for assembly, row in rows.items()}
    if table["threads"] != threads or ("ctranslate2" in table) != ctranslate2:
        its = f"--threads {table['threads']}{' --ctranslate2' if 'ctranslate2' in table else ''}"
        raise ModtfError(f"{path} was measured otherwise; with --quality-only give {its}")
    of = {a: rows.get(a, by_shape[a.shape]) for a in chosen if a.shape in by_shape}
    return {assembly: {name: copy.deepcopy(row[name]) for name in COSTS if name in row} for assembly, row in of.items()}


def latencies(
    modular: ModularModel,
    chosen: Sequence[Assembly],
    sources: Sequence[str],
    sentences: int,
    batches: int,
    compiled: dict[Assembly, Translators],
) -> dict[Assembly, dict[str, Any]]:
    """For each assembly the latency of one sentence and of a batch of 32, and its speed-up over the original.

    The loop's numbers stand at the top level, those of the other engines under their names. Each speed-up compares
    with the original in the same engine.
    """
    models = {assembly: modular.assembled(assembly) for assembly in chosen}

    def runs(texts: list[str]) -> Iterator[tuple[tuple[Assembly, str], Callable[[], Any]]]:
        ids, mask = modular.encode(texts).values()
        tokens = tokenize(modular, texts)
        for assembly, model in models.items():
            for engine in (LOOP, GENERATE):
                yield (
                    (assembly, engine),
                    partial(decode, model, ids, mask, max_new_tokens=TOKENS, exactly=True, engine=engine),
                )
            for precision, translator in compiled.get(assembly, {}).items():
                limits = {"min_decoding_length": TOKENS, "max_decoding_length": TOKENS}
                yield (assembly, precision), partial(translator.translate_batch, tokens, beam_size=1, **limits)

    one: dict[tuple[Assembly, str], list[float]] = defaultdict(list)
    for source in spread(sources, sentences):
        for key, times in in_turns(dict(runs([source])), 1).items():
            one[key] += times
    batch = in_turns(dict(runs(spread(sources, BATCH))), batches)

    def speeds(assembly: Assembly, engine: str) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for prefix, times in ("", one), ("batch_", batch):
            own = Latency(tuple(times[assembly, engine]), TOKENS)
            full = Latency(tuple(times[modular.mapping.original, engine]), TOKENS)
            record[prefix + "latency_ms"] = {"median": round(own.median_ms, 2), "p95": round(own.p95_ms, 2)}
            record[prefix + "speed_up"] = round(full.median_ms / own.median_ms, 2)
        return record

    records = {}
    for assembly in chosen:
        records[assembly] = speeds(assembly, LOOP) | {"generate": speeds(assembly, GENERATE)}
        if compiled:
            records[assembly]["ctranslate2"] = {name: speeds(assembly, name) for name in compiled[assembly]}
    return records


# -- CTranslate2 -------------------------------------------------------------------------------------------------------


def compile_assembly(modular: ModularModel, assembly: Assembly, threads: int) -> Translators:
    """CTranslate2's translators of an exported assembly.

    Weights become int8 as they are loaded, so one conversion serves both.
    """
    import ctranslate2

    from modtf.exports.ctranslate2 import write

    with tempfile.TemporaryDirectory() as folder:
        converted = str(Path(folder) / "converted")
        write(modular.assemble(assembly=assembly), modular.tokenizer, Path(converted), "float32")
        return {
            precision: ctranslate2.Translator(
                converted, device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
            )
            for precision in PRECISIONS
        }


def same_texts(
    modular: ModularModel, assembly: Assembly, translators: Translators, sources: Sequence[str]
) -> dict[str, float]:
    """By precision, the share of greedy texts that are the same as ours; each engine decides where a text ends."""
    ours, tokens = write_texts(modular, assembly, sources), tokenize(modular, sources)
    shares = {}
    for precision, translator in translators.items():
        results = translator.translate_batch(tokens, beam_size=1, max_decoding_length=128, max_batch_size=BATCH)
        ids = [modular.tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        theirs = modular.tokenizer.batch_decode(ids, skip_special_tokens=True)
        shares[precision] = round(sum(own == other for own, other in zip(ours, theirs, strict=True)) / len(ours), 2)
    if shares["float32"] < 0.9:  # more than rounding explains: the times would be those of another model
        raise ModtfError(
            f"CTranslate2 writes other texts than {assembly} in float32 (the same: {shares['float32']:.0%}); "
            "its conversion went wrong"
        )
    return shares


def tokenize(modular: ModularModel, texts: Sequence[str]) -> list[list[str]]:
    """Tokens as CTranslate2 takes them: as strings, without padding."""
    return [modular.tokenizer.convert_ids_to_tokens(ids) for ids in modular.tokenizer(list(texts))["input_ids"]]


# -- size and memory ---------------------------------------------------------------------------------------------------


def sizes(modular: ModularModel, assembly: Assembly, sources: Sequence[str]) -> dict[str, Any]:
    """Parameters, the time to assemble, and the peak memory of a process that runs the exported checkpoint."""
    times = []
    for _ in range(20):
        started = time.perf_counter()
        small = modular.assemble(assembly=assembly)
        times.append(1000 * (time.perf_counter() - started))
    own = {p.data_ptr() for p in modular.parameters()}
    assert all(p.data_ptr() in own for p in small.parameters()), "assembling must copy no weights"
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        inputs = Path(folder) / "inputs.pt"
        torch.save(modular.encode(list(sources)), inputs)
        probe = subprocess.run(
            [sys.executable, "-c", MEMORY_PROBE, folder, str(inputs)], capture_output=True, text=True, check=True
        )
    size = size_of(small)
    return {
        "parameters": size.parameters, "parameters_without_embeddings": size.without_embeddings,
        "assemble_ms": round(statistics.median(times), 1), "peak_memory_mb": round(float(probe.stdout.split()[-1]), 1),
    }  # fmt: skip


# -- the tables as Markdown --------------------------------------------------------------------------------------------


def markdown(table: dict[str, Any], task: Task) -> str:
    """A table of size and quality, with the untrained kit's; one of speed, a row per assembly; and notes."""
    rows = [row for row in table["rows"] if row["trained"]]
    floor = {(row["strategy"], row["wanted_ratio"]): row for row in table["rows"] if not row["trained"]}
    quality = [
        {
            "strategy": row["strategy"],
            "ratio": f"{row['wanted_ratio']:g}",
            "layers": row["layers"],
            "parameters (M), total / without embeddings": " / ".join(
                f"{row[count] / 1e6:.2f}" for count in ("parameters", "parameters_without_embeddings")
            ),
            "float32 on disk MB": f"{Size(row['parameters'], row['parameters_without_embeddings']).megabytes:.1f}",
            **{_column(metric): f"{row[metric.key]:.2f} ({row[metric.key + '_kept']} %)" for metric in task.metrics},
            f"{task.metrics[0].name} untrained": (
                f"{floor[row['strategy'], row['wanted_ratio']][task.metrics[0].key]:.1f}"
            ),
            "peak memory MB (generate)": f"{row['peak_memory_mb']:.0f}",
            "assembling ms": f"{row['assemble_ms']:.1f}",
        }
        for row in rows
    ]
    first: dict[Assembly, dict[str, Any]] = {}
    strategies = defaultdict(list)
    for row in rows:
        assembly = Assembly.from_json(row["assembly"])
        first.setdefault(assembly, row)
        strategies[assembly].append(row["strategy"])
    speed = [
        {
            "strategy": " and ".join(strategies[assembly]),
            "ratio": f"{row['wanted_ratio']:g}",
            "layers": row["layers"],
            "one sentence, loop ms, median / p95 (speed-up)": _times(row, with_p95=True),
            "one sentence, generate ms (speed-up)": _times(row["generate"]),
            **{
                f"one sentence, CTranslate2 {precision} ms (speed-up)": _times(record)
                for precision, record in row.get("ctranslate2", {}).items()
            },
            "batch of 32, loop ms (speed-up)": _times(row, "batch_"),
            "batch of 32, generate ms (speed-up)": _times(row["generate"], "batch_"),
        }
        for assembly, row in first.items()
    ]
    notes = [
        f"{table['examples']:,} {task.test_inputs}, greedy; "
        f"times are of {TOKENS} tokens a text. {table['machine']}, threads: {table['threads']}.",
        "The loop is modtf's own greedy decoding and what is used unless another engine is asked for; "
        "generate is that of transformers and writes the same tokens"
        + _about_ctranslate2(table)
        + ". Each speed-up is over the same engine's 1x.",
    ]
    for name, cost in table["training"].items():
        notes.append(
            f"Training the {name}: {cost['steps']:,} steps of {cost['batch_size']} texts "
            f"in {cost['seconds'] / 60:.0f} minutes (device: {cost['device']}, processes: {cost['processes']}, "
            f"threads of each: {cost['threads']})."
        )
    return f"{grid(quality)}\n\n{grid(speed)}\n\n{' '.join(notes)}\n"


def in_short(table: dict[str, Any], task: Task) -> str:
    """A table of a few sizes, for the first page."""
    metric, ratios = task.metrics[0], (1, 1.5, 2, 3, 6)
    lines = [
        {
            "ratio": f"{row['wanted_ratio']:g}x",
            "layers": row["layers"],
            "parameters (M)": f"{row['parameters'] / 1e6:.1f}",
            f"{metric.name} (kept)": f"{row[metric.key]:.1f} ({row[metric.key + '_kept']} %)",
            "one text, ms (speed-up)": _times(row),
        }
        for row in table["rows"]
        if row["trained"] and row["strategy"] == "size_first" and row["wanted_ratio"] in ratios
    ]
    notes = (
        f"Size first, greedy; {table['examples']:,} {task.test_inputs}. "
        f"Times are of {TOKENS} tokens: {table['machine']}, threads: {table['threads']}."
    )
    return f"{grid(lines)}\n\n{notes}\n"


def _column(metric: Metric) -> str:
    return f"{metric.key.upper()} % (of the original's)" if metric.errors else f"{metric.name} (kept)"


def _times(record: dict[str, Any], prefix: str = "", with_p95: bool = False) -> str:
    latency = record[prefix + "latency_ms"]
    times = [latency["median"], latency["p95"]] if with_p95 else [latency["median"]]
    shown = " / ".join(f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" for ms in times)
    return f"{shown} ({record[prefix + 'speed_up']:.2f}x)"


def _about_ctranslate2(table: dict[str, Any]) -> str:
    records = [row["ctranslate2"] for row in table["rows"] if "ctranslate2" in row]
    if not records:
        return ""
    words = []
    for precision in records[0]:
        same = sorted({round(COMPARED * record[precision]["same_text"]) for record in records})
        texts = f"{same[0]} to {same[-1]}" if len(same) > 1 else f"{same[0]}"
        words.append(f"{texts} in {precision}")
    return (
        f"; CTranslate2 {table['ctranslate2']} is a compiled engine that runs the same assemblies once exported "
        f"(of {COMPARED} texts, {' and '.join(words)} are the loop's)"
    )


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
