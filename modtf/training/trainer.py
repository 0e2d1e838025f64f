"""Training a modular model: module replacing and distillation in one phase."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from modtf.architectures import set_attention
from modtf.distillation import attention_loss, hidden_loss, labels_loss, logits_loss
from modtf.errors import ModtfError
from modtf.mapping import Assembly, LayerPath, Mapping, boundaries
from modtf.modular import ModularModel
from modtf.replacing import ReplacingSchedule


@dataclass
class ModularTrainingArguments(Seq2SeqTrainingArguments):
    """Seq2SeqTrainingArguments and what the method adds: the weight of each loss, and the replacing schedule.

    The defaults are the settings of the bundled kit. A loss whose weight is 0 is not computed, nor what it alone needs.
    Attention maps exist only with eager attention; the trainer switches to it where ``attention_weight`` is above 0.
    Raises :class:`ModtfError` for weights below 0 or all 0, and for a temperature that is not above 0.
    """

    labels_weight: float = field(default=0.0, metadata={"help": "Weight of the cross-entropy with the labels."})
    logits_weight: float = field(
        default=1.0, metadata={"help": "Weight of the KL divergence from the original's token probabilities."}
    )
    hidden_weight: float = field(
        default=0.2, metadata={"help": "Weight of the error in the hidden states after each layer of the path."}
    )
    attention_weight: float = field(
        default=0.0, metadata={"help": "Weight of the error in the self- and cross-attention maps."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the logits' loss."})
    replacing_probability: float = field(
        default=0.5, metadata={"help": "Replacing probability at the first step; it rises to 1."}
    )
    full_at: float = field(
        default=0.5, metadata={"help": "Share of the training after which the replacing probability is 1."}
    )
    coarse_at: float = field(
        default=0.1, metadata={"help": "Share of the training after which all granularities are drawn."}
    )
    mixtures: float = field(
        default=0.1, metadata={"help": "Share of steps with random mixtures of original and modularized layers."}
    )
    whole: float = field(
        default=0.6, metadata={"help": "Share of steps with one granularity from end to end of a stack."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = [self.labels_weight, self.logits_weight, self.hidden_weight, self.attention_weight]
        if min(weights) < 0 or not any(weights):
            raise ModtfError(f"the losses' weights are {weights}; give weights of 0 or more, at least one above 0")
        if self.temperature <= 0:
            raise ModtfError(f"the temperature is {self.temperature}; give one above 0")
        if self.ddp_find_unused_parameters is None:  # type: ignore[has-type]
            self.ddp_find_unused_parameters = True  # every step leaves most modules out

    def schedule(self, mapping: Mapping, steps: int) -> ReplacingSchedule:
        """The replacing schedule of a training of so many steps; raises :class:`ModtfError` where there is none."""
        return ReplacingSchedule(
            mapping, steps, self.seed, probability=self.replacing_probability, full_at=self.full_at,
            coarse_at=self.coarse_at, mixtures=self.mixtures, whole=self.whole,
        )  # fmt: skip


class ModularTrainer(Seq2SeqTrainer):
    """Trains the banks of a :class:`ModularModel`; the frozen original inside it is the teacher.

    Each optimizer step draws one assembly (:class:`ReplacingSchedule`), the same for all its accumulated batches, and
    lowers the weighted sum of the losses. Datasets are those of ``Seq2SeqTrainer``. Evaluation runs the coarsest
    assembly. Checkpoints hold banks only, and a resumed training goes on as if it had never stopped.

    Raises :class:`ModtfError` for a model without banks, for banks in half precision, and for arguments with which the
    training could not work: several GPUs in one process, label smoothing, a schedule that cannot be.
    """

    def __init__(self, model: ModularModel, args: ModularTrainingArguments, **kwargs: Any) -> None:
        _check(model, args)
        if args.attention_weight > 0:
            set_attention(model.model, "eager")
        super().__init__(model=model, args=args, **kwargs)
        # The losses are plain means: without this, Trainer believes that they are divided by the number of all tokens
        # of the accumulated batches.
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, float] = defaultdict(float)
        self._counted = 0
        self._schedule: ReplacingSchedule | None = None

    @property
    def modular(self) -> ModularModel:
        return self.accelerator.unwrap_model(self.model)

    def schedule(self) -> ReplacingSchedule:
        """The replacing schedule over this training's steps; known once training has begun, or from ``max_steps``."""
        steps = self.state.max_steps if self.state.max_steps > 0 else self.args.max_steps
        if self._schedule is None or self._schedule.steps != steps:
            self._schedule = self.args.schedule(self.modular.mapping, steps)
        return self._schedule

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not model.training:  # evaluation: the coarsest assembly, the hardest for the banks
            outputs = model(assembly=self.modular.mapping.coarsest, **inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        losses, outputs = self.losses(model, self.schedule().draw(self.state.global_step), inputs)
        weighted = [getattr(self.args, f"{name}_weight") * loss for name, loss in losses.items()]
        for name, loss in losses.items():
            self._sums[f"loss_{name}"] += loss.item()
        self._counted += 1
        total = torch.stack(weighted).sum()
        return (total, outputs) if return_outputs else total

    def losses(
        self, model: nn.Module, assembly: Assembly, inputs: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """Each loss that has a weight, for one batch on one assembly, and the student's output.

        ``inputs`` are a batch's: ``input_ids`` and perhaps ``attention_mask`` (batch, source), ``labels``
        (batch, target) with -100 where no token counts, and whatever else the model takes. Raises :class:`ModtfError`
        for a batch without labels.
        """
        a = self.args
        modular = self.modular
        maps = a.attention_weight > 0
        teaching = a.logits_weight > 0 or a.hidden_weight > 0 or maps
        given, labels = _without_labels(modular, inputs)
        if teaching:
            original = modular.mapping.original
            with torch.no_grad(), modular.record(original, maps) as teacher:
                teacher_outputs = modular(original, **given)
        with modular.record(assembly, maps) as student:
            outputs = model(assembly=assembly, **given)
        target = labels != -100
        mask = given.get("attention_mask")
        source = torch.ones_like(given["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
        losses: dict[str, torch.Tensor] = {}
        if a.labels_weight > 0:
            losses["labels"] = labels_loss(outputs.logits, labels)
        if a.logits_weight > 0:
            losses["logits"] = logits_loss(outputs.logits, teacher_outputs.logits, target, a.temperature)
        if a.hidden_weight > 0:
            losses["hidden"] = torch.stack(
                [
                    hidden_loss(s.hidden, _at_boundaries(t.hidden, path), keep)
                    for s, t, path, keep in zip(student, teacher, assembly.paths, (source, target), strict=True)
                ]
            ).sum()
        if maps:
            (se, sd), (te, td) = student, teacher
            losses["attention"] = (
                attention_loss(se.self_attention, _at_boundaries(te.self_attention, assembly.encoder), source)
                + attention_loss(sd.self_attention, _at_boundaries(td.self_attention, assembly.decoder), target)
                + attention_loss(sd.cross_attention, _at_boundaries(td.cross_attention, assembly.decoder), target)
            )
        return losses, outputs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: Any = None,
        **options: Any,
    ) -> Any:
        """As ``Seq2SeqTrainer``; with ``predict_with_generate`` the coarsest assembly writes."""
        if prediction_loss_only or not self.args.predict_with_generate:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **options)
        trained = self.model  # type: ignore[has-type]
        small = self.modular.assembled(self.modular.mapping.coarsest)
        self.model = small
        try:
            return super().prediction_step(small, inputs, prediction_loss_only, ignore_keys, **options)
        finally:
            self.model = trained

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As ``Seq2SeqTrainer``, with the mean of each loss since the last log."""
        if self._counted and "loss" in logs:
            logs = {**logs, **{name: total / self._counted for name, total in self._sums.items()}}
            self._sums.clear()
            self._counted = 0
        super().log(logs, *args, **kwargs)

    # Checkpoints: the banks alone. The original does not change, and Trainer's own would hold shared tensors twice.

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:  # the first of several processes
            self.modular.save_banks(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.modular.load_banks(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self.modular.load_banks(self.state.best_model_checkpoint)


def _check(model: ModularModel, args: ModularTrainingArguments) -> None:
    if not isinstance(model, ModularModel):
        raise ModtfError(
            f"a ModularModel is needed, not a {type(model).__name__}; make one with modtf.modularize(model)"
        )
    if not isinstance(args, ModularTrainingArguments):
        raise ModtfError(f"ModularTrainingArguments are needed, not {type(args).__name__}")
    args.schedule(model.mapping, steps=1)
    if args.n_gpu > 1:  # Trainer would use nn.DataParallel
        raise ModtfError(
            f"this process sees {args.n_gpu} GPUs and would copy the model to each at every step, but the copies share "
            "the hooks that record hidden states; start one process for each GPU with "
            "`accelerate launch your_script.py`, or show this one a single GPU with CUDA_VISIBLE_DEVICES=0"
        )
    if args.label_smoothing_factor:
        raise ModtfError(
            "label_smoothing_factor has no effect here: "
            "the original's probabilities (logits_weight) take the place of smoothed labels; leave it out"
        )
    halves = {w.dtype for w in model.parameters() if w.requires_grad} & {torch.float16, torch.bfloat16}
    if halves:
        raise ModtfError(
            f"the banks are in {str(halves.pop()).removeprefix('torch.')}, in which an optimizer's small steps are "
            "rounded away; load the original with from_pretrained(..., dtype=torch.float32) before modularizing it "
            "(bf16=True still computes in bfloat16)"
        )


def _without_labels(modular: ModularModel, inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """A batch with ``decoder_input_ids`` in place of its labels, and the labels.

    Given labels, the model would compute their cross-entropy, for the teacher and whether it has a weight or not.
    """
    given = dict(inputs)
    labels = given.pop("labels", None)
    if labels is None:
        raise ModtfError(
            f"the batch has {', '.join(inputs)}, but no labels; give the tokens of each target as labels: "
            "tokenizer(source, text_target=target) makes both"
        )
    if given.get("decoder_input_ids") is None:
        given["decoder_input_ids"] = modular.model.prepare_decoder_input_ids_from_labels(labels)
    return given, labels


def _at_boundaries(states: list[torch.Tensor], path: LayerPath) -> list[torch.Tensor]:
    """Of the teacher's states, one for each original layer, those where the path's layers end."""
    return [states[end - 1] for end in boundaries(path)]
