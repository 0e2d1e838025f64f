"""Complete trainings that resume where they were interrupted: an original, and a kit for it."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    get_scheduler,
)

from modtf.errors import ModtfError
from modtf.modular import ModularModel
from modtf.saving import save_tokenizer, tokenizer_beside, write_whole, written_aside
from modtf.tasks.batches import TaskBatches
from modtf.tasks.examples import Example
from modtf.tasks.task import Task
from modtf.training.batches import encode_sources_once, only_batch
from modtf.training.checkpoints import (
    Elapsed,
    NotWritten,
    WholeCheckpoints,
    alone_in,
    has_no_room,
    is_of_disk,
    last_checkpoint,
    step_of,
    tidy,
)
from modtf.training.cost import training_operations
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.options import refused
from modtf.training.plan import Plan, plan_training
from modtf.training.trainer import (
    ModularTrainer,
    ModularTrainingArguments,
    check_deepspeed,
    check_processes,
    check_training,
)
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
        words = " ".join(str(error).split())
        if Path(folder).is_dir() or not isinstance(error, OSError):
            reason = f"{words.rstrip('.')}. Is it whole, and an encoder-decoder?"
        else:
            reason = (
                f"there is no such folder, and the hub says: {words.split('. ')[0].rstrip('.')}. Is the name right?"
            )
        raise ModtfError(f"the model {folder} could not be loaded: {reason}") from error


def load_tokenizer(
    name: str, source_language: str | None = None, target_language: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model; raises :class:`ModtfError` where there is none.

    Some (M2M100, NLLB, mBART) write the code of a language into each text: these need both languages, such as
    ``eng_Latn``, unless they were saved with them. The others take none.
    """
    tokenizer = tokenizer_beside(name)
    if tokenizer is None:
        raise ModtfError(
            f"{name} holds no tokenizer (no tokenizer_config.json); save one there: tokenizer.save_pretrained"
        )
    given = {"src_lang": source_language, "tgt_lang": target_language}
    given = {key: code for key, code in given.items() if code is not None}
    if not hasattr(tokenizer, "tgt_lang"):
        if given:
            raise ModtfError(
                f"the tokenizer of {name} knows no languages; leave out --source-language and --target-language"
            )
        return tokenizer
    codes = _language_codes(tokenizer)
    for code in given.values():
        if code not in codes:
            raise ModtfError(f"{name} knows no language {code!r}; it has {', '.join(sorted(codes))}")
    # Its own default is no choice: without a target's language all targets would get the source's code.
    if tokenizer.tgt_lang is None and len(given) < 2:
        raise ModtfError(
            f"the tokenizer of {name} writes the code of a language into each text; give --source-language and "
            f"--target-language, of {', '.join(sorted(codes)[:4])} ..."
        )
    loaded = tokenizer_beside(name, **given) if given else tokenizer  # so that it is saved with them, too
    assert loaded is not None
    return loaded


def _language_codes(tokenizer: Any) -> set[str]:
    return set(getattr(tokenizer, "lang_code_to_id", None) or tokenizer.extra_special_tokens)


def write_in(model: PreTrainedModel, tokenizer: Any) -> None:
    """Make a model begin its texts with the code of the tokenizer's target language, if that has one."""
    if getattr(tokenizer, "tgt_lang", None) is None:
        return
    first, last = tokenizer(text_target="")["input_ids"]
    if first == tokenizer.eos_token_id:  # mBART's first models: the code is the decoder's first token
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = last
    else:
        model.generation_config.forced_bos_token_id = first


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set this dropout probability in all layers; the model's configuration keeps its own."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        for name in ("dropout", "activation_dropout"):  # applied by the module itself
            if isinstance(getattr(module, name, None), int | float):
                setattr(module, name, probability)


def check_original_training(
    model: PreTrainedModel, args: Seq2SeqTrainingArguments, adamw_learning_rate: float | None = None
) -> None:
    """Raise :class:`ModtfError` for what :func:`train_original` would refuse, before any work is done."""
    check_processes(args)
    _try_out(WholeCheckpoints, model, args, adamw_learning_rate)


def check_kit_training(
    modular: ModularModel, args: ModularTrainingArguments, adamw_learning_rate: float | None = None
) -> None:
    """Raise :class:`ModtfError` for what :func:`train_kit` would refuse, before any work is done."""
    check_training(modular, args)
    _try_out(ModularTrainer, modular, args, adamw_learning_rate)


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
        WholeCheckpoints,
        model=model,
        args=args,
        train_dataset=_batches(task, examples, tokenizer, args, batch_size),
        data_collator=only_batch,
        optimizers=_optimizers(model, args, adamw_learning_rate),
    )
    check_deepspeed(trainer)

    def save() -> None:
        with written_aside(Path(args.output_dir)) as new:
            save_tokenizer(tokenizer, new)
            model.save_pretrained(new)

    _train(trainer, batch_size, model, "the original", save)


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
    batches = _batches(task, examples, modular.tokenizer, args, batch_size)
    trainer = _trainer(
        kind,
        *([watch] if watch else []),
        model=modular,
        args=args,
        train_dataset=batches,
        data_collator=only_batch,
        optimizers=_optimizers(modular, args, adamw_learning_rate),
    )

    def save() -> None:
        modular.save_pretrained(args.output_dir, copy_original=True)

    cost = {"tflop": float(f"{training_operations(modular, args, batches) / 1e12:.4g}")}
    _train(trainer, batch_size, modular.model, "the kit", save, cost)


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


def _batches(
    task: Task,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    args: Seq2SeqTrainingArguments,
    batch_size: int,
) -> TaskBatches:
    _check_batches(args)
    batches = args.max_steps * args.gradient_accumulation_steps * args.world_size
    return TaskBatches(task, examples, tokenizer, batches, batch_size, args.seed)


