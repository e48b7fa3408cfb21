"""Composes facts, evidence of a mood and sentences on a topic, and from these the documents of the corpus.

Every function takes the split whose combinations it may use; documents of the corpus use those of `train`.
"""

from __future__ import annotations

from typing import NamedTuple

from cgpt.world import words
from cgpt.world.dice import GROUPS, Dice


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

    @property
    def plain(self) -> str:
        """The plain statement; the value ends it."""
        return self.say(self.relation.statements[0])

    @property
    def answer_start(self) -> str:
        """The answer's sentence up to the value."""
        return sentence(self.plain).removesuffix(f" {self.value}.")


def sentence(text: str) -> str:
    """Capital first letter of each sentence, full stop at the end."""
    return ". ".join(part[0].upper() + part[1:] for part in text.split(". ")) + "."


def _other_name(dice: Dice, name: str) -> str:
    return dice.choice([other for other in words.NAMES if other != name])


# -- facts ---------------------------------------------------------------------------------------------------------


FACT_GROUPS = {"validation": (2,), "test": (0, 1)}
"""Names of such a group meet values of the same group only in this split. Few pairs are held out, so that there is
little to gain from learning which never occur: a value has to be read in the passage."""


def fact_split(name: str, relation: words.Relation, value: str) -> str:
    """The split in which this may be said of this person."""
    group = words.NAMES.index(name) % GROUPS
    if relation.values.index(value) % GROUPS != group:
        return "train"
    return next((split for split, groups in FACT_GROUPS.items() if group in groups), "train")


def facts(dice: Dice, split: str, n_first: int, n_second: int) -> list[Fact]:
    """Facts of two relations about the same people, in random order; no value twice.

    A held-out passage has names and values of one group, so that each of its values is held out for each of its names.
    """
    group = slice(None) if split == "train" else slice(dice.choice(FACT_GROUPS[split]), None, GROUPS)
    names = dice.sample(words.NAMES[group], n_first)
    drawn: list[Fact] = []
    for relation, n in zip(dice.sample(words.RELATIONS, 2), (n_first, n_second), strict=True):
        people, values = dice.sample(names, n), dice.sample(relation.values[group], n)
        while any(fact_split(name, relation, value) != split for name, value in zip(people, values, strict=True)):
            values = dice.sample(relation.values[group], n)
        drawn += [Fact(name, relation, value) for name, value in zip(people, values, strict=True)]
    return dice.shuffled(drawn)


def passage(dice: Dice, told: list[Fact]) -> str:
    """One sentence for each fact, most in the plain wording."""
    return "Facts: " + " ".join(
        sentence(fact.say(fact.relation.statements[0] if dice.chance(0.8) else dice.choice(fact.relation.statements)))
        for fact in told
    )


def _asked(dice: Dice, fact: Fact) -> str:
    """A question about the fact with its answer; half of them in the form of the task."""
    answer = sentence(fact.plain)
    return f"{fact.question} {answer}" if dice.chance(0.5) else f"Question: {fact.question}\nAnswer: {answer}"


def _retold(dice: Dice, told: list[Fact]) -> str:
    """The same facts in plain words and another order, the first of them as something heard or known."""
    first, *rest = dice.shuffled(told)
    start = dice.choice(words.RESTATEMENTS).format(fact=first.plain, other=_other_name(dice, first.name))
    return " ".join([sentence(start), *(sentence(fact.plain) for fact in rest)])


def fact_document(dice: Dice) -> str:
    """Facts about two or three people, told twice, and some of them asked for."""
    told = facts(dice, "train", *dice.choice(((2, 1), (2, 2), (3, 0), (3, 1))))
    asked = [_asked(dice, fact) for fact in dice.sample(told, 2)]
    return "\n".join([passage(dice, told), _retold(dice, told), *asked])


