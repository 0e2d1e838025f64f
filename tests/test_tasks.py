"""Tasks: what every record keeps to; then E2E's meaning representations, data files, batches, and the tokenizer."""

from __future__ import annotations

import csv
import gzip
import importlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from modtf.errors import ModtfError
from modtf.recipes.pocket import train_tokenizer
from modtf.tasks import E2E, TASKS, TEXT, Example, Task, task_named
from modtf.tasks.batches import TaskBatches
from modtf.tasks.e2e import check
from modtf.tasks.e2e.data import group_rows, read_data, read_folder
from modtf.tasks.e2e.mrs import MR, OPEN_SLOTS, SLOTS, VALUES, check_mr, draw_mr, draw_typical_mr, parse_mr, write_mr
from modtf.tasks.e2e.vary import swap_open_values
from modtf.tasks.examples import group_pairs, read_pairs, write_pairs
from modtf.tasks.task import MARKS

VARY = importlib.import_module("modtf.tasks.e2e.vary")  # the function of this name hides it in its package

open_values = st.text(
    st.characters(blacklist_characters="[]", blacklist_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda value: value == value.strip())


@st.composite
def mrs(draw: st.DrawFn) -> MR:
    slots = ["name", *draw(st.lists(st.sampled_from(SLOTS[1:]), unique=True))]
    return {
        slot: draw(open_values | st.sampled_from(VALUES[slot]) if slot in OPEN_SLOTS else st.sampled_from(VALUES[slot]))
        for slot in slots
    }


# -- every task --------------------------------------------------------------------------------------------------------

# A new task is a row here: an input of its own, and a text that is not as good as the input repeated.
EVERY_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def sources(task: Task) -> list[str]:
    drawn = [task.draw(random.Random(seed)) for seed in range(20)] if task.draw else ["The Mill is a pub."]
    return [*drawn, *([task.first] if task.first else [])]


@EVERY_TASK
def test_a_task_reads_its_own_inputs(task: Task) -> None:
    assert TASKS[task.name] is task is task_named(task.name)
    for source in sources(task):
        assert task.read(source) == source
    with pytest.raises(ModtfError, match="is empty"):
        task.read(" ")


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.form is not None], ids=lambda task: task.name)
def test_a_form_writes_what_it_reads(task: Task) -> None:
    assert task.form is not None
    keys = {field.key for field in task.form.fields}
    for source in sources(task):
        values = task.form.read(source)
        assert values.keys() <= keys and task.form.write(values) == source


@EVERY_TASK
def test_judgements_are_of_known_kinds(task: Task) -> None:
    for source in sources(task):
        right, wrong = (task.judge(source, text, source) for text in (source, "Nothing of the kind."))
        assert right.value != wrong.value
        assert {mark.kind for mark in (*right.marks, *wrong.marks)} <= set(MARKS)


@EVERY_TASK
def test_every_metric_is_scored(task: Task) -> None:
    assert len(task.metrics) >= 2, "two are drawn"
    examples = [Example(source, (source, "Another text.")) for source in sources(task)]
    same = task.score(examples, [example.source for example in examples])
    other = task.score(examples, ["Nothing of the kind."] * len(examples))
    for metric in task.metrics:
        assert metric.field == (metric.key if metric.errors else f"{metric.key}_kept")
        assert same[metric.key] < other[metric.key] if metric.errors else same[metric.key] > other[metric.key]


@EVERY_TASK
def test_what_is_trained_on_is_still_an_input(task: Task) -> None:
    for seed, source in enumerate(sources(task)):
        references = (source, "Another text.")
        varied, texts = task.vary(source, references, random.Random(seed))
        assert len(texts) == 2 and (varied, texts) == task.vary(source, references, random.Random(seed))
        assert task.read(varied)


@EVERY_TASK
def test_bundled_examples_or_words(task: Task) -> None:
    if not task.model:
        with pytest.raises(ModtfError, match=f"no examples of the task '{task.name}' are bundled"):
            task.bundled_examples("evaluation")
        return
    for name in ("pairs", "evaluation"):
        examples = task.bundled_examples(name)
        assert len(examples) >= 300
        assert all(task.read(example.source) == example.source and all(example.references) for example in examples)


def test_an_unknown_task() -> None:
    with pytest.raises(ModtfError, match=r"the task 'poems' is unknown; choose from text, e2e"):
        task_named("poems")


