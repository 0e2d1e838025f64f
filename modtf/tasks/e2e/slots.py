"""Which slots of an MR does a text say? Regular expressions only: no reference text, no model.

How a text is read:

1. Places (the ``name`` and ``near`` of the MR, and those of the data) are found and masked, so that a neighbour called
   "Rainbow Vegetarian Café" does not count as a coffee shop, nor "Raja Indian Cuisine" as Indian food.
2. Rules for each closed slot and for food find *claims*: a slot, a value, and where the text states it.
3. The claims are compared with the MR.

:func:`check` says what counts as the same value, and as a repetition.
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
    """What a text does with the slots of an MR; each field holds names of slots.

    Every slot of the MR is in exactly one of ``said``, ``missed`` and ``wrong``.
    """

    said: tuple[str, ...]
    missed: tuple[str, ...]
    wrong: tuple[str, ...]  # the text gives the slot another value instead of the MR's
    repeated: tuple[str, ...]  # of those said: stated again, or with another value beside the right one
    added: tuple[str, ...]  # slots that the MR does not have

    @property
    def errors(self) -> int:
        """Number of slot errors: missed, wrong, repeated and added."""
        return len(self.missed) + len(self.wrong) + len(self.repeated) + len(self.added)


@dataclass(frozen=True)
class _Claim:
    """A slot that a text states, between the characters ``start`` and ``end`` of the masked text.

    ``form`` is how it is said. Two claims of different forms explain each other ("a low rating of 1 out of 5"); two of
    the same form repeat. The form ``hint`` fits the value without proving it ("pasta" for Italian): a hint supports the
    MR and never contradicts it.
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

#: For each figure the word of its level: both mean the same.
_WORDS_OF_FIGURES = {
    "priceRange": {"less than £20": "cheap", "£20-25": "moderate", "more than £30": "high"},
    "customer rating": {"1 out of 5": "low", "3 out of 5": "average", "5 out of 5": "high"},
}

_LINK = (  # words that may stand between "rating" or "price" and its value
    "is|are|was|were|where|be|been|being|seems?|of|as|in|at|on|a|an|the|it|its|it's|their|very|quite|fairly|rather|"
    "pretty|really|only|just|to|from|with|has|have|had|food|here|there|by|our|customers?|range|ranges|ranged|generally|"
    "considered|relative(?:ly)?|bit|little|slightly|somewhat|currently|too|also|that|kind|about|around|place|"
    "restaurant|@name"
)
_PRICE = r"(?:price[ds]?|pricing|costs?|costing)"
_CUSTOMER = r"(?:customers?|customer's|customers'|costumers?|consumers?|user|overall|star|satisfaction|service|by)"
_RATED = (
    r"(?:rated|ratings?|ranked|ranking|review(?:s|ed)?|scor(?:e|es|ed|ing)|feedback|customers? (?:rates?|satisfaction))"
)
_RATES = rf"(?:{_RATED}|rates?)"

_PRICE_WORDS = {
    "cheap": r"(?:low|lower|lowest|cheap|cheaper|cheaply|small|bargain|inexpensive)",
    "moderate": r"(?:moderate|moderately|moderated|modest|modestly|averagely|medium|mid|middle|mid[- ]?range"
    r"|mid[- ]?level|intermediate"
    # "an average cost of less than £20" is a mean, not a level.
    r"|(?<!on )average(?![^.]{0,30}(?:less|more|under|over|below|above) (?:than )?£?\d))",
    "high": r"(?:high|highly|higher|highest|expensive|premium|pricey|steep|(?:above|over)[- ]average"
    r"|higher than average)",
}
_RATING_WORDS = {
    "low": r"(?:low|lower|lowest|poor|poorly|bad|badly|terrible|lowly|worst|below[- ]average)",
    "average": r"(?:average|averagely|moderate|moderately|medium|mid|mediocre|middle|okay|ok|decent|fair|mid-range)",
    "high": r"(?:high|highly|higher|highest|excellent|great|top|perfect|outstanding|superb|above[- ]average)",
}


