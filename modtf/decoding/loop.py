"""Greedy decoding as a plain loop: the tokens of transformers' ``generate``, without its Python overhead per token.

That overhead hides what fewer layers gain: under ``generate``, a small model with a sixth of its layers is little more
than four times as fast. The loop does only the arithmetic. What does not change between tokens is computed before the
first: weights are laid out (``layouts``), and the source's keys and values are projected once. Queries, keys and values
of each token are written straight into the cache.

It covers greedy decoding of the families in :data:`LAYOUTS` in single and double precision, for any batch, padded or
not. Everything else is left to ``generate``, see :mod:`modtf.decoding.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from modtf.decoding.layouts import LAYOUTS, EncoderLayer, Layout

#: Called after each step with its tokens (batch,); decoding stops if it returns true.
Watch = Callable[[Tensor], bool]

#: The number of positions in the cache at first; a full cache doubles.
_FIRST_POSITIONS = 128
#: The most tokens of a text that are read at once.
MOST_AT_ONCE = 16


def write(
    model: Any, input_ids: Tensor, attention_mask: Tensor, length: int, exactly: bool, watch: Watch | None
) -> Tensor:
    """The loop: source tokens and their mask, both (batch, source), to tokens (batch, 1 + at most ``length``)."""
    layout = LAYOUTS[model.config.model_type](model, length)
    hidden = encode(layout, input_ids, attention_mask)
    decoder = Decoder(layout, hidden, attention_mask, length)
    choice = Choice(model.generation_config, length, exactly)
    unfinished = _Unfinished(choice, len(input_ids))
    chosen = input_ids.new_full((len(input_ids),), start_of(model.generation_config))
    written = [chosen]
    for t in range(length):
        chosen = unfinished(choice(decoder(chosen, t, t, decoder.bias(t)), t))
        written.append(chosen)
        if (watch is not None and watch(chosen)) or unfinished.none:
            break
    return torch.stack(written, 1)


def encode(layout: Layout, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What the encoder makes of source tokens (batch, source): (batch, source, d_model)"""
    batch, source = input_ids.shape
    before, after, heads = layout.before, layout.after, layout.heads
    x = layout.embed_source(input_ids)
    padding = x.new_zeros(batch, 1, 1, source).masked_fill_(attention_mask[:, None, None] == 0, -torch.inf)
    bias = padding + layout.source_bias(source)  # (batch, heads or 1, source or 1, source)
    bias = bias.expand(-1, heads, -1, -1).flatten(0, 1)  # (rows, source or 1, source)
    x = x.flatten(0, 1)  # (batch · source, d_model)
    for layer, activation in zip(layout.encoder_layers, layout.encoder_activations, strict=True):
        products = layer.qkv(before(x)).view(batch, source, heads, 3, -1)
        queries, keys, values = products.permute(3, 0, 2, 1, 4).flatten(1, 2).unbind()  # each (rows, source, size)
        weights = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=layout.scaling).softmax(-1)
        attended = torch.bmm(weights, values).view(batch, heads, source, -1).transpose(1, 2).reshape(batch * source, -1)
        x = after(layer.output.add_to(x, attended), layer, 0)
        x = _feed_forward(layout, layer, activation, x)
    return layout.encoded(x).view(batch, source, -1)


