"""What `modtf plan` says that a training will cost, and what the training then uses, for shapes of published models.

    python benchmarks/plan.py --shape t5-base bart-base [--steps 8] [--batch-size 16] [--source 64] [--target 32]

prints a row of a table for each; with --fine-tuning also the most memory that training all of the original takes. The
originals have random weights and the real vocabulary, and read random words, a token each: a text has half as many to
one and a half times as many as asked for, all numbers equally often. Plan and training have a process each, of one
thread. Nothing else should run; where it does, --cpu-time leaves it out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from table import cpu_name
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers.utils import logging

import modtf
from modtf.tasks import TEXT, Example
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.machine import use_cpu_well
from modtf.training.plan import Plan, size_in_words
from modtf.training.runs import load_original, load_tokenizer, plan_kit, train_kit, train_original

_BART_BASE = {
    "vocab_size": 50265, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
    "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
}  # fmt: skip
_LARGE = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16,
    "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
}  # fmt: skip
#: The family of each shape, and its configuration, as published.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-small": ("t5", {"vocab_size": 32128, "d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}),
    "t5-base": ("t5", {"vocab_size": 32128, "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "bart-base": ("bart", _BART_BASE),
    "bart-large": ("bart", {"vocab_size": 50265, **_LARGE}),
    "nllb-600m": ("m2m_100", {"vocab_size": 256206, "max_position_embeddings": 1024, **_LARGE}),
}
HEAD = (
    "| shape | parameters: original, banks | memory: planned, used | s a step: planned, used | disk: planned, used |\n"
    "|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["t5-base", "bart-base"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--source", type=int, default=64, help="tokens of a source, on average (default %(default)s)")
    parser.add_argument("--target", type=int, default=32, help="tokens of a target, on average (default %(default)s)")
    parser.add_argument("--granularities", type=int, nargs="+")
    parser.add_argument("--assemblies-per-step", type=int, default=1)
    parser.add_argument("--adamw", action="store_true", help="in place of the shell's default, Muon for matrices")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where other work runs beside")
    parser.add_argument(
        "--fine-tuning", action="store_true", help="of the original itself, on the same texts, by AdamW"
    )
    parser.add_argument("--only-plan", action="store_true", help="for --steps of a real training")
    options = parser.parse_args()
    print(HEAD, flush=True)
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder:
            alone(make_original, shape, folder)
            plan = alone(planned, folder, options)
            if options.only_plan:
                print(shape, plan, sep="\n", flush=True)
                continue
            with most_bytes(Path(folder) / "kit") as disk:
                memory, seconds = alone(used, folder, options)
            print(row(shape, plan, memory, seconds, disk[0]), flush=True)
            if options.fine_tuning:
                print(f"fine-tuning {shape}: {size_in_words(alone(fine_tuned, folder, options))}", flush=True)
    print(f"{cpu_name()}, torch {torch.__version__}")


def original_of(shape: str) -> PreTrainedModel:
    family, sizes = SHAPES[shape]
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **sizes, **special))


def make_original(shape: str, folder: str) -> None:
    torch.manual_seed(0)
    original_of(shape).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "</s>", *words()])}, "w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)


def words() -> list[str]:
    return [f"w{i}" for i in range(1000)]


def given(folder: str, options: argparse.Namespace) -> tuple[Any, ...]:
    """The arguments of `plan_kit` and `train_kit`, with the settings of `modtf train kit`."""
    use_cpu_well(1)
    if options.cpu_time:
        time.perf_counter = time.process_time
    modular = modtf.modularize(load_original(folder), options.granularities, tokenizer=load_tokenizer(folder))
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(rng.choices(words(), k=rng.randint(length // 2, length * 3 // 2)))

    examples = [Example(text(options.source), (text(options.target),)) for _ in range(50 * options.batch_size)]
    args = modtf.ModularTrainingArguments(
        f"{folder}/kit", max_steps=options.steps, learning_rate=1e-4, assemblies_per_step=options.assemblies_per_step,
        save_steps=options.steps, save_total_limit=1, bf16=options.bf16, use_cpu=True, seed=0, report_to="none",
        disable_tqdm=True, per_device_train_batch_size=1, train_sampling_strategy="sequential",
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    return modular, TEXT, examples, args, options.batch_size, None if options.adamw else 1e-4


def planned(folder: str, options: argparse.Namespace) -> Plan:
    return plan_kit(*given(folder, options))


def used(folder: str, options: argparse.Namespace) -> tuple[int, float]:
    """The most bytes in memory, and seconds a step."""
    clock = Clock()
    train_kit(*given(folder, options), watch=clock)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, mean(clock.seconds)


def fine_tuned(folder: str, options: argparse.Namespace) -> int:
    """The most bytes in memory while the original itself trains."""
    modular, task, examples, kit, batch_size, _ = given(folder, options)
    tokenizer = modular.tokenizer
    del modular
    names = ("learning_rate", "max_steps", "bf16", "use_cpu", "report_to", "disable_tqdm", *WHOLE_BATCHES)
    settings = {name: getattr(kit, name) for name in names}
    args = Seq2SeqTrainingArguments(f"{folder}/fine-tuned", save_strategy="no", optim="adamw_torch", **settings)
    train_original(load_original(folder), tokenizer, task, examples, args, batch_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def alone(function: Any, *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=hush) as pool:
        return pool.submit(function, *arguments).result()


def hush() -> None:
    """Keep the table alone on the standard output."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sys.stdout = sys.stderr


@contextmanager
def most_bytes(folder: Path) -> Any:
    """The most that a folder holds while the context is open, as a list of one number."""
    most, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            sizes = []
            for path in folder.rglob("*"):
                try:
                    sizes.append(path.stat().st_size)
                except OSError:  # gone meanwhile
                    continue
            most[0] = max(most[0], sum(sizes))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def row(shape: str, plan: Plan, memory: int, seconds: float, disk: int) -> str:
    def pair(planned: float, used: float, write: Any) -> str:
        return f"{write(planned)}, {write(used)} ({100 * (planned / used - 1):+.0f} %)"

    return " | ".join(
        [
            f"| {shape}",
            f"{plan.original / 1e6:.1f} M, {plan.banks / 1e6:.1f} M",
            pair(plan.peak, memory, size_in_words),
            pair(plan.seconds_a_step, seconds, lambda number: f"{number:.3g}"),
            pair(plan.disk, disk, size_in_words) + " |",
        ]
    )


if __name__ == "__main__":
    main()
