"""Training batches of examples, each a pure function of (seed, step).

Two things make them cheap on a CPU: a source is encoded once for several of its texts (``source_index`` is the row of
the source that a text belongs to; see :func:`modtf.training.batches.encode_sources_once`), and texts of similar length
share a batch.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from modtf.errors import ModtfError
from modtf.tasks.examples import Example
from modtf.tasks.task import Task

#: The most texts of one source that stay together, so that a batch holds many different sources.
_TEXTS_PER_SOURCE = 4
#: Batches are cut from pools of this many batches, each sorted by length: little padding, yet a random mixture.
_BATCHES_PER_POOL = 24
#: Lengths are padded to a multiple of this. Fewer shapes save time: a CPU prepares its kernels anew for each of them.
_MULTIPLE = 4

#: The index of an example and the indices of some of its texts.
Chunk = tuple[int, tuple[int, ...]]


class TaskBatches(Dataset):
    """``steps`` batches of ``batch_size`` texts (the last batch of a pool may be smaller).

    Item ``step`` holds integer tensors: ``{"input_ids": (sources, source), "attention_mask": (sources, source),
    "source_index": (texts,), "labels": (texts, target)}``; labels are padded with -100. How an example is varied
    (:attr:`Task.vary`) depends on (seed, step) only, so that a resumed training sees the same batches. Raises
    :class:`ModtfError` for a batch size below 1 and for no examples.
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
                f"cannot make batches of {batch_size} texts from {len(examples)} examples; give at least 1 of each"
            )
        self.task, self.examples, self.tokenizer = task, examples, tokenizer
        self.steps, self.batch_size, self.seed = steps, batch_size, seed

    def __len__(self) -> int:
        return self.steps

    @cached_property
    def _plan(self) -> list[list[Chunk]]:
        """The chunks of each step."""
        return list(itertools.islice(self._batches_of_all_epochs(), self.steps))

    @cached_property
    def _lengths(self) -> list[tuple[int, list[int]]]:
        """For each example, the number of tokens in its source and in each of its texts."""
        sources = self.tokenizer([example.source for example in self.examples])["input_ids"]
        texts = self.tokenizer([text for example in self.examples for text in example.references])["input_ids"]
        lengths, start = [], 0
        for source, example in zip(sources, self.examples, strict=True):
            end = start + len(example.references)
            lengths.append((len(source), [len(text) for text in texts[start:end]]))
            start = end
        return lengths

    def _width(self, chunk: Chunk) -> tuple[int, int]:
        """How wide a chunk makes its batch: its longest text (in multiples of padding), then its source."""
        i, members = chunk
        source, texts = self._lengths[i]
        return math.ceil(max(texts[t] for t in members) / _MULTIPLE), source

    def _batches_of_all_epochs(self) -> Iterator[list[Chunk]]:
        for epoch in itertools.count():
            rng = random.Random(f"{self.seed} epoch {epoch}")
            chunks = []
            for i, (_, texts) in enumerate(self._lengths):
                by_length = sorted(range(len(texts)), key=texts.__getitem__)
                for k in range(0, len(texts), _TEXTS_PER_SOURCE):
                    chunks.append((i, tuple(by_length[k : k + _TEXTS_PER_SOURCE])))
            rng.shuffle(chunks)
            batches: list[list[Chunk]] = []
            for pool in _cut(chunks, self.batch_size * _BATCHES_PER_POOL):
                pool.sort(key=self._width)
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
        # Fill up with sources that no text refers to: fewer shapes.
        while len(sources) % 16:
            sources.append(sources[-1])
        encoded = self.tokenizer(sources, padding=True, pad_to_multiple_of=_MULTIPLE, return_tensors="pt")
        labels = self.tokenizer(text_target=targets, padding=True, pad_to_multiple_of=_MULTIPLE, return_tensors="pt")
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "source_index": torch.tensor(source_index),
            "labels": labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100),
        }


def _cut(chunks: Sequence[Chunk], texts: int) -> list[list[Chunk]]:
    """Cut into runs of exactly ``texts`` texts, for fewer shapes; the last run may be smaller.

    A chunk that does not fit into what is left of a run is cut in two.
    """
    runs: list[list[Chunk]] = [[]]
    free = texts
    for i, members in chunks:
        while members:
            if free == 0:
                runs.append([])
                free = texts
            taken = members[:free]
            runs[-1].append((i, taken))
            members = members[len(taken) :]
            free -= len(taken)
    return runs
