"""Which slots of an MR does a text say? Regular expressions only: no reference text, no model.

How a text is read:

1. Places (the ``name`` and ``near`` of the MR, and those of the data) are found and masked, so that a neighbour called
   "Rainbow Vegetarian Café" makes no coffee shop and "Raja Indian Cuisine" serves no Indian food.
2. Rules for each closed slot and for food find *claims*: a slot, a value, and where it stands.
3. The claims are compared with the MR.

What counts as the same value, and as a repetition, is said at :func:`check`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from modtf.tasks.e2e.mrs import MR, SLOTS, VALUES


@dataclass(frozen=True)
class SlotReport:
    """What a text does with the slots of an MR; each field holds slot names.

    Every slot of the MR is in exactly one of ``said``, ``missed`` and ``wrong``.
    """

    said: tuple[str, ...]
    missed: tuple[str, ...]
    wrong: tuple[str, ...]  # the text gives the slot another value, and not the MR's
    repeated: tuple[str, ...]  # of those said: said again, or another value beside the right one
    added: tuple[str, ...]  # slots that the MR has not

    @property
    def errors(self) -> int:
        """Number of slot errors: missed, wrong, repeated and added."""
        return len(self.missed) + len(self.wrong) + len(self.repeated) + len(self.added)


@dataclass(frozen=True)
class _Claim:
    """A slot that a text says, between the characters ``start`` and ``end`` of the masked text.

    ``form`` is how it is said. Claims of two forms explain one another ("a low rating of 1 out of 5"); two of one form
    repeat. The form ``hint`` fits the value without proving it ("pasta" for Italian): a hint supports the MR and never
    contradicts it.
    """

    slot: str
    value: str
    form: str
    start: int
    end: int

    def overlaps(self, other: _Claim) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class _Rule:
    slot: str
    value: str
    form: str
    pattern: re.Pattern[str]


def _rules(slot: str, value: str, *patterns: str, form: str = "word") -> list[_Rule]:
    return [_Rule(slot, value, form, re.compile(rf"(?<![\w@])(?:{pattern})(?!\w)")) for pattern in patterns]


# --- price and rating: words and figures of three levels -------------------------------------------------------------

#: Word and figure of each level, lowest first: values of one level mean the same.
_LEVELS = {
    "priceRange": (("cheap", "less than £20"), ("moderate", "£20-25"), ("high", "more than £30")),
    "customer rating": (("low", "1 out of 5"), ("average", "3 out of 5"), ("high", "5 out of 5")),
}

_LINK = (  # words that may stand between "rating" or "price" and its value
    "is|are|was|were|where|be|been|being|seems?|of|as|in|at|on|a|an|the|it|its|it's|their|very|quite|fairly|rather|pretty|really|only|just|"
    "to|from|with|has|have|had|food|here|there|by|our|customers?|range|ranges|ranged|generally|considered|relative(?:ly)?|bit|little|slightly|"
    "somewhat|currently|too|also|that|kind|about|around|place|restaurant|@name"
)
_PRICE = r"(?:price[ds]?|pricing|costs?|costing)"
_CUSTOMER = r"(?:customers?|customer's|customers'|costumers?|consumers?|user|overall|star|satisfaction|service|by)"
_RATED = (
    r"(?:rated|ratings?|ranked|ranking|review(?:s|ed)?|scor(?:e|es|ed|ing)|feedback|customers? (?:rates?|satisfaction))"
)
_RATES = rf"(?:{_RATED}|rates?)"

_PRICE_WORDS = {
    "cheap": r"(?:low|lower|lowest|cheap|cheaper|cheaply|small|bargain|inexpensive)",
    "moderate": r"(?:moderate|moderately|moderated|modest|modestly|averagely|medium|mid|middle|mid[- ]?range|mid[- ]?level|intermediate"
    # "an average cost of less than £20" is a mean, not a level.
    r"|(?<!on )average(?![^.]{0,30}(?:less|more|under|over|below|above) (?:than )?£?\d))",
    "high": r"(?:high|highly|higher|highest|expensive|premium|pricey|steep|(?:above|over)[- ]average|higher than average)",
}
_RATING_WORDS = {
    "low": r"(?:low|lower|lowest|poor|poorly|bad|badly|terrible|lowly|worst|below[- ]average)",
    "average": r"(?:average|averagely|moderate|moderately|medium|mid|mediocre|middle|okay|ok|decent|fair|mid-range)",
    "high": r"(?:high|highly|higher|highest|excellent|great|top|perfect|outstanding|superb|above[- ]average)",
}


def _price_rules() -> Iterator[_Rule]:
    slot = "priceRange"
    for value, word in _PRICE_WORDS.items():
        yield from _rules(
            slot,
            value,
            rf"{word}(?:[- ](?:end|level|food))?[- ]{_PRICE}",
            rf"{word} (?:in|on) {_PRICE}",
            rf"(?:{_PRICE})(?: range)?(?: (?:{_LINK})){{0,6}}[:-]? {word}(?! \d|[- ](?:{_CUSTOMER}[- ])*{_RATES})",
        )
        # "a high customer rating and price range": true of the price only if it is said nowhere else.
        yield from _rules(slot, value, rf"{word} (?:{_CUSTOMER} )*{_RATED} and (?:a )?{_PRICE}", form="hint")
    yield from _rules(slot, "cheap", r"cheap(?:er|est|ly)?|inexpensive(?:ly)?|low[- ]cost|budget")
    yield from _rules(
        slot,
        "cheap",
        r"afforda\w+|reasonabl[ey]|good value|value for money|economical(?:ly)?|less expensive",
        form="hint",
    )
    yield from _rules(
        slot,
        "moderate",
        r"afforda\w+|reasonabl[ey]|fair(?:ly)? (?:priced?|prices|pricing)|moderately expensive",
        form="hint",
    )
    yield from _rules(
        slot,
        "high",
        r"(?<!moderately )(?<!less )(?:expensive|costly|overpriced)|pricey|pricy|upscale|high[- ]cost|high[- ]end",
    )
    yield from _rules(slot, "high", r"moderately expensive", form="hint")

    money, unit = r"(?:£|\$|€|gbp)? ?", r"(?: ?(?:£|\$|€|pounds?|euros?|dollars?|gbp))?"
    amount = {
        n: rf"{money}(?:{n}|{word})(?:\.00)?{unit}"
        for n, word in ((20, "twenty"), (25, "twenty[- ]?five"), (30, "thirty"))
    }
    of = r"(?: (?:a|the|an))?(?: (?:average|price|price range|cost))?(?: of)?"
    yield from _rules(
        slot,
        "cheap",
        rf"(?:less|lower|cheaper|fewer) (?:than|then|that){of} {amount[20]}(?! ?- ?£?\d)",
        rf"(?:under|below|beneath|up to|maximum of|not exceeding|within|sub)[- ]{amount[20]}(?! ?- ?£?\d)",
        rf"{amount[20]} (?:or|and) (?:less|under|below)",
        rf"< ?{amount[20]}",
        form="figure",
    )
    yield from _rules(slot, "moderate", rf"{amount[20]}(?: ?- ?| ?/ ?| to | and | or |, ?){amount[25]}", form="figure")
    yield from _rules(
        slot,
        "high",
        rf"(?:more|higher|greater|upwards?) (?:than|then|of){of} {amount[30]}",
        rf"(?:over|above|exceed(?:s|ing)?|beyond|starting (?:at|from)|starts? (?:at|from)|minimum of|from|at least)[- ]{amount[30]}",
        rf"{amount[30]}(?: ?\+| (?:or|and) (?:more|over|above|up|higher)| plus)",
        rf"> ?{amount[30]}",
        form="figure",
    )


def _rating_rules() -> Iterator[_Rule]:
    slot = "customer rating"
    for value, word in _RATING_WORDS.items():
        yield from _rules(
            slot,
            value,
            rf"{word}[- ](?:{_CUSTOMER}[- ])*{_RATED}",
            rf"{_RATES}(?: (?:{_LINK})){{0,6}}[:-]? {word}(?![- ](?:in |end )?{_PRICE})",
        )
        yield from _rules(
            slot,
            value,
            rf"{word}(?: {_PRICE}(?: ranges?)?)? and (?:{_CUSTOMER} )*{_RATED}",
            rf"{word}[- ]quality",
            form="hint",
        )
    good = rf"(?:good|well|positive|favou?rable|highly)[- ](?:(?:{_CUSTOMER}|quality)[- ])*(?:{_RATED}|quality|recommended)"
    yield from _rules(slot, "average", good, form="hint")
    yield from _rules(slot, "high", good, form="hint")
    out_of = r"(?:[- ]?out[- ]of[- ](?:a (?:possible )?)?| of | ?/ ?| on (?:a )?scale of (?:1 to )?)"
    for number, word in enumerate(("one", "two", "three", "four", "five"), start=1):
        n = rf"(?:{number}|{word})"
        value = next((level[0] for level in _LEVELS[slot] if level[1] == f"{number} out of 5"), f"{number} out of 5")
        yield from _rules(
            slot,
            value,
            rf"{n}(?: stars?)?{out_of}(?:5|five)(?:[- ]stars?)?",
            rf"(?<!out of )(?<!out-of-){n}[- ]?stars?",
            rf"{_RATED}(?: (?:{_LINK})){{0,5}} {n}(?! ?(?:out|of|/|-|stars?|\.\d|%|and))",
            form="figure",
        )


# --- family friendly -------------------------------------------------------------------------------------------------

_FAMILY = r"(?:famil(?:y|ies)|kids?|child(?:ren|s)?|toddlers?|youngsters|little ones)(?:'s|s')?"
_VENUE = r"(?:restaurant|pub|coffee shop|cafe|place|establishment|venue|atmosphere|environment|setting|eatery|spot|location|dining|area|outing)"


def _family_rules() -> Iterator[_Rule]:
    slot = "familyFriendly"
    yield from _rules(
        slot,
        "yes",
        rf"{_FAMILY}(?:[- /]*(?:and|or|&)[- /]*\w+)?[- ]*(?:friendly|frienly|freindly|orient(?:at)?ed|focuss?ed|appropriate|suitable)",
        rf"friendly (?:(?:to|for|with|towards?|place|environment|the|all|your) ){{1,3}}{_FAMILY}",
        form="friendly",
    )
    yield from _rules(
        slot,
        "yes",
        rf"{_FAMILY} (?:[\w']+ ){{0,3}}(?:welcomed?|allowed|accepted|permitted|recommended)",
        rf"(?:welcom|accept|allow|cater|accommodat|admit|permit|suit|serv)\w* (?:[\w']+ ){{0,2}}{_FAMILY}",
        rf"(?:suitable|good|great|perfect|ideal|appropriate|okay|ok|fun|nice|best|right|recommended|designed|meant|safe|{_VENUE}) "
        rf"for (?:(?:all|the|your|a|whole|entire|any|small|young|with) ){{0,3}}{_FAMILY}",
        r"(?:all|whole|entire) (?:the |of the )?family|for (?:families|the family|kids|children)|(?:all|any|every) ages?",
        rf"(?:bring|take|taking|bringing) (?:(?:the|your|my|their|our|along) ){{0,2}}{_FAMILY}",
        rf"(?:family|kids|children's) {_VENUE}",
        form="welcome",
    )
    yield from _rules(
        slot,
        "no",
        r"adults?(?:'s)?(?:[- ]+(?:only|oriented|orientated|focuss?ed|friendly))?|grown[- ]?ups?|over[- ]18s?",
        rf"(?:no|without|minus) (?:the |any )?{_FAMILY}(?: allowed)?(?![- ]?friendly)|(?:child|children|kid|kids)[- ]free",
        rf"{_FAMILY}[- ]*unfriendly|unfriendly (?:to|for|towards) {_FAMILY}",
        rf"leave (?:the |your )?{_FAMILY} (?:at|behind)",
        form="adults",
    )
    yield from _rules(slot, "no", rf"{_FAMILY}[- ]friendly\W{{1,3}}no", form="friendly")


# A negation reaches over a few words, unless one of them begins another thought ("not cheap but family friendly").
_NEGATED = re.compile(
    r"(?:\b(?:not|non|no|never|nor|neither|without|isnt|doesnt|dont|arent|lacks?|lacking|hardly|cannot|cant)\b|n't|\bun)[- ]*"
    r"(?:(?!but\b|and\b|yet\b|with\b|only\b|just\b|near\b|(?:pric|rat)\w+\b)[\w'@]+[- ]+){0,5}$"
)
_NEGATED_WITHIN = re.compile(r"\b(?:not|never|no)\b|n't")
# Nearer, for prices and ratings: "not too expensive", "isn't highly rated".
_NEGATED_DEGREE = re.compile(
    r"(?:\b(?:not|non|isnt|doesnt|never|neither)\b|n't)[- ]*"
    r"(?:(?:very|so|too|that|at|all|the|a|an|as|overly|particularly|really|have|been) )*$"
)


# --- the other slots -------------------------------------------------------------------------------------------------


def _other_rules() -> Iterator[_Rule]:
    yield from _rules("eatType", "coffee shop", r"coffee[- ]?(?:shops?|house|bar|place|store|spot)|cafes?")
    yield from _rules("eatType", "coffee shop", r"coffee|tea ?(?:room|shop|house)", form="hint")
    yield from _rules("eatType", "pub", r"(?:gastro-?)?pubs?")
    yield from _rules("eatType", "pub", r"bar|tavern|inn|public house", form="hint")
    yield from _rules("eatType", "restaurant", r"restaurant")
    yield from _rules("eatType", "restaurant", r"restaurants|diner|bistro|eatery|brasserie|trattoria", form="hint")

    for cuisine in (
        "american",
        "french(?! fries)",
        "greek",
        "indian",
        "korean",
        "mexican",
        "spanish",
        "thai",
        "turkish",
        "vietnamese",
    ):
        yield from _rules("food", cuisine.partition("(")[0], cuisine)
    yield from _rules("food", "chinese", r"chinese|chines")
    yield from _rules("food", "english", r"english|british")
    yield from _rules("food", "fast food", r"fast[- ]?foods?")
    yield from _rules("food", "italian", r"italian")
    yield from _rules("food", "japanese", r"japanese")
    # Dishes that a text names in place of the cuisine.
    yield from _rules(
        "food", "english", r"fish (?:and|&|n) chips|(?:sunday )?roasts?|pub (?:food|grub|fare)", form="hint"
    )
    yield from _rules(
        "food",
        "fast food",
        r"(?:ham)?burgers?|fries|quick (?:food|bite|meal)|junk food|take[- ]?(?:away|out)",
        form="hint",
    )
    yield from _rules("food", "french", r"croissants?|crepes?", form="hint")
    yield from _rules("food", "indian", r"curry|curries", form="hint")
    yield from _rules("food", "italian", r"pasta|spaghetti|pizzas?|lasagn[ae]|risotto", form="hint")
    yield from _rules("food", "japanese", r"sushi|sashimi|ramen|tempura|teriyaki", form="hint")

    yield from _rules("area", "riverside", r"river(?:[- ]?(?:side|bank|front))?|waterside|waterfront")
    yield from _rules(
        "area",
        "city centre",
        r"(?:city|cities|town)(?:'s)?[- ]?(?:cent(?:re|er)|central)",
        r"(?:cent(?:re|er|ral)|heart|middle)(?: (?:part|area|location))? (?:of|in|to) (?:the |a )?(?:\w+ )?(?:city|town|cambridge)",
        r"downtown",
    )
    yield from _rules("area", "city centre", r"cent(?:re|er)|central(?:ly)?|city|in town", form="hint")


_RULES = [*_other_rules(), *_price_rules(), *_rating_rules(), *_family_rules()]


# --- places ----------------------------------------------------------------------------------------------------------


_PUNCTUATION = {
    ord(curly): plain
    for curlies, plain in (("\u2018\u2019`\u00b4", "'"), ("\u2010\u2011\u2013\u2014", "-"))
    for curly in curlies
}


def _plain(text: str) -> str:
    """Accents, curly quotes, long dashes and runs of blanks made plain; case is kept."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = text.translate(_PUNCTUATION)
    return re.sub(r"(?<=\w)- (?=\w)", "-", re.sub(r"\s+", " ", text)).strip()


