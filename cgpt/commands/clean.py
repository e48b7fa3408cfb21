"""The verb `clean`: removes what one experiment alone uses, or runs that no experiment has."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cgpt.commands.plan import read_workflow
from cgpt.errors import UserError
from cgpt.experiment import leftovers, rule_values
from cgpt.experiment.leftovers import TABLES, Leftover
from cgpt.experiment.load import RESERVED_EXPERIMENTS
from cgpt.experiment.plans import make_plans
from cgpt.experiment.run import RESULTS, Key
from cgpt.experiment.written import NAME
from cgpt.formats import aligned, with_prefix


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("clean", run, "remove an experiment's results, but for runs that others need; sizes first",
                    group="comparing and cleaning", example="quickstart --dry-run")  # fmt: skip
    verb.add_argument("experiment", nargs="?", help="whose results go; left out with --unused")
    verb.add_argument("--unused", action="store_true", help="instead: the runs that no experiment has (any more)")
    verb.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")
    verb.add_argument("--yes", action="store_true", help="remove without a question; needed where no terminal can ask")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """All that was or would be removed, as a mapping and as text. Raises UserError where nothing may be removed."""
    if bool(arguments.experiment) == arguments.unused:
        raise UserError("clean: name an experiment, or write --unused, and not both")
    removable, kept = _select(arguments.experiment)
    leftovers.refuse_at_work(removable)
    sizes: Counter[str] = sum((Counter(each.size()) for each in removable), Counter())
    result = {
        "experiment": arguments.experiment,
        "removed": bool(removable) and not arguments.dry_run,
        "runs": [{"stage": each.stage, "run": each.name} for each in removable if each.stage != TABLES],
        "bytes_by_kind": dict(sizes),
        "bytes": sizes.total(),
        "kept": [{"stage": stage, "run": run_id, "needed_by": others} for (stage, run_id), others in kept.items()],
    }
    listing = _as_text(removable, sizes, kept, named=arguments.unused)
    if arguments.dry_run or not removable:
        return result, listing
    if not arguments.yes:
        _ask(listing, sizes.total())
    else:
        print(listing, file=sys.stderr)
    for each in removable:
        each.remove()
    return result, f"removed: {_size(sizes.total())}"


def _select(experiment: str | None) -> tuple[list[Leftover], dict[Key, list[str]]]:
    """All to remove, and the experiment's runs that others need, with their names."""
    workflow = read_workflow()
    plans = make_plans(workflow)
    if experiment is None:
        return leftovers.unused(plans), {}
    if experiment not in workflow.experiments and _was_experiment(experiment):
        raise UserError(f"workflows/experiments: there is no '{experiment}' any more, so that its runs are not known; "
                        f"delete {RESULTS / experiment}, and run `cgpt clean --unused` for runs that no "
                        "experiment has")  # fmt: skip
    rule_values.find_plan(experiment, workflow, plans)
    return leftovers.only_of(experiment, plans)


def _was_experiment(name: str) -> bool:
    """Whether results/ holds the tables of an experiment of this name, and not something else that must stay."""
    could_be = NAME.fullmatch(name) and name.lower() not in RESERVED_EXPERIMENTS
    return bool(could_be) and (RESULTS / name / "table.md").is_file()


def _ask(listing: str, n_bytes: int) -> None:
    """Return where a person at the terminal says yes. Raises UserError otherwise, and where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UserError("clean: nothing was removed; write --yes to remove, or --dry-run to see what would be removed")
    print(f"{listing}\nremove {_size(n_bytes)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("clean: nothing was removed")


def _as_text(removable: Sequence[Leftover], sizes: Counter[str], kept: Mapping[Key, list[str]], named: bool) -> str:
    """The sizes by kind and their sum, and how much stays for whom; `named`: the runs one by one before that."""
    lines = [f"{each.stage} {each.name}: {_size(sum(each.size().values()))}" for each in removable] if named else []
    counts = Counter(each.stage for each in removable)
    rows = [(kind, str(counts[kind] or ""), _size(sizes[kind])) for kind in dict.fromkeys([*counts, *sizes])]
    lines += aligned([("kind", "number", "size"), *rows, ("sum", "", _size(sizes.total()))]) if rows else []
    if not removable:
        lines.append("nothing to remove")
    if kept:
        others = sorted({name for names in kept.values() for name in names})
        lines.append(f"kept: {len(kept)} runs that {', '.join(others)} need{'s' if len(others) == 1 else ''}")
    return "\n".join(lines)


def _size(n_bytes: int) -> str:
    return with_prefix(n_bytes, "B") if n_bytes else "0 B"
