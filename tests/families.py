"""Tiny random originals of the families beside T5 and BART, with traps that their published models have, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from transformers import PreTrainedModel

VOCABULARY = 97
_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1}
_BART = {
    "d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "max_position_embeddings": 64, "bos_token_id": 2, "decoder_start_token_id": 1,
    "encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5,
}  # fmt: skip
_T5 = {
    "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16, "decoder_start_token_id": 0,
}  # fmt: skip
_GEMMA = {
    **_TOKENS, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "max_position_embeddings": 64, "bos_token_id": 2,
}  # fmt: skip


def _bart(name: str, encoder: int = 6, decoder: int = 6, model: str = "", **options: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(
        encoder_layers=encoder, decoder_layers=decoder, **(_TOKENS | _BART | options)
    )
    return getattr(transformers, model or f"{name}ForConditionalGeneration")(config)


def _marian(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    model = _bart("Marian", encoder, decoder, model="MarianMTModel")
    model.generation_config.bad_words_ids = [[0], [31]]  # as Opus-MT, which must not write its padding
    return model


def _led(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    windows = [4 * (1 + layer % 2) for layer in range(encoder)]  # each layer its own
    longest = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 32}
    return _bart("LED", encoder, decoder, attention_window=windows, **longest)


def _t5(name: str, encoder: int = 6, decoder: int = 6, **options: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(
        num_layers=encoder, num_decoder_layers=decoder, **(_TOKENS | _T5 | options)
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


def _t5gemma(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    config = transformers.T5GemmaConfig(
        encoder=_GEMMA | {"num_hidden_layers": encoder},
        decoder=_GEMMA | {"num_hidden_layers": decoder},
        vocab_size=VOCABULARY,
    )
    return transformers.T5GemmaForConditionalGeneration(config)


def _t5gemma2(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    # Gemma 2's layers alternate; Gemma 3's have one full layer in six.
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
        "patch_size": 4,
    }  # fmt: skip
    texts = [
        _GEMMA | {"num_hidden_layers": depth, "layer_types": (types * depth)[:depth]} for depth in (encoder, decoder)
    ]
    config = transformers.T5Gemma2Config(
        encoder={"text_config": texts[0], "vision_config": vision, "mm_tokens_per_image": 4},
        decoder=texts[1], vocab_size=VOCABULARY, eoi_token_index=95, image_token_index=94,
    )  # fmt: skip
    return transformers.T5Gemma2ForConditionalGeneration(config)


def _whisper(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    features = {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 64}
    silent: dict[str, Any] = {"suppress_tokens": None, "begin_suppress_tokens": None}
    model = _bart("Whisper", encoder, decoder, **(features | silent | {"decoder_start_token_id": 2}))
    model.generation_config.alignment_heads = [[1, 0], [decoder - 1, 1]]
    return model


def _moonshine(encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    config = transformers.MoonshineConfig(
        encoder_num_hidden_layers=encoder, decoder_num_hidden_layers=decoder, hidden_size=16, intermediate_size=32,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2, max_position_embeddings=64,
        bos_token_id=2, decoder_start_token_id=2, **_TOKENS,
    )  # fmt: skip
    return transformers.MoonshineForConditionalGeneration(config)


#: ``make(encoder=6, decoder=6)`` for each row of the matrix.
TINY: dict[str, Callable[..., PreTrainedModel]] = {
    "mt5": partial(_t5, "MT5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "umt5": partial(_t5, "UMT5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "longt5": partial(_t5, "LongT5", local_radius=3, encoder_attention_type="local"),
    "longt5-global": partial(
        _t5, "LongT5", local_radius=3, global_block_size=2, encoder_attention_type="transient-global"
    ),
    "mbart": partial(_bart, "MBart"),
    "pegasus": partial(_bart, "Pegasus"),
    "marian": _marian,
    "m2m_100": partial(_bart, "M2M100"),
    "blenderbot": partial(_bart, "Blenderbot"),
    "blenderbot-small": partial(_bart, "BlenderbotSmall"),
    "led": _led,
    "t5gemma": _t5gemma,
    "t5gemma2": _t5gemma2,
    "whisper": _whisper,
    "moonshine": _moonshine,
}
