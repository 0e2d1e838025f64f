"""Greedy decoding as a plain loop: the tokens of transformers' ``generate``, without what it does in Python for each of them.

That work hides what taking layers away gives: with it, six times fewer layers make a small model little more than four times as fast.
The loop keeps to the arithmetic. What does not change between tokens is done before them: q, k and v become one product, the
source's keys and values are computed once, and there is a cache to write into, so that the product goes straight there.

It knows greedy decoding of T5 and BART in single and double precision, for any batch, padded or not. Everything else is left to
``generate``; :func:`obstacle` says why, and :func:`decode` says which of the two wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from modtf.errors import ModtfError

#: Who writes: the loop of this file, or transformers.
LOOP, GENERATE = "loop", "generate"

#: Called after each step with its tokens (batch,); decoding ends there where it answers true.
Watch = Callable[[Tensor], bool]

#: Settings of a generation configuration that greedy decoding heeds here, or that mean nothing to it (beams, sampling, what is returned).
_UNDERSTOOD = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "max_length",
    "max_new_tokens", "use_cache", "do_sample", "temperature", "top_k", "top_p", "typical_p", "num_beams", "early_stopping", "length_penalty",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate", "transformers_version", "_from_model_config",
}  # fmt: skip
#: More tokens than this are left to ``generate``, whose caches grow as it writes.
_MOST_TOKENS = 4096
#: Positions that the cache has at first; it doubles when they are full.
_FIRST_POSITIONS = 128


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
    """Greedy tokens (batch, 1 + new tokens, begun by the decoder's start token), and the engine that wrote them.

    ``input_ids`` and ``attention_mask`` are (batch, source). With ``exactly`` every row gets ``max_new_tokens`` tokens, whatever
    the model says. ``engine`` is the loop where it can be unless given. Raises :class:`ModtfError` where the loop is asked for and
    cannot write as ``generate`` would.
    """
    if engine not in (None, LOOP, GENERATE):
        raise ModtfError(f"engine {engine!r} is unknown; possible are {LOOP!r} and {GENERATE!r}")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ModtfError(f"max_new_tokens is {max_new_tokens!r}; give a whole number from 1 on")
    if engine != GENERATE:
        reason = obstacle(model, max_new_tokens)
        if not reason and not bool(attention_mask.any(1).all()):
            reason = "a row holds padding alone"
        if not reason:
            with torch.inference_mode():
                return _loop(model, input_ids, attention_mask, max_new_tokens, exactly, watch), LOOP
        if engine == LOOP:
            raise ModtfError(
                f"the greedy loop cannot be used: {reason}; leave the engine open, or ask for {GENERATE!r}"
            )
    options: dict[str, Any] = {"return_dict_in_generate": False} | (
        {"min_new_tokens": max_new_tokens} if exactly else {}
    )
    if watch is not None:
        options["stopping_criteria"] = StoppingCriteriaList([_Watched(watch)])
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            **options,
        )
    return tokens, GENERATE


class _Watched(StoppingCriteria):
    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.full(
            (input_ids.shape[0],), bool(self.watch(input_ids[:, -1])), dtype=torch.bool, device=input_ids.device
        )


def obstacle(model: PreTrainedModel, max_new_tokens: int = 1) -> str:
    """Why the loop would not write what ``generate`` does, in words; nothing where it would.

    It calls tensor operations and no modules of the decoder, so whoever exchanged a layer (adapters, quantization, subclasses) or waits for one
    to be called (hooks, offloading) is given ``generate``.
    """
    family = _FAMILIES.get(model.config.model_type)
    if family is None:
        return f"it does not know the model type {model.config.model_type}; it knows {', '.join(_FAMILIES)}"
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    modules = [model, getattr(model, model.base_model_prefix, decoder), *decoder.modules(), head]
    for module in modules:
        kind = type(module)
        if kind.__name__ not in family.kinds and not kind.__module__.endswith(
            ("modules.activation", "transformers.activations")
        ):
            return f"the model holds a module of another kind ({kind.__name__})"
        if (
            module._forward_hooks
            or module._forward_pre_hooks
            or "forward" in module.__dict__
            or "_hf_hook" in module.__dict__
        ):
            return f"a {kind.__name__} has a hook, or a forward of its own, which the loop would not call"
        if module.training:
            return f"a {kind.__name__} is in training mode, where dropout draws"
    everywhere: Any = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "there is a hook for all modules, which the loop would not call"
    biases = {module.bias is not None for module in decoder.modules() if type(module) is nn.Linear}
    if biases != {family.biases} or head.bias is not None:
        return f"its linear layers {'lack' if family.biases else 'have'} biases, unlike others of its family"
    tensors = {(parameter.dtype, parameter.device) for parameter in model.parameters()}
    if len(tensors) > 1 or not {dtype for dtype, _ in tensors} <= {torch.float32, torch.float64}:
        return "the model is not in single or double precision on one device; in half precision, rounding alone changes tokens"
    if torch.is_autocast_enabled(model.device.type):
        return "autocast is on"
    config: GenerationConfig = model.generation_config
    other = sorted(
        name
        for name, value in config.to_diff_dict().items()
        if name not in _UNDERSTOOD and value and not (name.endswith("penalty") and value == 1)
    )
    if other:
        return f"the model's generation configuration asks for {', '.join(other)}"
    if not isinstance(_start(config), int):
        return "the model's generation configuration has no decoder_start_token_id, or a list"
    if max_new_tokens > (most := min(family.positions(decoder), _MOST_TOKENS)):
        return f"{max_new_tokens} new tokens are more than the {most} that it has positions for"
    return ""


def _start(config: GenerationConfig) -> Any:
    return config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id


# -- weights, laid out for one token at a time -----------------------------------------------------------------------------


class Projection(NamedTuple):
    """``weight`` (in, out), which one row times it reads fastest, and ``bias`` (out,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return (
            torch.mm(x, self.weight, out=out) if self.bias is None else torch.addmm(self.bias, x, self.weight, out=out)
        )

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual`` plus the projection of ``x``, in place."""
        residual.addmm_(x, self.weight)
        return residual if self.bias is None else residual.add_(self.bias)


@dataclass(frozen=True)
class Layer:
    """A decoder layer of either family. T5 normalises before each part, and that scale is folded into the part's first weights
    (``norms`` is empty); BART normalises after each part, with the weight and bias of ``norms``."""

    qkv: Projection  # each head's query, key and value side by side
    output: Projection
    cross_query: Projection
    cross_key: Projection
    cross_value: Projection
    cross_output: Projection
    inner: tuple[Projection, ...]  # two where the feed-forward network is gated
    activation: Callable[[Tensor], Tensor]
    outer: Projection
    norms: tuple[tuple[Tensor, Tensor, float], ...] = ()


def _project(*linears: Any, scale: Tensor | float = 1.0, heads: int = 0) -> Projection:
    """One projection of linear layers side by side (head by head where ``heads`` are given); ``scale`` is that of the input."""
    weights = [linear.weight * scale for linear in linears]
    biases = [linear.bias for linear in linears if linear.bias is not None]
    if heads:
        weight = torch.stack([w.view(heads, -1, w.shape[1]) for w in weights], 1).flatten(0, 2)
        bias = torch.stack([b.view(heads, -1) for b in biases], 1).flatten() if biases else None
    else:
        weight, bias = torch.cat(weights), torch.cat(biases) if biases else None
    return Projection(weight.t().clone(memory_format=torch.contiguous_format), bias)


def _t5_layer(block: Any) -> Layer:
    own, cross, feed_forward = (
        block.layer[0].SelfAttention,
        block.layer[1].EncDecAttention,
        block.layer[2].DenseReluDense,
    )
    # T5's norm divides by the root of the mean square, the loop by the length: the root of d_model is the difference.
    norms = [part.layer_norm.weight * part.layer_norm.weight.numel() ** 0.5 for part in block.layer]
    inner = [
        linear for name, linear in feed_forward.named_children() if name.startswith("wi")
    ]  # wi, or wi_0 and wi_1 where gated
    return Layer(
        qkv=_project(own.q, own.k, own.v, scale=norms[0], heads=own.n_heads),
        output=_project(own.o),
        cross_query=_project(cross.q, scale=norms[1]),
        cross_key=_project(cross.k),
        cross_value=_project(cross.v),
        cross_output=_project(cross.o),
        inner=tuple(_project(linear, scale=norms[2]) for linear in inner),
        activation=feed_forward.act,
        outer=_project(feed_forward.wo),
    )


def _bart_layer(layer: Any) -> Layer:
    own, cross = layer.self_attn, layer.encoder_attn
    norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
    return Layer(
        qkv=_project(own.q_proj, own.k_proj, own.v_proj, heads=own.num_heads),
        output=_project(own.out_proj),
        cross_query=_project(cross.q_proj),
        cross_key=_project(cross.k_proj),
        cross_value=_project(cross.v_proj),
        cross_output=_project(cross.out_proj),
        inner=(_project(layer.fc1),),
        activation=layer.activation_fn,
        outer=_project(layer.fc2),
        norms=tuple((norm.weight, norm.bias, norm.eps) for norm in norms),
    )


#: Laid-out weights, kept as long as the weights that they were made from, and used while those are unchanged. Assemblies share
#: their layers' weights, and so these too.
_laid_out: Any = WeakTensorKeyDictionary()


def _remembered(parameters: Iterable[Tensor], make: Callable[[], Any]) -> Any:
    parameters = list(parameters)
    # Fused optimizers and writes to ``.data`` change weights without counting up their version, so their norms are looked at, too.
    norms = torch.stack(torch._foreach_norm(parameters)).tolist()
    stamp = [
        (None if p.is_inference() else p._version, p.data_ptr(), norm)
        for p, norm in zip(parameters, norms, strict=True)
    ]
    known = _laid_out.get(parameters[0])
    if known is None or known[0] != stamp:
        known = _laid_out[parameters[0]] = (stamp, make())
    return known[1]


# -- what the two families differ in -----------------------------------------------------------------------------------------


class _T5:
    """Positions are biases of the self-attention's scores; norms have no mean and stand before each part."""

    kinds = frozenset(
        "T5ForConditionalGeneration T5Stack ModuleList T5Block T5LayerSelfAttention T5LayerCrossAttention T5LayerFF T5Attention T5LayerNorm "
        "T5DenseActDense T5DenseGatedActDense Linear Embedding Dropout".split()
    )
    biases = False

    def __init__(self, model: Any, length: int) -> None:
        decoder, head, norm = model.get_decoder(), model.lm_head, model.get_decoder().final_layer_norm
        attention = decoder.block[0].layer[0].SelfAttention
        d_model = model.config.d_model
        scale = norm.weight if model.config.scale_decoder_outputs else norm.weight * d_model**0.5
        self.layers = [_remembered(block.parameters(), partial(_t5_layer, block)) for block in decoder.block]
        self.head = _remembered((head.weight, norm.weight), lambda: _project(head, scale=scale))
        self.heads, self.scaling = attention.n_heads, 1.0
        self.embeddings = decoder.embed_tokens.weight
        self.epsilon = norm.weight.new_tensor((norm.variance_epsilon * d_model) ** 0.5)
        #: (heads, 1, length) for the last query; an earlier one sees the end of it, since only the distance counts.
        self.bias = attention.compute_bias(1, length, past_seen_tokens=length - 1)[0]

    @staticmethod
    def positions(decoder: Any) -> float:
        return float("inf")

    def embed(self, tokens: Tensor, position: int) -> Tensor:
        return nn.functional.embedding(tokens, self.embeddings)

    def before(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.epsilon)

    def after(self, x: Tensor, layer: Layer, part: int) -> Tensor:
        return x


class _Bart:
    """Positions are learned and added to the embeddings; norms stand after each part."""

    kinds = frozenset(
        "BartForConditionalGeneration BartModel BartDecoder ModuleList BartDecoderLayer BartAttention BartScaledWordEmbedding "
        "BartLearnedPositionalEmbedding LayerNorm Linear Embedding Dropout".split()
    )
    biases = True

    def __init__(self, model: Any, length: int) -> None:
        decoder, head = model.get_decoder(), model.lm_head
        attention = decoder.layers[0].self_attn
        self.layers = [_remembered(layer.parameters(), partial(_bart_layer, layer)) for layer in decoder.layers]
        self.head = Projection(_remembered((head.weight,), lambda: _project(head)).weight, model.final_logits_bias[0])
        self.heads, self.scaling = attention.num_heads, attention.scaling
        self.decoder = decoder
        self.bias = head.weight.new_zeros(1, 1, length)

    @staticmethod
    def positions(decoder: Any) -> float:
        return int(decoder.embed_positions.weight.shape[0]) - int(decoder.embed_positions.offset)

    def embed(self, tokens: Tensor, position: int) -> Tensor:
        positions = self.decoder.embed_positions
        return self.decoder.layernorm_embedding(
            self.decoder.embed_tokens(tokens) + positions.weight[position + positions.offset]
        )

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, layer: Layer, part: int) -> Tensor:
        weight, bias, epsilon = layer.norms[part]
        return torch.layer_norm(x, weight.shape, weight, bias, epsilon)


_FAMILIES: dict[str, Any] = {"t5": _T5, "bart": _Bart}


# -- the loop --------------------------------------------------------------------------------------------------------------


def _loop(
    model: Any, input_ids: Tensor, attention_mask: Tensor, length: int, exactly: bool, watch: Watch | None
) -> Tensor:
    family = _FAMILIES[model.config.model_type](model, length)
    layers, before, after, scaling = family.layers, family.before, family.after, family.scaling
    batch, heads = input_ids.shape[0], family.heads
    hidden = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def by_head(x: Tensor) -> Tensor:
        """(batch, source, heads · size) → (batch · heads, source, size): bmm takes a row for each head of each text."""
        return x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)

    flat = hidden.flatten(0, 1)
    source_keys = [by_head(layer.cross_key(flat).unflatten(0, (batch, -1))).transpose(1, 2) for layer in layers]
    source_values = [by_head(layer.cross_value(flat).unflatten(0, (batch, -1))) for layer in layers]
    padding = hidden.new_zeros(batch, 1, input_ids.shape[1]).masked_fill_(attention_mask[:, None] == 0, -torch.inf)
    padding = padding.repeat_interleave(heads, 0)
    bias = family.bias.repeat(batch if len(family.bias) > 1 else 1, 1, 1)
    # What self-attention has seen: query, key and value of each position, layer, text and head, written by one product (the query is
    # there for its sake alone).
    size = layers[0].qkv.weight.shape[1] // heads // 3
    cache = hidden.new_empty(len(layers), min(length, _FIRST_POSITIONS), batch * heads, 3, size)

    config = model.generation_config
    ends = _as_list(config.eos_token_id)
    pad = config.pad_token_id if config.pad_token_id is not None else ends[0] if ends else 0
    chosen = input_ids.new_full((batch,), _start(config))
    written, unfinished, finished = [chosen], set(range(batch)), torch.zeros_like(chosen, dtype=torch.bool)
    for t in range(length):
        if t == cache.shape[1]:
            cache = torch.cat([cache, torch.empty_like(cache)], 1)
        of_layers = zip(
            layers,
            cache.select(1, t).view(len(layers), batch, -1).unbind(),  # where the product is written
            cache[:, t, :, :1].unbind(),  # queries
            cache[:, : t + 1, :, 1].permute(0, 2, 3, 1).unbind(),  # keys
            cache[:, : t + 1, :, 2].transpose(1, 2).unbind(),  # values
            source_keys,
            source_values,
            strict=True,
        )
        seen = bias[:, :, length - 1 - t :]
        x = family.embed(chosen, t)  # (batch, d_model)
        for layer, product, query, own_keys, own_values, cross_keys, cross_values in of_layers:
            layer.qkv(before(x), out=product)
            weights = torch.baddbmm(seen, query, own_keys, alpha=scaling).softmax(-1)
            x = after(layer.output.add_to(x, torch.bmm(weights, own_values).view(batch, -1)), layer, 0)
            query = layer.cross_query(before(x)).view(batch * heads, 1, -1)
            weights = torch.baddbmm(padding, query, cross_keys, alpha=scaling).softmax(-1)
            x = after(layer.cross_output.add_to(x, torch.bmm(weights, cross_values).view(batch, -1)), layer, 1)
            y = before(x)
            inner = layer.activation(layer.inner[0](y))
            if len(layer.inner) > 1:
                inner = inner * layer.inner[1](y)
            x = after(layer.outer.add_to(x, inner), layer, 2)
        logits = family.head(before(x))
        if exactly and ends:
            logits[:, ends] = -torch.inf
        chosen = logits.argmax(-1)
        for step, forced in ((0, config.forced_bos_token_id), (length - 1, config.forced_eos_token_id)):
            if t == step and forced is not None:
                chosen.fill_(min(_as_list(forced)))
        if len(unfinished) < batch:
            chosen.masked_fill_(finished, pad)
        written.append(chosen)
        for row in [row for row, token in enumerate(chosen.tolist()) if token in ends and row in unfinished]:
            unfinished.remove(row)
            finished[row] = True
        if (watch is not None and watch(chosen)) or not unfinished:
            break
    return torch.stack(written, 1)


def _as_list(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
