"""Training batches of examples, each a pure function of (seed, step).

Two things make them cheap on a CPU. Every source is encoded once for all of its texts: ``source_index`` says which row
of the sources a target belongs to, see :func:`modtf.training.batches.encode_sources_once`. And texts of similar length
share a batch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from modtf.errors import ModtfError
from modtf.tasks.examples import Example
from modtf.tasks.task import Task

#: At most so many texts of one source stand together, so that a batch keeps many different sources.
_TEXTS_PER_SOURCE = 4
#: Batches are cut from pools of this many batches sorted by length: little padding, still a random mixture.
_BATCHES_PER_POOL = 24

#: The index of an example and the indices of some of its texts.
Chunk = tuple[int, tuple[int, ...]]


class TaskBatches(Dataset):
    """``steps`` batches of ``batch_size`` texts (the last of a pool may be smaller).

    Item ``step`` is ``{"input_ids": (sources, source), "attention_mask": (sources, source), "source_index": (texts,),
    "labels": (texts, target)}``, integers, labels padded with -100. How an example is varied (:attr:`Task.vary`)
    depends on (seed, step) only, so a resumed training sees the same batches.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        steps: int,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or not examples:
            raise ModtfError(
                f"batches of {batch_size} texts from {len(examples)} examples were asked for; give at least 1 of each"
            )
        self.task, self.examples, self.tokenizer = task, examples, tokenizer
        self.steps, self.batch_size, self.seed = steps, batch_size, seed

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
            example = self.examples[i]
            source, references = self.task.vary(example.source, tuple(example.references[t] for t in texts), rng)
            source_index += [len(sources)] * len(references)
            sources.append(source)
            targets += references
        # Sources that no text asks for, since on a CPU each new shape costs the time to prepare its kernels.
        sources += sources[-1:] * (-len(sources) % 16)
        encoded = self.tokenizer(sources, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        labels = self.tokenizer(text_target=targets, padding=True, pad_to_multiple_of=8, return_tensors="pt")
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
