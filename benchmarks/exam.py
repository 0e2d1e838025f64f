"""Two corpora and two new models to try the commands on, as if they were your own.

`python benchmarks/exam.py FOLDER` writes into the folder:

- `dates/{train,dev,test}.jsonl` and `dates-bart`: a date and a language in, the date as people write it there out
  ("sv 2031-05-07" -> "7 maj 2031"; the words are Unicode's CLDR, by way of babel), and a BART of 6 + 6 layers;
- `weather/{train,dev,test}.csv` and `weather-mt5`: an observation in, a report out, and an mT5 of 8 + 8 layers.

The models have random weights. The commands that the README runs on them are in its section "Your own model". It needs babel, which comes with JupyterLab.
"""

from __future__ import annotations

import argparse
import csv
import json
from datetime import date, timedelta
from pathlib import Path
from random import Random

from babel.dates import format_date
from transformers import BartConfig, BartForConditionalGeneration, MT5Config, MT5ForConditionalGeneration, set_seed

from modtf.recipes.translator import train_tokenizer

LANGUAGES = ("cs", "da", "de", "el", "en", "es", "fi", "fr", "hu", "it", "ja", "nl", "pl", "pt", "ro", "ru", "sv", "tr")
PLACES = (
    "Oban", "Wick", "Ålesund", "Bergen", "Brest", "Cork", "Dover", "Esbjerg", "Kiel", "Lerwick", "Malin Head",
    "Reykjavík", "Skagen", "Stornoway", "Tórshavn", "Valentia", "Vlissingen", "Whitby",
)  # fmt: skip
WINDS = {
    "N": "northerly", "NE": "north-easterly", "E": "easterly", "SE": "south-easterly", "S": "southerly",
    "SW": "south-westerly", "W": "westerly", "NW": "north-westerly",
}  # fmt: skip
#: Beaufort's names, and the km/h up to which they hold.
FORCES = (
    (1, "calm"), (11, "light breeze"), (19, "gentle breeze"), (28, "moderate breeze"), (38, "fresh breeze"),
    (49, "strong breeze"), (61, "near gale"), (74, "gale"), (102, "storm"),
)  # fmt: skip
SKIES = {"clear": "clear skies", "few": "a few clouds", "broken": "broken cloud", "overcast": "overcast skies"}


def dates(rng: Random) -> dict[str, str]:
    day = date(1900, 1, 1) + timedelta(rng.randrange(365 * 200))
    language = rng.choice(LANGUAGES)
    return {"asked": f"{language} {day.isoformat()}", "written": format_date(day, "long", locale=language)}


def weather(rng: Random) -> dict[str, str]:
    """A report in one of three styles; the wind has the name of its force."""
    place, wind, speed = rng.choice(PLACES), rng.choice(list(WINDS)), rng.randrange(100)
    degrees, sky, rain = rng.randrange(-9, 31), rng.choice(list(SKIES)), max(0, rng.randrange(-8, 25))
    force = next(name for limit, name in FORCES if speed <= limit)
    blows = "It is calm" if force == "calm" else f"A {WINDS[wind]} {force} blows"
    feels = "frosty" if degrees < 0 else "cold" if degrees < 8 else "mild" if degrees < 18 else "warm"
    wet = "dry" if rain == 0 else f"wet, with {rain} mm of rain"
    reports = {
        "brief": f"{place}: {feels} and {wet}, {degrees} degrees under {SKIES[sky]}. {blows}.",
        "wind": f"{blows} in {place} under {SKIES[sky]}. It is {wet} and {feels} at {degrees} degrees.",
        "day": f"A {feels} day in {place}, {degrees} degrees, with {SKIES[sky]} and {wet}. {blows}.",
    }
    style = rng.choice(list(reports))
    observed = f"{style}: {place}; {degrees} C; {wind} {speed} km/h; {sky}; {rain} mm"
    return {"observation": observed, "report": reports[style]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rng = Random(0)
    for name, make, ending in (("dates", dates, "jsonl"), ("weather", weather, "csv")):
        (folder / name).mkdir(parents=True)
        rows = list({next(iter(row.values())): row for row in (make(rng) for _ in range(12_400))}.values())
        for split, part in (("test", rows[:200]), ("dev", rows[200:400]), ("train", rows[400:])):
            with (folder / name / f"{split}.{ending}").open("w", encoding="utf-8", newline="") as file:
                if ending == "jsonl":
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
                else:
                    table = csv.DictWriter(file, list(part[0]))
                    table.writeheader()
                    table.writerows(part)
        tokenizer = train_tokenizer([text for row in rows[400:] for text in row.values()], 1000)
        set_seed(0)
        if name == "dates":
            model = BartForConditionalGeneration(
                BartConfig(
                    vocab_size=len(tokenizer), d_model=128, encoder_layers=6, decoder_layers=6, encoder_attention_heads=4,
                    decoder_attention_heads=4, encoder_ffn_dim=256, decoder_ffn_dim=256, max_position_embeddings=128,
                    pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
                )
            )  # fmt: skip
        else:
            model = MT5ForConditionalGeneration(
                MT5Config(
                    vocab_size=len(tokenizer), d_model=128, d_kv=32, d_ff=256, num_layers=8, num_decoder_layers=8,
                    num_heads=4, decoder_start_token_id=0,
                )
            )  # fmt: skip
        place = folder / f"{name}-{'bart' if name == 'dates' else 'mt5'}"
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)


if __name__ == "__main__":
    main()
