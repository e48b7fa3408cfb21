"""Composes facts, evidence of a mood and sentences on a topic, and from these the documents of the corpus.

Every function takes the split whose combinations it may use; documents of the corpus use those of `train`.
"""

from typing import NamedTuple

from cgpt.data.world import words
from cgpt.data.world.dice import CELL_GROUPS, Dice, split_of


def sentence(text: str) -> str:
    """Capital first letter of each sentence, full stop at the end."""
    return ". ".join(part[0].upper() + part[1:] for part in text.split(". ")) + "."


# -- facts ---------------------------------------------------------------------------------------------------------


def _facts() -> dict[tuple[str, words.Relation], str]:
    """Value of each relation for each person, the same for every seed; each value belongs to as many people."""
    dice = Dice(0)
    facts: dict[tuple[str, words.Relation], str] = {}
    for relation in words.RELATIONS:
        values = dice.shuffled(relation.values * (len(words.NAMES) // len(relation.values)))
        facts |= {(name, relation): value for name, value in zip(words.NAMES, values, strict=True)}
    return facts


FACTS = _facts()


ASKED = {split: tuple(n for i, n in enumerate(words.NAMES) if split_of(i, 0) == split) for split in CELL_GROUPS}
"""Whom questions are about in each split. Everybody's facts are told in the corpus; a fourth of the people is asked
about in the test alone, and so is another fourth in the validation."""


def fact(dice: Dice, name: str, relation: words.Relation) -> str:
    """A fact in one of its wordings."""
    return sentence(dice.choice(relation.statements).format(n=name, v=FACTS[name, relation]))


def question(relation: words.Relation) -> str:
    """The form of the task up to the answer's value."""
    return f"\nQuestion: {relation.question}\nAnswer: {relation.answer}"


def person_document(dice: Dice) -> str:
    """A visit, some facts of a person, and for half of the people a question, whether or not its fact is among them."""
    name = dice.choice(words.NAMES)
    relations = dice.sample(words.RELATIONS, 2 + dice.below(3))
    text = " ".join([visit(dice, name), *(fact(dice, name, relation) for relation in relations)])
    if name in ASKED["train"]:
        relation = dice.choice(words.RELATIONS)
        text += f"{question(relation)} {FACTS[name, relation]}."
    return text


# -- moods ---------------------------------------------------------------------------------------------------------


class Turns(NamedTuple):
    """How often evidence of a mood denies, and how often it sets one clause against another."""

    negation: float
    contrast: float


LONG_STORY_TURNS = Turns(negation=0.08, contrast=0.1)
"""Few, so that the company that words keep tells which are good and which are bad."""

SHORT_STORY_TURNS = Turns(negation=0.25, contrast=0.3)


def clause(dice: Dice, split: str, good: bool, turns: Turns) -> str:
    """A clause that says something good or bad, at times by denying its opposite."""
    negated = dice.chance(turns.negation)
    wording = good != negated
    if dice.chance(0.3):
        subject, feeling = dice.cell(words.NOBODY if negated else words.EVERYONE, words.FEELINGS[wording], split)
        return f"{subject} was {feeling}"
    thing, adjective = dice.cell(words.THINGS, words.ADJECTIVES[wording], split)
    return f"the {thing} {dice.choice(words.NEGATED if negated else words.AFFIRMED)} {adjective}"


def evidence(dice: Dice, split: str, good: bool, turns: Turns) -> str:
    """A sentence that is good or bad news on the whole: one clause, or one against another."""
    main = clause(dice, split, good, turns)
    if not dice.chance(turns.contrast):
        return sentence(main)
    forms = dice.weighted(((0.6, words.CONTRASTS), (0.2, words.CONCESSIONS_FIRST), (0.2, words.CONCESSIONS_LAST)))
    return sentence(dice.choice(forms).format(main=main, other=clause(dice, split, not good, turns)))


def opener(dice: Dice, name: str) -> str:
    """A sentence that says who was where, and nothing of a mood."""
    form, day, where = dice.choice(words.OPENERS), dice.choice(words.DAYS), dice.choice(words.PLACES)
    companion = dice.choice([other for other in words.NAMES if other != name])
    return sentence(form.format(n=name, m=companion, day=day, place=where))


def visit(dice: Dice, name: str) -> str:
    """An opener that names nobody else."""
    form = dice.choice([form for form in words.OPENERS if "{m}" not in form])
    return sentence(form.format(n=name, day=dice.choice(words.DAYS), place=dice.choice(words.PLACES)))


def _episode(dice: Dice, name: str, n_evidence: int) -> str:
    """Evidence that all points one way, what it did to a person, and often the mood by name."""
    good = dice.chance(0.5)
    sentences = [opener(dice, name)] if dice.chance(0.2) else []
    turns = SHORT_STORY_TURNS if n_evidence == 1 else LONG_STORY_TURNS
    sentences += [evidence(dice, "train", good, turns) for _ in range(n_evidence)]
    if dice.chance(0.25):
        consequence = dice.choice(words.CONSEQUENCE_STARTS) + dice.choice(words.CONSEQUENCES[good]).format(n=name)
        return " ".join([*sentences, sentence(consequence)])
    return " ".join(sentences) + f"\nMood: {words.MOODS[good]}"  # the form of the task


def mood_document(dice: Dice) -> str:
    """One long episode of a person's life, or a few short ones."""
    name = dice.choice(words.NAMES)
    return "\n".join(_episode(dice, name, n) for n in dice.choice(((4,), (4,), (2, 2), (1, 1, 1, 1))))


# -- topics --------------------------------------------------------------------------------------------------------


def topic_sentence(dice: Dice, split: str, topic: str) -> str:
    """A sentence on the topic."""
    pattern, noun = dice.cell(words.TOPICS[topic].patterns, words.TOPICS[topic].nouns, split)
    return sentence(pattern.format(n=dice.choice(words.NAMES), x=noun))


def topic_text(dice: Dice, split: str, topic: str, n_sentences: int, n_strangers: int) -> str:
    """Sentences on the topic among which are some of other topics, in random order."""
    others = dice.sample([other for other in words.TOPICS if other != topic], n_strangers)
    return " ".join(dice.shuffled([topic_sentence(dice, split, t) for t in [topic] * n_sentences + others]))


def topic_document(dice: Dice) -> str:
    """Two texts, each on one topic and ending in its name."""
    return "\n".join(_topic_paragraph(dice) for _ in range(2))


def _topic_paragraph(dice: Dice) -> str:
    topic = dice.choice(tuple(words.TOPICS))
    text = topic_text(dice, "train", topic, *dice.choice(((3, 0), (2, 0), (2, 1))))
    if dice.chance(0.7):
        return f"{text}\nTopic: {topic}"  # the form of the task
    return f"{text} {sentence(dice.choice(words.TOPIC_ENDINGS).format(t=topic))}"


# -- the corpus ----------------------------------------------------------------------------------------------------


def life_document(dice: Dice) -> str:
    """A person with facts, a day on some topic and a mood."""
    name = dice.choice(words.NAMES)
    facts = [fact(dice, name, relation) for relation in dice.sample(words.RELATIONS, 2)]
    day = topic_sentence(dice, "train", dice.choice(tuple(words.TOPICS)))
    return f"{' '.join(facts)} {day} {_episode(dice, name, 1)}"


DOCUMENTS = ((0.40, person_document), (0.40, mood_document), (0.15, topic_document), (0.05, life_document))
"""The kinds of documents, each after its share of the corpus."""


def document(dice: Dice) -> str:
    """A document of the corpus."""
    return dice.weighted(DOCUMENTS)(dice)