def _price_rules() -> Iterator[_Rule]:
    slot = "priceRange"
    for value, word in _PRICE_WORDS.items():
        phrases = (
            rf"{word}(?:[- ](?:end|level|food))?[- ]{_PRICE}",
            rf"{word} (?:in|on) {_PRICE}",
            rf"(?:{_PRICE})(?: range)?(?: (?:{_LINK})){{0,6}}[:-]? {word}(?! \d|[- ](?:{_CUSTOMER}[- ])*{_RATES})",
        )
        yield from _rules(slot, value, *phrases)
        # "a high customer rating and price range": true of the price only if it is said nowhere else.
        yield from _rules(slot, value, rf"{word} (?:{_CUSTOMER} )*{_RATED} and (?:a )?{_PRICE}", form="hint")
    yield from _rules(slot, "cheap", r"cheap(?:er|est|ly)?|inexpensive(?:ly)?|low[- ]cost|budget")
    fair = r"afforda\w+|reasonabl[ey]"
    good_value = r"good value|value for money|economical(?:ly)?|less expensive"
    yield from _rules(slot, "cheap", rf"{fair}|{good_value}", form="hint")
    fairly_priced = r"fair(?:ly)? (?:priced?|prices|pricing)"
    yield from _rules(slot, "moderate", rf"{fair}|{fairly_priced}|moderately expensive", form="hint")
    expensive = r"(?<!moderately )(?<!less )(?:expensive|costly|overpriced)"
    yield from _rules(slot, "high", rf"{expensive}|pricey|pricy|upscale|high[- ]cost|high[- ]end")
    yield from _rules(slot, "high", r"moderately expensive", form="hint")

    money, unit = r"(?:£|\$|€|gbp)? ?", r"(?: ?(?:£|\$|€|pounds?|euros?|dollars?|gbp))?"
    twenty = rf"{money}(?:20|twenty)(?:\.00)?{unit}"
    twenty_five = rf"{money}(?:25|twenty[- ]?five)(?:\.00)?{unit}"
    thirty = rf"{money}(?:30|thirty)(?:\.00)?{unit}"
    of = r"(?: (?:a|the|an))?(?: (?:average|price|price range|cost))?(?: of)?"
    no_range = r"(?! ?- ?£?\d)"
    less = (
        rf"(?:less|lower|cheaper|fewer) (?:than|then|that){of} {twenty}{no_range}",
        rf"(?:under|below|beneath|up to|maximum of|not exceeding|within|sub)[- ]{twenty}{no_range}",
        rf"{twenty} (?:or|and) (?:less|under|below)",
        rf"< ?{twenty}",
    )
    starting_at = r"starting (?:at|from)|starts? (?:at|from)|minimum of|from|at least"
    more = (
        rf"(?:more|higher|greater|upwards?) (?:than|then|of){of} {thirty}",
        rf"(?:over|above|exceed(?:s|ing)?|beyond|{starting_at})[- ]{thirty}",
        rf"{thirty}(?: ?\+| (?:or|and) (?:more|over|above|up|higher)| plus)",
        rf"> ?{thirty}",
    )
    yield from _rules(slot, "cheap", *less, form="figure")
    yield from _rules(slot, "moderate", rf"{twenty}(?: ?- ?| ?/ ?| to | and | or |, ?){twenty_five}", form="figure")
    yield from _rules(slot, "high", *more, form="figure")


