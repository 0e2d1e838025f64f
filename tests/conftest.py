"""What the tests share: no network, fixed seeds, and tiny models whose every assembly writes something else."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import modtf
from modtf.recipes.pocket import train_tokenizer

torch.set_num_threads(1)


settings.register_profile(
    "modtf", deadline=None, derandomize=True
)  # a busy machine is no failure, and no run differs from the last
settings.load_profile("modtf")

FAMILIES = ("t5", "t5-gated", "bart")
VOCABULARY = 97
SENTENCES = (
    "The Mill is a cheap pub near Café Adriatic.",
    "Zizzi serves Thai food for less than £20 in the city centre.",
    "The Vaults is a family friendly restaurant by the river.",
)

ModelFactory = Callable[..., PreTrainedModel]
ModularFactory = Callable[..., modtf.ModularModel]


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Locks of folders, and what is left behind when a test fails, go where pytest cleans up."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))


def randomize(modules: Iterable[nn.Module], seed: int = 0) -> None:
    """Weights so large that greedy outputs of different assemblies differ; each tensor is drawn once."""
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    with torch.no_grad():
        for module in modules:
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                if isinstance(module, nn.Embedding):
                    parameter.normal_(0, 1, generator=generator)
                elif parameter.ndim == 2:
                    parameter.normal_(0, 1.5 * parameter.shape[1] ** -0.5, generator=generator)
                elif name == "bias":
                    parameter.normal_(0, 0.1, generator=generator)
                else:  # the scale of a norm
                    parameter.uniform_(0.5, 1.5, generator=generator)


def _make_model(
    family: str, encoder: int = 6, decoder: int = 6, seed: int = 0, vocabulary: int = VOCABULARY, **options: Any
) -> PreTrainedModel:
    model: PreTrainedModel
    if family == "bart":
        options = {"dropout": 0.1, "encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5} | options
        model = BartForConditionalGeneration(
            BartConfig(
                vocab_size=vocabulary, d_model=16, encoder_layers=encoder, decoder_layers=decoder,
                encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
                max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=1,
                forced_eos_token_id=1, **options,
            )
        )  # fmt: skip
    else:
        if family == "t5-gated":  # the shape of T5 v1.1
            options = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} | options
        options = {"dropout_rate": 0.1} | options
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=vocabulary, d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=encoder,
                num_decoder_layers=decoder, relative_attention_num_buckets=8, relative_attention_max_distance=16,
                pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **options,
            )
        )  # fmt: skip
    randomize(model.modules(), seed)
    return model.eval()


def _make_modular(
    family: str, encoder: int = 6, decoder: int = 6, seed: int = 0, tokenizer: Any = None, **options: Any
) -> modtf.ModularModel:
    modular = modtf.modularize(_make_model(family, encoder, decoder, seed, **options), tokenizer=tokenizer)
    shared = {id(p) for p in modular.parameters() if not p.requires_grad}
    kept = {id(p): p.detach().clone() for p in modular.parameters() if id(p) in shared}
    randomize((module for stack in modular.stacks for module in stack.banks.modules()), seed + 1)
    with torch.no_grad():  # position biases belong to banks and original alike
        for parameter in modular.parameters():
            if id(parameter) in kept:
                parameter.copy_(kept[id(parameter)])
    return modular


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """The rows of the test matrix."""
    return request.param


@pytest.fixture(scope="session")
def make_model() -> ModelFactory:
    """``make_model(family, encoder=6, decoder=6, seed=0)``: a tiny original."""
    return _make_model


@pytest.fixture(scope="session")
def make_modular() -> ModularFactory:
    """``make_modular(family, encoder=6, decoder=6, seed=0)``: the same with banks of all divisors, random too."""
    return _make_modular


@pytest.fixture(scope="session")
def modular(family: str) -> modtf.ModularModel:
    """6 + 6 layers with granularities 2 and 3, shared by the tests that leave it as it is."""
    return _make_modular(family)


@pytest.fixture(scope="session")
def batch() -> dict[str, torch.Tensor]:
    """Three sources (of 7, 5 and 3 tokens) and targets; ids from 3 on, so that none is special."""
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    labels = torch.randint(3, VOCABULARY, (3, 6), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row, length in enumerate((7, 5, 3)):
        attention_mask[row, length:] = 0
        labels[row, length - 1 :] = -100
    return {"input_ids": input_ids * attention_mask, "attention_mask": attention_mask, "labels": labels}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of a few sentences; 256 of its tokens are bytes."""
    return train_tokenizer(SENTENCES, vocabulary_size=300)
