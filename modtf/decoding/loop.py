"""Greedy decoding as a plain loop: the tokens of transformers' ``generate``, without its Python overhead per token.

That overhead hides what fewer layers gain: under ``generate``, a small model with a sixth of its layers is little more
than four times as fast. The loop does only the arithmetic. What does not change between tokens is computed before the
first: weights are laid out (``layouts``), and the source's keys and values are projected once. Queries, keys and values
of each token are written straight into the cache.

It covers greedy decoding of the families in :data:`LAYOUTS` in single and double precision, for any batch, padded or
not. Everything else is left to ``generate``: :func:`obstacle` says why, and :func:`decode` says which of the two wrote a
text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from modtf.decoding.layouts import LAYOUTS
from modtf.errors import ModtfError

#: The loop of this file.
LOOP = "loop"
#: The method of transformers.
GENERATE = "generate"
ENGINES = (LOOP, GENERATE)

#: Called after each step with its tokens (batch,); decoding stops if it returns true.
Watch = Callable[[Tensor], bool]

#: Settings of a generation configuration that the loop follows, or that do not affect it (sampling, what to return).
_UNDERSTOOD = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "max_length", "max_new_tokens", "use_cache", "do_sample", "temperature", "top_k", "top_p",
    "typical_p", "num_beams", "early_stopping", "length_penalty", "output_attentions", "output_hidden_states",
    "output_scores", "output_logits", "return_dict_in_generate", "transformers_version", "_from_model_config",
}  # fmt: skip
#: More tokens than this are left to ``generate``, whose caches grow as it writes.
_MOST_TOKENS = 4096
#: The number of positions in the cache at first; a full cache doubles.
_FIRST_POSITIONS = 128


def check_engine(engine: str | None) -> None:
    """Raise :class:`ModtfError` unless ``engine`` is one of :data:`ENGINES`, or None for the loop wherever possible."""
    if engine is not None and engine not in ENGINES:
        raise ModtfError(f"engine {engine!r} is unknown; use {LOOP!r} or {GENERATE!r}")


def decode(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int = 128,
    exactly: bool = False,
    engine: str | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, str]:
    """Greedy tokens (batch, 1 + new tokens), the decoder's start token first, and the engine that wrote them.

    ``input_ids`` and ``attention_mask`` are (batch, source). With ``exactly``, every row gets ``max_new_tokens``
    tokens, even if its text ends earlier. Without an ``engine``, the loop writes wherever possible. Raises
    :class:`ModtfError` for an unknown engine or an invalid number of tokens, and if the loop is requested but might
    write other tokens than ``generate``.
    """
    check_engine(engine)
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise ModtfError(f"max_new_tokens is {max_new_tokens!r}; give a whole number, 1 or more")
    if engine != GENERATE:
        reason = obstacle(model, max_new_tokens)
        if not reason and not bool(attention_mask.any(1).all()):
            reason = "a row of the input is all padding"
        if not reason:
            with torch.inference_mode():
                return _write(model, input_ids, attention_mask, max_new_tokens, exactly, watch), LOOP
        if engine == LOOP:
            raise ModtfError(f"the greedy loop cannot be used: {reason}; choose no engine, or {GENERATE!r}")
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


class _Watched(StoppingCriteria):
    """A :data:`Watch` as ``generate`` takes it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        stop = bool(self.watch(input_ids[:, -1]))
        return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)


