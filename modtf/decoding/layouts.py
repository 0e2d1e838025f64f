"""What the loop needs of a decoder, with the weights laid out for one token at a time.

Everything that does not change between tokens is prepared here: q, k and v of all heads become one product, the scales
of T5's norms are folded into the weights that follow, and weights are stored transposed, which is fastest for few rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from modtf.decoding.weights import parameters_in, remembered

#: Numbers in a head's weight from which on it is not read whole for a guess, since it does not stay in the cache.
_LARGE = 2**20
#: Of how many words a guess computes the logits exactly; and how many are looked at to find the main directions.
_LIKELY, _MOST_WORDS = 16, 8192


class Projection(NamedTuple):
    """A linear layer: ``weight`` is (in, out), ``bias`` (out,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(rows, in) → (rows, out)"""
        if self.bias is None:
            return torch.mm(x, self.weight, out=out)
        return torch.addmm(self.bias, x, self.weight, out=out)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual`` (rows, out) plus the projection of ``x`` (rows, in), in place."""
        residual.addmm_(x, self.weight)
        return residual if self.bias is None else residual.add_(self.bias)


class Head:
    """The projection to the vocabulary: ``weight`` is (d_model, vocabulary)."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, d_model) → logits (rows, vocabulary); ``bias`` is (vocabulary,)"""
        return Projection(self.weight, bias)(x)

    def likely(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """These logits, but -inf for all words save a few that are likely.

        To read the weights of a large vocabulary takes most of a small decoder's time; here only a quarter is read
        (SVD-softmax, Shim et al., NIPS 2017). A small vocabulary is faster read whole.
        """
        if self.weight.numel() < _LARGE:
            return self(x, bias)
        directions, weight = self._reduced
        rough = Projection(weight, bias)(torch.mm(x, directions))
        words = rough.topk(_LIKELY).indices  # (rows, few)
        exact = torch.linalg.vecdot(self.weight.t()[words], x[:, None])
        if bias is not None:
            exact += bias[words]
        return rough.fill_(-torch.inf).scatter_(1, words, exact)

    @cached_property
    def _reduced(self) -> tuple[Tensor, Tensor]:
        """Two factors whose product is near the weight: (d_model, rank) and (rank, vocabulary)."""
        some = self.weight[:, :: 1 + self.weight.shape[1] // _MOST_WORDS]
        directions = torch.linalg.eigh(some @ some.t())[1][:, -(len(some) // 4) :].contiguous()
        return directions, directions.t() @ self.weight


@dataclass(frozen=True, kw_only=True)
class EncoderLayer:
    """The weights of an encoder layer: self-attention, feed-forward network."""

    qkv: Projection  # (d_model, heads · 3 · size): the query, key and value of one head, then of the next
    output: Projection
    inner: tuple[Projection, ...]  # two where the feed-forward network is gated
    outer: Projection
    #: weight, bias and epsilon of the norm after each part (BART)
    norms: tuple[tuple[Tensor, Tensor, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layer(EncoderLayer):
    """The weights of a decoder layer: it has cross-attention, too, as its second part."""

    cross_query: Projection
    cross_key: Projection
    cross_value: Projection
    cross_output: Projection


class Layout:
    """A model as the loop sees it; each family has a subclass.

    Creating one is cheap: the weights of a layer are laid out once and remembered until they change.
    """

    #: classes of the modules that the loop replaces
    kinds: ClassVar[frozenset[str]]
    #: whether the decoder's linear layers have biases
    biases: ClassVar[bool]

    layers: list[Layer]
    #: one for each layer's feed-forward network; read from the modules each time, since stamps cover weights only
    activations: list[Callable[[Tensor], Tensor]]
    encoder_activations: list[Callable[[Tensor], Tensor]]
    head: Head
    head_bias: Tensor | None = None
    heads: int
    scaling: float  # of the products of queries and keys
    #: (heads or 1, 1, length), added to the scores of the query at the last position; earlier queries use its end
    position_bias: Tensor

    def __init__(self, model: Any, length: int) -> None:
        """Lay out the decoder of ``model`` for writing at most ``length`` tokens."""
        raise NotImplementedError

    @cached_property
    def encoder_layers(self) -> list[EncoderLayer]:
        """Laid out when they are needed: a draft has no encoder of its own."""
        raise NotImplementedError

    @staticmethod
    def positions(decoder: Any) -> float:
        """The largest number of tokens for which the decoder has positions."""
        return float("inf")

    def embed(self, tokens: Tensor, position: int | Tensor) -> Tensor:
        """Tokens (n,) at one position, or at the positions (n,) → (n, d_model)"""
        raise NotImplementedError

    def embed_source(self, ids: Tensor) -> Tensor:
        """(batch, source) → (batch, source, d_model)"""
        raise NotImplementedError

    def source_bias(self, source: int) -> Tensor:
        """(heads or 1, source or 1, source), added to the scores of the encoder."""
        raise NotImplementedError

    def encoded(self, x: Tensor) -> Tensor:
        """The norm after the last layer of the encoder, (batch · source, d_model)."""
        return x

    def before(self, x: Tensor) -> Tensor:
        """The norm before each part of a layer, and before the head; (n, d_model) as all below."""
        return x

    def after(self, x: Tensor, layer: EncoderLayer, part: int) -> Tensor:
        """The norm after a part of a layer: 0 or 1, or -1 for the last."""
        return x


class T5Layout(Layout):
    """T5 normalizes before each part, without subtracting the mean, and adds relative position biases to the scores."""

    kinds = frozenset(
        "T5ForConditionalGeneration T5Stack ModuleList T5Block T5LayerSelfAttention T5LayerCrossAttention T5LayerFF "
        "T5Attention T5LayerNorm T5DenseActDense T5DenseGatedActDense Linear Embedding Dropout".split()
    )
    biases = False

    def __init__(self, model: Any, length: int) -> None:
        encoder, decoder, head = model.get_encoder(), model.get_decoder(), model.lm_head
        norm, attention = decoder.final_layer_norm, decoder.block[0].layer[0].SelfAttention
        self._encoder = encoder
        self.encoder_activations = [block.layer[1].DenseReluDense.act.forward for block in encoder.block]
        self.layers = [remembered(parameters_in(block), partial(_t5_layer, block)) for block in decoder.block]
        self.activations = [block.layer[2].DenseReluDense.act.forward for block in decoder.block]
        # Some versions of T5 multiply all logits by one number; that changes no choice, so it is left out.
        self.head = remembered((head.weight, norm.weight), lambda: Head(_project(head, scale=norm.weight).weight))
        self.heads, self.scaling = attention.n_heads, 1.0
        # Only the distance between query and key counts, so one row of biases serves the queries at all positions.
        self.position_bias = attention.compute_bias(1, length, past_seen_tokens=length - 1)[0]
        self._embeddings = decoder.embed_tokens.weight
        self._epsilon = norm.weight.new_tensor((norm.variance_epsilon * model.config.d_model) ** 0.5)

    @cached_property
    def encoder_layers(self) -> list[EncoderLayer]:
        return [remembered(parameters_in(block), partial(_t5_encoder_layer, block)) for block in self._encoder.block]

    def embed(self, tokens: Tensor, position: int | Tensor) -> Tensor:
        return nn.functional.embedding(tokens, self._embeddings)

    def embed_source(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self._encoder.embed_tokens.weight)

    def source_bias(self, source: int) -> Tensor:
        return self._encoder.block[0].layer[0].SelfAttention.compute_bias(source, source)[0]

    def encoded(self, x: Tensor) -> Tensor:
        return self._encoder.final_layer_norm(x)

    def before(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self._epsilon)


def _t5_layer(block: Any) -> Layer:
    cross = block.layer[1].EncDecAttention
    return Layer(
        **_t5_own(block),
        cross_query=_project(cross.q, scale=_t5_norm(block.layer[1])),
        cross_key=_project(cross.k),
        cross_value=_project(cross.v),
        cross_output=_project(cross.o),
    )


def _t5_encoder_layer(block: Any) -> EncoderLayer:
    return EncoderLayer(**_t5_own(block))


def _t5_own(block: Any) -> dict[str, Any]:
    """What the layers of both stacks have."""
    own, feed_forward = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
    # wi, or wi_0 and wi_1 where the network is gated
    inner = [linear for name, linear in feed_forward.named_children() if name.startswith("wi")]
    return {
        "qkv": _project(own.q, own.k, own.v, scale=_t5_norm(block.layer[0]), heads=own.n_heads),
        "output": _project(own.o),
        "inner": tuple(_project(linear, scale=_t5_norm(block.layer[-1])) for linear in inner),
        "outer": _project(feed_forward.wo),
    }


def _t5_norm(part: Any) -> Tensor:
    """T5's norm divides by the root mean square, the loop by the vector norm: a factor of the square root of d_model."""
    weight = part.layer_norm.weight
    return weight * weight.numel() ** 0.5


class BartLayout(Layout):
    """BART normalizes after each part, and adds learned positions to the embeddings."""

    kinds = frozenset(
        "BartForConditionalGeneration BartModel BartEncoder BartEncoderLayer BartDecoder ModuleList BartDecoderLayer BartAttention "
        "BartScaledWordEmbedding BartLearnedPositionalEmbedding LayerNorm Linear Embedding Dropout".split()
    )
    biases = True

    def __init__(self, model: Any, length: int) -> None:
        encoder, decoder, head = model.get_encoder(), model.get_decoder(), model.lm_head
        attention = decoder.layers[0].self_attn
        self.encoder_activations = [layer.activation_fn.forward for layer in encoder.layers]
        self.layers = [remembered(parameters_in(layer), partial(_bart_layer, layer)) for layer in decoder.layers]
        self.activations = [layer.activation_fn.forward for layer in decoder.layers]
        self.head = remembered((head.weight,), lambda: Head(_project(head).weight))
        self.head_bias = model.final_logits_bias[0]
        self.heads, self.scaling = attention.num_heads, attention.scaling
        self.position_bias = head.weight.new_zeros(1, 1, length)
        self._encoder, self._decoder = encoder, decoder

    @cached_property
    def encoder_layers(self) -> list[EncoderLayer]:
        layers = self._encoder.layers
        return [remembered(parameters_in(layer), partial(_bart_encoder_layer, layer)) for layer in layers]

    @staticmethod
    def positions(decoder: Any) -> float:
        return int(decoder.embed_positions.weight.shape[0]) - int(decoder.embed_positions.offset)

    def embed(self, tokens: Tensor, position: int | Tensor) -> Tensor:
        positions = self._decoder.embed_positions
        embedded = self._decoder.embed_tokens(tokens) + positions.weight[position + positions.offset]
        return self._decoder.layernorm_embedding(embedded)

    def embed_source(self, ids: Tensor) -> Tensor:
        positions = self._encoder.embed_positions
        of_source = positions.weight[positions.offset : positions.offset + ids.shape[1]]
        return self._encoder.layernorm_embedding(self._encoder.embed_tokens(ids) + of_source)

    def source_bias(self, source: int) -> Tensor:
        return self.position_bias.new_zeros(1, 1, source)

    def after(self, x: Tensor, layer: EncoderLayer, part: int) -> Tensor:
        weight, bias, epsilon = layer.norms[part]
        return torch.layer_norm(x, weight.shape, weight, bias, epsilon)


def _bart_layer(layer: Any) -> Layer:
    cross = layer.encoder_attn
    return Layer(
        **_bart_own(layer, layer.encoder_attn_layer_norm),
        cross_query=_project(cross.q_proj),
        cross_key=_project(cross.k_proj),
        cross_value=_project(cross.v_proj),
        cross_output=_project(cross.out_proj),
    )


def _bart_encoder_layer(layer: Any) -> EncoderLayer:
    return EncoderLayer(**_bart_own(layer))


def _bart_own(layer: Any, *between: Any) -> dict[str, Any]:
    """What the layers of both stacks have; ``between`` are the norms between the first and the last one."""
    own, norms = layer.self_attn, (layer.self_attn_layer_norm, *between, layer.final_layer_norm)
    return {
        "qkv": _project(own.q_proj, own.k_proj, own.v_proj, heads=own.num_heads),
        "output": _project(own.out_proj),
        "inner": (_project(layer.fc1),),
        "outer": _project(layer.fc2),
        "norms": tuple((norm.weight, norm.bias, norm.eps) for norm in norms),
    }


def _kinds(layout: type[Layout], family: str, of: str) -> frozenset[str]:
    """The classes of a family that copies another one's, under its own name."""
    return frozenset(name.replace(of, family, 1) if name.startswith(of) else name for name in layout.kinds)


class MT5Layout(T5Layout):
    """mT5 is T5 with another vocabulary."""

    kinds = _kinds(T5Layout, "MT5", of="T5")


class MarianLayout(BartLayout):
    """Marian's layers are BART's; it adds sines of the positions, and normalizes no embeddings."""

    kinds = _kinds(BartLayout, "Marian", of="Bart") | {"MarianMTModel", "MarianSinusoidalPositionalEmbedding"}

    @staticmethod
    def positions(decoder: Any) -> float:
        return int(decoder.embed_positions.weight.shape[0])

    def embed(self, tokens: Tensor, position: int | Tensor) -> Tensor:
        embedded = self._decoder.embed_tokens(tokens) * self._decoder.embed_scale
        return embedded + self._decoder.embed_positions.weight[position]

    def embed_source(self, ids: Tensor) -> Tensor:
        embedded = self._encoder.embed_tokens(ids) * self._encoder.embed_scale
        return embedded + self._encoder.embed_positions.weight[: ids.shape[1]]


def _project(*linears: Any, scale: Tensor | float = 1.0, heads: int = 0) -> Projection:
    """Linear layers side by side as one projection; with ``heads``, head by head.

    ``scale``, a number or (in,), multiplies their input.
    """
    weights = [linear.weight * scale for linear in linears]
    biases = [linear.bias for linear in linears if linear.bias is not None]
    if heads:
        weight = torch.stack([w.view(heads, -1, w.shape[1]) for w in weights], 1).flatten(0, 2)
        bias = torch.stack([b.view(heads, -1) for b in biases], 1).flatten() if biases else None
    else:
        weight = torch.cat(weights)
        bias = torch.cat(biases) if biases else None
    return Projection(weight.t().clone(memory_format=torch.contiguous_format), bias)


#: The layout of each ``model_type`` that the loop knows.
LAYOUTS: dict[str, type[Layout]] = {"t5": T5Layout, "mt5": MT5Layout, "bart": BartLayout, "marian": MarianLayout}
