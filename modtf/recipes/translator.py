"""The *translator*: a BART of BART-base's depth that translates short sentences from German into English.

Training, with what `make translator` says: the original from random weights in two parts, then the kit, on people's
translations and the original's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from modtf.recipes.recipe import Recipe
from modtf.tasks import Example
from modtf.tasks.translation import MAX_BYTES
from modtf.training.options import Settings


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 8000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that both languages share. It writes any text, since every byte has a token.

    ``Wir lachen.`` becomes ``Wir · lachen · . · </s>``; a word has the same tokens wherever it stands.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<pad>", "</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        model_max_length=MAX_BYTES + 2,
        clean_up_tokenization_spaces=False,
    )


def translator_config(vocabulary_size: int = 8000) -> BartConfig:
    """BART-base's depth (6 + 6 layers), at a width that a laptop runs: with its kit 30 MB in half precision."""
    return BartConfig(
        vocab_size=vocabulary_size, d_model=256, encoder_layers=6, decoder_layers=6, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=256, decoder_ffn_dim=256, activation_function="gelu",
        max_position_embeddings=MAX_BYTES + 2, dropout=0.2, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=None, scale_embedding=True,
    )  # fmt: skip


def new_translator(examples: Sequence[Example]) -> tuple[BartForConditionalGeneration, PreTrainedTokenizerFast]:
    """The original before training, and its tokenizer, learned from the examples in both languages."""
    tokenizer = train_tokenizer(text for example in examples for text in (example.source, *example.references))
    # Eager attention is the fastest for short texts on a CPU.
    model = BartForConditionalGeneration._from_config(translator_config(len(tokenizer)), attn_implementation="eager")
    return model, tokenizer


TRANSLATOR = Recipe(
    new_original=new_translator,
    original=Settings(steps=2_600, batch_size=256, learning_rate=2e-3, adamw_learning_rate=1e-3),
    kit=Settings(steps=2_700, batch_size=256, learning_rate=2e-3, adamw_learning_rate=1e-3),
    pairs=150_000,
)