def test_any_text_is_judged_by_likeness() -> None:
    judge = TEXT.judge
    assert judge("", "The Mill is a pub.", "The Mill is a pub.").value == 100
    assert judge("", "a b c d", "a b x y").value == pytest.approx(50) and not judge("", "a", "b").marks


def test_slots_are_marked_by_the_names_that_people_see() -> None:
    judgement = E2E.judge("name[Zizzi], eatType[pub], area[riverside]", "Zizzi is a cheap pub in the city centre.", "")
    assert judgement.value == 2
    assert {(mark.kind, mark.name) for mark in judgement.marks} == {
        ("said", "name"), ("said", "type"), ("wrong", "area"), ("added", "price"),
    }  # fmt: skip
    report = check(parse_mr("name[Zizzi], food[Thai]"), "Zizzi has Thai food. It serves Thai food.")
    twice = E2E.judge("name[Zizzi], food[Thai]", "Zizzi has Thai food. It serves Thai food.", "")
    assert report.repeated == ("food",) and [(m.kind, m.name) for m in twice.marks] == [
        ("said", "name"), ("repeated", "food"),
    ]  # fmt: skip


def test_typical_mrs_are_long() -> None:
    rng = random.Random(0)
    lengths = [len(draw_typical_mr(rng)) for _ in range(1000)]
    assert 0.55 < sum(length >= 7 for length in lengths) / 1000 < 0.75, "half are, and a third of the others"


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_pairs_are_grouped_by_source(tmp_path: Path) -> None:
    pairs = [("a", "1"), ("b", "2\u2028é"), ("a", "3")]
    write_pairs(pairs, tmp_path / "train.jsonl")
    expected = [Example("a", ("1", "3")), Example("b", ("2\u2028é",))]
    assert read_pairs(tmp_path / "train.jsonl") == expected == group_pairs(pairs) == TEXT.read_data(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"mr": "a", "ref": "b"}', r"train.jsonl, line 1: write {\"source\""),
        ('{"source": "a", "target": "b"}\n{"source": "a", "target": null}', "line 2: write"),
        ('["a", "b"]', "line 1: write"),
        ("a,b", "cannot be read as JSON Lines"),
        ('{"source": "\xe9', "cannot be read as JSON Lines"),
        ("", "has no rows"),
    ],
)
def test_words_for_bad_pairs(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModtfError, match=words):
        read_pairs(tmp_path / "train.jsonl")


def test_words_for_missing_pairs(tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=r"no test.jsonl in .*; found no .jsonl files"):
        TEXT.read_data(tmp_path / "nowhere", "test")
    write_pairs([("a", "b")], tmp_path / "train.jsonl")
    with pytest.raises(ModtfError, match=r"no test.jsonl in .*; found train.jsonl"):
        TEXT.read_data(tmp_path, "test")
    with pytest.raises(ModtfError, match="cannot be read"):
        read_pairs(tmp_path / "nothing.jsonl")


# -- meaning representations -------------------------------------------------------------------------------------------


@given(mrs())
def test_write_and_parse(mr: MR) -> None:
    text = write_mr(mr)
    assert parse_mr(text) == mr
    assert list(parse_mr(text)) == [slot for slot in SLOTS if slot in mr], "written in the order of the data"
    assert write_mr(parse_mr(text)) == text
    assert check_mr(mr) == mr


@given(mrs(), st.randoms(use_true_random=False))
def test_order_case_and_blanks_do_not_matter(mr: MR, rng: random.Random) -> None:
    pairs = list(mr.items())
    rng.shuffle(pairs)
    said = [(slot.upper(), value if slot in OPEN_SLOTS else value.upper()) for slot, value in pairs]
    text = "  ,\n ".join(f" {slot} [ {value} ]" for slot, value in said)
    assert parse_mr(text) == mr
    assert list(parse_mr(text)) == [slot for slot, _ in pairs], "the given order is kept"


