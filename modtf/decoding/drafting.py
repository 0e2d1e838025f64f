"""The words of a large assembly, drafted by a small one of the same kit: the same tokens, mostly in less time.

The small decoder writes a few tokens ahead; the large one reads all of them at once, which takes less than twice as
long as reading one, and says at each position what it would have written. The draft's tokens count up to the first difference,
and there the large one's own token takes their place. So each text is what the large decoder writes alone, whatever the
draft: a bad one costs time only (Leviathan et al., ICML 2023; LayerSkip, Elhoushi et al., ACL 2024, drafts with the first
layers of the same model).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modtf.decoding.layouts import LAYOUTS, Layout
from modtf.decoding.loop import Choice, Decoder, Watch, encode, start_of

#: Tokens that are drafted at once: at first, and at most.
_FIRST, _MOST = 4, 10


@dataclass
class Draft:
    """The small model that drafts, and what came of it."""

    model: PreTrainedModel
    #: for each pass of the large decoder: tokens that were drafted, and how many of them each unfinished text accepted
    passes: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def tokens_a_pass(self) -> float:
        """Tokens that a pass gave, on average over passes and texts: those accepted, and its own."""
        accepted = [count for _, of_texts in self.passes for count in of_texts]
        return 1 + sum(accepted) / max(1, len(accepted))


class _Reader:
    """A decoder that reads tokens anew from any position on, as if it had not read the later ones before."""

    def __init__(self, layout: Layout, hidden: Tensor, attention_mask: Tensor, length: int) -> None:
        self.decoder = Decoder(layout, hidden, attention_mask, length)
        self._length, self._device = length, hidden.device
        # Texts of which more was accepted go further than others: which position a slot of the cache holds, ``length`` if
        # none, is kept for each, (batch, slots). Of one text it is the slot's own number.
        self._positions = torch.empty(len(hidden), 0, dtype=torch.long, device=hidden.device)
        # By how far a key's token lies ahead of the query's, plus length - 1; at the end what lies ahead: unseen.
        bias = self.decoder.layout.position_bias[:, 0]
        self._biases = torch.cat([bias, bias.new_full((len(bias), 1), -torch.inf)], 1)

    def __call__(self, tokens: Tensor, begins: Sequence[int]) -> tuple[Tensor, Tensor | int]:
        """Logits (n · batch, vocabulary) after each token (n, batch), and positions; ``begins`` are those of the first ones."""
        n, batch = tokens.shape
        if batch == 1:
            t = begins[0]
            positions = t if n == 1 else torch.arange(t, t + n, device=self._device)
            return self.decoder(tokens.flatten(), t, positions, self.decoder.bias(t, n)), positions
        first = torch.tensor(begins, device=self._device)
        kept = self._positions.masked_fill(self._positions >= first[:, None], self._length)
        slots = (kept < self._length).any(0).nonzero()
        slot = int(slots[-1]) + 1 if len(slots) else 0
        ahead = torch.arange(n, device=self._device)[:, None]
        positions = (first + ahead).clamp(max=self._length - 1)  # later ones are of texts that have ended
        self._positions = torch.cat([kept[:, :slot], positions.t()], 1)
        distance = self._positions[:, None] - positions.t()[:, :, None]  # (batch, n, slots)
        bias = self._biases[:, (distance + self._length - 1).clamp(max=self._length)]  # (heads or 1, batch, n, slots)
        bias = bias.expand(self.decoder.layout.heads, -1, -1, -1).transpose(0, 1).flatten(0, 1)
        return self.decoder(tokens.flatten(), slot, positions.flatten(), bias), positions.flatten()


def write_drafted(
    model: Any,
    draft: Draft,
    input_ids: Tensor,
    attention_mask: Tensor,
    length: int,
    exactly: bool,
    watch: Watch | None = None,
) -> Tensor:
    """What ``model`` writes, drafted by the decoder of ``draft.model``, which reads what the encoder of ``model`` made.

    ``input_ids`` and ``attention_mask`` are (batch, source), the tokens (batch, 1 + at most ``length``).
    """
    layouts = [LAYOUTS[model.config.model_type](one, length) for one in (model, draft.model)]
    hidden = encode(layouts[0], input_ids, attention_mask)
    large, small = (_Reader(layout, hidden, attention_mask, length) for layout in layouts)
    choice = Choice(model.generation_config, length, exactly)
    texts = [[int(start_of(model.generation_config))] for _ in input_ids]
    read_by_small = [0] * len(texts)
    unfinished = set(range(len(texts)))
    ahead = _FIRST

    while unfinished:
        # The small decoder has not read the last token, nor the one before where that was its last guess.
        count = max(len(texts[row]) - read_by_small[row] for row in unfinished) if ahead else 0
        begins = [len(text) - count for text in texts]
        tokens = input_ids.new_tensor([text[begin:] for text, begin in zip(texts, begins, strict=True)]).t()
        guesses: list[Tensor] = []
        for _ in range(min(ahead, length - min(len(texts[row]) for row in unfinished))):
            logits, positions = small(tokens, begins)
            begins = [begin + len(tokens) for begin in begins]
            tokens = choice(logits, positions)[-len(texts) :][None]
            guesses.append(tokens)
            if all(token in choice.ends for token in tokens[0].tolist()):
                break
        # The large one reads the last token and the guesses: what would it have written after each?
        begins = [len(text) - 1 for text in texts]
        read = torch.cat([input_ids.new_tensor([[text[-1] for text in texts]]), *guesses])
        chosen = choice(*large(read, begins)).view(read.shape)
        right = (chosen[:-1] == read[1:]).long().cumprod(0).sum(0).tolist()
        draft.passes.append((len(guesses), [right[row] for row in sorted(unfinished)]))
        for row, written in enumerate(chosen.t().tolist()):
            if row not in unfinished:
                continue
            read_by_small[row] = len(texts[row]) + min(right[row], len(guesses) - 1)
            for token in written[: right[row] + 1]:
                texts[row].append(token)
                stop = watch is not None and watch(read.new_tensor([token]))
                if stop or token in choice.ends or len(texts[row]) > length:
                    unfinished.remove(row)
                    break
        ahead = _adapted(ahead, *draft.passes[-1])
    longest = max(map(len, texts))
    padded = [text + [choice.pad] * (longest - len(text)) for text in texts]
    return input_ids.new_tensor(padded)


def _adapted(ahead: int, drafted: int, accepted: Sequence[int]) -> int:
    """How many tokens to draft next: more where all were right, fewer where one was not."""
    return min(ahead + 2, _MOST) if min(accepted) == drafted else max(1, ahead - 1)
