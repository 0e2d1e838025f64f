"""Safetensors for plain transformers, in single or half precision."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from modtf.exports.check import Reader
from modtf.saving import save_tokenizer

PRECISIONS = ("float32", "bfloat16", "float16")
PACKAGES: tuple[str, ...] = ()
FAMILIES: tuple[str, ...] = ()
HOW = """
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = "$folder"
source = $source
model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(source, truncation=True, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=$longest, do_sample=False, num_beams=1)
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
"""


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: str) -> None:
    dtype = getattr(torch, precision)
    if model.dtype != dtype:  # an assembly shares its weights with the kit, which stay as they are
        model = copy.deepcopy(model).to(dtype)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def reader(folder: Path, longest: int) -> Reader:
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def read(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=longest, do_sample=False, num_beams=1)
        return tokenizer.batch_decode(tokens, skip_special_tokens=True)

    return read