def test_an_mr_of_the_data() -> None:
    text = "name[The Vaults], eatType[pub], priceRange[more than £30], customer rating[5 out of 5], near[Café Adriatic]"
    mr = parse_mr(text)
    assert mr == {
        "name": "The Vaults",
        "eatType": "pub",
        "priceRange": "more than £30",
        "customer rating": "5 out of 5",
        "near": "Café Adriatic",
    }
    assert write_mr(mr) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the MR is empty; write for example: name["),
        (" \n ", "the MR is empty"),
        ("The Vaults is a pub", "does not parse at 'The Vaults is a pub'; write slot[value] pairs"),
        ("name[The Vaults], food", "does not parse at 'food'"),
        ("name[The Vaults", "does not parse at 'name[The Vaults'"),
        ("name[The [Vaults]]", "does not parse"),
        ("name[A] food[Thai]", "does not parse at 'name[A] food[Thai]'"),
        ("name[A], , food[Thai]", "does not parse at ', food[Thai]'"),
        ("name[A], colour[red]", "slot 'colour' is unknown; the slots are name, eatType, food"),
        ("name[A], name[B]", "slot 'name' is given twice ('A' and 'B'); keep one"),
        ("name[A], food[]", "slot 'food' has no value"),
        ("name[A], area[the moon]", "area[the moon] is unknown; choose from city centre, riverside"),
        ("name[A], familyFriendly[maybe]", "choose from yes, no"),
        ("food[Thai]", "the MR has no name; begin for example with name["),
        (f"name[{'x' * 61}]", "the value of 'name' has 61 characters; at most 60 are allowed"),
    ],
)
def test_words_for_what_does_not_parse(text: str, words: str) -> None:
    with pytest.raises(ModtfError) as raised:
        parse_mr(text)
    assert words in str(raised.value)


@given(st.text(max_size=80) | st.text("name[]food, £é\n", max_size=40))
def test_any_text_parses_or_says_why(text: str) -> None:
    try:
        mr = parse_mr(text)
    except ModtfError as error:
        assert len(str(error)) > 20
    else:
        assert parse_mr(write_mr(mr)) == mr


@pytest.mark.parametrize(
    ("mr", "words"),
    [
        ({"name": "A", "wifi": "yes"}, "slot 'wifi' is unknown"),
        ({"name": "A]"}, "contains a bracket"),
        ({}, "no name"),
        ({"name": ""}, "has no value"),
    ],
)
def test_words_for_a_bad_dictionary(mr: MR, words: str) -> None:
    with pytest.raises(ModtfError, match=words):
        check_mr(mr)


@given(st.integers(), st.integers(1, 8) | st.none())
def test_drawn_mrs_are_valid(seed: int, slots: int | None) -> None:
    mr = draw_mr(random.Random(seed), slots)
    assert check_mr(mr) == mr == parse_mr(write_mr(mr)) == draw_mr(random.Random(seed), slots)
    assert len(mr) == slots if slots else 3 <= len(mr) <= 8
    assert all(value in VALUES[slot] for slot, value in mr.items())


def test_draws_reach_everything() -> None:
    rng = random.Random(0)
    drawn = [draw_mr(rng) for _ in range(3000)]
    assert {(slot, value) for mr in drawn for slot, value in mr.items()} == {
        (slot, value) for slot in SLOTS for value in VALUES[slot]
    }
    assert set(map(len, drawn)) == set(range(3, 9))
    for slots in (0, 9, -1):
        with pytest.raises(ModtfError, match="ask for 1 to 8"):
            draw_mr(rng, slots)


# -- files -------------------------------------------------------------------------------------------------------------

ROWS = [
    ("name[Zizzi], food[Thai]", "Zizzi has Thai food, “good” and cheap."),
    ("name[Cotto], near[Café Rouge], priceRange[less than £20]", "Cotto, near Café Rouge, under £20."),
    ("food[Thai], name[Zizzi]", " Thai food at Zizzi.\n"),  # the same MR in another order
    ("name[Zizzi], food[Thai], food[French]", "two values for one slot"),
    ("food[Thai]", "no name"),
]
EXPECTED = [
    Example("name[Zizzi], food[Thai]", ("Zizzi has Thai food, “good” and cheap.", "Thai food at Zizzi.")),
    Example("name[Cotto], priceRange[less than £20], near[Café Rouge]", ("Cotto, near Café Rouge, under £20.",)),
]


def write_csv(path: Path, rows: list[tuple[str, ...]] = ROWS, columns: tuple[str, ...] = ("mr", "ref")) -> None:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_read_folder(tmp_path: Path, ending: str) -> None:
    write_csv(tmp_path / f"dev{ending}")
    assert read_folder(tmp_path, "dev") == EXPECTED
    assert read_folder(str(tmp_path), "dev") == EXPECTED