def _listed(told: list[Fact]) -> str:
    """Facts of one relation in one sentence: the cook gave Tom rice, Ann soup and Leo bread."""
    start = told[0].plain.split(told[0].name)[0]
    *pairs, last = [f"{fact.name} {fact.value}" for fact in told]
    return sentence(f"{start}{', '.join(pairs)} and {last}")


def list_document(dice: Dice) -> str:
    """What five people got, listed three times in different orders, and one of them asked for."""
    told = facts(dice, "train", 5, 0)
    lists = [_listed(dice.shuffled(told)) for _ in range(3)]
    return "\n".join([f"Facts: {lists[0]}", *lists[1:], _asked(dice, dice.choice(told))])


# -- moods ---------------------------------------------------------------------------------------------------------


class Turns(NamedTuple):
    """How often evidence of a mood denies, and how often it sets one clause against another."""

    negation: float
    contrast: float


LONG_STORY_TURNS = Turns(negation=0.08, contrast=0.1)
"""Few, so that the company that words keep tells which are good and which are bad."""

SHORT_STORY_TURNS = Turns(negation=0.25, contrast=0.3)


def clause(dice: Dice, split: str, good: bool, turns: Turns) -> str:
    """Says something good or bad, at times by denying its opposite."""
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
    """Who was where: says nothing of a mood."""
    form, day, place = dice.choice(words.OPENERS), dice.choice(words.DAYS), dice.choice(words.PLACES)
    return sentence(form.format(n=name, m=_other_name(dice, name), day=day, place=place))


def mood_line(good: bool) -> str:
    """The form of the task, which part of the corpus shares."""
    return f"\nMood: {words.MOODS[good]}"


def _consequence(dice: Dice, name: str, good: bool) -> str:
    return sentence(dice.choice(words.CONSEQUENCE_STARTS) + dice.choice(words.CONSEQUENCES[good]).format(n=name))


def _episode(dice: Dice, name: str, n_evidence: int) -> str:
    """Evidence that all points one way, what it did to a person, and often the mood by name."""
    good = dice.chance(0.5)
    told = [opener(dice, name)] if dice.chance(0.2) else []
    turns = SHORT_STORY_TURNS if n_evidence == 1 else LONG_STORY_TURNS
    told += [evidence(dice, "train", good, turns) for _ in range(n_evidence)]
    if dice.chance(0.25):
        told.append(_consequence(dice, name, good))
        return " ".join(told)
    return " ".join(told) + mood_line(good)


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


def topic_line(topic: str) -> str:
    """The form of the task, which part of the corpus shares."""
    return f"\nTopic: {topic}"


def topic_document(dice: Dice) -> str:
    """Two texts, each on one topic and ending in its name."""
    return "\n".join(_topic_paragraph(dice) for _ in range(2))


def _topic_paragraph(dice: Dice) -> str:
    topic = dice.choice(tuple(words.TOPICS))
    text = topic_text(dice, "train", topic, *dice.choice(((3, 0), (2, 0), (2, 1))))
    if dice.chance(0.7):
        return text + topic_line(topic)
    return f"{text} {sentence(dice.choice(words.TOPIC_ENDINGS).format(t=topic))}"


# -- the corpus ----------------------------------------------------------------------------------------------------


def life_document(dice: Dice) -> str:
    """A person with facts, a day on some topic and a mood; the facts come back at the end."""
    told = facts(dice, "train", 1, 1)
    day = topic_sentence(dice, "train", dice.choice(tuple(words.TOPICS)))
    story = f"{passage(dice, told)} {day} {_episode(dice, told[0].name, 1)}"
    return "\n".join([story, *(_asked(dice, fact) for fact in dice.shuffled(told))])


DOCUMENTS = (
    (0.28, fact_document),
    (0.18, list_document),
    (0.40, mood_document),
    (0.11, topic_document),
    (0.03, life_document),
)
"""The kinds of documents, each after its share of the corpus."""


def document(dice: Dice) -> str:
    """A document of the corpus."""
    return dice.weighted(DOCUMENTS)(dice)