def _bare(value: str) -> str:
    """An open value in lower case without its article."""
    return re.sub(r"^the (?=.)", "", _plain(value).lower())


def _literal(value: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """A pattern for an open value, with or without its article, blanks or hyphens between the words."""
    words = _plain(value)[-len(_bare(value)) :].split(" ")
    return re.compile(rf"(?<![\w@])(?:the )?{'[ -]?'.join(map(re.escape, words))}(?!\w)", flags)


# Places of the data are matched as they are written: "a ranch" and "the mill" are words, "Ranch" and "The Mill" are places.
_PLACES = [(_bare(place), _literal(place, flags=0)) for place in sorted({*VALUES["name"], *VALUES["near"]})]
_OF_NEIGHBOUR = re.compile(
    r"(?:restaurant|pub|coffee shop|cafe)(?: (?:called|named))? @(?:near|other)|@(?:near|other) (?:restaurant|pub|coffee shop|cafe)"
)


def _mask(mr: MR, text: str) -> tuple[str, list[str]]:
    """``text`` plain, in lower case and with places masked, and the places of the data in it that the MR does not name."""
    text = _plain(text)
    own = {slot: _bare(mr[slot]) for slot in ("name", "near") if mr.get(slot, "").strip()}
    places = []  # (bare value, mask, pattern)
    for slot, bare in own.items():
        # As written where the text has it so, in any case otherwise: a place called "The River" should not hide every river.
        exact = _literal(mr[slot], flags=0)
        places.append((bare, f"@{slot}", exact if exact.search(text) else _literal(mr[slot])))
    places += [(bare, "@other", pattern) for bare, pattern in _PLACES if bare not in own.values()]
    others: list[str] = []
    for bare, mask, pattern in sorted(
        places, key=lambda place: -len(place[0])
    ):  # "The Cambridge Blue" before "The Cambridge"
        text, found = pattern.subn(mask, text)
        others += [bare] * found if mask == "@other" else []
    if own.get("name") == own.get("near") and text.count("@name") > 1:
        text = "@near".join(text.rsplit("@name", 1))  # a place near one of the same name
    return text.lower(), others


# --- claims ----------------------------------------------------------------------------------------------------------


def _found(text: str) -> Iterator[_Claim]:
    neighbours = [match.span() for match in _OF_NEIGHBOUR.finditer(text)]
    for rule in _RULES:
        for match in rule.pattern.finditer(text):
            claim = _Claim(rule.slot, rule.value, rule.form, match.start(), match.end())
            before = text[: claim.start]
            if (
                rule.slot == "familyFriendly"
                and rule.value == "yes"
                and (_NEGATED.search(before) or _NEGATED_WITHIN.search(match[0]))
            ):
                yield replace(claim, value="no")
            elif rule.slot in _LEVELS and rule.form == "word" and _NEGATED_DEGREE.search(before):
                # "not cheap" may be any of the other levels
                yield from (
                    replace(claim, value=word, form="hint") for word, _ in _LEVELS[rule.slot] if word != rule.value
                )
            elif rule.slot == "eatType" and any(start <= claim.start < end for start, end in neighbours):
                yield replace(claim, form="hint")
            else:
                yield claim


def _claims(text: str) -> list[_Claim]:
    """The claims of a masked text, in its order; of claims of one slot that overlap, the longest stays. Hints all stay."""
    kept: list[_Claim] = []
    for claim in sorted(_found(text), key=lambda claim: claim.start - claim.end):
        if claim.form == "hint" or not any(
            claim.slot == other.slot and other.form != "hint" and claim.overlaps(other) for other in kept
        ):
            kept.append(claim)
    return sorted(kept, key=lambda claim: claim.start)


_KNOWN = {(rule.slot, rule.value) for rule in _RULES}


def _compare(slot: str, value: str, text: str, claims: list[_Claim]) -> tuple[list[_Claim], list[_Claim]]:
    """The claims about ``slot`` that say ``value``, and those that say another; hints only where they are all there is."""
    claims = [claim for claim in claims if claim.slot == slot]
    wanted = _plain(value).lower()
    level = next((level for level in _LEVELS.get(slot, ()) if wanted in level), (wanted,))
    if slot in ("name", "near"):
        right = [_Claim(slot, value, "word", *match.span()) for match in re.finditer(f"@{slot}", text)]
    elif (slot, level[0]) not in _KNOWN:
        right = (
            [_Claim(slot, value, "word", *match.span()) for match in _literal(value).finditer(text)] if wanted else []
        )
    else:
        right = [claim for claim in claims if claim.value == level[0]]
        if slot == "priceRange" and wanted == level[0]:
            right = [claim for claim in right if claim.form != "figure"]  # no amount follows from a word
    stated = [claim for claim in right if claim.form != "hint"]
    other = [claim for claim in claims if claim.form != "hint" and not any(claim.overlaps(one) for one in stated)]
    return stated or right[:1], other


def check(mr: MR, text: str) -> SlotReport:
    """Compare what ``text`` says with ``mr``; slots and values that the data does not know are looked for literally.

    *Same value.* Words and figures of one level of the rating are one value ("three stars" for ``average``). A word may
    stand for an amount ("cheap" for ``less than £20``): it says less, but nothing untrue. An amount may not stand for a
    word: "under £20" for ``cheap`` is a number that comes from nowhere.

    *Repetition.* A slot is repeated where the text states it twice in one form ("a cheap pub ... its prices are low"), or
    states another value beside the right one. A word beside its figure explains it and is no repetition. Neither is
    naming the place again, or its type: "The Mill is a pub. The Mill ... this pub" is how one refers back; "restaurant"
    is also said of a pub or a coffee shop.

    >>> report = check({"name": "The Mill", "eatType": "pub", "area": "riverside"}, "The Mill is a cheap pub in the city centre.")
    >>> report.said, report.wrong, report.added, report.errors
    (('name', 'eatType'), ('area',), ('priceRange',), 2)
    """
    masked, places = _mask(mr, text)
    claims = _claims(masked)
    # A foreign place is the name where the text has no other, and otherwise a place nearby.
    other_name = places.pop() if places and "name" in mr and "@name" not in masked else None
    said: list[str] = []
    missed: list[str] = []
    wrong: list[str] = []
    repeated: list[str] = []
    for slot, value in mr.items():
        right, other = _compare(slot, value, masked, claims)
        contradicted = bool(other) or (slot == "near" and bool(places)) or (slot == "name" and other_name is not None)
        if not right:
            (wrong if contradicted else missed).append(slot)
            continue
        said.append(slot)
        if slot == "eatType" and right[0].form != "hint":
            contradicted = any(claim.value != "restaurant" for claim in other)
        again = slot not in ("name", "eatType") and max(Counter(claim.form for claim in right).values()) > 1
        if contradicted or again:
            repeated.append(slot)
    stated = {claim.slot for claim in claims if claim.form != "hint"} | ({"near"} if places else set())
    added = [slot for slot in SLOTS if slot in stated and slot not in mr]
    return SlotReport(tuple(said), tuple(missed), tuple(wrong), tuple(repeated), tuple(added))
