"""Can a model be modularized, and is the surgery exact? What the tests ask of each known family, for any model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

from modtf.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    check_kind,
    copied_configs,
    read_key,
    stacks_of,
)
from modtf.errors import ModtfError
from modtf.layers import clone_module
from modtf.mapping import Assembly, default_granularities
from modtf.modular import ModularModel, modularize
from modtf.saving import no_progress_bars

#: New tokens that each assembly writes with and without a cache.
_TOKENS = 6


@dataclass(frozen=True)
class Finding:
    """One property of a family: whether a model has it and, if not, what happened instead."""

    property: str
    holds: bool
    instead: str = ""


@dataclass(frozen=True)
class Conformance:
    """What :func:`check` found."""

    model: str
    architecture: Architecture
    #: whether this family is one of the known ones; if not, the record is that of another family which fits
    known: bool
    findings: tuple[Finding, ...]

    @property
    def exact(self) -> bool:
        """Whether the model can be modularized as it is."""
        return all(finding.holds for finding in self.findings)

    def __str__(self) -> str:
        name = self.architecture.model_type
        lines = [f"{self.model} ({name}): {'can be modularized' if self.exact else 'cannot be modularized'}"]
        for finding in self.findings:
            lines.append(f"  {'yes' if finding.holds else 'NO '}  {finding.property}")
            if finding.instead:
                lines.append(f"       {finding.instead}")
        if self.exact and not self.known:
            lines.append(f"  To use it: modtf.ARCHITECTURES[{name!r}] = check(model).architecture")
        return "\n".join(lines)


def check(
    model: PreTrainedModel, architecture: Architecture | None = None, inputs: dict[str, Tensor] | None = None
) -> Conformance:
    """Whether a model can be modularized: each property that an assembly must have, tried on the model itself.

    The model stays as it is, its gradients, too. ``architecture`` is the record of its family; without one, that of its
    ``model_type`` or, for a family that is not known, of the first known one with the same names. ``inputs`` are what the model's
    ``generate`` takes, for at least two sources; without them, random tokens of different lengths. Random weights must
    be large enough for layers to matter. Raises :class:`ModtfError` for a model that fits no record.
    """
    check_kind(model)
    model_type = model.config.model_type
    known = architecture is None and model_type in ARCHITECTURES
    records = ARCHITECTURES.values() if architecture is None else [architecture]
    if known:
        candidates = [architecture_of(model)]
    else:
        records = [replace(record, model_type=model_type) for record in records]
        candidates = [record for record in dict.fromkeys(records) if _fits(model, record)]
        if not candidates:
            others = "this record says" if architecture else f"{', '.join(ARCHITECTURES)} have"
            raise ModtfError(
                f"{type(model).__name__} ({model_type}) has its layers, depths or attention under other names than {others}; "
                f"describe it: check(model, Architecture({model_type!r}, ...))"
            )
    tried = [
        Conformance(type(model).__name__, record, known, _findings(model, record, inputs)) for record in candidates
    ]
    return next((found for found in tried if found.exact), tried[0])


def _fits(model: PreTrainedModel, record: Architecture) -> bool:
    """Whether the model has the modules and the keys that a record names."""
    try:
        stacks = [getattr(stack, record.layers) for stack in stacks_of(model, record)]
        for layers in stacks:
            layers[0].get_submodule(record.self_attention)
        stacks[1][0].get_submodule(record.cross_attention)
    except (AttributeError, IndexError, TypeError):
        return False
    depths = [read_key(model.config, key) for key in (record.encoder_depth, record.decoder_depth)]
    return depths == [len(layers) for layers in stacks]


@contextmanager
def _modular(model: PreTrainedModel, record: Architecture) -> Iterator[ModularModel]:
    """A modular model over the same weights, in module objects of its own, with one bank a stack: little memory."""
    before = dict(ARCHITECTURES)
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    ARCHITECTURES[record.model_type] = record
    try:
        clone: Any = clone_module(model, copied_configs(model)).eval()
        encoder, decoder = (len(getattr(stack, record.layers)) for stack in stacks_of(clone))
        coarsest = [default_granularities(depth)[-1:] for depth in (encoder, decoder)]
        yield modularize(clone, coarsest[0], decoder_granularities=coarsest[1])
    finally:
        for parameter, trains in trained.items():
            parameter.requires_grad_(trains)
        ARCHITECTURES.clear()
        ARCHITECTURES.update(before)


def _findings(model: PreTrainedModel, record: Architecture, inputs: dict[str, Tensor] | None) -> tuple[Finding, ...]:
    inputs = _inputs(model) if inputs is None else inputs
    target = {"decoder_input_ids": _tokens(model, len(next(iter(inputs.values()))), _TOKENS)}
    found = []
    modes = {module: module.training for module in model.modules()}
    gradients = {weight: weight.grad for weight in model.parameters()}
    model.eval()
    try:
        for weight in gradients:
            weight.grad = None
        expected = _logits(model, inputs | target)
        with no_progress_bars(), _modular(model, record) as modular:
            for words, probe in _PROBES.items():
                try:
                    instead = probe(modular, inputs, target, expected)
                except Exception as error:  # whatever transformers says about a family that nobody has tried
                    instead = f"{type(error).__name__}: {error}"
                found.append(Finding(words, not instead, " ".join(instead.split())[:300]))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, gradient in gradients.items():
            weight.grad = gradient
    return tuple(found)


# -- the properties: each probe returns what it found instead, or nothing ----------------------------------------------

Batch = dict[str, Tensor]


def _assemblies(modular: ModularModel) -> list[Assembly]:
    """The original, the smallest, unequal depths both ways, and a mixture: originals first, then modularized layers."""
    original, coarsest = modular.mapping.original, modular.mapping.coarsest
    mixed = [(1,) * path[0] + path[1:] for path in coarsest.paths]
    unequal = [Assembly(coarsest.encoder, original.decoder), Assembly(original.encoder, coarsest.decoder)]
    return list(dict.fromkeys([original, coarsest, *unequal, Assembly(mixed[0], mixed[1])]))


def _identity(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    with torch.no_grad():
        in_place = modular(**inputs, **target).logits
        assembled = _logits(modular.assemble(), inputs | target)
    for words, logits in (("in place", in_place), ("assembled", assembled)):
        if not torch.equal(logits, expected):
            return f"{words}: {_difference(logits, expected)}"
    return ""


def _in_place(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    seen: list[Tensor] = []
    for assembly in _assemblies(modular):
        with torch.no_grad(), modular.record(assembly) as (encoder, decoder):
            logits = modular(assembly, **inputs, **target).logits
        ran = (len(encoder.hidden), len(decoder.hidden))
        if ran != (len(assembly.encoder), len(assembly.decoder)):
            return f"{assembly}: {ran[0]} + {ran[1]} layers ran"
        assembled = _logits(modular.assemble(assembly=assembly), inputs | target)
        if not torch.equal(logits, assembled):
            return f"{assembly}: {_difference(logits, assembled)}"
        if any(torch.equal(logits, other) for other in seen):
            return f"{assembly}: the same logits as another assembly's"
        seen.append(logits)
    return ""


def _cached(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    # Logits, not tokens: small random models repeat themselves, which hides faults.
    for assembly in _assemblies(modular):
        small = modular.assemble(assembly=assembly)
        written = _write(small, inputs, output_logits=True)
        with_cache = torch.stack(written.logits, 1)
        without = _logits(small, inputs | {"decoder_input_ids": written.sequences[:, :-1]})
        if not _close(with_cache, without[:, -with_cache.shape[1] :]):
            return f"{assembly}: {_difference(with_cache, without[:, -with_cache.shape[1] :])}"
    return ""


def _beams(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    for assembly in _assemblies(modular):
        small = modular.assemble(assembly=assembly)
        scores = [
            _write(small, inputs, num_beams=3, num_return_sequences=3, output_scores=True, use_cache=use_cache)
            for use_cache in (True, False)
        ]
        if not _close(scores[0].sequences_scores, scores[1].sequences_scores):
            return f"{assembly}: {_difference(scores[0].sequences_scores, scores[1].sequences_scores, 'scores')}"
    return ""


def _padded(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    if "input_ids" not in inputs or "attention_mask" not in inputs:
        return ""  # features have a fixed length
    for assembly in _assemblies(modular):
        small = modular.assemble(assembly=assembly)
        together = _logits(small, inputs | target)
        for row, mask in enumerate(inputs["attention_mask"]):
            kept = mask.bool()
            alone = {"input_ids": inputs["input_ids"][row : row + 1, kept], "attention_mask": mask[None, kept]}
            alone |= {name: ids[row : row + 1] for name, ids in target.items()}
            if not _close(_logits(small, alone), together[row : row + 1]):
                return f"{assembly}: {_difference(_logits(small, alone), together[row : row + 1])}"
    return ""


def _reloaded(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    for assembly in _assemblies(modular)[1:]:
        small = modular.assemble(assembly=assembly)
        with tempfile.TemporaryDirectory() as folder:
            small.save_pretrained(folder)
            again = type(small).from_pretrained(folder, dtype=small.dtype).to(small.device).eval()
        if not torch.equal(_logits(again, inputs | target), _logits(small, inputs | target)):
            return f"{assembly}: {_difference(_logits(again, inputs | target), _logits(small, inputs | target))}"
    return ""


def _learns(modular: ModularModel, inputs: Batch, target: Batch, expected: Tensor) -> str:
    banks = {id(weight) for weight in modular.bank_weights().values()}
    modular(modular.mapping.coarsest, **inputs, labels=target["decoder_input_ids"]).loss.backward()
    for stack in modular.stacks:
        for bank in stack.banks.children():
            for layer in bank.children():
                if all(weight.grad is None for weight in layer.parameters()):
                    return f"no gradient reaches a {type(layer).__name__}"
    others = [
        name for name, weight in modular.named_parameters() if weight.grad is not None and id(weight) not in banks
    ]
    return f"the original's {others[0]} would change" if others else ""


_PROBES: dict[str, Callable[[ModularModel, Batch, Batch, Tensor], str]] = {
    "all original layers compute the original's logits, bit for bit": _identity,
    "each assembly computes in place what it computes when it is assembled": _in_place,
    "with a cache an assembly computes the logits that it computes without": _cached,
    "so does beam search": _beams,
    "padding of the source changes nothing": _padded,
    "a saved assembly, loaded by plain transformers, computes the same": _reloaded,
    "training reaches all modularized layers, and nothing else": _learns,
}


# -- inputs and comparisons --------------------------------------------------------------------------------------------


def _inputs(model: PreTrainedModel) -> Batch:
    """Two sources: random tokens, the second one shorter; or random features of the length that the model takes."""
    name, generator = model.main_input_name, torch.Generator().manual_seed(0)
    if name == "input_ids":
        ids = _tokens(model, 2, 8)
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        return {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id or 0), "attention_mask": mask}
    if name == "input_features" and hasattr(model.config, "num_mel_bins"):
        shape = (2, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        return {name: torch.randn(shape, generator=generator).to(model.device, model.dtype)}
    if name == "input_values":
        return {name: torch.randn((2, 16000), generator=generator).to(model.device, model.dtype)}
    raise ModtfError(f"a {type(model).__name__} reads {name}; give them: check(model, inputs={{{name!r}: ...}})")


def _tokens(model: PreTrainedModel, rows: int, length: int) -> Tensor:
    """Random tokens, none of which has a meaning for the model."""
    special = set(_special(model.config.to_dict()))
    plain = [token for token in range(model.get_input_embeddings().weight.shape[0]) if token not in special]
    chosen = torch.randint(len(plain), (rows, length), generator=torch.Generator().manual_seed(length))
    return torch.tensor(plain)[chosen].to(model.device)


def _special(config: dict[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _special(value)
        elif str(key).endswith(("token_id", "token_index")):
            yield from (value if isinstance(value, list) else [value])


@torch.no_grad()
def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch, use_cache=False).logits


@torch.no_grad()
def _write(model: PreTrainedModel, inputs: Batch, **options: Any) -> Any:
    length = {"max_new_tokens": _TOKENS, "min_new_tokens": _TOKENS, "do_sample": False, "num_beams": 1}
    # The plain method: Whisper's own one cuts sounds into pieces.
    return GenerationMixin.generate(model, **inputs, **(length | options), return_dict_in_generate=True)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and _far(one, other) <= (1e-4 if one.dtype == torch.float32 else 0.05)


def _far(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    finite = other.isfinite()
    difference, largest = (one - other)[finite].abs().max(), other[finite].abs().max()
    return float(difference / largest.clamp(min=1e-6))


def _difference(one: Tensor, other: Tensor, what: str = "logits") -> str:
    if one.shape != other.shape:
        return f"{what} {tuple(one.shape)} in place of {tuple(other.shape)}"
    return f"the {what} differ by up to {100 * _far(one, other):.2g} % of the largest"
