"""The slot matcher: paraphrases, each kind of error, masked places, and published error rates of two systems."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modtf.tasks.e2e.data import read_folder
from modtf.tasks.e2e.mrs import MR, SLOTS, VALUES, draw_mr, parse_mr
from modtf.tasks.e2e.slots import SlotReport, check

E2E = Path(os.environ.get("MODTF_E2E_DIR") or Path(__file__).parents[1] / ".." / "shared" / "e2e")
needs_e2e = pytest.mark.skipif(not E2E.is_dir(), reason=f"needs the E2E data: none in {E2E}; set MODTF_E2E_DIR")

PARAPHRASES = {
    ("eatType", "coffee shop"): ["Zizzi is a coffee shop.", "Zizzi is a café.", "Zizzi, a coffee-shop"],
    ("eatType", "pub"): ["Zizzi is a pub.", "Zizzi's bar"],
    ("eatType", "restaurant"): ["Zizzi is a restaurant.", "The restaurant is called Zizzi."],
    ("food", "Fast food"): ["Zizzi serves fast food.", "Zizzi, a fast-food place", "Zizzi has burgers and fries."],
    ("food", "English"): ["Zizzi serves British dishes.", "English food at Zizzi", "Fish and chips at Zizzi"],
    ("food", "Japanese"): ["Japanese cuisine at Zizzi", "Zizzi offers sushi."],
    ("food", "Italian"): ["Pasta at Zizzi", "An Italian place, Zizzi"],
    ("priceRange", "cheap"): [
        "Zizzi is cheap.",
        "Low prices at Zizzi",
        "Zizzi is low-priced.",
        "Zizzi is in the low price range.",
        "Zizzi is affordable.",
    ],
    ("priceRange", "less than £20"): [
        "Zizzi costs less than £20.",
        "Under 20 pounds at Zizzi",
        "Zizzi's prices are below twenty pounds.",
        "Zizzi costs £20 or less.",
        "Zizzi is cheap.",
        "Zizzi has an average cost of less than £20.",
    ],
    ("priceRange", "moderate"): [
        "Zizzi is moderately priced.",
        "mid-priced Zizzi",
        "Zizzi has an average price range.",
        "Zizzi is reasonably priced.",
    ],
    ("priceRange", "£20-25"): [
        "Zizzi costs £20-25.",
        "Zizzi costs between £20 and £25.",
        "From 20 to 25 pounds at Zizzi",
        "£20 - £25 at Zizzi",
    ],
    ("priceRange", "high"): [
        "Zizzi is expensive.",
        "High prices at Zizzi",
        "Zizzi's price range is high.",
        "Zizzi is not cheap.",
    ],
    ("priceRange", "more than £30"): [
        "Zizzi costs more than £30.",
        "Over 30 pounds at Zizzi",
        "£30+ at Zizzi",
        "Zizzi is pricey.",
    ],
    ("customer rating", "low"): [
        "Zizzi is poorly rated.",
        "Zizzi has a low customer rating.",
        "Zizzi's rating is very low.",
    ],
    ("customer rating", "1 out of 5"): [
        "Zizzi is rated 1 out of 5.",
        "one-star Zizzi",
        "Zizzi has a rating of 1/5.",
        "Zizzi has a low rating of 1 out of 5.",
    ],
    ("customer rating", "average"): [
        "Zizzi has average reviews.",
        "Customers rate Zizzi as average.",
        "Zizzi is rated three stars.",
    ],
    ("customer rating", "3 out of 5"): [
        "Zizzi has three out of five stars.",
        "a 3-star place, Zizzi",
        "Zizzi is rated average.",
    ],
    ("customer rating", "high"): [
        "Zizzi is highly rated.",
        "Zizzi's customer rating is high.",
        "Zizzi has excellent reviews.",
    ],
    ("customer rating", "5 out of 5"): [
        "Zizzi is a 5 star place.",
        "Zizzi scores five out of five.",
        "Zizzi has a customer rating of 5.",
        "highly-rated Zizzi",
    ],
    ("area", "riverside"): ["Zizzi is by the river.", "Zizzi is in the riverside area.", "On the river bank is Zizzi."],
    ("area", "city centre"): [
        "Zizzi is in the city center.",
        "Zizzi is in the centre of the city.",
        "Zizzi is downtown.",
        "Zizzi is in the heart of town.",
    ],
    ("familyFriendly", "yes"): [
        "Zizzi is family friendly.",
        "kid-friendly Zizzi",
        "Children are welcome at Zizzi.",
        "Zizzi welcomes families.",
        "Bring your kids to Zizzi.",
        "Zizzi is for the whole family.",
        "Zizzi is not only cosy but family-friendly.",
    ],
    ("familyFriendly", "no"): [
        "Zizzi is not family-friendly.",
        "non kid-friendly Zizzi",
        "Zizzi isn't really a child friendly place.",
        "Zizzi is for adults only.",
        "Children are not allowed at Zizzi.",
        "No kids at Zizzi",
        "Zizzi is not suitable for children.",
        "Zizzi doesn't cater for families.",
    ],
    ("near", "Café Rouge"): ["Zizzi is near Café Rouge.", "Zizzi is next to Cafe  Rouge.", "By café rouge is Zizzi."],
}


@pytest.mark.parametrize(
    ("slot", "value", "text"), [(*key, text) for key, texts in PARAPHRASES.items() for text in texts]
)
def test_paraphrase_is_said_and_nothing_else(slot: str, value: str, text: str) -> None:
    assert check({"name": "Zizzi", slot: value}, text) == SlotReport(("name", slot), (), (), (), ())


@pytest.mark.parametrize(
    ("mr", "text", "field", "slots"),
    [
        # another value in place of the MR's
        ("name[Zizzi], eatType[pub]", "Zizzi is a coffee shop.", "wrong", "eatType"),
        ("name[Zizzi], food[French]", "Zizzi serves Indian food.", "wrong", "food"),
        ("name[Zizzi], priceRange[high]", "Zizzi is cheap.", "wrong", "priceRange"),
        # no amount follows from a word
        ("name[Zizzi], priceRange[cheap]", "Zizzi costs less than £20.", "wrong", "priceRange"),
        ("name[Zizzi], customer rating[5 out of 5]", "Zizzi has 4 out of 5 stars.", "wrong", "customer rating"),
        (
            "name[Zizzi], customer rating[high], priceRange[high]",
            "Zizzi has high prices and a low customer rating.", "wrong", "customer rating",
        ),
        ("name[Zizzi], area[riverside]", "Zizzi is in the city centre.", "wrong", "area"),
        ("name[Zizzi], familyFriendly[no]", "Zizzi is family friendly.", "wrong", "familyFriendly"),
        ("name[Zizzi], familyFriendly[yes]", "Zizzi is not cheap and not a place for kids.", "wrong", "familyFriendly"),
        ("name[Zizzi]", "The Mill is a place to eat.", "wrong", "name"),
        ("name[Zizzi], near[Café Rouge]", "Zizzi is near Burger King.", "wrong", "near"),
        # not said
        ("name[Zizzi], near[Café Rouge]", "Zizzi is a place.", "missed", "near"),
        ("name[Zizzi], area[riverside]", "It is by the river.", "missed", "name"),
        # of two other levels, none is stated
        ("name[Zizzi], priceRange[cheap]", "Zizzi is not cheap.", "missed", "priceRange"),
        # said again, or beside another value
        ("name[Zizzi], food[French]", "Zizzi is a French place with French food.", "repeated", "food"),
        (
            "name[Zizzi], familyFriendly[yes]",
            "Zizzi is family friendly. It is child friendly.", "repeated", "familyFriendly",
        ),
        ("name[Zizzi], area[riverside]", "Zizzi is on the riverside in the city centre.", "repeated", "area"),
        ("name[Zizzi], near[Café Rouge]", "Zizzi is near Café Rouge. It is near Café Rouge.", "repeated", "near"),
        ("name[Zizzi], near[Café Rouge]", "Zizzi is near Café Rouge and Burger King.", "repeated", "near"),
        ("name[Zizzi], eatType[pub]", "Zizzi is a pub and a coffee shop.", "repeated", "eatType"),
        ("name[Zizzi], priceRange[£20-25]", "Zizzi is expensive, at £20-25.", "repeated", "priceRange"),
        # not in the MR
        ("name[Zizzi]", "Zizzi is a pub.", "added", "eatType"),
        ("name[Zizzi]", "Zizzi serves Thai food.", "added", "food"),
        ("name[Zizzi]", "Zizzi is in the £20-25 range.", "added", "priceRange"),
        ("name[Zizzi]", "Zizzi has five stars.", "added", "customer rating"),
        ("name[Zizzi]", "Zizzi is by the river.", "added", "area"),
        ("name[Zizzi]", "Zizzi is for adults.", "added", "familyFriendly"),
        ("name[Zizzi]", "Zizzi is near The Mill.", "added", "near"),
    ],
)  # fmt: skip
def test_each_kind_of_error(mr: str, text: str, field: str, slots: str) -> None:
    report = check(parse_mr(mr), text)
    assert getattr(report, field) == (slots,), report
    assert report.errors == 1


@pytest.mark.parametrize(
    ("mr", "text"),
    [
        # words of places are no claims
        ("name[Zizzi], near[Rainbow Vegetarian Café]", "Zizzi is near the Rainbow Vegetarian Café."),
        ("name[Zizzi], food[French], near[Raja Indian Cuisine]", "Zizzi serves French food near Raja Indian Cuisine."),
        ("name[Taste of Cambridge], near[Yippee Noodle Bar]", "Taste of Cambridge is near the Yippee Noodle Bar."),
        (
            "name[Zizzi], eatType[pub], near[Crowne Plaza Hotel]",
            "Zizzi is a pub near the Crowne Plaza Hotel restaurant.",
        ),
        ("name[The Cambridge Blue], near[Burger King]", "Near Burger King is the Cambridge Blue."),
        ("name[Cheap Thai Pub]", "Cheap Thai Pub"),
        ("name[Café], near[Café Rouge]", "Café is near Café Rouge."),
        ("name[The Rice Boat], near[The Rice Boat]", "The Rice Boat is near The Rice Boat."),
        # words that are also places
        ("name[Zizzi]", "Zizzi is on a ranch behind the mill."),
        # values that the data does not have
        ("name[Casa Luna], food[Thai]", "Casa Luna serves Thai food."),
        ("name[Casa Luna], food[Tex-Mex]", "casa luna offers tex-mex dishes."),
        ("name[Zizzi], food[French and Italian]", "Zizzi serves French and Italian food."),
        ("name[O'Neill's], near[Łódź Tower]", "O’Neill’s stands near Łódź  Tower."),
        # naming the place or its type again refers back
        (
            "name[The Mill], eatType[pub], area[riverside]",
            "The Mill is a pub. The Mill is by the river; this pub is a fine restaurant.",
        ),
        # a word and a figure of one level explain one another
        ("name[Zizzi], customer rating[1 out of 5]", "Zizzi has a low rating: customers give it 1 out of 5."),
        ("name[Zizzi], priceRange[£20-25]", "Zizzi has an average price range of £20-25."),
        ("name[Zizzi], familyFriendly[no]", "Zizzi is not family-friendly, so leave the kids at home."),
        # one adjective, two nouns; and neighbours that look like it
        ("name[Zizzi], customer rating[high], priceRange[high]", "Zizzi has a high customer rating and price range."),
        (
            "name[Zizzi], customer rating[high], priceRange[£20-25]",
            "Zizzi has a high customer rating and price range of £20-25.",
        ),
        (
            "name[Zizzi], customer rating[low], priceRange[high]",
            "Zizzi has a high price range and a low customer rating.",
        ),
        ("name[Zizzi], customer rating[5 out of 5], priceRange[cheap]", "Zizzi is rated 5 out of 5 with low prices."),
        # a negation ends where another thought begins
        ("name[Zizzi], priceRange[high], familyFriendly[yes]", "Zizzi is not cheap but family friendly."),
        ("name[Zizzi], familyFriendly[yes], near[Café Rouge]", "Zizzi is not near Café Rouge, family friendly though."),
    ],
)  # fmt: skip
def test_nothing_to_flag(mr: str, text: str) -> None:
    report = check(parse_mr(mr), text)
    assert report.errors == 0, report


def test_slots_and_values_unknown_to_the_task_are_looked_for_literally() -> None:
    report = check({"name": "Zizzi", "parking": "free", "priceRange": "free", "area": ""}, "Free parking at Zizzi.")
    assert report == SlotReport(
        said=("name", "parking", "priceRange"), missed=("area",), wrong=(), repeated=(), added=()
    )


SENTENCES = {
    "name": "It is called {}.",
    "eatType": "It is a {}.",
    "food": "They serve {} dishes.",
    "priceRange": "The price range is {}.",
    "customer rating": "The customer rating is {}.",
    "area": "You find it in the {} area.",
    "near": "It lies close to {}.",
}
mrs = st.builds(lambda seed, slots: draw_mr(random.Random(seed), slots), st.integers(0, 2**32), st.integers(1, 8))


def say(slot: str, value: str) -> str:
    if slot == "familyFriendly":
        return "It is family friendly." if value == "yes" else "It is not family friendly."
    return SENTENCES[slot].format(value)


@settings(deadline=None)
@given(mrs, st.data())
def test_a_plain_text_has_no_errors_and_one_change_makes_one(mr: MR, data: st.DataObject) -> None:
    order = data.draw(st.permutations(list(mr)))
    sentences = {slot: say(slot, mr[slot]) for slot in order}
    report = check(mr, " ".join(sentences.values()))
    if mr.get("near") == mr["name"]:  # "near The Rice Boat. It is called The Rice Boat": any order reads well
        assert report.errors == 0
        return
    assert report == SlotReport(tuple(mr), (), (), (), ())

    slot = data.draw(st.sampled_from(order))
    without = check(mr, " ".join(text for other, text in sentences.items() if other != slot))
    assert without.missed == (slot,) and without.errors == 1

    if slot not in ("name", "eatType"):
        twice = check(mr, " ".join([*sentences.values(), sentences[slot]]))
        assert twice.repeated == (slot,) and twice.errors == 1

    absent = [other for other in SLOTS if other not in mr and other != "near"]
    if absent:
        extra = data.draw(st.sampled_from(absent))
        more = check(mr, " ".join([*sentences.values(), say(extra, data.draw(st.sampled_from(VALUES[extra])))]))
        assert more.added == (extra,) and more.errors == 1


@settings(deadline=None)
@given(mrs)
def test_accents_case_and_blanks_do_not_matter(mr: MR) -> None:
    text = " ".join(say(slot, value) for slot, value in mr.items())
    assert check(mr, text.replace("é", "e").replace(" ", " \n ")) == check(mr, text)
    assert check(mr, text.upper()) == check(mr, text)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(SLOTS) | st.text(max_size=8), st.text(max_size=12), max_size=8),
    st.text(max_size=80),
)
def test_any_mr_and_any_text_are_reported_whole(mr: MR, text: str) -> None:
    report = check(mr, text)
    assert sorted((*report.said, *report.missed, *report.wrong)) == sorted(mr)
    assert set(report.repeated) <= set(report.said)
    assert not set(report.added) & set(mr)
    assert report.errors == len(report.missed) + len(report.wrong) + len(report.repeated) + len(report.added)


def system_output(system: str) -> list[tuple[MR, str]]:
    with (E2E / "system-outputs" / f"{system}.tsv").open(encoding="utf-8", newline="") as file:
        return [(parse_mr(row["MR"]), row["output"]) for row in csv.DictReader(file, delimiter="\t")]


def error_rate(pairs: list[tuple[MR, str]]) -> float:
    return 100 * sum(check(mr, text).errors for mr, text in pairs) / sum(len(mr) for mr, _ in pairs)


@needs_e2e
def test_published_slot_error_rates() -> None:
    tgen, slug = error_rate(system_output("tgen")), error_rate(system_output("slug"))
    # 3.56 and 1.26 by the matcher of the cleaned release; every slot flagged here was read and is an error.
    assert tgen == pytest.approx(3.56, abs=0.2)
    assert slug == pytest.approx(1.26, abs=0.2)


@needs_e2e
@pytest.mark.parametrize("split", ["dev-cleaned", "test-cleaned"])
def test_few_flags_on_texts_whose_mrs_were_corrected(split: str) -> None:
    pairs = [(parse_mr(example.source), text) for example in read_folder(E2E, split) for text in example.references]
    assert error_rate(pairs) < 3