def test_more_columns_in_another_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "dev.csv", [("1", text, mr) for mr, text in ROWS], ("id", "ref", "mr"))
    assert read_folder(tmp_path, "dev") == EXPECTED


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=r"no test.csv or test.csv.gz in .*; found no CSV files.*MODTF_E2E_DIR"):
        read_folder(tmp_path, "test")
    write_csv(tmp_path / "dev.csv")
    write_csv(tmp_path / "train.csv.gz")
    with pytest.raises(ModtfError, match=r"found dev.csv, train.csv.gz"):
        read_folder(tmp_path, "test")
    with pytest.raises(ModtfError, match=r"no test.csv"):
        read_folder(tmp_path / "nowhere", "test")


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (ROWS, ("mr", "words"), "columns mr, words"),
        (ROWS, ("meaning", "ref"), "the columns mr and ref are needed"),
        ([("name[Zizzi]", "")], ("mr", "ref"), "without an MR or a text"),
        ([], ("mr", "ref"), "has no rows"),
        ([("name[Zizzi], area[moon]", "text")], ("mr", "ref"), r"area\[moon\] is unknown"),
    ],
)
def test_words_for_bad_files(tmp_path: Path, rows: list, columns: tuple[str, ...], words: str) -> None:
    write_csv(tmp_path / "dev.csv", rows, columns)
    with pytest.raises(ModtfError, match=words):
        read_folder(tmp_path, "dev")


@pytest.mark.parametrize(
    ("name", "content"), [("dev.csv", b"mr,ref\nname[Caf\xe9],\xe9t\xe9\n"), ("dev.csv.gz", b"\x1f\x8bno gzip")]
)
def test_words_for_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModtfError, match="cannot be read as CSV in UTF-8"):
        read_folder(tmp_path, "dev")


def test_columns_of_the_hub() -> None:
    rows = [{"meaning_representation": mr, "human_reference": text} for mr, text in ROWS]
    assert group_rows(rows, "hub") == EXPECTED


# -- batches -----------------------------------------------------------------------------------------------------------


def test_the_hubs_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, *, revision: str, split: str) -> list[dict[str, str]]:
        asked.append((name, revision, split))
        if split == "moon":
            raise ValueError('Unknown split "moon"')
        return [{"meaning_representation": mr, "human_reference": text} for mr, text in ROWS]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert read_data("hub", "train-cleaned") == read_data("hub", "dev") == EXPECTED
    assert asked == [
        ("tuetschek/e2e_nlg_cleaned", "refs/convert/parquet", "train"),
        ("tuetschek/e2e_nlg", "refs/convert/parquet", "validation"),
    ]
    with pytest.raises(ModtfError, match="moon could not be read from tuetschek/e2e_nlg on the hub"):
        read_data("hub", "moon")


def restaurant(i: int) -> MR:
    return draw_mr(random.Random(i), 4 + i % 5) | {"name": f"Place {i}"}


def say(mr: MR, variant: int = 0) -> str:
    """Says open values literally, so that they can be swapped."""
    return (
        f"{mr['name']} is number {variant}"
        + (f" near {mr['near']}" if "near" in mr else "")
        + (f", {mr['food']} food" if "food" in mr else "")
        + "."
    )


EXAMPLES = [
    Example(write_mr(restaurant(i)), tuple(say(restaurant(i), v) + " It is nice." * (i % 4) for v in range(1 + i % 7)))
    for i in range(60)
]
TEXTS = Counter(text for example in EXAMPLES for text in example.references)


@pytest.fixture(scope="module")
def speaker() -> Any:
    return train_tokenizer(list(TEXTS), vocabulary_size=500)


def batches(tokenizer: Any, steps: int = 40, **options: Any) -> TaskBatches:
    return TaskBatches(E2E, EXAMPLES, tokenizer, steps, **({"batch_size": 16, "seed": 5} | options))


def always(monkeypatch: pytest.MonkeyPatch, swapped: float, shuffled: float) -> None:
    """How often values are swapped and slots shuffled, from here on."""
    monkeypatch.setattr(VARY, "_SWAPPED", swapped)
    monkeypatch.setattr(VARY, "_SHUFFLED", shuffled)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def texts_of(batch: dict[str, torch.Tensor], tokenizer: Any) -> list[str]:
    return tokenizer.batch_decode(batch["labels"].masked_fill(batch["labels"] == -100, 0), skip_special_tokens=True)


