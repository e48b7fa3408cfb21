"""Composes facts, evidence of a mood and sentences on a topic, and from these the documents of the corpus.

Every function takes the split whose combinations it may use; documents of the corpus use those of `train`.
"""

from __future__ import annotations

from typing import NamedTuple

from cgpt.world import words
from cgpt.world.dice import CELL_GROUPS, GROUPS, Dice


class Fact(NamedTuple):
    """`name` stands in `relation` to `value`."""

    name: str
    relation: words.Relation
    value: str

    def say(self, statement: str) -> str:
        return statement.format(n=self.name, v=self.value)

    @property
    def question(self) -> str:
        return self.relation.question.format(n=self.name)


def sentence(text: str) -> str:
    """Capital first letter of each sentence, full stop at the end."""
    return ". ".join(part[0].upper() + part[1:] for part in text.split(". ")) + "."


# -- facts ---------------------------------------------------------------------------------------------------------


def facts(dice: Dice, split: str, n_first: int, n_second: int) -> list[Fact]:
    """Facts of two relations about the same people, in random order; no value twice.

    The names and values of a held-out passage come from one group each, so that every name of the passage with every
    of its values is held out, and no pair is ruled out by what was seen with whom before.
    """
    row = None if split == "train" else dice.below(GROUPS)
    names = dice.sample(words.NAMES if row is None else words.NAMES[row::GROUPS], n_first)
    drawn = []
    for relation, n in zip(dice.sample(words.RELATIONS, 2), (n_first, n_second), strict=True):
        people = dice.sample(names, n)
        if row is None:
            values = _different_values(dice, people, relation)
        else:
            values = dice.sample(relation.values[(CELL_GROUPS[split][0] - row) % GROUPS :: GROUPS], n)
        drawn += [Fact(name, relation, value) for name, value in zip(people, values, strict=True)]
    return dice.shuffled(drawn)


def _different_values(dice: Dice, people: list[str], relation: words.Relation) -> list[str]:
    values: list[str] = []
    while len(values) < len(people):
        value = dice.column(words.NAMES.index(people[len(values)]), relation.values, "train")
        if value not in values:
            values.append(value)
    return values


def passage(dice: Dice, told: list[Fact]) -> str:
    """One sentence for each fact, most in the plain wording."""
    return " ".join(
        sentence(fact.say(fact.relation.statements[0] if dice.chance(0.7) else dice.choice(fact.relation.statements)))
        for fact in told
    )


def question_and_answer(fact: Fact) -> str:
    """The form of the task, which part of the corpus shares."""
    return f"\nQuestion: {fact.question}\nAnswer: {fact.value}"


def _follow_up(dice: Dice, fact: Fact, other: str) -> str:
    plain = fact.say(fact.relation.statements[0])
    form = dice.below(4)
    if form == 0:
        return f"\n{fact.question} {sentence(plain)}"
    if form == 1:
        return "\n" + sentence(dice.choice(words.RESTATEMENTS).format(fact=plain))
    if form == 2 and fact.name != other:
        return f"\n{other} knows {fact.name}, who{plain[len(fact.name) :]}."
    return question_and_answer(fact)


def fact_document(dice: Dice) -> str:
    """Facts about two or three people, then the same facts asked for and told again."""
    told = facts(dice, "train", *dice.choice(((2, 2), (2, 1), (3, 1), (3, 0), (3, 2))))
    again = dice.sample(told, 2 + dice.below(len(told) - 1))
    return passage(dice, told) + "".join(_follow_up(dice, fact, dice.choice(words.NAMES)) for fact in again)


# -- moods ---------------------------------------------------------------------------------------------------------


def clause(dice: Dice, split: str, good: bool) -> str:
    """Says something good or bad, in a third of the cases by denying its opposite."""
    negated = dice.chance(0.35)
    wording = good != negated
    if dice.chance(0.3):
        subject, feeling = dice.cell(words.NOBODY if negated else words.EVERYONE, words.FEELINGS[wording], split)
        return f"{subject} was {feeling}"
    thing, adjective = dice.cell(words.THINGS, words.ADJECTIVES[wording], split)
    return f"the {thing} {dice.choice(words.NEGATED if negated else words.AFFIRMED)} {adjective}"


