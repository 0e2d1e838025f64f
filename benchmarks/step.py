"""Seconds that a step of a bundled model's kit takes, forward and backward, without the optimizer; and the memory.

    python benchmarks/step.py translator --data <folder> [--steps 30] [--assemblies 4]

One thread, float32 and then bfloat16, on the same batches. Nothing else should run.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import modtf
from modtf.architectures import set_attention
from modtf.bundled import BUNDLED_MODELS
from modtf.commands.data import data_folder
from modtf.recipes import recipe_for
from modtf.tasks import task_named
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.training.machine import use_cpu_well

WARM_UP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--assemblies", type=int, default=4, help="that learn at each step")
    options = parser.parse_args()
    use_cpu_well(1)
    modular = modtf.load(options.model)
    task = task_named(modular.task)
    examples = task.read_data(options.data or data_folder(task), task.train_split)
    steps, batch_size = WARM_UP + options.steps, recipe_for(task).kit.batch_size
    batches = TaskBatches(task, examples, modular.tokenizer, steps, batch_size, seed=0)
    set_attention(modular.model, "eager")
    encode_sources_once(modular.model)
    modular.train()
    given = {"max_steps": steps, "assemblies_per_step": options.assemblies, "coarse_at": 0.0, "report_to": "none"}
    trainer = modtf.ModularTrainer(modular, modtf.ModularTrainingArguments("build/step", use_cpu=True, **given))
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    for bf16 in (False, True):
        for step in range(steps):
            if step == WARM_UP:
                began = time.perf_counter()
            trainer.state.global_step = step
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                trainer.training_step(modular, batches[step])
            modular.zero_grad()
        seconds = (time.perf_counter() - began) / options.steps
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{'bfloat16' if bf16 else 'float32'}: {seconds:.2f} s a step of {batch_size}, at most {memory:.1f} GB")


if __name__ == "__main__":
    main()