def _rating_rules() -> Iterator[_Rule]:
    slot = "customer rating"
    for value, word in _RATING_WORDS.items():
        before = rf"{word}[- ](?:{_CUSTOMER}[- ])*{_RATED}"
        after = rf"{_RATES}(?: (?:{_LINK})){{0,6}}[:-]? {word}(?![- ](?:in |end )?{_PRICE})"
        yield from _rules(slot, value, before, after)
        shared = rf"{word}(?: {_PRICE}(?: ranges?)?)? and (?:{_CUSTOMER} )*{_RATED}"
        yield from _rules(slot, value, shared, rf"{word}[- ]quality", form="hint")
    praise = r"(?:good|well|positive|favou?rable|highly)"
    good = rf"{praise}[- ](?:(?:{_CUSTOMER}|quality)[- ])*(?:{_RATED}|quality|recommended)"
    yield from _rules(slot, "average", good, form="hint")
    yield from _rules(slot, "high", good, form="hint")

    out_of = r"(?:[- ]?out[- ]of[- ](?:a (?:possible )?)?| of | ?/ ?| on (?:a )?scale of (?:1 to )?)"
    for number, word in enumerate(("one", "two", "three", "four", "five"), start=1):
        n = rf"(?:{number}|{word})"
        figures = (
            rf"{n}(?: stars?)?{out_of}(?:5|five)(?:[- ]stars?)?",
            rf"(?<!out of )(?<!out-of-){n}[- ]?stars?",
            rf"{_RATED}(?: (?:{_LINK})){{0,5}} {n}(?! ?(?:out|of|/|-|stars?|\.\d|%|and))",
        )
        yield from _rules(slot, _level(slot, f"{number} out of 5"), *figures, form="figure")


def _level(slot: str, value: str) -> str:
    """The value by which rules and claims name a price or rating: its level's word, where ``value`` is a figure."""
    return _WORDS_OF_FIGURES.get(slot, {}).get(value, value)


# --- family friendly -------------------------------------------------------------------------------------------------

_FAMILY = r"(?:famil(?:y|ies)|kids?|child(?:ren|s)?|toddlers?|youngsters|little ones)(?:'s|s')?"
_VENUE = (
    r"(?:restaurant|pub|coffee shop|cafe|place|establishment|venue|atmosphere|environment|setting|eatery|spot|location"
    r"|dining|area|outing)"
)
_FRIENDLY = r"(?:friendly|frienly|freindly|orient(?:at)?ed|focuss?ed|appropriate|suitable)"
_SUITABLE = r"suitable|good|great|perfect|ideal|appropriate|okay|ok|fun|nice|best|right|recommended|designed|meant|safe"


def _family_rules() -> Iterator[_Rule]:
    slot = "familyFriendly"
    friendly = (
        rf"{_FAMILY}(?:[- /]*(?:and|or|&)[- /]*\w+)?[- ]*{_FRIENDLY}",
        rf"friendly (?:(?:to|for|with|towards?|place|environment|the|all|your) ){{1,3}}{_FAMILY}",
    )
    welcome = (
        rf"{_FAMILY} (?:[\w']+ ){{0,3}}(?:welcomed?|allowed|accepted|permitted|recommended)",
        rf"(?:welcom|accept|allow|cater|accommodat|admit|permit|suit|serv)\w* (?:[\w']+ ){{0,2}}{_FAMILY}",
        rf"(?:{_SUITABLE}|{_VENUE}) for (?:(?:all|the|your|a|whole|entire|any|small|young|with) ){{0,3}}{_FAMILY}",
        r"(?:all|whole|entire) (?:the |of the )?family",
        r"for (?:families|the family|kids|children)|(?:all|any|every) ages?",
        rf"(?:bring|take|taking|bringing) (?:(?:the|your|my|their|our|along) ){{0,2}}{_FAMILY}",
        rf"(?:family|kids|children's) {_VENUE}",
    )
    adults = (
        r"adults?(?:'s)?(?:[- ]+(?:only|oriented|orientated|focuss?ed|friendly))?|grown[- ]?ups?|over[- ]18s?",
        rf"(?:no|without|minus) (?:the |any )?{_FAMILY}(?: allowed)?(?![- ]?friendly)",
        r"(?:child|children|kid|kids)[- ]free",
        rf"{_FAMILY}[- ]*unfriendly|unfriendly (?:to|for|towards) {_FAMILY}",
        rf"leave (?:the |your )?{_FAMILY} (?:at|behind)",
    )
    yield from _rules(slot, "yes", *friendly, form="friendly")
    yield from _rules(slot, "yes", *welcome, form="welcome")
    yield from _rules(slot, "no", *adults, form="adults")
    yield from _rules(slot, "no", rf"{_FAMILY}[- ]friendly\W{{1,3}}no", form="friendly")