def evidence(dice: Dice, split: str, good: bool) -> str:
    """A sentence that is good or bad news on the whole: half plain, half with a part that points the other way."""
    main = clause(dice, split, good)
    if dice.chance(0.5):
        return sentence(main)
    forms = dice.weighted(((0.6, words.CONTRASTS), (0.2, words.CONCESSIONS_FIRST), (0.2, words.CONCESSIONS_LAST)))
    return sentence(dice.choice(forms).format(main=main, other=clause(dice, split, not good)))


def opener(dice: Dice, name: str) -> str:
    """Who was where: says nothing of a mood."""
    friend = dice.choice([other for other in words.NAMES if other != name])
    form = dice.choice(words.OPENERS)
    return sentence(form.format(n=name, m=friend, day=dice.choice(words.DAYS), place=dice.choice(words.PLACES)))


def mood_line(good: bool) -> str:
    """The form of the task, which part of the corpus shares."""
    return f"\nMood: {words.MOODS[good]}"


def _episode(dice: Dice, name: str) -> str:
    good = dice.chance(0.5)
    told = evidence(dice, "train", good)
    if dice.chance(0.4):
        told = f"{opener(dice, name)} {told}"
    if dice.chance(0.4):
        return told + mood_line(good)
    return f"{told} {sentence(dice.choice(words.CONSEQUENCE_STARTS) + dice.choice(words.CONSEQUENCES[good]).format(n=name))}"


def mood_document(dice: Dice) -> str:
    """Three episodes of one person's life, each with what it did to the mood."""
    name = dice.choice(words.NAMES)
    return "\n".join(_episode(dice, name) for _ in range(3))


# -- topics --------------------------------------------------------------------------------------------------------


def topic_sentence(dice: Dice, split: str, topic: str) -> str:
    """A sentence on the topic."""
    pattern, noun = dice.cell(words.TOPICS[topic].patterns, words.TOPICS[topic].nouns, split)
    return sentence(pattern.format(n=dice.choice(words.NAMES), x=noun))


def topic_text(dice: Dice, split: str, topic: str, n_sentences: int, n_strangers: int) -> str:
    """Sentences on the topic among which are some of other topics, in random order."""
    others = dice.sample([other for other in words.TOPICS if other != topic], n_strangers)
    return " ".join(dice.shuffled([topic_sentence(dice, split, t) for t in [topic] * n_sentences + others]))


def topic_line(topic: str) -> str:
    """The form of the task, which part of the corpus shares."""
    return f"\nTopic: {topic}"


def topic_document(dice: Dice) -> str:
    """Two texts, each on one topic; most end in naming it."""
    return "\n".join(_topic_paragraph(dice) for _ in range(2))


def _topic_paragraph(dice: Dice) -> str:
    topic = dice.choice(tuple(words.TOPICS))
    text = topic_text(dice, "train", topic, *dice.choice(((3, 0), (2, 0), (2, 1))))
    ending = dice.below(3)
    if ending == 0:
        return text
    if ending == 1:
        return text + topic_line(topic)
    return f"{text} {sentence(dice.choice(words.TOPIC_ENDINGS).format(t=topic))}"


# -- the corpus ----------------------------------------------------------------------------------------------------


def life_document(dice: Dice) -> str:
    """A person with facts, a day on some topic and a mood; the facts come back at the end."""
    told = facts(dice, "train", 1, 1)
    name = told[0].name
    day = topic_sentence(dice, "train", dice.choice(tuple(words.TOPICS)))
    return f"{passage(dice, told)} {opener(dice, name)} {day} {_episode(dice, name)}" + "".join(
        _follow_up(dice, fact, dice.choice(words.NAMES)) for fact in dice.shuffled(told)
    )


DOCUMENTS = ((0.42, fact_document), (0.3, mood_document), (0.18, topic_document), (0.1, life_document))
"""The kinds of documents, each after its share of the corpus."""


def document(dice: Dice) -> str:
    """A document of the corpus."""
    return dice.weighted(DOCUMENTS)(dice)