def obstacle(model: PreTrainedModel, max_new_tokens: int = 1) -> str:
    """The reason why the loop might not write what ``generate`` does; an empty string if it does.

    The loop calls tensor operations, not the decoder's modules. It therefore leaves a model to ``generate`` if a layer
    was replaced (adapters, quantization, subclasses), or if something happens when a layer is called (hooks,
    offloading).
    """
    layout = LAYOUTS.get(model.config.model_type)
    if layout is None:
        return f"it does not support the model type {model.config.model_type}, only {', '.join(LAYOUTS)}"
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    modules = [model, getattr(model, model.base_model_prefix, decoder), *decoder.modules(), head]
    for module in modules:
        kind = type(module).__name__
        activation = type(module).__module__.endswith(("modules.activation", "transformers.activations"))
        if kind not in layout.kinds and not activation:
            return f"the model has a module that the loop does not support ({kind})"
        hooked = module._forward_hooks or module._forward_pre_hooks or "_hf_hook" in module.__dict__
        if hooked or "forward" in module.__dict__:
            return f"a {kind} has a hook, or a forward of its own, which the loop would not call"
        if module.training:
            return f"a {kind} is in training mode, where dropout is random"
    everywhere: Any = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "there is a hook on all modules, which the loop would not call"
    biases = {module.bias is not None for module in decoder.modules() if type(module) is nn.Linear}
    if biases != {layout.biases} or head.bias is not None:
        return "the biases of its linear layers differ from those of its family"
    dtypes = {parameter.dtype for parameter in model.parameters()}
    devices = {parameter.device for parameter in model.parameters()}
    if len(dtypes) > 1 or len(devices) > 1 or not dtypes <= {torch.float32, torch.float64}:
        return (
            "the model is not in single or double precision on one device; "
            "in half precision, rounding alone changes tokens"
        )
    if torch.is_autocast_enabled(model.device.type):
        return "autocast is on"
    config: GenerationConfig = model.generation_config
    other = sorted(
        name
        for name, value in config.to_diff_dict().items()
        if name not in _UNDERSTOOD
        and value
        and not (name.endswith("penalty") and value == 1)
        and not (name == "bad_words_ids" and all(len(word) == 1 for word in value))  # Opus-MT: never the padding
    )
    if other:
        return f"the model's generation configuration sets {', '.join(other)}"
    if not isinstance(_start(config), int):
        return "decoder_start_token_id of the model's generation configuration is missing, or a list"
    most = min(layout.positions(decoder), _MOST_TOKENS)
    if max_new_tokens > most:
        return f"it has positions for {most} new tokens only, not for {max_new_tokens}"
    return ""


