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
from modtf.saving import tokenizer_beside, write_whole
from modtf.tasks.batches import TaskBatches
from modtf.tasks.examples import Example
from modtf.tasks.task import Task
from modtf.training.batches import encode_sources_once, only_batch
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.options import refused
from modtf.training.plan import Plan, plan_training
from modtf.training.trainer import ModularTrainer, ModularTrainingArguments, check_deepspeed, check_processes
from modtf.training.watch import Watch

_SMALLER = "give a smaller --batch-size or more --gradient-accumulation-steps, or fewer granularities"


def load_original(folder: str | Path) -> PreTrainedModel:
    """A model to train further or to modularize, from a folder or the hub.

    Raises :class:`ModtfError` if it is not there, or its files are damaged.
    """
    try:
        # Eager attention is the fastest for short texts on a CPU.
        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        again = "Copy the whole folder again, or train it again" if Path(folder).is_dir() else "Is the name right?"
        raise ModtfError(f"the model {folder} could not be loaded: {' '.join(str(error).split())}. {again}") from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model; raises :class:`ModtfError` where there is none."""
    tokenizer = tokenizer_beside(name)
    if tokenizer is None:
        raise ModtfError(
            f"{name} holds no tokenizer (no tokenizer_config.json); save one there: tokenizer.save_pretrained"
        )
    if getattr(tokenizer, "tgt_lang", "") is None:  # as of M2M100, NLLB and mBART: all targets would get a wrong code
        raise ModtfError(
            f"the tokenizer of {name} writes the code of a language before each text, and has no target language. Set "
            "src_lang and tgt_lang, and the model's forced_bos_token_id, and train in Python: README, Your own model"
        )
    return tokenizer


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
    check_processes(args)
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
    check_deepspeed(trainer)
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
    watch: Watch | None = None,
) -> None:
    """Train a kit in one phase; checkpoints and the kit, with a copy of its original, go to ``args.output_dir``.

    ``batch_size``, ``adamw_learning_rate`` and resuming are those of :func:`train_original`. ``kind`` is the class of the
    trainer; ``watch`` measures quality meanwhile.
    """
    trainer = _trainer(
        kind,
        model=modular,
        args=args,
        train_dataset=_batches(task, examples, modular.tokenizer, args, batch_size),
        data_collator=only_batch,
        optimizers=_optimizers(modular, args, adamw_learning_rate),
        callbacks=[watch] if watch else None,
    )
    if _train(trainer, batch_size, modular.model):
        modular.save_pretrained(args.output_dir or "", copy_original=True)


def plan_kit(
    modular: ModularModel,
    task: Task,
    examples: Sequence[Example],
    args: ModularTrainingArguments,
    batch_size: int,
    adamw_learning_rate: float | None = None,
) -> Plan:
    """What :func:`train_kit` would cost; the arguments are the same."""
    batches = _batches(task, examples, modular.tokenizer, args, batch_size)
    try:
        return plan_training(modular, args, batches, adamw_learning_rate)
    except torch.OutOfMemoryError as error:
        raise ModtfError(
            f"the largest step does not fit into memory ({' '.join(str(error).split())}); {_SMALLER}"
        ) from error
    except ModtfError:
        raise
    except (
        ValueError,
        ImportError,
    ) as error:  # options that transformers cannot combine, an optimizer that is not installed
        raise refused(error) from error


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
    if args.accelerator_config.split_batches or args.accelerator_config.dispatch_batches:
        raise ModtfError(
            "split_batches and dispatch_batches of --accelerator-config cut batches in parts, but each process takes whole "
            "ones; leave them out"
        )
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
    if run < 1 and (Path(args.output_dir) / "training.json").is_file():  # it was finished already
        return True
    record = {
        "steps": steps,
        "batch_size": batch_size * args.gradient_accumulation_steps * args.world_size,
        "device": args.device.type,
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
        "bf16": args.bf16,
        "seconds": round(seconds * steps / max(1, run), 1),
    }
    write_whole(Path(args.output_dir) / "training.json", json.dumps(record, indent=1) + "\n")
    return True


def _step_of(checkpoint: str | Path | None) -> int:
    return int(str(checkpoint).rpartition("-")[2]) if checkpoint else 0