# A negation reaches over a few words, unless one of them begins another thought ("not cheap but family friendly").
_NEGATED = re.compile(
    r"(?:\b(?:not|non|no|never|nor|neither|without|isnt|doesnt|dont|arent|lacks?|lacking|hardly|cannot|cant)\b"
    r"|n't|\bun)[- ]*(?:(?!but\b|and\b|yet\b|with\b|only\b|just\b|near\b|(?:pric|rat)\w+\b)[\w'@]+[- ]+){0,5}$"
)
_NEGATED_WITHIN = re.compile(r"\b(?:not|never|no)\b|n't")
# Nearer, for prices and ratings: "not too expensive", "isn't highly rated".
_NEGATED_DEGREE = re.compile(
    r"(?:\b(?:not|non|isnt|doesnt|never|neither)\b|n't)[- ]*"
    r"(?:(?:very|so|too|that|at|all|the|a|an|as|overly|particularly|really|have|been) )*$"
)


# --- the other slots -------------------------------------------------------------------------------------------------

_CENTRE = r"(?:cent(?:re|er|ral)|heart|middle)(?: (?:part|area|location))?"
#: Slot, value, form, pattern. Hints for food are dishes that a text names instead of the cuisine.
_OTHER_SLOTS = (
    ("eatType", "coffee shop", "word", r"coffee[- ]?(?:shops?|house|bar|place|store|spot)|cafes?"),
    ("eatType", "coffee shop", "hint", r"coffee|tea ?(?:room|shop|house)"),
    ("eatType", "pub", "word", r"(?:gastro-?)?pubs?"),
    ("eatType", "pub", "hint", r"bar|tavern|inn|public house"),
    ("eatType", "restaurant", "word", r"restaurant"),
    ("eatType", "restaurant", "hint", r"restaurants|diner|bistro|eatery|brasserie|trattoria"),
    ("food", "french", "word", r"french(?! fries)"),
    ("food", "chinese", "word", r"chinese|chines"),
    ("food", "english", "word", r"english|british"),
    ("food", "fast food", "word", r"fast[- ]?foods?"),
    ("food", "english", "hint", r"fish (?:and|&|n) chips|(?:sunday )?roasts?|pub (?:food|grub|fare)"),
    ("food", "fast food", "hint", r"(?:ham)?burgers?|fries|quick (?:food|bite|meal)|junk food|take[- ]?(?:away|out)"),
    ("food", "french", "hint", r"croissants?|crepes?"),
    ("food", "indian", "hint", r"curry|curries"),
    ("food", "italian", "hint", r"pasta|spaghetti|pizzas?|lasagn[ae]|risotto"),
    ("food", "japanese", "hint", r"sushi|sashimi|ramen|tempura|teriyaki"),
    ("area", "riverside", "word", r"river(?:[- ]?(?:side|bank|front))?|waterside|waterfront"),
    ("area", "city centre", "word", r"(?:city|cities|town)(?:'s)?[- ]?(?:cent(?:re|er)|central)"),
    ("area", "city centre", "word", rf"{_CENTRE} (?:of|in|to) (?:the |a )?(?:\w+ )?(?:city|town|cambridge)"),
    ("area", "city centre", "word", r"downtown"),
    ("area", "city centre", "hint", r"cent(?:re|er)|central(?:ly)?|city|in town"),
)


def _other_rules() -> Iterator[_Rule]:
    for cuisine in (
        "american", "greek", "indian", "italian", "japanese", "korean", "mexican", "spanish", "thai", "turkish",
        "vietnamese",
    ):  # fmt: skip
        yield from _rules("food", cuisine, cuisine)
    for slot, value, form, pattern in _OTHER_SLOTS:
        yield from _rules(slot, value, pattern, form=form)


