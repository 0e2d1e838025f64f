"""ONNX: two graphs for ONNX Runtime, in single precision or with weights in int8.

``encoder.onnx`` reads a source and gives the keys and values that the decoder's layers attend to, computed once.
``decoder.onnx`` reads one token of each text, these and the keys and values of the tokens before it, of which there are
none at first; it gives logits and the new keys and values. So the two need no third graph for the first token, share no
weights but the embeddings, and the encoder may have more layers than the decoder, or fewer.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from modtf import compiled
from modtf.architectures import architecture_of, stacks_of
from modtf.exports.check import Reader, single_words
from modtf.saving import save_tokenizer

PRECISIONS = ("float32", "int8")
PACKAGES: tuple[str, ...] = ("onnx", "onnxruntime", "onnxscript")
FAMILIES = compiled.FAMILIES
HOW = """
import numpy as np
from onnxruntime import InferenceSession
from transformers import AutoTokenizer, GenerationConfig

folder = "$folder"
source = $source
encoder, decoder = InferenceSession(folder + "/encoder.onnx"), InferenceSession(folder + "/decoder.onnx")
tokenizer, config = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
inputs = dict(tokenizer([source], truncation=True, return_tensors="np", return_token_type_ids=False))
known = dict(zip([one.name for one in encoder.get_outputs()], encoder.run(None, inputs)))
known["attention_mask"] = inputs["attention_mask"]
past = {
    one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32)
    for one in decoder.get_inputs()
    if one.name.startswith("past.")
}
tokens = [config.decoder_start_token_id]
for _ in range($longest):
    logits, *new = decoder.run(None, {"input_ids": np.array([tokens[-1:]]), **known, **past})
    past = dict(zip(past, new))
$never    tokens.append(int(logits[0].argmax()))$forced
    if tokens[-1] in np.atleast_1d(config.eos_token_id):
        break
print(tokenizer.decode(tokens, skip_special_tokens=True))
"""
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


class Encoder(nn.Module):
    """(texts, source) -> keys and values of each decoder layer, each (texts, heads, source, width of a head)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        hidden = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # What only makes the logits is left out of the graph, since nothing asks for it.
        self.model.get_decoder()(
            input_ids=input_ids[:, :1],
            encoder_hidden_states=hidden,
            encoder_attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
        )
        return flat(cache.cross_attention_cache)


class Decoder(nn.Module):
    """Last tokens (texts, 1), mask (texts, source), what came before -> logits (texts, vocabulary), and the new cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        own, other = (DynamicCache(list(zip(kept[::2], kept[1::2], strict=True))) for kept in (past, cross))
        hidden = cross[0].new_zeros((*attention_mask.shape, self.model.config.d_model))  # its size is read, no more
        outputs = self.model(
            decoder_input_ids=input_ids,
            encoder_outputs=(hidden,),
            attention_mask=attention_mask,
            past_key_values=EncoderDecoderCache(own, other),
            use_cache=True,
        )
        return outputs.logits[:, -1], *flat(outputs.past_key_values.self_attention_cache)


def flat(cache: DynamicCache) -> tuple[Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    folder.mkdir()
    layers = len(getattr(stacks_of(model)[1], architecture_of(model).layers))
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    ids = torch.full((2, 8), 2, device=model.device)
    mask = torch.ones_like(ids)
    text, source, before = (torch.export.Dim(name) for name in ("texts", "source", "past"))
    rows = {0: text, 1: source}
    with torch.no_grad():
        cross = Encoder(model)(ids, mask)
        past = tuple(tensor[:, :, :3] for tensor in cross)
        _graph(
            Encoder(model), (ids, mask), folder / ENCODER, (rows, rows),
            ["input_ids", "attention_mask"], [f"cross.{name}" for name in names],
        )  # fmt: skip
        _graph(
            Decoder(model), (ids[:, :1], mask, past, cross), folder / DECODER,
            ({0: text}, rows, ({0: text, 2: before},) * len(past), ({0: text, 2: source},) * len(cross)),
            ["input_ids", "attention_mask", *(f"past.{name}" for name in names), *(f"cross.{name}" for name in names)],
            ["logits", *(f"present.{name}" for name in names)],
        )  # fmt: skip
    if precision == "int8":
        _quantize(folder / ENCODER)
        _quantize(folder / DECODER)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of tracing and quantizing, which are about other models."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _graph(module: nn.Module, inputs: Any, file: Path, shapes: Any, names: list[str], outputs: list[str]) -> None:
    with _quietly():
        program: Any = torch.onnx.export(
            module.eval(), inputs, dynamo=True, verbose=False, dynamic_shapes=shapes, input_names=names,
            output_names=outputs,
        )  # fmt: skip
        program.save(file)


def _quantize(file: Path) -> None:
    """Weights in int8, activations as they come: dynamic quantization."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full = file.replace(file.with_suffix(".full.onnx"))
    with _quietly():
        quantize_dynamic(full, file, weight_type=QuantType.QInt8, per_channel=True)
    full.unlink()


def reader(folder: Path, longest: int) -> Reader:
    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    encoder, decoder = (InferenceSession(folder / name, options) for name in (ENCODER, DECODER))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config: Any = GenerationConfig.from_pretrained(folder)
    past = {one.name: one.shape for one in decoder.get_inputs() if one.name.startswith("past.")}
    never = single_words(config)

    def read(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, padding=True, return_tensors="np", return_token_type_ids=False)
        cross = encoder.run(None, dict(inputs))
        known = {one.name: value for one, value in zip(encoder.get_outputs(), cross, strict=True)}
        known["attention_mask"] = inputs["attention_mask"]
        rows = len(texts)
        kept = {name: np.zeros((rows, heads, 0, width), np.float32) for name, (_, heads, _, width) in past.items()}
        written = [np.full(rows, config.decoder_start_token_id)]
        ended = np.zeros(rows, bool)
        while len(written) <= longest and not ended.all():
            logits, *cache = decoder.run(None, {"input_ids": written[-1][:, None], **known, **kept})
            logits[:, never] = -np.inf
            kept = dict(zip(kept, cache, strict=True))
            token = logits.argmax(-1)
            if len(written) == 1 and config.forced_bos_token_id is not None:
                token[:] = config.forced_bos_token_id
            if len(written) == longest and config.forced_eos_token_id is not None:
                token[:] = config.forced_eos_token_id
            written.append(np.where(ended, config.pad_token_id, token))
            ended |= np.isin(token, config.eos_token_id)
        return tokenizer.batch_decode(np.stack(written[1:], 1), skip_special_tokens=True)

    return read