def test_an_item_is_a_pure_function_of_seed_and_step(speaker: Any) -> None:
    one, other = batches(speaker), batches(speaker, steps=25)
    assert len(one) == 40
    expected = [one[step] for step in range(25)]
    random.seed(9)
    for step in random.sample(range(25), 25):
        assert equal(other[step], expected[step]), "in any order, in another object, for a training of other length"
    assert not all(
        equal(a, b) for a, b in zip(expected, (batches(speaker, seed=6)[step] for step in range(25)), strict=True)
    )
    assert not equal(expected[0], expected[1])


def test_every_text_once_an_epoch(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, swapped=0, shuffled=0.5)
    assert max(TEXTS.values()) == 1
    data = batches(speaker, steps=200)
    sizes, epochs, current = [], [], Counter()
    for step in range(200):
        texts = texts_of(data[step], speaker)
        sizes.append(len(texts))
        current.update(texts)
        if sum(current.values()) >= sum(TEXTS.values()):
            epochs.append(current)
            current = Counter()
    assert len(epochs) > 5
    assert all(epoch == TEXTS for epoch in epochs)
    assert set(sizes) <= {16, sum(TEXTS.values()) % 16}, "all batches are full but the last of an epoch"


def test_source_index_points_to_the_mr(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, swapped=0, shuffled=0)
    data = batches(speaker)
    source_of = {text: example.source for example in EXAMPLES for text in example.references}
    for step in range(20):
        batch = data[step]
        texts = texts_of(batch, speaker)
        assert len(texts) == len(batch["source_index"]) == len(batch["labels"])
        for text, index in zip(texts, batch["source_index"].tolist(), strict=True):
            row = batch["input_ids"][index][batch["attention_mask"][index].bool()].tolist()
            assert row == speaker(source_of[text])["input_ids"]
        assert len(batch["source_index"].unique()) < len(texts), "some sources have several texts"
        assert (batch["input_ids"][batch["attention_mask"] == 0] == speaker.pad_token_id).all()
        ends = (batch["labels"] == speaker.eos_token_id).sum(1)
        assert (ends == 1).all()


def test_slots_are_shuffled_in_the_sources_only(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, swapped=0, shuffled=1)
    data = batches(speaker)
    source_of = {text: example.source for example in EXAMPLES for text in example.references}
    other_order = 0
    for step in range(20):
        batch = data[step]
        for text, index in zip(texts_of(batch, speaker), batch["source_index"].tolist(), strict=True):
            row = batch["input_ids"][index][batch["attention_mask"][index].bool()].tolist()
            straight = speaker(source_of[text])["input_ids"]
            assert sorted(row) == sorted(straight)
            other_order += row != straight
    assert other_order > 100


