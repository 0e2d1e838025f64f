"""Who writes a greedy text: the loop wherever it writes what transformers' ``generate`` does, and that otherwise.

:func:`decode` says which of the two it was, :func:`obstacle` why it was not the loop.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from modtf.decoding.drafting import Draft, write_drafted
from modtf.decoding.layouts import LAYOUTS, Layout
from modtf.decoding.loop import Watch, start_of, write
from modtf.decoding.weights import modules_in
from modtf.errors import ModtfError

#: That of :mod:`modtf.decoding.loop`.
LOOP = "loop"
#: The method of transformers.
GENERATE = "generate"
ENGINES = (LOOP, GENERATE)

#: Settings of a generation configuration that the loop follows, or that do not affect it (sampling, what to return).
_UNDERSTOOD = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "max_length", "max_new_tokens", "use_cache", "do_sample", "temperature", "top_k", "top_p",
    "typical_p", "num_beams", "early_stopping", "length_penalty", "output_attentions", "output_hidden_states",
    "output_scores", "output_logits", "return_dict_in_generate", "transformers_version", "_from_model_config",
}  # fmt: skip
_DEFAULTS = vars(GenerationConfig())
#: Where modules come from that only apply a function.
_ACTIVATIONS = ("modules.activation", "transformers.activations")
#: More tokens than this are left to ``generate``, whose caches grow as it writes.
_MOST_TOKENS = 4096


def check_length(max_new_tokens: Any) -> None:
    """Raise :class:`ModtfError` unless ``max_new_tokens`` is a whole number from 1 on."""
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise ModtfError(f"max_new_tokens is {max_new_tokens!r}; give a whole number, 1 or more")


def decode(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int = 128,
    exactly: bool = False,
    engine: str | None = None,
    watch: Watch | None = None,
    draft: Draft | None = None,
) -> tuple[Tensor, str]:
    """Greedy tokens (batch, 1 + new tokens), the decoder's start token first, and the engine that wrote them.

    ``input_ids`` and ``attention_mask`` are (batch, source). With ``exactly``, every row gets ``max_new_tokens``
    tokens, even if its text ends earlier. Without an ``engine``, the loop writes wherever possible. A ``draft`` is for
    the loop: its model writes ahead, and the tokens stay the same (:mod:`modtf.decoding.drafting`). Raises
    :class:`ModtfError` for an unknown engine or an invalid number of tokens, and if the loop is requested, or a draft,
    but it might write other tokens than ``generate``.
    """
    if engine is not None and engine not in ENGINES:
        raise ModtfError(f"engine {engine!r} is unknown; use {LOOP!r} or {GENERATE!r}")
    check_length(max_new_tokens)
    if engine != GENERATE:
        reason = obstacle(model, max_new_tokens)
        if not reason and not bool(attention_mask.any(1).all()):
            reason = "a row of the input is all padding"
        if not reason and draft is not None:
            reason = _obstacle_to_draft(model, draft.model, max_new_tokens, len(input_ids), watch)
            if reason and draft.auto:
                draft, reason = None, ""
        if not reason:
            return _by_loop(model, input_ids, attention_mask, max_new_tokens, exactly, watch, draft), LOOP
        if draft is not None and not draft.auto:
            raise ModtfError(f"nothing can be drafted: {reason}; leave out the draft")
        if engine == LOOP:
            raise ModtfError(f"the greedy loop cannot be used: {reason}; choose no engine, or {GENERATE!r}")
    elif draft is not None and not draft.auto:
        raise ModtfError(f"drafts are for the loop; choose no engine, or {LOOP!r}, or leave out the draft")
    options: dict[str, Any] = {"min_new_tokens": max_new_tokens} if exactly else {}
    if watch is not None:
        options["stopping_criteria"] = StoppingCriteriaList([_Watched(watch)])
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=False,
            **options,
        )
    return tokens, GENERATE


def _by_loop(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    length: int,
    exactly: bool,
    watch: Watch | None,
    draft: Draft | None,
) -> Tensor:
    """With the draft, unless it says "auto" and was slower so far; what that took, it remembers."""
    drafts = draft is not None and (not draft.auto or draft.pace.drafts())
    began = time.perf_counter()
    with torch.inference_mode():
        if draft is not None and drafts:
            tokens = write_drafted(model, draft, input_ids, attention_mask, length, exactly, watch)
        else:
            tokens = write(model, input_ids, attention_mask, length, exactly, watch)
    if draft is not None:
        draft.pace.took("drafted" if drafts else "alone", (time.perf_counter() - began) / (tokens.shape[1] - 1))
    return tokens


class _Watched(StoppingCriteria):
    """A :data:`Watch` as ``generate`` takes it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        stop = bool(self.watch(input_ids[:, -1]))
        return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)


