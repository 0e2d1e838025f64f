"""CTranslate2: a compiled engine for CPUs and GPUs, in single or half precision or in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from modtf import compiled
from modtf.compiled import convert, options_of
from modtf.exports.check import Reader
from modtf.saving import save_tokenizer

PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")
PACKAGES: tuple[str, ...] = ("ctranslate2",)
FAMILIES = compiled.FAMILIES
HOW = """
import ctranslate2
from transformers import AutoTokenizer

folder = "$folder"
source = $source
translator, tokenizer = ctranslate2.Translator(folder), AutoTokenizer.from_pretrained(folder)
tokens = tokenizer.convert_ids_to_tokens(tokenizer(source, truncation=True)["input_ids"])
(written,) = translator.translate_batch([tokens], beam_size=1, max_decoding_length=$longest$options)
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(written.hypotheses[0]), skip_special_tokens=True))
"""


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    convert(model, tokenizer, folder, precision)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def reader(folder: Path, longest: int) -> Reader:
    import ctranslate2

    translator = ctranslate2.Translator(str(folder), intra_threads=torch.get_num_threads())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config: Any = GenerationConfig.from_pretrained(folder)
    options, forced_eos = options_of(config, tokenizer), config.forced_eos_token_id

    def read(texts: list[str]) -> list[str]:
        sources = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts)["input_ids"]]
        first = options["target_prefix"] and [options["target_prefix"]] * len(texts)
        results = translator.translate_batch(
            sources, beam_size=1, max_decoding_length=longest, **options | {"target_prefix": first}
        )
        ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        for full in (tokens for tokens in ids if forced_eos is not None and len(tokens) == longest):
            full[-1] = forced_eos  # where a text is cut off, as ``generate`` does it
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    return read
