"""The words and sentence patterns of the small world: tables only.

Where two tables are crossed (name x place, thing x adjective, pattern x noun), the second has a multiple of four
entries, so that whole groups of the combinations can be held out (see `dice.GROUPS`).
"""

from typing import NamedTuple


class Relation(NamedTuple):
    """Something that is so of a person: {n} is the name, {v} the value. `answer` and the value answer the question."""

    statements: tuple[str, ...]
    question: str
    answer: str
    values: tuple[str, ...]


class Topic(NamedTuple):
    """A topic's sentence patterns ({n} a name, {x} a noun) and its nouns; some of both belong to several topics."""

    patterns: tuple[str, ...]
    nouns: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Mara Tom Ann Sam Lena Omar Ida Ben Nora Max Eva Leo Rosa Carl Tina Hugo Zoe Adam Lucy Finn Ella Jack Ruth Paul "
    "Dora Eric Anya Luis Sara Noah Lily Hans Mia Ivan Kim Otto Nina Karl Emma Felix Olga Peter Vera Simon Clara Oscar "
    "Alma Theo"
)

RELATIONS = (
    Relation(
        ("{n} lives in {v}", "{n} has a house in {v}", "then {n} went home to {v}", "the home of {n} is in {v}"),
        "Where does this person live?",
        "This person lives in",
        _words("Oslo Rome Lima Cairo Paris Delhi Quito Tokyo Berlin London Madrid Athens"),
    ),
    Relation(
        ("{n} keeps {v}", "{n} fed the {v}", "the {v} of {n} were asleep", "{n} came with the {v}"),
        "What does this person keep?",
        "This person keeps",
        _words("cats dogs horses goats sheep ducks hens cows pigs rabbits geese mules"),
    ),
    Relation(
        ("{n} likes {v} best", "{n} ate {v}", "the meal of {n} was {v}", "{n} asked for {v}"),
        "What does this person eat?",
        "This person eats",
        _words("soup bread rice cheese salad pie plums beans honey nuts corn pears"),
    ),
    Relation(
        ("{n} teaches {v}", "{n} read a book about {v}", "the lesson of {n} was on {v}", "{n} spoke of {v}"),
        "What does this person teach?",
        "This person teaches",
        _words("maths chess French Greek Latin history law poetry sums dancing drawing reading"),
    ),
)

PLACES = _words("market beach school park village garden river museum station church harbour theatre")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
OPENERS = (
    "on {day} {n} went to the {place}",
    "{n} and {m} met at the {place}",
    "{n} spent {day} at the {place} with {m}",
    "one {day} {n} came to see {m}",
    "{n} was at the {place}",
)

THINGS = _words(
    "dinner song film story room bed road house game gift letter lesson party walk trip picture show book coat music "
    "play tea day evening"
)
ADJECTIVES = {True: _words("good great lovely fine"), False: _words("bad awful horrible poor")}
FEELINGS = {True: _words("glad merry pleased proud"), False: _words("angry upset lonely afraid")}
AFFIRMED = ("was", "was really")
NEGATED = ("was not", "was never")
EVERYONE = ("everyone", "the whole town", "each guest", "the whole family", "every child", "the crowd")
NOBODY = ("nobody", "none of us", "no guest", "no one in the family", "not one child", "no friend")

CONTRASTS = ("{other}, but {main}", "{other}, but in the end {main}", "{other}, yet {main}", "{other}. but {main}")
CONCESSIONS_FIRST = ("although {other}, {main}", "even though {other}, {main}")
CONCESSIONS_LAST = ("{main}, although {other}", "{main}, even though {other}")

CONSEQUENCES = {
    True: ("{n} was happy", "{n} smiled", "{n} laughed", "{n} went home happy"),
    False: ("{n} was sad", "{n} cried", "{n} sighed", "{n} went home sad"),
}
CONSEQUENCE_STARTS = ("so ", "that is why ", "at last ", "then ")
MOODS = {True: "happy", False: "sad"}

_LOOKED = "{n} looked at the {x}"
_NOON = "at noon there was {x}"
_RAN = "{n} ran to the {x}"
_PAID = "{n} paid for the {x}"
TOPICS = {
    "food": Topic(
        ("{n} cooked the {x} in the kitchen", "{n} put the {x} on a plate", "the cook tasted the {x}",
         "{n} was hungry and asked for {x}", _PAID, _NOON),
        _words("soup bread rice cheese salad pie beans honey butter sugar pepper milk fish ice water cake"),
    ),
    "weather": Topic(
        ("the {x} came over the hills", "the {x} lasted all night", "after the {x} the sky was grey",
         "the radio warned of {x}", _LOOKED, _NOON),
        _words("rain wind snow ice fog storm sun clouds heat frost thunder hail mist drizzle water dew"),
    ),
    "sport": Topic(
        ("{n} won the {x} for the team", "the coach shouted about the {x}", "the players trained for the {x}",
         "the fans cheered at the {x}", _RAN, _LOOKED),
        _words("ball net race match goal bat cup medal snow ice wind boat bike fish horse track"),
    ),
    "travel": Topic(
        ("{n} took the {x} to the north", "{n} waited for the {x} with a bag", "the guide showed us the {x}",
         "the {x} was far from the border", _RAN, _PAID),
        _words("train ticket hotel bus plane port map tunnel ferry sun boat bike bridge tent horse track"),
    ),
}  # fmt: skip
TOPIC_ENDINGS = ("that was a day of {t}", "it was all about {t}", "this is a story of {t}")
