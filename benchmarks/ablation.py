"""What each replacing schedule contributes: short, otherwise identical trainings of pocket's modules.

    python benchmarks/ablation.py    # writes data/ablation.json, in about half an hour on one core

An interrupted run resumes where it stopped. Each training begins with untrained modules of granularity 2 and 6, sees
the same batches of the bundled texts (written by the original, so no data are needed), and is scored along the way at
2x and 6x on bundled inputs. Notebook 2 shows the results; what the losses are worth is measured by versus.py --ablation.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import modtf
from modtf.architectures import set_attention
from modtf.evaluation import measure_quality
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once, only_batch
from modtf.training.machine import fast_bf16, use_cpu_well
from modtf.training.optimizer import MuonWithAdamW

OUTPUT = Path(__file__).parents[1] / "data" / "ablation.json"
GRANULARITIES, RATIOS = (2, 6), (2, 6)
STEPS, BATCH_SIZE, LEARNING_RATE = 400, 32, 5e-3
MEASURE_EVERY, INPUTS = 100, 100
#: Two, which show how much a seed matters.
SEEDS = (0, 1)
#: No teacher.
LABELS_ALONE = {"labels_weight": 1.0, "logits_weight": 0.0, "hidden_weight": 0.0, "attention_weight": 0.0}

#: For replacing alone (labels, no teacher). With mixtures alone (a share of 1) it is the method of BERT-of-Theseus.
SCHEDULES: dict[str, dict[str, float]] = {
    "rising from none to all": {"mixtures": 1, "whole": 0, "replacing_probability": 0, "full_at": 1, "coarse_at": 0},
    "rising from half to all": {
        "mixtures": 1, "whole": 0, "replacing_probability": 0.5, "full_at": 0.5, "coarse_at": 0,
    },
    "all, from the first step": {"mixtures": 1, "whole": 0, "replacing_probability": 1, "coarse_at": 0},
    "rising, fine before coarse": {
        "mixtures": 1, "whole": 0, "replacing_probability": 0.5, "full_at": 0.5, "coarse_at": 0.5,
    },
    "modtf's own": {},
}  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    use_cpu_well(1)
    transformers.logging.disable_progress_bar()
    plan = [
        {"name": name, "seed": seed, "options": options | LABELS_ALONE}
        for seed in SEEDS
        for name, options in SCHEDULES.items()
    ]
    done = json.loads(OUTPUT.read_text())["runs"] if OUTPUT.exists() else []
    for wanted in plan:
        if not any(all(run[key] == value for key, value in wanted.items()) for run in done):
            done.append(wanted | train(wanted["seed"], wanted["options"]))
            print(json.dumps(done[-1]), flush=True)
            write(done)


def train(seed: int, options: dict[str, float]) -> dict[str, Any]:
    """Train new modules; the scores along the way, and the seconds of training without the measuring."""
    pocket = modtf.load("pocket")
    original = pocket.assemble()
    set_attention(original, "eager")
    modular = modtf.modularize(original, GRANULARITIES, tokenizer=pocket.tokenizer, task=pocket.task)
    encode_sources_once(modular.model)
    inputs = E2E.bundled_examples("evaluation")[:INPUTS]
    scores: list[dict[str, Any]] = []
    measuring = 0.0

    def measure(step: int) -> None:
        nonlocal measuring
        begun = time.perf_counter()
        for ratio in RATIOS:
            quality = measure_quality(modular, modular.choose(ratio), inputs)
            scores.append({"step": step, "ratio": ratio} | {name: round(value, 2) for name, value in quality.items()})
        modular.train()
        measuring += time.perf_counter() - begun

    class Measuring(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % MEASURE_EVERY == 0:
                measure(state.global_step)

    with tempfile.TemporaryDirectory() as folder:
        args = modtf.ModularTrainingArguments(
            output_dir=folder, max_steps=STEPS, learning_rate=LEARNING_RATE, warmup_steps=STEPS // 20, seed=seed,
            lr_scheduler_type="linear", use_cpu=True, bf16=fast_bf16(), report_to="none", save_strategy="no",
            logging_strategy="no", dataloader_pin_memory=False, disable_tqdm=True, **WHOLE_BATCHES, **options,
        )  # fmt: skip
        trainer = modtf.ModularTrainer(
            modular, args, data_collator=only_batch, callbacks=[Measuring()],
            train_dataset=TaskBatches(E2E, E2E.bundled_examples("pairs"), modular.tokenizer, STEPS, BATCH_SIZE, seed),
            optimizers=(MuonWithAdamW(modular, LEARNING_RATE, LEARNING_RATE / 5), None),
        )  # fmt: skip
        measure(0)
        measuring, begun = 0.0, time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun - measuring
    return {"scores": scores, "seconds": round(seconds)}


def write(runs: list[dict[str, Any]]) -> None:
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    made = {
        "made_by": "benchmarks/ablation.py",
        "machine": f"{platform.machine()}, {versions}, bf16: {fast_bf16()}",
        "steps": STEPS, "batch_size": BATCH_SIZE, "granularities": GRANULARITIES, "inputs": INPUTS,
        "runs": runs,
    }  # fmt: skip
    OUTPUT.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