def obstacle(model: PreTrainedModel, max_new_tokens: int = 1, *, only_decoder: bool = False) -> str:
    """The reason why the loop might not write what ``generate`` does; an empty string if it does.

    The loop calls tensor operations, not the model's modules. It therefore leaves a model to ``generate`` if a layer
    was replaced (adapters, quantization, subclasses), or if something happens when a layer is called (hooks,
    offloading). A draft is asked for its decoder only.
    """
    layout = LAYOUTS.get(model.config.model_type)
    if layout is None:
        return f"the loop does not support the model type {model.config.model_type}, only {', '.join(LAYOUTS)}"
    encoder, decoder, head = model.get_encoder(), model.get_decoder(), model.get_output_embeddings()
    stacks = [decoder] if only_decoder else [encoder, decoder]
    modules = [*modules_in(*stacks), head, getattr(model, model.base_model_prefix, decoder), model]
    if reason := _obstacle_in(modules, layout):
        return reason
    linears = [module for module in modules if type(module) is nn.Linear and module is not head]
    biases = {linear._parameters["bias"] is not None for linear in linears}
    if biases != {layout.biases} or head.bias is not None:
        return "the biases of its linear layers differ from those of its family"
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    dtypes, devices = {p.dtype for p in parameters}, {p.device for p in parameters}
    if len(dtypes) > 1 or len(devices) > 1 or not dtypes <= {torch.float32, torch.float64}:
        return (
            "the model is not in single or double precision on one device; "
            "in half precision, rounding alone changes tokens"
        )
    if torch.is_autocast_enabled(model.device.type):
        return "autocast is on"
    config: GenerationConfig = model.generation_config
    if other := not_followed(config):
        return f"the model's generation configuration sets {', '.join(other)}"
    if not isinstance(start_of(config), int):
        return "decoder_start_token_id of the model's generation configuration is missing, or a list"
    most = min(layout.positions(decoder), _MOST_TOKENS)
    if max_new_tokens > most:
        return f"the model has positions for {most} new tokens only, not for {max_new_tokens}"
    return ""


def not_followed(config: GenerationConfig) -> list[str]:
    """The settings that are no default and that the loop does not follow."""
    return sorted(
        name
        for name, value in vars(config).items()
        if value
        and value != _DEFAULTS.get(name)
        and name not in _UNDERSTOOD
        and not name.startswith("_")
        and not (name.endswith("penalty") and value == 1)
        and not (name == "bad_words_ids" and all(len(word) == 1 for word in value))  # Opus-MT: never the padding
    )


def _obstacle_in(modules: list[nn.Module], layout: type[Layout]) -> str:
    """What in a module the loop would not call. It is asked before each text: so in passes over all, a few at a time."""
    unknown = [
        kind.__name__
        for kind in {type(module) for module in modules}
        if kind.__name__ not in layout.kinds and not kind.__module__.endswith(_ACTIVATIONS)
    ]
    if unknown:
        return f"the model has a module that the loop does not support ({min(unknown)})"
    for module in modules:
        hooked = module._forward_hooks or module._forward_pre_hooks or "_hf_hook" in module.__dict__
        if hooked or "forward" in module.__dict__:
            return f"a {type(module).__name__} has a hook, or a forward of its own, which the loop would not call"
        if module.training:
            return f"a {type(module).__name__} is in training mode, where dropout is random"
    everywhere: Any = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "there is a hook on all modules, which the loop would not call"
    return ""


def _obstacle_to_draft(model: Any, draft: Any, max_new_tokens: int, batch: int, watch: Watch | None) -> str:
    if reason := obstacle(draft, max_new_tokens, only_decoder=True):
        return f"in the draft, {reason}"
    sizes = [(one.config.model_type, one.get_output_embeddings().weight.shape) for one in (model, draft)]
    if sizes[0] != sizes[1]:
        return "the draft has another type, width or vocabulary"
    return "several texts cannot be watched, since they grow unevenly" if watch is not None and batch > 1 else ""
