"""Complete trainings that resume where they were interrupted: an original, and a kit for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from modtf.errors import ModtfError
from modtf.modular import ModularModel
from modtf.tasks.batches import TaskBatches
from modtf.tasks.examples import Example
from modtf.tasks.task import Task
from modtf.training.batches import encode_sources_once, only_batch
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.options import refused
from modtf.training.trainer import ModularTrainer, ModularTrainingArguments, check_one_gpu


def load_original(folder: str | Path) -> PreTrainedModel:
    """A model to train further or to modularize; raises :class:`ModtfError` if its files are damaged."""
    try:
        # Eager attention is the fastest for short texts on a CPU.
        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModtfError(
            f"the model in {folder} could not be loaded: {error}. Copy the whole folder again, or train it again"
        ) from error


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set this dropout probability in all layers; the model's configuration keeps its own."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        for name in ("dropout", "activation_dropout"):  # applied by the module itself
            if isinstance(getattr(module, name, None), int | float):
                setattr(module, name, probability)


def train_original(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    args: Seq2SeqTrainingArguments,
    batch_size: int,
    adamw_learning_rate: float | None = None,
) -> None:
    """Train a model on examples with plain cross-entropy; checkpoints and the result go to ``args.output_dir``.

    ``batch_size`` counts the texts of one batch in one process. Call it again after an interruption to resume from the
    last checkpoint. Muon trains the matrices and AdamW the rest, at ``adamw_learning_rate``; if that is None,
    ``args.optim`` trains everything.
    """
    check_one_gpu(args)
    # T5 and BART return plain means. By default Trainer assumes that they divide by the number of accumulated tokens.
    model.accepts_loss_kwargs = False
    trainer = _trainer(
        Seq2SeqTrainer,
        model=model,
        args=args,
        train_dataset=_batches(task, examples, tokenizer, args, batch_size),
        data_collator=only_batch,
        optimizers=_optimizers(model, args, adamw_learning_rate),
    )
    if _train(trainer, batch_size, model):
        tokenizer.save_pretrained(args.output_dir)
        model.save_pretrained(args.output_dir)


def train_kit(
    modular: ModularModel,
    task: Task,
    examples: Sequence[Example],
    args: ModularTrainingArguments,
    batch_size: int,
    adamw_learning_rate: float | None = None,
    kind: type[ModularTrainer] = ModularTrainer,
) -> None:
    """Train a kit in one phase; checkpoints and the kit, with a copy of its original, go to ``args.output_dir``.

    ``batch_size``, ``adamw_learning_rate`` and resuming are those of :func:`train_original`. ``kind`` is the class of the
    trainer.
    """
    trainer = _trainer(
        kind,
        model=modular,
        args=args,
        train_dataset=_batches(task, examples, modular.tokenizer, args, batch_size),
        data_collator=only_batch,
        optimizers=_optimizers(modular, args, adamw_learning_rate),
    )
    if _train(trainer, batch_size, modular.model):
        modular.save_pretrained(args.output_dir or "", copy_original=True)


def with_texts_of_the_original(examples: Sequence[Example], written: Sequence[Example]) -> list[Example]:
    """People's texts and the original's, about as many of each: the original's are repeated if they are fewer."""
    copies = max(1, round(sum(len(example.references) for example in examples) / len(written)))
    return [*examples, *(list(written) * copies)]


def last_checkpoint(output: str | Path) -> str | None:
    """The newest complete checkpoint, or None; Trainer writes ``trainer_state.json`` last."""
    for path in sorted(Path(output).glob("checkpoint-[0-9]*"), key=_step_of, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def _batches(
    task: Task,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    args: Seq2SeqTrainingArguments,
    batch_size: int,
) -> TaskBatches:
    batches = args.max_steps * args.gradient_accumulation_steps * args.world_size
    return TaskBatches(task, examples, tokenizer, batches, batch_size, args.seed)


def _optimizers(
    model: torch.nn.Module, args: Seq2SeqTrainingArguments, adamw_learning_rate: float | None
) -> tuple[torch.optim.Optimizer | None, None]:
    if adamw_learning_rate is None:
        return None, None
    return MuonWithAdamW(model, args.learning_rate, adamw_lr=adamw_learning_rate), None


def _trainer(kind: type[Seq2SeqTrainer], **given: Any) -> Seq2SeqTrainer:
    """A trainer; transformers checks many combinations of options only as it makes one."""
    try:
        return kind(**given)
    except ModtfError:
        raise
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        raise refused(error) from error


def _train(trainer: Seq2SeqTrainer, batch_size: int, model: PreTrainedModel) -> bool:
    """Train to the end and record the cost; true in the one process that writes the result."""
    checkpoint = last_checkpoint(trainer.args.output_dir)
    hooks = encode_sources_once(model)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except ImportError as error:  # an optimizer that is not installed
        raise refused(error) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not trainer.is_world_process_zero():
        return False
    args, history, steps = trainer.args, trainer.state.log_history, trainer.state.max_steps
    seconds = next(entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry)
    run = steps - _step_of(checkpoint)  # after an interruption only this part was timed: scale it up
    record = {
        "steps": steps,
        "batch_size": batch_size * args.gradient_accumulation_steps * args.world_size,
        "device": args.device.type,
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
        "bf16": args.bf16,
        "seconds": round(seconds * steps / max(1, run), 1),
    }
    (Path(args.output_dir) / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return True


def _step_of(checkpoint: str | Path | None) -> int:
    return int(str(checkpoint).rpartition("-")[2]) if checkpoint else 0
