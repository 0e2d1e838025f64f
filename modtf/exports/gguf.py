"""GGUF: one file for llama.cpp, of a T5 whose stacks may have unequal depths (llama.cpp since September 2025)."""

from __future__ import annotations

import base64
import ctypes
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from modtf.architectures import scale_of_logits
from modtf.errors import ModtfError
from modtf.exports.check import Reader
from modtf.saving import save_tokenizer

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
PACKAGES: tuple[str, ...] = ("gguf",)
#: Only for the check: llama-cpp-python, which pip builds from its sources.
ENGINE = "llama_cpp"
FAMILIES: tuple[str, ...] = ("t5", "mt5")
HOW = """
import ctypes

import llama_cpp  # pip install llama-cpp-python
import numpy as np
from transformers import AutoTokenizer

folder = "$folder"
source = $source
tokenizer = AutoTokenizer.from_pretrained(folder)
model = llama_cpp.llama_model_load_from_file(f"{folder}/model.gguf".encode(), llama_cpp.llama_model_default_params())
context = llama_cpp.llama_init_from_model(model, llama_cpp.llama_context_default_params())


def feed(run, tokens):
    array = (ctypes.c_int32 * len(tokens))(*tokens)
    run(context, llama_cpp.llama_batch_get_one(array, len(tokens)))


feed(llama_cpp.llama_encode, tokenizer(source, truncation=True)["input_ids"])
tokens = [llama_cpp.llama_model_decoder_start_token(model)]
while tokens[-1] != tokenizer.eos_token_id and len(tokens) <= $longest:
    feed(llama_cpp.llama_decode, tokens[-1:])
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    tokens.append(int(np.ctypeslib.as_array(logits, shape=($words,)).argmax()))
print(tokenizer.decode(tokens, skip_special_tokens=True))
"""
FILE = "model.gguf"
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "Q8_0"}


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    import gguf

    config: Any = model.config
    if config.feed_forward_proj not in ("relu", "gated-gelu"):
        raise ModtfError(f"llama.cpp computes a T5 with relu or gated-gelu, not {config.feed_forward_proj}")
    if config.relative_attention_max_distance != 128:
        raise ModtfError(
            f"llama.cpp knows positions up to 128 apart, not {config.relative_attention_max_distance}; choose another --to"
        )
    if config.num_decoder_layers > config.num_layers:
        raise ModtfError(
            "llama.cpp keeps a cache for no more decoder layers than the encoder has, and here are "
            f"{config.num_decoder_layers} and {config.num_layers}; choose an assembly with more encoder layers"
        )
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / FILE, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.T5])
    writer.add_context_length(getattr(config, "n_positions", 512))
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_block_count(config.num_layers)
    writer.add_decoder_block_count(config.num_decoder_layers)
    writer.add_head_count(config.num_heads)
    writer.add_key_length(config.d_kv)
    writer.add_value_length(config.d_kv)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(config.relative_attention_num_buckets)
    writer.add_decoder_start_token_id(model.generation_config.decoder_start_token_id)
    _add_vocabulary(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, max(config.num_layers, config.num_decoder_layers))
    wanted = gguf.GGMLQuantizationType[_TYPES[precision]]
    for name, weight in model.named_parameters():  # a tied weight comes once, as "shared"
        values = weight.detach().float().cpu()
        if name == "decoder.final_layer_norm.weight":
            values = values * scale_of_logits(model)  # llama.cpp does not scale them
        small = values.ndim == 1 or "relative_attention_bias" in name or (precision == "int8" and values.shape[1] % 32)
        kind = gguf.GGMLQuantizationType.F32 if small else wanted
        data = gguf.quants.quantize(values.numpy(), kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def _add_vocabulary(writer: Any, tokenizer: Any, size: int) -> None:
    """SentencePiece's unigrams as llama.cpp's "t5", byte-level BPE as its "gpt2"."""
    import gguf

    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = rules["model"]["type"]
    if kind not in ("Unigram", "BPE") or (kind == "BPE" and "ByteLevel" not in json.dumps(rules["pre_tokenizer"])):
        raise ModtfError(f"llama.cpp has no tokenizer like this one ({kind}); choose --to ctranslate2 or onnx")
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    scores = [-10000.0] * size
    known = tokenizer.get_vocab()
    unigrams = {number: score for number, (_, score) in enumerate(rules["model"]["vocab"])} if kind == "Unigram" else {}
    for token, number in known.items():
        added = tokenizer.added_tokens_decoder.get(number)
        tokens[number] = token
        scores[number] = unigrams.get(number, 0.0)
        types[number] = gguf.TokenType.NORMAL
        if number == tokenizer.unk_token_id:
            types[number] = gguf.TokenType.UNKNOWN
        elif added is not None:
            types[number] = gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("t5" if kind == "Unigram" else "gpt2")
    writer.add_tokenizer_pre("default" if kind == "Unigram" else "gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if kind == "Unigram":
        writer.add_token_scores(scores)
        steps = rules["normalizer"] or {}
        for step in steps.get("normalizers", [steps]):
            if charsmap := step.get("precompiled_charsmap"):
                writer.add_precompiled_charsmap(base64.b64decode(charsmap))
    else:
        pairs = rules["model"]["merges"]
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in pairs])
    writer.add_add_space_prefix(True)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)


def reader(folder: Path, longest: int) -> Reader:
    import llama_cpp as llama
    import numpy as np

    llama.llama_backend_init()
    llama.llama_log_set(_silence(), None)
    model = llama.llama_model_load_from_file(str(folder / FILE).encode(), llama.llama_model_default_params())
    settings = llama.llama_context_default_params()
    settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
    context = model and llama.llama_init_from_model(model, settings)
    if not context:
        raise ModtfError(f"llama.cpp cannot read {FILE}: it needs one of September 2025 or newer")
    words = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config: Any = GenerationConfig.from_pretrained(folder)

    def feed(run: Any, ids: list[int]) -> None:
        kept = (ctypes.c_int32 * len(ids))(*ids)  # the batch only points to it
        if run(context, llama.llama_batch_get_one(kept, len(ids))):
            raise ModtfError(f"llama.cpp could not read {len(ids)} tokens")

    def text(source: str) -> str:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        feed(llama.llama_encode, tokenizer(source, truncation=True)["input_ids"])
        tokens = [config.decoder_start_token_id]
        while len(tokens) <= longest and tokens[-1] != config.eos_token_id:
            feed(llama.llama_decode, tokens[-1:])
            logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), shape=(words,))
            tokens.append(int(logits.argmax()))
        return tokenizer.decode(tokens, skip_special_tokens=True)

    return lambda texts: [text(source) for source in texts]


@cache
def _silence() -> Any:
    """What takes llama.cpp's messages and drops them; it must live as long as the process."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda *_: None)
