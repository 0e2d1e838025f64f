"""How the bundled *pocket* model is made: tokenizer, shape, the training of the original and of the kit.

The kit is trained by :class:`modtf.ModularTrainer`, as anybody's would be.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from modtf.data import bundled
from modtf.errors import ModtfError
from modtf.evaluation import write_texts
from modtf.modular import ModularModel, forward_shared, modularize
from modtf.tasks.batches import TaskBatches, only_batch
from modtf.tasks.e2e import MR, SLOTS, VALUES, Example, draw_mr, group_rows, read_data, write_mr
from modtf.trainer import BatchTrainer, ModularTrainer, ModularTrainingArguments, MuonWithAdamW


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 2000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``vocabulary_size`` tokens, learned from ``texts``, with one token per slot name.

    ``name[The Vaults], food[French]`` becomes ``name[ · The · Vaults · food[ · French · </s>``: brackets that close
    are dropped since the next slot says where a value ends, and each segment begins with a space so that a word
    has the same tokens in the MR as within a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\],? ?"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    slots = [AddedToken(f"{slot}[", normalized=False) for slot in SLOTS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(slots),
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    values = [value for slot in VALUES for value in VALUES[slot]]
    tokenizer.train_from_iterator([*texts, *values], trainer)
    tokenizer.add_tokens(slots)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def pocket_config(vocabulary_size: int = 2000, dropout: float = 0.0) -> T5Config:
    """T5-base's depth (12 + 12 layers), so that every ratio of the paper exists, at a width that a laptop runs."""
    return T5Config(
        vocab_size=vocabulary_size, d_model=128, d_kv=32, d_ff=512, num_heads=4, num_layers=12, num_decoder_layers=12,
        dropout_rate=dropout, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip


class _SharingT5(T5ForConditionalGeneration):
    """A T5 that encodes each source once for its many targets (see :func:`modtf.modular.forward_shared`)."""

    def forward(self, source_index: torch.Tensor | None = None, **inputs: Any) -> Any:
        if source_index is None:
            return super().forward(**inputs)
        return forward_shared(self, {"source_index": source_index, **inputs})


def train_original(
    data: str | Path, output: str | Path, steps: int = 3000, batch_size: int = 128, learning_rate: float = 8e-3,
    seed: int = 0, bf16: bool | None = None, start: str | Path | None = None, dropout: float = 0.0,
) -> None:  # fmt: skip
    """Train the pocket original on the cleaned training split in ``data``; its checkpoints and then the model go to ``output``.

    Plain cross-entropy on what people wrote, from random weights or from the model in ``start``. An interrupted run goes on from
    its last checkpoint when called again. ``bf16`` (autocast) defaults to what the machine is good at.
    """
    examples = read_data(data, "train-cleaned")
    torch.manual_seed(seed)
    if start is None:
        tokenizer = train_tokenizer(reference for example in examples for reference in example.references)
        model = _SharingT5._from_config(pocket_config(len(tokenizer), dropout), attn_implementation="eager")
    else:
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = load_t5(start, _SharingT5, dropout_rate=dropout)
    args = Seq2SeqTrainingArguments(**_arguments(output, steps, learning_rate, seed, bf16))
    batches = TaskBatches(examples, tokenizer, steps * args.world_size, batch_size // args.world_size, seed)
    optimizer = MuonWithAdamW(model, learning_rate, adamw_lr=3e-3)
    trainer = BatchTrainer(
        model=model, args=args, train_dataset=batches, data_collator=only_batch, optimizers=(optimizer, None)
    )
    checkpoint = _last_checkpoint(output)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        _note_training(trainer, output, batch_size, _step_of(checkpoint))
        tokenizer.save_pretrained(output)
        model.config.architectures = [T5ForConditionalGeneration.__name__]
        model.config.dropout_rate = 0.0  # a kit's layers have a teacher and need none
        model.save_pretrained(output)


def train_kit(
    data: str | Path | None, original: str | Path, output: str | Path, steps: int = 10_000, batch_size: int = 64, learning_rate: float = 5e-3,
    seed: int = 0, bf16: bool | None = None, pairs: str | Path | None = None, granularities: tuple[int, ...] = (2, 3, 4, 6), **losses: float,
) -> None:  # fmt: skip
    """Train banks for ``original`` in one phase; checkpoints and then the modular model (with a copy of the original) go to ``output``.

    Half of the texts are what people wrote (the cleaned training split in ``data``), half what the original wrote
    (``pairs``, JSON lines of :func:`write_pairs`); either may be left out. ``losses`` are weights such as ``attention_weight=0``; those of the bundled kit are the command's defaults.
    """
    tokenizer = AutoTokenizer.from_pretrained(original)
    modular = modularize(load_t5(original), granularities, tokenizer=tokenizer)
    examples = read_data(data, "train-cleaned") if data else []
    if pairs:
        written = read_pairs(pairs)
        copies = max(1, round(sum(len(example.references) for example in examples) / len(written)))
        examples = examples + written * copies
    if not examples:
        raise ModtfError("there is nothing to train on; give a folder of data, or pairs that the original wrote")
    args = ModularTrainingArguments(**_arguments(output, steps, learning_rate, seed, bf16), **losses)
    batches = TaskBatches(examples, tokenizer, steps * args.world_size, batch_size // args.world_size, seed)
    optimizer = MuonWithAdamW(modular, learning_rate, adamw_lr=learning_rate / 5)
    trainer = ModularTrainer(
        modular, args, whole_batches=True, train_dataset=batches, data_collator=only_batch, optimizers=(optimizer, None)
    )  # fmt: skip
    checkpoint = _last_checkpoint(output)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        _note_training(trainer, output, batch_size, _step_of(checkpoint))
        modular.save_pretrained(output, copy_original=True)


def load_t5(
    folder: str | Path, family: type[T5ForConditionalGeneration] = T5ForConditionalGeneration, **config: Any
) -> Any:
    """A trained original, ready to be trained further or modularized; raises :class:`ModtfError` where its files are damaged."""
    try:
        # Eager attention is the fastest for short texts on a CPU.
        return family.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModtfError(
            f"the model in {folder} could not be loaded: {error}. Copy the whole folder again, or train it again"
        ) from error


def write_pairs(
    modular: ModularModel, mrs: Sequence[MR], path: str | Path, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Let the original write a text for each MR; JSON lines ``{"mr": ..., "ref": ...}``, as data to train on without the real data."""
    texts = write_texts(modular, modular.mapping.original, [write_mr(mr) for mr in mrs], progress=progress)
    lines = [
        json.dumps({"mr": write_mr(mr), "ref": text}, ensure_ascii=False) for mr, text in zip(mrs, texts, strict=True)
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_pairs(path: str | Path) -> list[Example]:
    """What :func:`write_pairs` wrote."""
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise ModtfError(f"{path} cannot be read as JSON lines of MRs and texts: {error}") from error
    return group_rows(rows, source=str(path))


def bundled_examples(name: str) -> list[Example]:
    """What the original wrote for random MRs, no network or data needed: ``"pairs"`` to train on, ``"evaluation"`` to measure on."""
    return read_pairs(bundled(f"{name}.jsonl"))


def draw_mrs(count: int, seed: int) -> list[MR]:
    """``count`` random valid MRs, half of them long (7 or 8 slots) as most of the test data are."""
    rng = random.Random(seed)
    return [draw_mr(rng, rng.choice((7, 8)) if rng.random() < 0.5 else None) for _ in range(count)]


def use_cpu_well(threads: int) -> None:
    """Settings for training on a CPU: threads, keeping freed memory, and keeping the kernels of all shapes seen."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    torch.set_num_threads(threads)
    if sys.platform == "linux" and (libc := ctypes.util.find_library("c")):
        keep_allocations_below, keep_free_memory = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        mallopt = ctypes.CDLL(libc).mallopt
        mallopt(keep_allocations_below, 2**25)
        mallopt(keep_free_memory, 2**31 - 1)


def _arguments(output: str | Path, steps: int, learning_rate: float, seed: int, bf16: bool | None) -> dict[str, Any]:
    """What the trainings of original and kit share: linear decay after a warm-up, a checkpoint every 5 % of the way."""
    cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(output), "max_steps": steps, "per_device_train_batch_size": 1, "learning_rate": learning_rate,
        "warmup_steps": min(100, steps // 10), "lr_scheduler_type": "linear", "max_grad_norm": 1.0, "seed": seed,
        "use_cpu": cpu, "ddp_backend": "gloo" if cpu and "LOCAL_RANK" in os.environ else None, "bf16": fast_bf16() if bf16 is None else bf16,
        "logging_steps": 50, "save_steps": max(steps // 20, 1), "save_total_limit": 1, "remove_unused_columns": False,
        "report_to": "tensorboard" if importlib.util.find_spec("tensorboard") else "none", "dataloader_pin_memory": not cpu,
    }  # fmt: skip


def _note_training(trainer: BatchTrainer, output: str | Path, batch_size: int, begun: int) -> None:
    """What the training cost: wall time in seconds (scaled up from the last part of an interrupted one) and with what."""
    seconds = next(entry["train_runtime"] for entry in reversed(trainer.state.log_history) if "train_runtime" in entry)
    steps = trainer.state.max_steps
    note = {
        "steps": steps, "batch_size": batch_size, "device": trainer.args.device.type, "processes": trainer.args.world_size,
        "threads": torch.get_num_threads(), "bf16": trainer.args.bf16, "seconds": round(seconds * steps / max(1, steps - begun)),
    }  # fmt: skip
    (Path(output) / "training.json").write_text(json.dumps(note, indent=1) + "\n")


def _last_checkpoint(output: str | Path) -> str | None:
    """The newest that is whole: Trainer writes its state last."""
    for path in sorted(Path(output).glob("checkpoint-[0-9]*"), key=_step_of, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def _step_of(checkpoint: str | Path | None) -> int:
    return int(str(checkpoint).rpartition("-")[2]) if checkpoint else 0


def fast_bf16() -> bool:
    """Whether bfloat16 autocast is faster than float32 here: on GPUs that have it, and on CPUs that multiply in it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpuinfo.read_text().split())
