"""CTranslate2: a compiled engine for CPUs and GPUs, in single or half precision or in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from modtf import compiled
from modtf.compiled import Compiled, convert
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
(written,) = translator.translate_batch([tokens], beam_size=1, max_decoding_length=$longest, max_input_length=0$options)
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(written.hypotheses[0]), skip_special_tokens=True))
"""


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    convert(model, tokenizer, folder, precision)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def reader(folder: Path, longest: int) -> Reader:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    engine = Compiled(folder, GenerationConfig.from_pretrained(folder), tokenizer)

    def read(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        tokens = engine.write(inputs["input_ids"], inputs["attention_mask"], longest)
        return tokenizer.batch_decode(tokens, skip_special_tokens=True)

    return read
