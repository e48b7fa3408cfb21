"""Templates of a task file: they render as lm-evaluation-harness's own environment does, and reach nothing else."""

from __future__ import annotations

import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
from test_tasks import ROWS, write_task

from cgpt.errors import UserError
from cgpt.tasks import lm_eval_tasks, templates
from cgpt.tasks.examples import read_examples

MARK = "reached"


@pytest.fixture
def env(tmp_path, monkeypatch):
    """The environment that lm-evaluation-harness renders with, in an empty folder."""
    lm_eval_tasks.prepare_environment(tmp_path)
    from lm_eval import utils

    monkeypatch.setattr(templates, "CPU_SECONDS", 0.5)
    templates.install()
    monkeypatch.chdir(tmp_path)
    return utils


COMMAND = f"os.system('touch {MARK}')"
EXPLOITS = [
    "{{ cycler.__init__.__globals__.%s }}",
    "{{ joiner.__init__.__globals__.%s }}",
    "{{ namespace.__init__.__globals__.%s }}",
    "{{ lipsum.__globals__['os'].system('touch reached') }}",
    "{{ lipsum|attr('__globals__')|attr('get')('os') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.eval_ctx.environment }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ sentence['__class__'] }}",
    "{{ sentence|attr('__class__') }}",
    "{{ '{0.__class__.__mro__}'.format(sentence) }}",
    "{{ '{s.__class__}'.format_map({'s': sentence}) }}",
    "{{ ('{0.__class__}'|string).format(sentence) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(sentence) }}",
    "{{ sentence.format.__self__ }}",
    "{{ '{0.__class__}'|format_map({'0': sentence}) }}",
    "{{ sentence.upper.__self__.__class__ }}",
    "{% for x in (1 for y in [1]) %}{% endfor %}",
    "{{ cycler('a').next.__func__.__globals__ }}",
    "{{ (lambda: 1)() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'os' %}",
    "{{ get_flashed_messages.__globals__ }}",
]


@pytest.mark.parametrize("template", [text.replace("%s", COMMAND) for text in EXPLOITS])
def test_no_template_reaches_a_module_a_file_or_a_command(env, template):
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        env.apply_template(template, {"sentence": "a film"})
    assert not Path(MARK).exists() and os.listdir() == []


WITHOUT_END = [
    "{{ 'x' * 10**10 }}",
    "{{ n * 10**10 }}",
    "{{ [n] * 10**10 }}",
    "{{ 'x' * 10**8 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ 'x'|center(10**10) }}",
    "{{ n.ljust(10**10) }}",
    "{{ lipsum(n=10**7) }}",
    "{{ ('a' * 40 ~ '!')|regex_replace('(a+)+$', 'b') }}",
    "{{ (n * 40 ~ '!')|regex_replace('(x+)+$', 'b') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
]


@pytest.mark.parametrize("template", WITHOUT_END, ids=lambda text: text[:40])
def test_a_template_without_end_is_stopped(env, template):
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        env.apply_template(template, {"n": "x"})


def test_what_templates_of_tasks_use_renders_as_in_lm_evals_own_environment(env):
    from jinja2 import BaseLoader, Environment, StrictUndefined

    own = Environment(loader=BaseLoader, undefined=StrictUndefined, keep_trailing_newline=True)
    own.filters["regex_replace"] = env.regex_replace
    doc = {"text": "A film. it was ", "items": ["b", "a"], "nested": {"k": [1, 2]}, "label": 1, "n": 2.5}
    for template in (
        "{{text}}\n", "{{text.strip()|capitalize}}", "{{items|sort|join(', ')}}", "{{['x', 'y'][label]}}",
        "{% set c = [] %}{% for i in items %}{% set _ = c.append(i ~ loop.index) %}{% endfor %}{{c}}",
        "{{ text|regex_replace('f.lm', 'book') }}", "{{nested.k}} {{nested['k'][0]}}", "{{ '%s-%d'|format('a', 2) }}",
        "{{ '{}: {}'.format(label, n) }}", "{% if label == 1 %}yes{% else %}no{% endif %}", "{{ text.split(' ') }}",
        "{{ missing|default('none') }}", "{{ 'abc' * 3 }}{{ 2 ** 10 }}{{ 7 // 2 }}", "{{ namespace(a=1).a }}",
        "{{ dict(a=1) }}{{ range(3)|list }}{{ items.index('a') }}", "<b>{{ '<i>' }}</b>", "{{ nested|tojson }}",
    ):  # fmt: skip
        assert env.apply_template(template, doc) == own.from_string(template).render(**doc), template


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"])
@pytest.mark.parametrize("template", [f"{{{{ cycler.__init__.__globals__.{COMMAND} }}}}", "{{ 'x' * 10**10 }}"])
def test_a_template_of_any_key_of_a_task_is_stopped_with_one_line(tmp_path, monkeypatch, key, template):
    monkeypatch.chdir(tmp_path)
    task = write_task(tmp_path, ROWS, **{key: template})
    with pytest.raises(UserError) as caught:
        read_examples(task, tmp_path, "test")
    assert str(caught.value).startswith("workflows/tasks/toy.yaml: ") and "\n" not in str(caught.value)
    assert not Path(MARK).exists()


def test_templates_of_few_shot_examples_are_in_the_sandbox_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in ("doc_to_text", "doc_to_target", "gen_prefix"):
        template = f"{{{{ cycler.__init__.__globals__.{COMMAND} }}}}"
        task = write_task(tmp_path, ROWS, num_fewshot=1, fewshot_config={key: template})
        with pytest.raises(UserError, match="split 'test', document 0, with its shots: cannot be rendered .SecurityE"):
            lm_eval_tasks.build(task, tmp_path)
    assert not Path(MARK).exists()


def test_time_that_runs_out_while_the_bounds_are_set_leaves_no_timer(env, monkeypatch):
    raise_signal = partial(signal.raise_signal, signal.SIGVTALRM)  # of C, so that its caller's frame gets the signal
    monkeypatch.setattr(templates, "_limit_memory", raise_signal)
    assert env.apply_template("{{ 1 }}", {}) == "1"
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) is not templates._stop


def test_the_process_has_its_limits_and_timers_back_after_a_template(env):
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    for template in ("{{ 1 }}", "{{ 'x' * 10**10 }}", "{{ cycler.__init__ }}"):
        try:
            env.apply_template(template, {})
        except Exception:  # of the template
            pass
        assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
