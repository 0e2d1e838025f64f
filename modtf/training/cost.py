"""What trainings compute: passes through layers, and floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.tasks.batches import TaskBatches
    from modtf.training.trainer import ModularTrainingArguments

#: Steps of a training that are looked at, evenly spaced.
LOOKED_AT = 500


def step_passes(assembly: Assembly, teacher: bool = False) -> tuple[int, int]:
    """What a training step of an assembly computes, in passes through one layer: of the encoder, and of the decoder.

    Each layer runs forward once. The gradient goes back from the end to the first module, through every layer that runs
    after it, and each module needs the gradient of its weights, too. A teacher runs all original layers forward.
    """
    path = assembly.encoder + assembly.decoder
    first = next((place for place, g in enumerate(path) if g > 1), len(path))
    passes = [1 + (place > first) + (g > 1) + (g if teacher else 0) for place, g in enumerate(path)]
    return sum(passes[: len(assembly.encoder)]), sum(passes[len(assembly.encoder) :])


def step_operations(
    modular: ModularModel,
    args: ModularTrainingArguments,
    assemblies: Sequence[Assembly],
    shapes: Sequence[tuple[int, int]],
) -> float:
    """About how many floating-point operations a step computes, on batches of so many tokens of sources and of texts.

    They are two for each weight that a token meets on a pass, of layers and of the product with the vocabulary. Left out
    are what attention computes besides (which costs little for short sources, and about as large a share of each size) and
    the optimizer.
    """
    encoder, decoder = (sum(p.numel() for p in stack.originals[0].parameters()) for stack in modular.stacks)
    head = sum(p.numel() for p in modular.model.get_input_embeddings().parameters())  # of the same shape
    teaches = any((args.logits_weight, args.hidden_weight, args.attention_weight))
    sources, texts = map(sum, zip(*shapes, strict=True))
    weights = 0
    for number, assembly in enumerate(assemblies):
        teacher = teaches and number == 0  # one for all of them
        of_encoder, of_decoder = step_passes(assembly, teacher)
        weights += sources * encoder * of_encoder + texts * (decoder * of_decoder + head * (2 + teacher))
    return 2.0 * weights


def training_operations(modular: ModularModel, args: ModularTrainingArguments, batches: TaskBatches) -> float:
    """About how many floating-point operations all steps of a training compute: see :func:`step_operations`."""
    count, of_step = args.max_steps, len(batches) // args.max_steps
    schedule, few = args.schedule(modular.mapping, count), min(count, LOOKED_AT)
    looked_at = (
        step_operations(
            modular,
            args,
            schedule.draw_several(number, args.assemblies_per_step),
            batches.shapes[number * of_step : (number + 1) * of_step],
        )
        for number in (step * count // few for step in range(few))
    )
    return sum(looked_at) * count / few
