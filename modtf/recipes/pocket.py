"""The bundled *pocket* model: a T5 of T5-base's depth that writes restaurant descriptions (E2E), at a laptop's width.

Training, with what `make pocket` says: the original from random weights for 3,000 steps; the same for 700 more, with
dropout; then the kit, in two parts: on people's texts and the original's own, and on those of the original's texts that
have no slot errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from modtf.recipes.recipe import Recipe
from modtf.tasks import Example
from modtf.tasks.e2e import SLOTS, VALUES
from modtf.training.options import Settings


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 2000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``vocabulary_size`` tokens, learned from ``texts``, with one token per slot name.

    ``name[The Vaults], food[French]`` becomes ``name[ · The · Vaults · food[ · French · </s>``: brackets that close
    are dropped since the next slot says where a value ends, and each segment begins with a space so that a word
    has the same tokens in the MR as within a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\],? ?"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    slots = [AddedToken(f"{slot}[", normalized=False) for slot in SLOTS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(slots),
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    values = [value for slot in VALUES for value in VALUES[slot]]
    tokenizer.train_from_iterator([*texts, *values], trainer)
    tokenizer.add_tokens(slots)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def pocket_config(vocabulary_size: int = 2000) -> T5Config:
    """T5-base's depth (12 + 12 layers), so that every ratio of the paper exists, at a width that a laptop runs."""
    return T5Config(
        vocab_size=vocabulary_size, d_model=128, d_kv=32, d_ff=512, num_heads=4, num_layers=12, num_decoder_layers=12,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip


def new_pocket(examples: Sequence[Example]) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """The original before training, and its tokenizer, learned from the texts of the examples."""
    tokenizer = train_tokenizer(reference for example in examples for reference in example.references)
    # Eager attention is the fastest for short texts on a CPU.
    model = T5ForConditionalGeneration._from_config(pocket_config(len(tokenizer)), attn_implementation="eager")
    return model, tokenizer


POCKET = Recipe(
    new_original=new_pocket,
    original=Settings(steps=3_000, batch_size=128, learning_rate=8e-3, adamw_learning_rate=3e-3),
    kit=Settings(steps=10_000, batch_size=64, learning_rate=5e-3, adamw_learning_rate=1e-3),
)