def _check_batches(args: Seq2SeqTrainingArguments) -> None:
    if args.accelerator_config.split_batches or args.accelerator_config.dispatch_batches:
        raise ModtfError(
            "split_batches and dispatch_batches of --accelerator-config cut batches in parts, but each process takes whole "
            "ones; leave them out"
        )


def _optimizers(
    model: torch.nn.Module, args: Seq2SeqTrainingArguments, adamw_learning_rate: float | None
) -> tuple[torch.optim.Optimizer | None, None]:
    if adamw_learning_rate is None:
        return None, None
    return MuonWithAdamW(model, args.learning_rate, adamw_learning_rate, args.weight_decay), None


class _Progress(ProgressCallback):
    """The bar of a training; what is logged, :class:`_Lines` says."""

    def on_log(self, *_: Any, **__: Any) -> None:
        pass


class _Lines(TrainerCallback):
    """Says the losses in a line, where transformers prints a dictionary."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if not state.is_world_process_zero or "loss" not in logs:
            return
        parts = [f"{name[5:]} {float(value):.3g}" for name, value in logs.items() if name.startswith("loss_")]
        words = f"step {state.global_step:,}: loss {float(logs['loss']):.3g}"
        tqdm.write(f"{words} ({', '.join(parts)})" if parts else words)  # above the bar


def _trainer(kind: type[Seq2SeqTrainer], *callbacks: TrainerCallback, **given: Any) -> Seq2SeqTrainer:
    """A trainer; transformers checks many combinations of options only as it makes one."""
    try:
        trainer = kind(**given, callbacks=[Elapsed(), *callbacks, _Lines()])
        trainer.pop_callback(PrinterCallback)
        if trainer.pop_callback(ProgressCallback) is not None:
            trainer.add_callback(_Progress)
        return trainer
    except ModtfError:
        raise
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        raise refused(error) from error


def _try_out(
    kind: type[Seq2SeqTrainer], model: Any, args: Seq2SeqTrainingArguments, adamw_learning_rate: float | None
) -> None:
    """Make a trainer, and what it makes when it begins: transformers checks many options only there."""
    _check_batches(args)
    _try(
        lambda: args.torch_compile and torch.compile(
            torch.nn.Identity(), backend=args.torch_compile_backend, mode=args.torch_compile_mode
        ),
        "give another --torch-compile-backend or --torch-compile-mode",
    )  # fmt: skip
    tried = copy.copy(args)
    tried.push_to_hub, tried.report_to = False, []
    with tempfile.TemporaryDirectory() as tried.output_dir:
        trainer = _trainer(kind, model=model, args=tried, train_dataset=[None], data_collator=only_batch)
    check_deepspeed(trainer)
    _try(trainer.get_train_dataloader, "give other options --dataloader-*")
    if adamw_learning_rate is None:
        _try(
            lambda: kind.get_optimizer_cls_and_kwargs(args, model),
            "give another --optim, other --optim-args or --optim-target-modules",
        )
    scheduled, warmup = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), args.get_warmup_steps(args.max_steps)
    _try(
        lambda: get_scheduler(args.lr_scheduler_type, scheduled, warmup, args.max_steps, args.lr_scheduler_kwargs),
        "give another --lr-scheduler-type, or other --lr-scheduler-kwargs",
    )


def _try(make: Callable[[], Any], instead: str) -> None:
    try:
        make()
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise refused(error, instead) from error


@contextmanager
def _saving(what: str, output: str) -> Iterator[None]:
    """Says of a result that cannot be written what the training can go on from."""
    try:
        yield
    except Exception as error:
        if not is_of_disk(error):
            raise
        raise NotWritten(what, output, error) from error


def _train(
    trainer: Seq2SeqTrainer,
    batch_size: int,
    model: PreTrainedModel,
    what: str,
    save: Callable[[], None],
    cost: dict[str, float] | None = None,
) -> None:
    """Train to the end; one process records the cost, with what is known of it, and saves ``what`` was trained."""
    args = trainer.args
    with alone_in(args.output_dir) if args.should_save else nullcontext():
        if args.should_save:
            tidy(args.output_dir, args.save_total_limit)
        checkpoint = last_checkpoint(args.output_dir)
        _go_on(trainer, model, checkpoint)
        if trainer.is_world_process_zero():
            with _saving("training.json", args.output_dir):
                _record(trainer, batch_size, checkpoint, cost or {})
            with _saving(what, args.output_dir):
                save()


def _go_on(trainer: Seq2SeqTrainer, model: PreTrainedModel, checkpoint: str | None) -> None:
    args = trainer.args
    hooks = encode_sources_once(model)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except ImportError as error:  # an optimizer that is not installed
        raise refused(error) from error
    except NotWritten:
        raise
    except (OSError, ModtfError) as error:
        if not has_no_room(error):
            raise
        raise NotWritten("what is noted while it trains", args.output_dir, error) from error
    finally:
        for hook in hooks:
            hook.remove()
        for callback in trainer.callback_handler.callbacks:
            if (bar := getattr(callback, "training_bar", None)) is not None:
                bar.close()  # an error begins on its own line


def _record(trainer: Seq2SeqTrainer, batch_size: int, checkpoint: str | None, cost: dict[str, float]) -> None:
    args = trainer.args
    path, steps = Path(args.output_dir) / "training.json", trainer.state.max_steps
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if step_of(checkpoint) >= steps == known.get("steps"):  # it was finished already
        return
    elapsed = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Elapsed))
    record = {
        "steps": steps,
        "batch_size": batch_size * args.gradient_accumulation_steps * args.world_size,
        "device": args.device.type,
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
        "bf16": args.bf16,
        "seconds": round(elapsed.seconds, 1),
        **cost,
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")