def _feed_forward(layout: Layout, layer: EncoderLayer, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The last part of a layer, (n, d_model) → (n, d_model)"""
    y = layout.before(x)
    inner = activation(layer.inner[0](y))  # (n, d_ff)
    if len(layer.inner) > 1:
        inner = inner * layer.inner[1](y)
    return layout.after(layer.outer.add_to(x, inner), layer, -1)


class Decoder:
    """A decoder, and what it keeps between tokens: keys and values of the source, and of the tokens before.

    In the shapes, n is the number of tokens of each text that are read at once, rows = batch · heads (all heads of the
    first text, then of the second), and size is that of one head. Tokens are ordered by position, then by text.
    """

    def __init__(
        self, layout: Layout, hidden: Tensor, attention_mask: Tensor, length: int, *, guesses: bool = False
    ) -> None:
        """``hidden`` (batch, source, d_model) is what an encoder made of the source; ``guesses`` need likely words only."""
        self.layout = layout
        self._head = layout.head.likely if guesses else layout.head
        batch, source, _ = hidden.shape
        heads, self._length = layout.heads, length
        self._rows = batch * heads
        flat = hidden.flatten(0, 1)  # (batch · source, d_model)

        def by_head(x: Tensor) -> Tensor:
            """(batch · source, heads · size) → (rows, source, size)"""
            return x.view(batch, source, heads, -1).transpose(1, 2).flatten(0, 1)

        # The source's keys (rows, size, source) and values (rows, source, size) of each layer.
        self._source_keys = [by_head(layer.cross_key(flat)).transpose(1, 2) for layer in layout.layers]
        self._source_values = [by_head(layer.cross_value(flat)) for layer in layout.layers]
        padding = hidden.new_zeros(batch, 1, source).masked_fill_(attention_mask[:, None] == 0, -torch.inf)
        self._padding = padding.repeat_interleave(heads, 0)  # (rows, 1, source)
        position_bias = layout.position_bias.repeat(batch if len(layout.position_bias) > 1 else 1, 1, 1)
        unseen = position_bias.new_full((len(position_bias), 1, MOST_AT_ONCE - 1), -torch.inf)
        self._position_bias = torch.cat([position_bias, unseen], 2)  # (rows or 1, 1, length + those)
        # One product writes a token's query, key and value of all heads straight into the cache. Later tokens need the
        # keys and values; the query is stored only because the same product computes it.
        size = layout.layers[0].qkv.weight.shape[1] // heads // 3
        self._cache = hidden.new_empty(len(layout.layers), min(length, _FIRST_POSITIONS), self._rows, 3, size)

    def bias(self, t: int, n: int = 1) -> Tensor:
        """(rows or 1, n, t + n): added to the scores of the tokens at positions ``t`` and after; none sees later ones."""
        start, seen = self._length - t - n, t + n  # of the last one; the one before begins, and ends, a place later
        if n == 1:
            return self._position_bias[:, :, start : self._length]
        return self._position_bias[:, 0, start : self._length + n - 1].unfold(-1, seen, 1).flip(-2)

    def __call__(self, tokens: Tensor, slot: int, positions: int | Tensor, bias: Tensor) -> Tensor:
        """Tokens (n · batch,) → logits (n · batch, vocabulary) of those that follow them.

        Keys and values go to the cache from ``slot`` on; ``positions`` are those of the tokens in their texts, one number
        or (n · batch,); ``bias`` (rows or 1, n, slot + n) says what each token sees.
        """
        layout, rows = self.layout, self._rows
        before, after, scaling = layout.before, layout.after, layout.scaling
        n = bias.shape[1]
        end = slot + n
        while end > self._cache.shape[1]:
            self._cache = torch.cat([self._cache, torch.empty_like(self._cache)], 1)
        cache = self._cache
        of_layers = zip(
            layout.layers,
            layout.activations,
            cache[:, slot:end].view(len(cache), len(tokens), -1).unbind(),  # where the product is written
            cache[:, slot:end, :, 0].transpose(1, 2).unbind(),  # (rows, n, size): queries
            cache[:, :end, :, 1].permute(0, 2, 3, 1).unbind(),  # (rows, size, seen): keys
            cache[:, :end, :, 2].transpose(1, 2).unbind(),  # (rows, seen, size): values
            self._source_keys,
            self._source_values,
            strict=True,
        )
        x = layout.embed(tokens, positions)  # (n · batch, d_model)
        for layer, activation, product, query, keys, values, cross_keys, cross_values in of_layers:
            layer.qkv(before(x), out=product)
            weights = torch.baddbmm(bias, query, keys, alpha=scaling).softmax(-1)  # (rows, n, seen)
            attended = torch.bmm(weights, values).transpose(0, 1).reshape(len(tokens), -1)  # (n · batch, heads · size)
            x = after(layer.output.add_to(x, attended), layer, 0)

            query = layer.cross_query(before(x)).view(n, rows, -1).transpose(0, 1)
            weights = torch.baddbmm(self._padding, query, cross_keys, alpha=scaling).softmax(-1)  # (rows, n, source)
            attended = torch.bmm(weights, cross_values).transpose(0, 1).reshape(len(tokens), -1)
            x = after(layer.cross_output.add_to(x, attended), layer, 1)

            x = _feed_forward(layout, layer, activation, x)
        return self._head(before(x), layout.head_bias)


class Choice:
    """The next token: the most likely, unless the configuration forces one."""

    def __init__(self, config: GenerationConfig, length: int, exactly: bool = False) -> None:
        self.ends = _as_list(config.eos_token_id)
        self.pad = config.pad_token_id
        if self.pad is None:
            self.pad = self.ends[0] if self.ends else 0
        forced = ((0, config.forced_bos_token_id), (length - 1, config.forced_eos_token_id))
        self._forced = {t: min(_as_list(token)) for t, token in forced if token is not None}
        self._never = [word[0] for word in config.bad_words_ids or () if word[0] not in self.ends]
        if exactly:
            self._never += self.ends

    def __call__(self, logits: Tensor, positions: int | Tensor) -> Tensor:
        """Logits (any, vocabulary) of the tokens after these positions → tokens (any,)"""
        if self._never:
            logits[:, self._never] = -torch.inf
        chosen = logits.argmax(-1)
        for forced, token in self._forced.items():
            if isinstance(positions, Tensor):
                chosen.masked_fill_(positions == forced, token)
            elif positions == forced:
                chosen.fill_(token)
        return chosen


class _Unfinished:
    """Pads the texts that have ended, and knows when all have."""

    def __init__(self, choice: Choice, batch: int) -> None:
        self._choice = choice
        self._rows = set(range(batch))
        self._ended: Tensor | None = None  # (batch,), from the first text that ends

    @property
    def none(self) -> bool:
        return not self._rows

    def __call__(self, chosen: Tensor) -> Tensor:
        """The next token of each text, (batch,)"""
        if self._ended is not None:
            chosen.masked_fill_(self._ended, self._choice.pad)
        ending = [row for row, token in enumerate(chosen.tolist()) if token in self._choice.ends and row in self._rows]
        if ending:
            if self._ended is None:
                self._ended = torch.zeros_like(chosen, dtype=torch.bool)
            self._ended[ending] = True
            self._rows.difference_update(ending)
        return chosen


def start_of(config: GenerationConfig) -> Any:
    return config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id


def _as_list(ids: int | Sequence[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
