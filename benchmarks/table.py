"""Measure the table of the README: size, quality, speed and memory of assemblies, all in one run.

    python benchmarks/table.py --data <folder of the E2E CSV files>

writes data/table.json, and the table between the markers of README.md and of the model card. The untrained kit (same paths before training) is
measured too, as the floor that training starts from. Speeds are ratios within this run: models take turns on each
sentence, after a warm-up, so all meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

import modtf
from modtf.evaluation import Latency, measure_latency, measure_quality, size_of
from modtf.modular import ModularModel, modularize
from modtf.strategies import STRATEGIES
from modtf.tasks.e2e import Example, read_data, write_mr

ROOT = Path(__file__).parent.parent
#: Every model writes so many tokens a text when it is timed, or a longer text would pass for a slower model.
TOKENS = 32
RATIOS = (1, 1.09, 1.33, 1.5, 2, 3, 4, 6)
BATCH = 32

# Runs in a fresh process on an exported checkpoint: what does it take at its peak beyond Python and its libraries? (Linux)
MEMORY_PROBE = """
import sys, torch
from pathlib import Path
from transformers import AutoModelForSeq2SeqLM

def memory_mb(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(1)
inputs = torch.load(sys.argv[2], weights_only=True)
before = memory_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(memory_mb("VmHWM") - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--data", default=os.environ.get("MODTF_E2E_DIR", "e2e"))
    parser.add_argument("--sentences", type=int, default=40, help="for the latency of one sentence")
    parser.add_argument("--batches", type=int, default=5, help="for the latency of a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "table.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    examples = read_data(options.data, "test")
    modular = modtf.load(options.model)
    untrained = modularize(
        modtf.load(options.model).assemble(),
        modular.mapping.encoder_granularities,
        decoder_granularities=modular.mapping.decoder_granularities,
        tokenizer=modular.tokenizer,
    )
    wanted = [(strategy, ratio, modular.choose(ratio, strategy)) for strategy in STRATEGIES for ratio in RATIOS]
    chosen = list(dict.fromkeys(assembly for _, _, assembly in wanted))

    speed = latencies(modular, chosen, examples, options.sentences, options.batches)
    rows = []
    for trained, model in (True, modular), (False, untrained):
        measured = {}
        for assembly in chosen:
            started = time.perf_counter()
            measured[assembly] = measure_quality(model, assembly, examples)
            print(
                f"{'trained' if trained else 'untrained'} {assembly.shape}: {measured[assembly]} in {time.perf_counter() - started:.0f} s",
                flush=True,
            )
        full = measured[modular.mapping.original]
        for strategy, ratio, assembly in wanted:
            scores = measured[assembly]
            row = {
                "trained": trained, "strategy": strategy, "wanted_ratio": ratio, "ratio": round(assembly.ratio, 4), "assembly": assembly.to_json(),
                "layers": assembly.shape, **{key: round(value, 2) for key, value in asdict(scores).items()},
                "bleu_kept": round(100 * scores.bleu / full.bleu, 1), "ser_kept": round(100 * scores.ser / full.ser) if full.ser else None,
                "rouge_l_kept": round(100 * scores.rouge_l / full.rouge_l, 1),
            }  # fmt: skip
            if trained:
                row |= speed[assembly] | sizes(modular, assembly)
            rows.append(row)

    training = ROOT / "data" / "pocket" / "training.json"
    table = {
        "made_by": "benchmarks/table.py",
        "machine": f"{cpu_name()}, torch {torch.__version__}, transformers {transformers.__version__}, engine: transformers generate",
        "threads": options.threads, "examples": len(examples), "rows": rows,
        "training": json.loads(training.read_text()) if training.exists() else {},
    }  # fmt: skip
    options.output.write_text(json.dumps(table, indent=1) + "\n")
    text = markdown(table)
    print(text)
    start, end = "<!-- table: benchmarks/table.py -->\n", "<!-- end of table -->"
    for page in (ROOT / "README.md", ROOT / "data" / "pocket" / "README.md"):
        before, found, rest = page.read_text().partition(start)
        if found:
            page.write_text(before + start + text + end + rest.partition(end)[2])


def latencies(modular: ModularModel, chosen: list[modtf.Assembly], examples: list[Example], sentences: int, batches: int) -> dict:
    """For each assembly the latency of one sentence and of a batch of 32, and its speed-up over the original."""
    models = [modular.assembled(assembly) for assembly in chosen]
    sources = [write_mr(example.mr) for example in examples]
    spread = sources[:: max(1, len(sources) // sentences)][:sentences]
    single = [measure_latency(models, modular.encode([source]), repeats=1, exactly=TOKENS) for source in spread]
    batch = measure_latency(models, modular.encode(sources[:: len(sources) // BATCH][:BATCH]), repeats=batches, exactly=TOKENS)
    one = [Latency(tuple(t for latency in column for t in latency.times_ms), 0) for column in zip(*single, strict=True)]
    result = {}
    for i, assembly in enumerate(chosen):
        result[assembly] = {
            "latency_ms": {"median": round(one[i].median_ms, 1), "p95": round(one[i].p95_ms, 1)},
            "batch_latency_ms": {"median": round(batch[i].median_ms, 1), "p95": round(batch[i].p95_ms, 1)},
            "speed_up": round(one[0].median_ms / one[i].median_ms, 2),
            "batch_speed_up": round(batch[0].median_ms / batch[i].median_ms, 2),
        }
    return result


def sizes(modular: ModularModel, assembly: modtf.Assembly) -> dict:
    """Parameters, the time to assemble and the peak memory of a process that runs the exported checkpoint."""
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
        torch.save(modular.encode(["name[The Vaults], eatType[pub], food[French], near[Café Adriatic]"] * BATCH), inputs)
        probe = subprocess.run([sys.executable, "-c", MEMORY_PROBE, folder, str(inputs)], capture_output=True, text=True, check=True)
    size = size_of(small)
    return {
        "parameters": size.parameters, "parameters_without_embeddings": size.without_embeddings,
        "assemble_ms": round(statistics.median(times), 1), "peak_memory_mb": round(float(probe.stdout.split()[-1]), 1),
    }  # fmt: skip


def markdown(table: dict) -> str:
    """The trained rows, with the untrained BLEU beside them."""
    floor = {(row["strategy"], row["wanted_ratio"]): row for row in table["rows"] if not row["trained"]}
    lines = [
        "| strategy | ratio | layers | parameters (M), total / without embeddings | BLEU (kept) | SER % (of the original's) | ROUGE-L (kept) | BLEU untrained "
        "| one sentence ms, median / p95 | speed-up | batch of 32 ms, median / p95 | speed-up | peak memory MB | assembling ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        if row["trained"]:
            lines.append(
                f"| {row['strategy']} | {row['wanted_ratio']:g} | {row['layers']} | {row['parameters'] / 1e6:.2f} / {row['parameters_without_embeddings'] / 1e6:.2f} "
                f"| {row['bleu']:.2f} ({row['bleu_kept']:.1f} %) | {row['ser']:.2f} ({row['ser_kept']} %) | {row['rouge_l']:.2f} ({row['rouge_l_kept']:.1f} %) "
                f"| {floor[row['strategy'], row['wanted_ratio']]['bleu']:.1f} "
                f"| {row['latency_ms']['median']:.0f} / {row['latency_ms']['p95']:.0f} | {row['speed_up']:.2f}x "
                f"| {row['batch_latency_ms']['median']:.0f} / {row['batch_latency_ms']['p95']:.0f} | {row['batch_speed_up']:.2f}x | {row['peak_memory_mb']:.0f} | {row['assemble_ms']:.1f} |"
            )
    notes = [
        f"{table['examples']} meaning representations of the 2017 test set, greedy; times are of {TOKENS} tokens a text. "
        f"{table['machine']}, threads: {table['threads']}."
    ]
    for name, cost in table["training"].items():
        notes.append(
            f"Training the {name}: {cost['steps']:,} steps of {cost['batch_size']} texts in {cost['seconds'] / 60:.0f} minutes "
            f"(device: {cost['device']}, processes: {cost['processes']}, threads of each: {cost['threads']})."
        )
    return "\n".join(lines) + "\n\n" + " ".join(notes) + "\n"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