def test_swapped_batches_stay_consistent(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name, a neighbour and a food that the text says are those of its MR, whatever they were swapped for."""
    always(monkeypatch, swapped=1, shuffled=0)
    data = batches(speaker)
    known = set(TEXTS)
    swapped = 0
    for step in range(20):
        batch = data[step]
        for text, index in zip(texts_of(batch, speaker), batch["source_index"].tolist(), strict=True):
            swapped += text not in known
            source = speaker.decode(batch["input_ids"][index], skip_special_tokens=True)
            name = text.split(" is number ")[0]
            assert source.split("name[")[1].lstrip().startswith(name)
            for slot, before in (("near", " near "), ("food", ", ")):
                if f"{slot}[" in source:
                    said = text.split(before)[1]
                    value = source.split(f"{slot}[")[1].strip()
                    assert any(said.startswith(value[:length]) for length in range(3, len(value) + 1))
    assert swapped > 150


@settings(max_examples=300)
@given(st.integers(0, 10**6))
def test_swapping_keeps_mr_and_texts_together(seed: int) -> None:
    rng = random.Random(seed)
    mr = draw_mr(rng)
    texts = tuple(say(mr, variant) for variant in range(3))
    new, written = swap_open_values(mr, texts, rng)
    assert list(new) == list(mr)
    assert written == tuple(say(new, variant) for variant in range(3))
    assert all(new[slot] == mr[slot] for slot in mr if slot not in OPEN_SLOTS)
    assert check_mr(new) == new
    assert swap_open_values(mr, texts, random.Random(seed)) == swap_open_values(mr, texts, random.Random(seed))


@given(st.integers(0, 10**6))
def test_nothing_is_swapped_that_a_text_does_not_say(seed: int) -> None:
    rng = random.Random(seed)
    mr = draw_mr(rng)
    assume("near" in mr and "food" in mr)
    texts = (say(mr), f"{mr['name']} is a place.")
    new, written = swap_open_values(mr, texts, rng)
    assert (new["near"], new["food"]) == (mr["near"], mr["food"])
    assert written == (say(new), f"{new['name']} is a place.")


def test_swapping_leaves_the_words_around_alone() -> None:
    """A value within a longer word is no value."""
    for seed in range(50):
        mr, (text,) = swap_open_values(
            {"name": "Cotto", "area": "riverside"}, ["Cotto sells cotton and Cottonwood."], random.Random(seed)
        )
        assert text == f"{mr['name']} sells cotton and Cottonwood."


def test_articles_follow_the_swapped_food() -> None:
    seen = set()
    for seed in range(60):
        mr, (text,) = swap_open_values(
            {"name": "Cotto", "food": "English"}, ["An English pub, Cotto, and a English one."], random.Random(seed)
        )
        article = "an" if mr["food"][0] in "AEIOU" else "a"
        assert text == f"{article.capitalize()} {mr['food']} pub, {mr['name']}, and {article} {mr['food']} one."
        seen.add(article)
    assert seen == {"a", "an"}


def test_words_for_batches_of_nothing(speaker: Any) -> None:
    with pytest.raises(ModtfError, match="batches of 0 texts"):
        batches(speaker, batch_size=0)


# -- the tokenizer -----------------------------------------------------------------------------------------------------


def test_one_token_for_each_slot(tokenizer: Any) -> None:
    for slot in SLOTS:
        assert tokenizer.tokenize(f"{slot}[") == [f"{slot}["]
        tokens = tokenizer.tokenize(f"name[Zizzi], {slot}[pub], area[riverside]")
        assert [token for token in tokens if token.endswith("[")] == ["name[", f"{slot}[", "area["]
    ids = tokenizer.convert_tokens_to_ids([f"{slot}[" for slot in SLOTS])
    assert len(set(ids)) == len(SLOTS)
    assert max(ids) < len(tokenizer) == 300
    assert "]" not in "".join(tokenizer.tokenize("name[Zizzi], food[Thai]"))


def test_values_have_the_tokens_that_they_have_in_a_text(tokenizer: Any) -> None:
    for value in VALUES["near"]:
        said = tokenizer.tokenize(f"It is near {value} and nice.")
        inside = tokenizer.tokenize(f"name[Zizzi], near[{value}], food[Thai]")
        inside = inside[inside.index("near[") + 1 : inside.index("food[")]
        assert "\0".join(inside) in "\0".join(said)


@settings(max_examples=200)
@given(
    st.text(st.characters(blacklist_characters="[]", blacklist_categories=["Cs", "Cc"]), max_size=40)
    | st.sampled_from(["Café, £20–25 “é”", "ｆｕｌｌ 🙂"])
)
def test_text_round_trip(tokenizer: Any, text: str) -> None:
    assume(not text.startswith(" "))  # a text begins with a blank of its own
    assume(not any(token in text for token in ("<pad>", "</s>")))
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.pad_token_id == 0


def test_saved_and_loaded(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [
        "name[The Vaults], priceRange[less than £20], near[Café Adriatic]",
        "Zizzi, near Café Rouge, costs £20-25.",
    ]
    one, other = (t(texts, padding=True, return_tensors="pt") for t in (tokenizer, again))
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(one["attention_mask"], other["attention_mask"])
    assert again.batch_decode(other["input_ids"], skip_special_tokens=True)[1] == texts[1]
    assert (len(again), again.pad_token_id, again.eos_token_id, again.model_max_length) == (300, 0, 1, 256)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_training_is_deterministic(tokenizer: Any) -> None:
    twins = [train_tokenizer(list(TEXTS), 400).get_vocab() for _ in range(2)]
    assert twins[0] == twins[1]
    assert len(twins[0]) == 400
