"""The words of a large assembly, drafted by a small one of the same kit: the same tokens, mostly in less time.

The small decoder writes a few tokens ahead; the large one reads all of them at once, which takes less than twice as long
as reading one, and says at each position what it would have written. The draft's tokens count up to the first difference,
and there the large one's own token takes their place. So each text is what the large decoder writes alone, whatever the
draft: a bad one costs time only (Leviathan et al., ICML 2023; LayerSkip, Elhoushi et al., ACL 2024, drafts with the first
layers of the same model).

This holds up to rounding: sums over several tokens are added in another order than over one, so where the two likeliest
words are as good as tied (their logits equal to six digits), the loop and a draft may choose differently, as two batch
sizes may. In half precision such ties are common, and nothing is drafted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modtf.decoding.layouts import LAYOUTS, Layout
from modtf.decoding.loop import Choice, Decoder, Watch, encode, start_of

#: The most tokens that are drafted at once.
MOST = 11
#: How much the newest measurement counts.
_WEIGHT = 0.2
#: Of how many texts one is written the slower way, which may have changed: if it was nearly as fast, and if not.
_TRIED_EVERY, _TRIED_RARELY, _NEARLY = 16, 256, 1.5


@dataclass
class Pace:
    """What guesses have been worth so far. It may be kept from text to text."""

    #: guesses that were right, and all up to the first wrong one; at first as if three of four had been right
    right: float = 3.0
    checked: float = 4.0
    #: by what was done: of a "guess", of a "pass" of the large decoder that read guesses; and of a token of the whole text,
    #: "drafted" or written "alone"
    seconds: dict[str, float] = field(default_factory=dict)
    texts: int = 0
    #: what was done before: the first time, weights are laid out
    warm: set[str] = field(default_factory=set)

    def drafts(self) -> bool:
        """Whether to draft the next text: if that was faster, but now and then the other way."""
        self.texts += 1
        for what in ("drafted", "alone"):
            if what not in self.seconds:
                return what == "drafted"
        ratio = self.seconds["alone"] / self.seconds["drafted"]
        again = self.texts % (_TRIED_EVERY if max(ratio, 1 / ratio) < _NEARLY else _TRIED_RARELY) == 0
        return (ratio > 1) is not again

    def ahead(self) -> int:
        """How many tokens to draft next, 1 or more.

        A pass with k guesses, of which each is right with a probability p if those before are, gives
        (1 - p^(k + 1)) / (1 - p) tokens on average (Leviathan et al., equation 1).
        """
        guess, read = (self.seconds.get(what, seconds) for what, seconds in (("guess", 0.3), ("pass", 1.5)))
        p = self.right / self.checked
        return max(range(1, MOST + 1), key=lambda k: sum(p**n for n in range(k + 1)) / (k * guess + read))

    def found(self, right: int, checked: int) -> None:
        """So many guesses were right of so many that were checked: the latest 100 or so count."""
        kept = 1 / (1 + checked / 100)
        self.right, self.checked = kept * self.right + right, kept * self.checked + checked

    def took(self, what: str, seconds: float) -> None:
        if what not in self.warm:
            self.warm.add(what)
            return
        before = self.seconds.get(what, seconds)
        self.seconds[what] = before + _WEIGHT * (seconds - before)


@dataclass(frozen=True)
class Pass:
    """One round: the small decoder drafted, the large one read. Times are those of :func:`time.perf_counter`."""

    #: of each text that was unfinished: the tokens that were drafted, and how many of them were accepted
    guesses: list[list[int]]
    accepted: list[int]
    began: float
    drafted: float
    ended: float


@dataclass
class Draft:
    """The small model that drafts, and what came of it."""

    model: PreTrainedModel
    #: whether to leave it out of a text where the large model is faster alone, or cannot be drafted
    auto: bool = False
    pace: Pace = field(default_factory=Pace)
    passes: list[Pass] = field(default_factory=list)

    @property
    def tokens_a_pass(self) -> float:
        """Tokens that a pass gave, on average over passes and texts: those accepted, and its own."""
        accepted = [count for one in self.passes for count in one.accepted]
        return 1 + sum(accepted) / max(1, len(accepted))


class _Reader:
    """A decoder that reads tokens anew from any position on, as if it had not read the later ones before."""

    def __init__(self, layout: Layout, hidden: Tensor, attention_mask: Tensor, length: int, guesses: bool) -> None:
        self.decoder = Decoder(layout, hidden, attention_mask, length, guesses=guesses)
        self._length, self.device = length, hidden.device
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
            positions = t if n == 1 else torch.arange(t, t + n, device=self.device)
            return self.decoder(tokens.flatten(), t, positions, self.decoder.bias(t, n)), positions
        first = torch.tensor(begins, device=self.device)
        kept = self._positions.masked_fill(self._positions >= first[:, None], self._length)
        slots = (kept < self._length).any(0).nonzero()
        slot = int(slots[-1]) + 1 if len(slots) else 0
        # Guesses are as many as the shortest text can take. In a longer one, those behind the last position are seen by none.
        beyond = (first + torch.arange(n, device=self.device)[:, None]).clamp(max=self._length)
        positions = beyond.clamp(max=self._length - 1)
        self._positions = torch.cat([kept[:, :slot], beyond.t()], 1)
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
    large, small = (_Reader(layout, hidden, attention_mask, length, layout is layouts[1]) for layout in layouts)
    choice = Choice(model.generation_config, length, exactly)
    texts = [[int(start_of(model.generation_config))] for _ in input_ids]
    read_by_small = [0] * len(texts)
    unfinished = set(range(len(texts)))

    while unfinished:
        began = time.perf_counter()
        # The small decoder has not read the last token, nor the one before where that was its last guess.
        unread = max(len(texts[row]) - read_by_small[row] for row in unfinished)
        room = length - min(len(texts[row]) for row in unfinished)
        guesses = _guess(small, choice, texts, unread, min(draft.pace.ahead(), room))
        drafted = time.perf_counter()
        written, right = _verify(large, choice, texts, guesses)
        ended = time.perf_counter()  # what was written is here, so the device has done its work

        rows = sorted(unfinished)
        accepted = [right[row] for row in rows]
        draft.passes.append(Pass([[guess[row] for guess in guesses] for row in rows], accepted, began, drafted, ended))
        draft.pace.found(sum(accepted), sum(min(count + 1, len(guesses)) for count in accepted))
        if guesses:
            draft.pace.took("guess", (drafted - began) / len(guesses))
            draft.pace.took("pass", ended - drafted)
        for row in rows:
            if guesses:
                read_by_small[row] = len(texts[row]) + min(right[row], len(guesses) - 1)
            for token in written[row][: right[row] + 1]:
                texts[row].append(token)
                stop = watch is not None and watch(input_ids.new_tensor([token]))
                if stop or token in choice.ends or len(texts[row]) > length:
                    unfinished.remove(row)
                    break
    longest = max(map(len, texts))
    return input_ids.new_tensor([text + [choice.pad] * (longest - len(text)) for text in texts])


def _guess(small: _Reader, choice: Choice, texts: list[list[int]], unread: int, count: int) -> list[list[int]]:
    """Up to ``count`` next tokens, each of all texts, of which ``small`` has yet to read the last ``unread`` tokens."""
    begins = [len(text) - unread for text in texts]
    tokens = torch.tensor([text[begin:] for text, begin in zip(texts, begins, strict=True)]).t()
    guesses: list[list[int]] = []
    for _ in range(count):
        logits, positions = small(tokens.to(small.device), begins)
        begins = [begin + len(tokens) for begin in begins]
        tokens = choice(logits, positions)[-len(texts) :][None]
        guesses.append(tokens[0].tolist())
        if choice.ends and all(token in choice.ends for token in guesses[-1]):
            break
    return guesses


def _verify(
    large: _Reader, choice: Choice, texts: list[list[int]], guesses: list[list[int]]
) -> tuple[list[list[int]], list[int]]:
    """Of each text: what ``large`` writes after its last token and after each guess, and how many guesses are that."""
    read = torch.tensor([[text[-1] for text in texts], *guesses], device=large.device)  # (1 + guesses, batch)
    chosen = choice(*large(read, [len(text) - 1 for text in texts])).view(read.shape)
    right = (chosen[:-1] == read[1:]).long().cumprod(0).sum(0)
    return chosen.t().tolist(), right.tolist()
