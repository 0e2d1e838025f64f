"""Training batches of the bundled task, each a pure function of (seed, step).

Two things make them cheap on a CPU: every MR is encoded once for all the texts that people wrote for it
(``source_index`` says which row of the sources a target belongs to), and texts of like length share a batch.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from modtf.errors import ModtfError
from modtf.tasks.e2e import MR, VALUES, Example, write_mr

#: At most so many texts of one MR stand together, so that a batch keeps many different MRs.
_TEXTS_PER_SOURCE = 4
#: Batches are cut from pools of this many batches sorted by length: little padding, still a random mixture.
_BATCHES_PER_POOL = 24

#: The index of an example and the indices of some of its texts.
Chunk = tuple[int, tuple[int, ...]]

# Names that the data does not have, so that the model learns to copy whatever it is told.
_FIRST = "The Golden|The Silver|The Old|The Little|The Red|The Black|Café|Casa|Villa|Chez|The Royal|Green|Happy|Blue|The Lazy".split(
    "|"
)
_SECOND = "Fox|Anchor|Lantern|Orchard|Verona|Luna|Marie|Crown|Harbour|Peacock|Willow|Kitchen|Tiger|Star|Rose|Bridge|Oak|Pearl|Swan|Lemon".split(
    "|"
)
_CUISINES = [food for food in VALUES["food"] if food != "Fast food"]  # "English food" would become "Fast food food"
_NEW_FOODS = "Thai|Mexican|Greek|Spanish|Korean|Turkish|Vietnamese|Lebanese|American|German|Vegetarian|Moroccan|Polish|Brazilian".split(
    "|"
)


def swap_open_values(mr: MR, texts: Sequence[str], rng: random.Random) -> tuple[MR, tuple[str, ...]]:
    """Give the restaurant another name, food and neighbour, in the MR and in its texts alike.

    A value is swapped only where every text says it literally, so MR and texts keep saying the same.
    """
    mr, texts = dict(mr), tuple(texts)
    for slot in ("name", "near", "food"):
        old = mr.get(slot)
        if old is None:
            continue
        literally = re.compile(
            rf"(?:\b([Aa])n? )?(?<!\w){re.escape(old)}(?!\w)"
        )  # not as a part of a longer word; with its article
        if not all(literally.search(text) for text in texts):
            continue
        if any(other != slot and (old in value or value in old) for other, value in mr.items()):
            continue
        if slot == "food":
            new = rng.choice(_CUISINES if rng.random() < 0.7 else _NEW_FOODS)
        else:
            new = rng.choice(VALUES[slot]) if rng.random() < 0.7 else f"{rng.choice(_FIRST)} {rng.choice(_SECOND)}"
        if any(new in value or value in new for other, value in mr.items() if other != slot):
            continue
        mr[slot] = new
        n = "n " if new[0] in "AEIOU" else " "
        texts = tuple(
            literally.sub(lambda found, n=n, new=new: (found[1] + n if found[1] else "") + new, text) for text in texts
        )  # type: ignore[misc]
    return mr, texts


class TaskBatches(Dataset):
    """``steps`` batches of ``batch_size`` texts (the last of a pool may be smaller).

    Item ``step`` is ``{"input_ids": (sources, source), "attention_mask": (sources, source), "source_index": (texts,),
    "labels": (texts, target)}``, integers, labels padded with -100. Half of the MRs come with their slots in random
    order, half with swapped names (:func:`swap_open_values`); both draws depend on (seed, step) only, so a resumed
    training sees the same batches.
    """

    def __init__(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, steps: int, batch_size: int = 128,
        seed: int = 0, shuffle_slots: float = 0.5, swap_values: float = 0.5,
    ) -> None:  # fmt: skip
        if batch_size < 1 or not examples:
            raise ModtfError(
                f"batches of {batch_size} texts from {len(examples)} examples were asked for; give at least 1 of each"
            )
        self.examples, self.tokenizer, self.steps, self.batch_size = examples, tokenizer, steps, batch_size
        self.seed, self.shuffle_slots, self.swap_values = seed, shuffle_slots, swap_values

    def __len__(self) -> int:
        return self.steps

    @cached_property
    def _plan(self) -> list[list[Chunk]]:
        """For each step the chunks in it."""
        return list(itertools.islice(self._batches_of_all_epochs(), self.steps))

    def _batches_of_all_epochs(self) -> Iterator[list[Chunk]]:
        for epoch in itertools.count():
            rng = random.Random(f"{self.seed} epoch {epoch}")
            chunks = []
            for i, example in enumerate(self.examples):
                order = sorted(range(len(example.references)), key=lambda t: len(example.references[t]))
                chunks += [
                    (i, tuple(order[k : k + _TEXTS_PER_SOURCE])) for k in range(0, len(order), _TEXTS_PER_SOURCE)
                ]
            rng.shuffle(chunks)
            # The longest text decides how wide a batch is; a little noise keeps batches different between epochs.
            noise = [rng.uniform(0.95, 1.05) for _ in self.examples]
            batches: list[list[Chunk]] = []
            for pool in _cut(chunks, self.batch_size * _BATCHES_PER_POOL):
                pool.sort(key=lambda chunk: noise[chunk[0]] * len(self.examples[chunk[0]].references[chunk[1][-1]]))
                batches += _cut(pool, self.batch_size)
            rng.shuffle(batches)
            yield from batches

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.seed} step {step}")
        sources: list[str] = []
        targets: list[str] = []
        source_index: list[int] = []
        for i, texts in self._plan[step]:
            mr, references = self.examples[i].mr, tuple(self.examples[i].references[t] for t in texts)
            if rng.random() < self.swap_values:
                mr, references = swap_open_values(mr, references, rng)
            source = write_mr(mr)
            if rng.random() < self.shuffle_slots:
                pairs = list(mr.items())
                rng.shuffle(pairs)
                source = ", ".join(f"{slot}[{value}]" for slot, value in pairs)
            source_index += [len(sources)] * len(references)
            sources.append(source)
            targets += references
        # Sources that no text asks for, since on a CPU each new shape costs the time to prepare its kernels.
        sources += sources[-1:] * (-len(sources) % 16)
        encoded = self.tokenizer(sources, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        labels = self.tokenizer(targets, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "source_index": torch.tensor(source_index),
            "labels": labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100),
        }


def _cut(chunks: Sequence[Chunk], texts: int) -> list[list[Chunk]]:
    """Cut into runs of exactly ``texts`` texts each, a chunk on the edge in two; the last run may be smaller.

    Equal sizes are not only tidy: on a CPU each new shape costs the time to prepare its kernels.
    """
    runs: list[list[Chunk]] = [[]]
    free = texts
    for i, members in chunks:
        while members:
            if free == 0:
                runs.append([])
                free = texts
            runs[-1].append((i, members[:free]))
            taken = len(members[:free])
            members, free = members[taken:], free - taken
    return runs


def only_batch(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collator for datasets whose items are whole batches already (``per_device_train_batch_size=1``)."""
    (batch,) = features
    return batch