def _write(
    model: Any, input_ids: Tensor, attention_mask: Tensor, length: int, exactly: bool, watch: Watch | None
) -> Tensor:
    """The loop: source tokens and their mask, both (batch, source), to tokens (batch, 1 + at most ``length``).

    In the shapes, rows = batch · heads (all heads of the first text, then of the second), size is that of one head, and
    seen = t + 1 is the number of positions that the decoder has at step t.
    """
    layout = LAYOUTS[model.config.model_type](model, length)
    layers, heads, scaling = layout.layers, layout.heads, layout.scaling
    before, after = layout.before, layout.after
    batch, source = input_ids.shape
    rows = batch * heads

    # The source, once: its hidden states, and each layer's keys (rows, size, source) and values (rows, source, size).
    hidden = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def by_head(x: Tensor) -> Tensor:
        """(batch · source, heads · size) → (rows, source, size)"""
        return x.view(batch, source, heads, -1).transpose(1, 2).flatten(0, 1)

    flat = hidden.flatten(0, 1)  # (batch · source, d_model)
    source_keys = [by_head(layer.cross_key(flat)).transpose(1, 2) for layer in layers]
    source_values = [by_head(layer.cross_value(flat)) for layer in layers]
    padding = hidden.new_zeros(batch, 1, source).masked_fill_(attention_mask[:, None] == 0, -torch.inf)
    padding = padding.repeat_interleave(heads, 0)  # (rows, 1, source)
    position_bias = layout.position_bias  # (heads or 1, 1, length) → (rows or 1, 1, length)
    position_bias = position_bias.repeat(batch if len(position_bias) > 1 else 1, 1, 1)

    # One product writes a position's query, key and value of all heads straight into the cache. Later steps need the
    # keys and values; the query is stored only because the same product computes it.
    size = layers[0].qkv.weight.shape[1] // heads // 3
    cache = hidden.new_empty(len(layers), min(length, _FIRST_POSITIONS), rows, 3, size)

    choice = _Choice(model.generation_config, batch, length, exactly)
    chosen = input_ids.new_full((batch,), _start(model.generation_config))
    written = [chosen]
    for t in range(length):
        if t == cache.shape[1]:
            cache = torch.cat([cache, torch.empty_like(cache)], 1)
        products = cache.select(1, t).view(len(layers), batch, -1)
        of_layers = zip(
            layers,
            layout.activations,
            products.unbind(),  # (batch, heads · 3 · size): where the product is written
            cache[:, t, :, :1].unbind(),  # (rows, 1, size): query
            cache[:, : t + 1, :, 1].permute(0, 2, 3, 1).unbind(),  # (rows, size, seen): keys
            cache[:, : t + 1, :, 2].transpose(1, 2).unbind(),  # (rows, seen, size): values
            source_keys,
            source_values,
            strict=True,
        )
        bias = position_bias[:, :, length - 1 - t :]  # (rows or 1, 1, seen)
        x = layout.embed(chosen, t)  # (batch, d_model)
        for layer, activation, product, query, keys, values, cross_keys, cross_values in of_layers:
            layer.qkv(before(x), out=product)
            weights = torch.baddbmm(bias, query, keys, alpha=scaling).softmax(-1)  # (rows, 1, seen)
            attended = torch.bmm(weights, values).view(batch, -1)  # (batch, heads · size)
            x = after(layer.output.add_to(x, attended), layer, 0)

            query = layer.cross_query(before(x)).view(rows, 1, -1)
            weights = torch.baddbmm(padding, query, cross_keys, alpha=scaling).softmax(-1)  # (rows, 1, source)
            attended = torch.bmm(weights, cross_values).view(batch, -1)
            x = after(layer.cross_output.add_to(x, attended), layer, 1)

            y = before(x)
            inner = activation(layer.inner[0](y))  # (batch, d_ff)
            if len(layer.inner) > 1:
                inner = inner * layer.inner[1](y)
            x = after(layer.outer.add_to(x, inner), layer, 2)
        chosen = choice(layout.head(before(x)), t)
        written.append(chosen)
        if (watch is not None and watch(chosen)) or choice.finished:
            break
    return torch.stack(written, 1)


class _Choice:
    """The next token of each text: the most likely, unless the configuration forces one or the text has ended."""

    def __init__(self, config: GenerationConfig, batch: int, length: int, exactly: bool) -> None:
        self._ends = _as_list(config.eos_token_id)
        self._pad = config.pad_token_id
        if self._pad is None:
            self._pad = self._ends[0] if self._ends else 0
        self._forced = {0: config.forced_bos_token_id}
        if config.forced_eos_token_id is not None:
            self._forced[length - 1] = config.forced_eos_token_id
        self._never = [word[0] for word in config.bad_words_ids or () if word[0] not in self._ends]
        self._exactly = exactly
        self._unfinished = set(range(batch))
        self._ended: Tensor | None = None  # (batch,), from the first text that ends

    @property
    def finished(self) -> bool:
        return not self._unfinished

    def __call__(self, logits: Tensor, t: int) -> Tensor:
        """Logits (batch, vocabulary) of step t → tokens (batch,)"""
        if self._never:
            logits[:, self._never] = -torch.inf
        if self._exactly and self._ends:
            logits[:, self._ends] = -torch.inf
        chosen = logits.argmax(-1)
        forced = self._forced.get(t)
        if forced is not None:
            chosen.fill_(min(_as_list(forced)))
        if self._ended is not None:
            chosen.masked_fill_(self._ended, self._pad)
        ending = [row for row, token in enumerate(chosen.tolist()) if token in self._ends and row in self._unfinished]
        if ending:
            if self._ended is None:
                self._ended = torch.zeros_like(chosen, dtype=torch.bool)
            self._ended[ending] = True
            self._unfinished.difference_update(ending)
        return chosen


def _start(config: GenerationConfig) -> Any:
    return config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id


def _as_list(ids: int | Sequence[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
