"""The words of a large assembly, drafted by a small one of the same kit: the same tokens, in less time.

The small decoder writes a few tokens ahead; the large one reads all of them at once, which takes hardly longer than
reading one, and says at each position what it would have written. The draft's tokens count up to the first difference,
and there the large one's own token takes their place. So each text is what the large decoder writes alone, whatever the
draft: a bad one costs time only (Leviathan et al., ICML 2023; LayerSkip, Elhoushi et al., ACL 2024, drafts with the first
layers of the same model).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modtf.decoding.loop import Choice, Decoder, Watch, start_of

#: Tokens that are drafted at once: at first, and at most.
_FIRST, _MOST = 4, 10


@dataclass
class Drafted:
    """What came of the drafts: for each pass of the large decoder and each text, tokens drafted and accepted."""

    passes: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def tokens_a_pass(self) -> float:
        """Tokens that a pass gave, on average over passes and texts: those accepted, and its own."""
        accepted = [a for _, of_texts in self.passes for a in of_texts]
        return 1 + sum(accepted) / len(accepted)


class _Reader:
    """A decoder that reads tokens ahead and takes back what it should not have read.

    Its cache has slots; a text's tokens need not lie side by side, since other texts may have gone further.
    """

    def __init__(self, model: Any, hidden: Tensor, attention_mask: Tensor, length: int) -> None:
        self.decoder = Decoder(model, hidden, attention_mask, length)
        self._length, self._batch = length, len(hidden)
        #: the slot that is written next, and the position of each slot's token, (batch, slots); ``length`` for none
        self._next = 0
        self._positions = torch.empty(self._batch, 0, dtype=torch.long, device=hidden.device)
        # By how far a key's token lies ahead of the query's, plus length - 1; at the end what lies ahead: unseen.
        bias = self.decoder.layout.position_bias[:, 0]
        self._biases = torch.cat([bias, bias.new_full((len(bias), 1), -torch.inf)], 1)

    def take_back(self, begin: Tensor) -> None:
        """Forget what was read at and after the positions ``begin`` (batch,)."""
        self._positions.masked_fill_(self._positions >= begin[:, None], self._length)
        kept = (self._positions < self._length).any(0).nonzero()
        self._next = int(kept[-1]) + 1 if len(kept) else 0
        self._positions = self._positions[:, : self._next]

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens and their positions, both (n, batch), to logits (n · batch, vocabulary)"""
        n = len(tokens)
        positions = positions.clamp(max=self._length - 1)  # beyond are texts that have ended
        self._positions = torch.cat([self._positions, positions.t()], 1)
        ahead = self._positions[:, None] - positions.t()[:, :, None]  # (batch, n, slots)
        bias = self._biases[:, (ahead + self._length - 1).clamp(max=self._length)]  # (heads or 1, batch, n, slots)
        if self._batch > 1:
            bias = bias.expand(self.decoder.layout.heads, -1, -1, -1)
        bias = bias.transpose(0, 1).flatten(0, 1)  # (rows or 1, n, slots)
        logits = self.decoder(tokens.flatten(), self._next, positions.flatten(), bias)
        self._next += n
        return logits


def write_drafted(
    model: Any,
    draft: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    length: int,
    exactly: bool,
    watch: Watch | None = None,
) -> tuple[Tensor, Drafted]:
    """What ``model`` writes, drafted by the decoder of ``draft``, of the same family and vocabulary.

    ``input_ids`` and ``attention_mask`` are (batch, source), the tokens (batch, 1 + at most ``length``).
    """
    hidden = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    large, small = (_Reader(one, hidden, attention_mask, length) for one in (model, draft))
    choice = Choice(model.generation_config, length, exactly)
    texts = [[int(start_of(model.generation_config))] for _ in input_ids]
    unfinished = set(range(len(texts)))
    drafted, ahead = Drafted(), _FIRST

    def known(count: int) -> tuple[Tensor, Tensor]:
        """The last tokens of the texts and their positions, both (count, batch)"""
        last = input_ids.new_tensor([text[-count:] for text in texts]).t()
        ends = input_ids.new_tensor([len(text) - count for text in texts])
        return last, ends + torch.arange(count, device=ends.device)[:, None]

    while unfinished:
        # The small decoder has not read the last token, nor the one before if that was its last guess.
        tokens, positions = known(min(2, *map(len, texts)))
        small.take_back(positions[0])
        guesses = []
        for _ in range(min(ahead, length - min(len(texts[row]) for row in unfinished))):
            logits = small(tokens, positions)[-len(texts) :]
            tokens = choice(logits, positions[-1])[None]
            positions = positions[-1:] + 1
            guesses.append(tokens)
        # The large one reads the last token and the guesses: what would it have written after each?
        last, at = known(1)
        large.take_back(at[0])
        read = torch.cat([last, *guesses])
        positions = at + torch.arange(len(read), device=at.device)[:, None]
        chosen = choice(large(read, positions), positions.flatten()).view(read.shape)
        right = (chosen[:-1] == read[1:]).long().cumprod(0).sum(0).tolist()
        drafted.passes.append((len(guesses), [right[row] for row in sorted(unfinished)]))
        for row, tokens_of_row in enumerate(chosen.t().tolist()):
            if row not in unfinished:
                continue
            for token in tokens_of_row[: right[row] + 1]:
                texts[row].append(token)
                stop = watch is not None and watch(last.new_tensor([token]))
                if stop or token in choice.ends or len(texts[row]) > length:
                    unfinished.remove(row)
                    break
        ahead = adapted(ahead, drafted)
    longest = max(map(len, texts))
    padded = [text + [choice.pad] * (longest - len(text)) for text in texts]
    return input_ids.new_tensor(padded), drafted


def adapted(ahead: int, drafted: Drafted) -> int:
    """How many tokens to draft next, from what came of the last ones."""
    count, right = drafted.passes[-1]
    if not count:
        return 0
    if min(right, default=0) == count:
        return min(ahead + 2, _MOST)
    return max(1, ahead - 1)
