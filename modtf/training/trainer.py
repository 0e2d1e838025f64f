"""Training a modular model: module replacing and distillation in one phase."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

from modtf.architectures import set_attention
from modtf.distillation import attention_loss, hidden_loss, labels_loss, logits_loss
from modtf.errors import ModtfError
from modtf.mapping import Assembly, LayerPath, Mapping, boundaries
from modtf.modular import ModularModel
from modtf.replacing import ReplacingSchedule
from modtf.training.checkpoints import WholeCheckpoints


@dataclass
class ModularTrainingArguments(Seq2SeqTrainingArguments):
    """``Seq2SeqTrainingArguments`` with the weight of each loss and the settings of the replacing schedule.

    With ``assembly`` there is no schedule: that one assembly learns at every step, as a student of its size. The
    defaults are those of the first part of ``pocket``'s kit. A loss of weight 0 is not computed, nor is anything that
    only it needs. Attention maps exist only with eager attention; the trainer switches to it if ``attention_weight`` is
    above 0.
    Raises :class:`ModtfError` if a weight is below 0 or all are 0, and if the temperature is not above 0.
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
    matched: float = field(
        default=0.0,
        metadata={
            "help": "Share of the steps of --whole in which both stacks have the same granularity; without effect with "
            "several assemblies a step."
        },
    )
    assemblies_per_step: int = field(
        default=1,
        metadata={
            "help": "Number of assemblies that learn from one pass of the original at each step. In whole-grain steps "
            "their granularities are dealt like cards; in the others the coarsest is always one of them, from 3 on also "
            "the coarsest decoder beside the original's encoder."
        },
    )
    assembly: str | None = field(
        default=None,
        metadata={
            "help": "Train this assembly alone, as a student of one size: 'encoder 2·2·2 | decoder 6' or "
            "'encoder [2]*3 | decoder 6' for six layers each. Unset, the replacing schedule draws one at each step."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = {name: getattr(self, f"{name}_weight") for name in ("labels", "logits", "hidden", "attention")}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            given = ", ".join(f"{name}_weight {weight:g}" for name, weight in weights.items())
            raise ModtfError(f"the losses' weights are {given}; give weights of 0 or more, at least one above 0")
        if not 0 <= self.replacing_probability <= 1:
            raise ModtfError(f"replacing_probability is {self.replacing_probability}; give a number from 0 to 1")
        if self.assemblies_per_step < 1:
            raise ModtfError(f"assemblies_per_step is {self.assemblies_per_step}; give 1 or more")
        if self.assembly is not None and self.assemblies_per_step > 1:
            raise ModtfError(
                f"assemblies_per_step is {self.assemblies_per_step}, but assembly asks for one alone; leave one of them out"
            )
        if not 0 < self.temperature < math.inf:
            raise ModtfError(f"the temperature is {self.temperature}; give one above 0")
        # Every step leaves most modules out, and another step others.
        if self.ddp_find_unused_parameters is False or self.ddp_static_graph:  # type: ignore[has-type]
            raise ModtfError(
                "each step trains other modules, so ddp_find_unused_parameters cannot be off, nor ddp_static_graph on; "
                "leave both out"
            )
        self.ddp_find_unused_parameters = True

    def schedule(self, mapping: Mapping, steps: int) -> ReplacingSchedule:
        """The replacing schedule of ``steps`` training steps; raises :class:`ModtfError` for impossible settings."""
        return ReplacingSchedule(
            mapping, steps, self.seed, probability=self.replacing_probability, full_at=self.full_at,
            coarse_at=self.coarse_at, mixtures=self.mixtures, whole=self.whole, matched=self.matched,
            only=None if self.assembly is None else Assembly.parse(self.assembly),
        )  # fmt: skip


class ModularTrainer(WholeCheckpoints):
    """Trains the banks of a :class:`ModularModel`; the frozen original inside it is the teacher.

    Each optimizer step draws one assembly (:class:`ReplacingSchedule`), or ``assemblies_per_step`` of them, the same
    for all batches that it accumulates, and lowers the weighted sum of the losses. It takes the datasets that
    ``Seq2SeqTrainer`` takes. Evaluation runs the coarsest assembly, or the one that trains alone. Checkpoints hold
    banks only, and a resumed training continues as if it had never stopped.

    Raises :class:`ModtfError` as :func:`check_training` and :func:`check_deepspeed` do, and for DeepSpeed in half
    precision or with several assemblies a step.
    """

    def __init__(self, model: ModularModel, args: ModularTrainingArguments, **kwargs: Any) -> None:
        check_training(model, args)
        if args.attention_weight > 0:
            set_attention(model.model, "eager")
        super().__init__(model=model, args=args, **kwargs)
        # The losses are plain means. By default Trainer assumes that the model divides by the number of tokens in all
        # accumulated batches.
        self.model_accepts_loss_kwargs = False
        check_deepspeed(self)
        if self.is_deepspeed_enabled and (args.bf16 or args.fp16):
            raise ModtfError(
                "in half precision DeepSpeed rounds all weights, those of the original, too, which then teaches something else; "
                "leave out bf16 and fp16, or train without DeepSpeed"
            )
        if self.is_deepspeed_enabled and args.assemblies_per_step > 1:
            raise ModtfError(
                f"assemblies_per_step is {args.assemblies_per_step}, but DeepSpeed takes a step of the optimizer for each "
                "backward pass, of which there is one for each assembly; set it to 1, or train without DeepSpeed"
            )
        self._sums: dict[str, float] = defaultdict(float)
        self._counted = 0
        #: the assemblies whose loss is wanted, where not all of a step are, and what the original made of the batch
        self._part: tuple[list[Assembly], Any] | None = None

    @property
    def modular(self) -> ModularModel:
        return self.accelerator.unwrap_model(self.model)

    @property
    def teacher(self) -> ModularModel:
        """The model whose original teaches."""
        return self.modular

    @property
    def _evaluated(self) -> Assembly:
        """The assembly that trains alone, or the coarsest one, the hardest for the banks."""
        alone = self.args.assembly
        return self.modular.mapping.coarsest if alone is None else Assembly.parse(alone)

    @property
    def _states(self) -> dict[str, bool]:
        """What a pass of a model has to record for the losses."""
        a = self.args
        return {"output_hidden_states": a.hidden_weight > 0, "output_attentions": a.attention_weight > 0}

    def schedule(self) -> ReplacingSchedule:
        """The replacing schedule of this training; it needs ``max_steps``, unless the training has begun."""
        steps = self.state.max_steps if self.state.max_steps > 0 else self.args.max_steps
        return self.args.schedule(self.modular.mapping, steps)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not model.training:
            outputs = model(assembly=self._evaluated, **inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        assemblies, teacher = self._part or (self.drawn(), None)
        losses, outputs = self.losses(model, assemblies, inputs, teacher)
        for name, loss in losses.items():
            value = loss.item()
            if not math.isfinite(value):  # Trainer's log would hide it behind the mean of the steps before
                raise ModtfError(
                    f"the loss of the {name} is {value} at step {self.state.global_step:,}: nothing can be learnt any more. Lower "
                    "--learning-rate, or compute in single precision (--no-bf16), and begin anew or with an older checkpoint"
                )
            self._sums[f"loss_{name}"] += value
        self._counted += 1
        total = torch.stack([getattr(self.args, f"{name}_weight") * loss for name, loss in losses.items()]).sum()
        total = total * len(assemblies) / self.args.assemblies_per_step
        return (total, outputs[0]) if return_outputs else total

    def drawn(self) -> list[Assembly]:
        """The assemblies of the present step."""
        return self.schedule().draw_several(self.state.global_step, self.args.assemblies_per_step)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """A pass of the original, then a forward and a backward pass of each assembly: no two are in memory at once."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            teacher = self.teach(inputs)
        *others, last = self.drawn()
        losses = []
        try:
            with self.accelerator.no_sync(model):  # several processes exchange the sum of all gradients, once
                for assembly in others:
                    self._part = [assembly], teacher
                    losses.append(super().training_step(model, inputs, num_items_in_batch))
            self._part = [last], teacher
            losses.append(super().training_step(model, inputs, num_items_in_batch))
        finally:
            self._part = None
        return torch.stack(losses).sum()

    def teach(self, inputs: dict[str, Any]) -> Any:
        """What the original makes of a batch, for the losses that need it; or None."""
        a, modular = self.args, self.teacher
        if a.logits_weight == 0 and not any(self._states.values()):
            return None
        with torch.no_grad():
            return modular(modular.mapping.original, **_without_labels(modular, inputs)[0], **self._states)

    def losses(
        self, model: nn.Module, assemblies: Sequence[Assembly], inputs: dict[str, Any], teacher: Any = None
    ) -> tuple[dict[str, torch.Tensor], list[Any]]:
        """Each loss whose weight is above 0, for one batch, as the mean over ``assemblies``; and their outputs.

        ``inputs`` holds ``input_ids`` (batch, source), ``labels`` (batch, target) with -100 for tokens that do not
        count, optionally ``attention_mask`` (batch, source), and whatever else the model takes. ``teacher`` is what
        :meth:`teach` made of it, if that was called before. The losses are scalars, see :mod:`modtf.distillation`.
        Raises :class:`ModtfError` for a batch without labels.
        """
        given, labels = _without_labels(self.modular, inputs)
        teacher = self.teach(inputs) if teacher is None else teacher
        outputs = model(assembly=list(assemblies), **given, **self._states)
        source = self._source(given, outputs[0])
        each = [
            self._losses_of(assembly, student, teacher, labels, source)
            for assembly, student in zip(assemblies, outputs, strict=True)
        ]
        return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}, outputs

    def _source(self, given: dict[str, Any], student: Any) -> torch.Tensor:
        """(batch, source), true where a state of the encoder counts: at tokens that are no padding."""
        if "input_ids" not in given:  # of features, an encoder makes fewer states: all count
            states = student.encoder_last_hidden_state
            return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        mask = given.get("attention_mask")
        mask = torch.ones_like(given["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
        repeated = "source_index" in given and not self.modular.architecture.hands_on
        return mask[given["source_index"]] if repeated else mask

    def _losses_of(
        self, assembly: Assembly, student: Any, teacher: Any, labels: torch.Tensor, source: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The losses of one assembly; ``source`` (batch, source) is true where a token of the source counts."""
        a, target = self.args, labels != -100
        losses: dict[str, torch.Tensor] = {}
        if a.labels_weight > 0:
            losses["labels"] = labels_loss(student.logits, labels)
        if a.logits_weight > 0:
            losses["logits"] = logits_loss(student.logits, teacher.logits, target, a.temperature)
        if a.hidden_weight > 0:
            encoder_states = _at_boundaries(teacher.encoder_hidden_states, assembly.encoder)
            decoder_states = _at_boundaries(teacher.decoder_hidden_states, assembly.decoder)
            losses["hidden"] = hidden_loss(student.encoder_hidden_states, encoder_states, source) + hidden_loss(
                student.decoder_hidden_states, decoder_states, target
            )
        if a.attention_weight > 0:
            encoder_maps = _at_boundaries(teacher.encoder_attentions, assembly.encoder)
            decoder_maps = _at_boundaries(teacher.decoder_attentions, assembly.decoder)
            cross_maps = _at_boundaries(teacher.cross_attentions, assembly.decoder)
            losses["attention"] = (
                attention_loss(student.encoder_attentions, encoder_maps, source)
                + attention_loss(student.decoder_attentions, decoder_maps, target)
                + attention_loss(student.cross_attentions, cross_maps, target)
            )
        return losses

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None, **more: Any
    ) -> Any:
        """As in ``Seq2SeqTrainer``; with ``predict_with_generate`` the evaluated assembly generates the texts."""
        if prediction_loss_only or not self.args.predict_with_generate:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **more)
        trained = self.model  # type: ignore[has-type]
        self.model = self.modular.assembled(self._evaluated)
        try:
            return super().prediction_step(self.model, inputs, prediction_loss_only, ignore_keys, **more)
        finally:
            self.model = trained

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in ``Seq2SeqTrainer``, with the mean of each loss since the last log entry."""
        if self._counted and "loss" in logs:
            means = torch.tensor([total / self._counted for total in self._sums.values()], device=self.args.device)
            means = self.accelerator.reduce(means, "mean")  # over processes, as that of the whole loss
            logs = {**logs, **dict(zip(self._sums, means.tolist(), strict=True))}
            self._sums.clear()
            self._counted = 0
        super().log(logs, *args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns.append(self.modular.main_input_name)  # not all models read input_ids

    # Checkpoints hold the banks alone: the original does not change, and Trainer would save shared tensors twice.

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:  # the first of several processes
            self.modular.save_banks(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.modular.load_banks(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self.modular.load_banks(self.state.best_model_checkpoint)


def check_training(model: ModularModel, args: ModularTrainingArguments) -> None:
    """Raise :class:`ModtfError` for a model or arguments with which a training could not work.

    These are a model without banks or with banks in half precision, an impossible schedule, label smoothing, noise in
    embeddings, and several GPUs or processes in a way that :func:`check_processes` refuses.
    """
    if not isinstance(model, ModularModel):
        raise ModtfError(
            f"a ModularModel is needed, not a {type(model).__name__}; make one with modtf.modularize(model)"
        )
    if not isinstance(args, ModularTrainingArguments):
        raise ModtfError(f"ModularTrainingArguments are needed, not {type(args).__name__}")
    args.schedule(model.mapping, steps=1)
    check_processes(args)
    if args.label_smoothing_factor:
        raise ModtfError(
            "label_smoothing_factor has no effect here: "
            "the original's probabilities (logits_weight) take the place of smoothed labels; leave it out"
        )
    if args.neftune_noise_alpha is not None:
        raise ModtfError(
            "neftune_noise_alpha has no effect here: it adds noise to embeddings that train, but a kit's are the original's; "
            "leave it out"
        )
    half_precisions = {w.dtype for w in model.parameters() if w.requires_grad} & {torch.float16, torch.bfloat16}
    if half_precisions:
        name = str(half_precisions.pop()).removeprefix("torch.")
        raise ModtfError(
            f"the banks are in {name}, which rounds away an optimizer's small steps; load the original with "
            "from_pretrained(..., dtype=torch.float32) before modularizing it (bf16=True still computes in bfloat16)"
        )


def check_processes(args: Seq2SeqTrainingArguments) -> None:
    """Raise :class:`ModtfError` unless each process would train a whole copy of the model, on one device (DDP).

    On several GPUs of one process Trainer would use ``nn.DataParallel``, whose copies share the hooks that record
    hidden states, and which deals out sources and targets separately. FSDP 2 trains rightly, but then no process can
    write texts or save the kit, and it does not take T5's position biases, which layers share; on CPUs accelerate
    ignores it.
    """
    if args.n_gpu > 1:
        raise ModtfError(
            f"this process sees {args.n_gpu} GPUs, and would copy the model to each of them at every step, which "
            "cannot work here; start one process for each GPU with `accelerate launch your_script.py`, or show this process a "
            "single GPU with CUDA_VISIBLE_DEVICES=0"
        )
    if args.fsdp or _launched_with("FSDP"):
        raise ModtfError(
            f"FSDP {_PARTS}. Train a whole copy in each process (DDP): start them with torchrun, or with "
            "`accelerate launch --multi_gpu`, without FSDP"
        )
    if args.world_size == 1 and _launched_with("CPU") and "MASTER_PORT" in os.environ:
        raise ModtfError(
            "`accelerate launch --cpu` starts a single process, whatever --num_processes says; start them with torchrun, "
            "or with `accelerate launch --multi_gpu`, which needs no GPU"
        )


def check_deepspeed(trainer: Seq2SeqTrainer) -> None:
    """Raise :class:`ModtfError` for ZeRO of stage 3, which trains other weights than one process does, too."""
    if trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3:
        raise ModtfError(f"ZeRO of stage 3 {_PARTS}. Set zero_stage to 1 or 2, or train without DeepSpeed")


_PARTS = (
    "leaves each process a part of every weight, but whole ones are needed: to write texts while it trains, and to save "
    "the result"
)


def _launched_with(what: str) -> bool:
    """Whether `accelerate launch`, by its options or its configuration, asks for this."""
    return os.environ.get(f"ACCELERATE_USE_{what}", "").lower() == "true"


def _without_labels(modular: ModularModel, inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """A batch with ``decoder_input_ids`` in place of its labels, and the labels.

    With labels the model would compute their cross-entropy, even for the teacher and even if it has no weight.
    """
    given = dict(inputs)
    labels = given.pop("labels", None)
    if labels is None:
        raise ModtfError(
            f"the batch has {', '.join(inputs)}, but no labels; give the tokens of each target as labels: "
            "tokenizer(source, text_target=target) makes both"
        )
    if given.get("decoder_input_ids") is None:
        given["decoder_input_ids"] = decoder_inputs(modular.model, labels)
    return given, labels


def decoder_inputs(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to predict ``labels`` (batch, target): each one's predecessor, the start token first."""
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return model.prepare_decoder_input_ids_from_labels(labels)
    config: Any = model.config
    shifted = torch.cat([torch.full_like(labels[:, :1], config.decoder_start_token_id), labels[:, :-1]], 1)
    return shifted.masked_fill(shifted == -100, config.pad_token_id)


def _at_boundaries(states: Sequence[torch.Tensor], path: LayerPath) -> list[torch.Tensor]:
    """Of one state per original layer, those after which a layer of the path ends."""
    return [states[end - 1] for end in boundaries(path)]