_RULES = [*_other_rules(), *_price_rules(), *_rating_rules(), *_family_rules()]
_KNOWN = {(rule.slot, rule.value) for rule in _RULES}


# --- places ----------------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("\u2018\u2019`\u00b4\u2010\u2011\u2013\u2014", "''''----")


def _plain(text: str) -> str:
    """The text with plain letters, quotes, hyphens and blanks; case is kept."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = re.sub(r"\s+", " ", text.translate(_PUNCTUATION))
    return re.sub(r"(?<=\w)- (?=\w)", "-", text).strip()


def _bare(value: str) -> str:
    """An open value in lower case without its article."""
    return re.sub(r"^the (?=.)", "", _plain(value).lower())


def _literal(value: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """A pattern for an open value: with or without its article, blanks or hyphens between the words."""
    words = _plain(value)[-len(_bare(value)) :].split(" ")
    return re.compile(rf"(?<![\w@])(?:the )?{'[ -]?'.join(map(re.escape, words))}(?!\w)", flags)


# Places of the data must match in case: "a ranch" and "the mill" are words, "Ranch" and "The Mill" are places.
_PLACES = [(_bare(place), _literal(place, flags=0)) for place in sorted({*VALUES["name"], *VALUES["near"]})]
_VENUE_OF_NEIGHBOUR = re.compile(
    r"(?:restaurant|pub|coffee shop|cafe)(?: (?:called|named))? @(?:near|other)"
    r"|@(?:near|other) (?:restaurant|pub|coffee shop|cafe)"
)


def _mask(mr: MR, text: str) -> tuple[str, int]:
    """``text`` plain, in lower case and with places masked, and how often it names places that the MR does not have."""
    text = _plain(text)
    own = {slot: _bare(mr[slot]) for slot in ("name", "near") if mr.get(slot, "").strip()}
    places = []  # (bare value, mask, pattern)
    for slot, bare in own.items():
        # In the MR's case where the text has that, else in any: a place called "The River" should not hide every river.
        exact = _literal(mr[slot], flags=0)
        places.append((bare, f"@{slot}", exact if exact.search(text) else _literal(mr[slot])))
    places += [(bare, "@other", pattern) for bare, pattern in _PLACES if bare not in own.values()]
    places.sort(key=lambda place: len(place[0]), reverse=True)  # "The Cambridge Blue" before "The Cambridge"
    others = 0
    for _, mask, pattern in places:
        text, found = pattern.subn(mask, text)
        if mask == "@other":
            others += found
    if own.get("name") == own.get("near") and text.count("@name") > 1:
        text = "@near".join(text.rsplit("@name", 1))  # a place near another of the same name
    return text.lower(), others


# --- claims ----------------------------------------------------------------------------------------------------------


def _found(text: str) -> Iterator[_Claim]:
    """All claims of a masked text, negations resolved; claims may overlap."""
    of_neighbours = [match.span() for match in _VENUE_OF_NEIGHBOUR.finditer(text)]
    for rule in _RULES:
        for match in rule.pattern.finditer(text):
            claim = _Claim(rule.slot, rule.value, rule.form, match.start(), match.end())
            before = text[: claim.start]
            if (rule.slot, rule.value) == ("familyFriendly", "yes"):
                negated = _NEGATED.search(before) or _NEGATED_WITHIN.search(match[0])
                yield replace(claim, value="no") if negated else claim
            elif rule.slot in _WORDS_OF_FIGURES and rule.form == "word" and _NEGATED_DEGREE.search(before):
                # "not cheap" may mean any of the other levels.
                for word in _WORDS_OF_FIGURES[rule.slot].values():
                    if word != rule.value:
                        yield replace(claim, value=word, form="hint")
            elif rule.slot == "eatType" and any(start <= claim.start < end for start, end in of_neighbours):
                yield replace(claim, form="hint")
            else:
                yield claim


def _claims(text: str) -> list[_Claim]:
    """The claims of a masked text, in its order: all hints, and of claims about one slot that overlap the longest."""
    kept: list[_Claim] = []
    for claim in sorted(_found(text), key=lambda claim: claim.start - claim.end):
        rivals = [other for other in kept if other.slot == claim.slot and other.form != "hint"]
        if claim.form == "hint" or not any(claim.overlaps(rival) for rival in rivals):
            kept.append(claim)
    return sorted(kept, key=lambda claim: claim.start)


def _compare(slot: str, value: str, text: str, claims: list[_Claim]) -> tuple[list[_Claim], list[_Claim]]:
    """The claims about ``slot`` that say ``value`` (one of them where all are hints), and those that contradict it."""
    claims = [claim for claim in claims if claim.slot == slot]
    wanted = _plain(value).lower()
    level = _level(slot, wanted)
    if slot in ("name", "near"):
        right = [_Claim(slot, value, "word", *match.span()) for match in re.finditer(f"@{slot}", text)]
    elif (slot, level) in _KNOWN:
        right = [claim for claim in claims if claim.value == level]
        if slot == "priceRange" and wanted == level:
            right = [claim for claim in right if claim.form != "figure"]  # no amount follows from a word
    elif wanted:
        right = [_Claim(slot, value, "word", *match.span()) for match in _literal(value).finditer(text)]
    else:
        right = []
    stated = [claim for claim in right if claim.form != "hint"]
    other = [claim for claim in claims if claim.form != "hint" and not any(claim.overlaps(one) for one in stated)]
    return stated or right[:1], other


def check(mr: MR, text: str) -> SlotReport:
    """Compare what ``text`` says with ``mr``; slots and values that the data does not have are searched for literally.

    *Same value.* Words and figures of one level of the rating are one value ("three stars" for ``average``). A word may
    stand for an amount ("cheap" for ``less than £20``): it says less, but nothing untrue. An amount may not stand for a
    word: for ``cheap``, the number in "under £20" is invented.

    *Repetition.* A slot is repeated where the text states it twice in one form ("a cheap pub ... its prices are low"),
    or states another value beside the right one. A word beside its figure explains it and does not repeat it. Naming
    the place or its type again is no repetition either, since that is how one refers back: "The Mill is a pub. The
    Mill ... this pub"; a pub or a coffee shop may also be called a restaurant.

    >>> mr = {"name": "The Mill", "eatType": "pub", "area": "riverside"}
    >>> report = check(mr, "The Mill is a cheap pub in the city centre.")
    >>> report.said, report.wrong, report.added, report.errors
    (('name', 'eatType'), ('area',), ('priceRange',), 2)
    """
    masked, foreign = _mask(mr, text)
    claims = _claims(masked)
    # A foreign place is the name where the text has no other, and otherwise a place nearby.
    foreign_name = foreign > 0 and "name" in mr and "@name" not in masked
    foreign_near = foreign > 1 if foreign_name else foreign > 0
    said: list[str] = []
    missed: list[str] = []
    wrong: list[str] = []
    repeated: list[str] = []
    for slot, value in mr.items():
        right, other = _compare(slot, value, masked, claims)
        contradicted = bool(other) or (slot == "near" and foreign_near) or (slot == "name" and foreign_name)
        if right:
            said.append(slot)
            if slot == "eatType" and right[0].form != "hint":
                contradicted = any(claim.value != "restaurant" for claim in other)
            forms = Counter(claim.form for claim in right)
            again = slot not in ("name", "eatType") and max(forms.values()) > 1
            if contradicted or again:
                repeated.append(slot)
        elif contradicted:
            wrong.append(slot)
        else:
            missed.append(slot)
    stated = {claim.slot for claim in claims if claim.form != "hint"}
    if foreign_near:
        stated.add("near")
    added = [slot for slot in SLOTS if slot in stated and slot not in mr]
    return SlotReport(tuple(said), tuple(missed), tuple(wrong), tuple(repeated), tuple(added))
