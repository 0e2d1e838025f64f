"""Training a modular model: module replacing and distillation in one phase."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from modtf.architectures import set_attention
from modtf.distillation import attention_loss, hidden_loss, logits_loss
from modtf.errors import ModtfError
from modtf.mapping import Assembly, boundaries
from modtf.mapping import Path as LayerPath
from modtf.modular import ModularModel
from modtf.replacing import ReplacingSchedule


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` for the matrices of the layers, AdamW for all else (embeddings, norms, biases).

    Muon takes matrices only, hence two optimizers behind one interface. ``lr`` is Muon's, scaled to AdamW's range
    (``match_rms_adamw``); ``adamw_lr`` is for the rest.
    """

    def __init__(self, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float = 0.0) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
        chosen = {id(p) for p in matrices}
        rest = [p for p in trained if id(p) not in chosen]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        # The parts must see what a scheduler writes, so the groups are theirs, not copies.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class BatchTrainer(Seq2SeqTrainer):
    """Trains on datasets whose items are whole batches, in their order (see :class:`modtf.tasks.batches.TaskBatches`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # T5 and BART return plain means: without this, Trainer believes that they divide by the number of accumulated tokens.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs, use_cache=False)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset: Any = train_dataset or self.train_dataset
        return SequentialSampler(dataset)


@dataclass
class ModularTrainingArguments(Seq2SeqTrainingArguments):
    """Seq2SeqTrainingArguments and what the method adds: the weight of each loss, and the replacing schedule.

    A weight of 0 turns a loss off, and what it needs is then not computed. Attention maps exist only with eager attention;
    the trainer switches to it where ``attention_weight`` is above 0.
    """

    labels_weight: float = field(default=1.0, metadata={"help": "cross-entropy with the labels"})
    logits_weight: float = field(default=1.0, metadata={"help": "KL from the original's token probabilities"})
    hidden_weight: float = field(default=1.0, metadata={"help": "hidden states at the boundaries of the path's layers"})
    attention_weight: float = field(default=1.0, metadata={"help": "self- and cross-attention maps"})
    temperature: float = field(default=1.0, metadata={"help": "of the logits' loss"})
    replacing_probability: float = field(default=0.5, metadata={"help": "of the first step; it rises to 1"})
    full_at: float = field(
        default=0.5, metadata={"help": "share of the training after which the replacing probability is 1"}
    )
    coarse_at: float = field(
        default=0.1, metadata={"help": "share of the training after which all granularities are drawn"}
    )
    mixtures: float = field(
        default=0.1, metadata={"help": "share of steps with random mixtures of originals and modules"}
    )
    whole: float = field(
        default=0.6, metadata={"help": "share of steps with one granularity from end to end of a stack"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = [self.labels_weight, self.logits_weight, self.hidden_weight, self.attention_weight]
        if min(weights) < 0 or not any(weights):
            raise ModtfError(f"the losses' weights are {weights}; give weights of 0 or more, at least one above 0")
        if self.temperature <= 0:
            raise ModtfError(f"the temperature is {self.temperature}; give one above 0")
        if getattr(self, "ddp_find_unused_parameters", None) is None:
            self.ddp_find_unused_parameters = True  # every step leaves most modules out


class ModularTrainer(BatchTrainer):
    """Trains the banks of a :class:`ModularModel`; the frozen original beside them is the teacher.

    Each optimizer step draws one assembly (:class:`ReplacingSchedule`), the same for all its accumulated batches, and
    lowers the weighted sum of the losses. Datasets are those of ``Seq2SeqTrainer``. Checkpoints hold banks only, and a
    resumed training goes on as if it had never stopped.
    """

    def __init__(
        self, model: ModularModel, args: ModularTrainingArguments, *, whole_batches: bool = False, **kwargs: Any
    ) -> None:
        if not isinstance(model, ModularModel):
            raise ModtfError(
                f"a ModularModel is needed, not a {type(model).__name__}; make one with modtf.modularize(model)"
            )
        if not isinstance(args, ModularTrainingArguments):
            raise ModtfError(f"ModularTrainingArguments are needed, not {type(args).__name__}")
        if args.label_smoothing_factor:
            raise ModtfError(
                "label_smoothing_factor has no effect here: the original's probabilities (logits_weight) smooth the labels"
            )
        halves = {
            weight.dtype
            for weight in model.parameters()
            if weight.requires_grad and weight.dtype in (torch.float16, torch.bfloat16)
        }
        if halves:
            raise ModtfError(
                f"the banks are in {str(halves.pop()).removeprefix('torch.')}, in which an optimizer's small steps are rounded away; load the original with "
                "from_pretrained(..., dtype=torch.float32) before modularizing it (bf16=True still computes in bfloat16)"
            )
        self.whole_batches = whole_batches
        if args.attention_weight > 0:
            set_attention(model.model, "eager")
        super().__init__(model=model, args=args, **kwargs)
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
            a = self.args
            self._schedule = ReplacingSchedule(
                self.modular.mapping, steps, a.seed, probability=a.replacing_probability, full_at=a.full_at,
                coarse_at=a.coarse_at, mixtures=a.mixtures, whole=a.whole,
            )  # fmt: skip
        return self._schedule

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.whole_batches:
            return super()._get_train_sampler(train_dataset)
        return Seq2SeqTrainer._get_train_sampler(self, train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not model.training:  # evaluation: the coarsest assembly, the hardest for the banks
            outputs = model(assembly=self.modular.mapping.coarsest, **inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        losses, outputs = self.losses(model, self.schedule().draw(self.state.global_step), inputs)
        weighted = {name: getattr(self.args, f"{name}_weight") * loss for name, loss in losses.items()}
        for name, loss in losses.items():
            self._sums[f"loss_{name}"] += loss.item()
        self._counted += 1
        total = torch.stack(list(weighted.values())).sum()
        return (total, outputs) if return_outputs else total

    def losses(
        self, model: nn.Module, assembly: Assembly, inputs: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """Each loss that has a weight, for one batch on one assembly, and the student's output."""
        a = self.args
        modular = self.modular
        original = modular.mapping.original
        maps = a.attention_weight > 0
        teaching = a.logits_weight > 0 or a.hidden_weight > 0 or maps
        if teaching:
            with torch.no_grad(), modular.record(original, maps) as teacher:
                teacher_outputs = modular(original, **inputs)
        with modular.record(assembly, maps) as student:
            outputs = model(assembly=assembly, **inputs)
        target = inputs["labels"] != -100
        mask = inputs.get("attention_mask")
        source = torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
        losses: dict[str, torch.Tensor] = {}
        if a.labels_weight > 0:
            losses["labels"] = outputs.loss
        if a.logits_weight > 0:
            losses["logits"] = logits_loss(outputs.logits, teacher_outputs.logits, target, a.temperature)
        if a.hidden_weight > 0:
            losses["hidden"] = torch.stack(
                [
                    hidden_loss(s.hidden, _at_boundaries(t.hidden, path), keep)
                    for s, t, path, keep in zip(
                        student, teacher, (assembly.encoder, assembly.decoder), (source, target), strict=True
                    )
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
        if self._counted and "loss" in logs:
            logs = {**logs, **{name: total / self._counted for name, total in self._sums.items()}}
            self._sums.clear()
            self._counted = 0
        super().log(logs, *args, **kwargs)

    # Checkpoints: the banks alone. The original does not change, and Trainer's own would hold shared tensors twice.

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:  # of several processes the first
            self.modular.save_banks(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.modular.load_banks(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self.modular.load_banks(self.state.best_model_checkpoint)


def _at_boundaries(states: list[torch.Tensor], path: LayerPath) -> list[torch.Tensor]:
    """Of the teacher's states, one for each original layer, those where the path's layers end."""
    return [states[end - 1] for end in boundaries(path)]
