"""python -m affect_hpc.data accept|terms CORPUS: the owners' terms of a gated corpus, and who has accepted them."""

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from affect_hpc.config import terms
from affect_hpc.core.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Show the terms of a corpus, or record that somebody accepts them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="accept|terms")
    for name, run, text in (
        ("accept", _accept, "show the terms and record who accepts them"),
        ("terms", _show, "show the terms and whether they have been accepted"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("corpus", help=" or ".join(terms.TERMS))
        command.add_argument("--store", type=Path, default=Path(), help="folder that holds runs/ (default: here)")
        if name == "accept":
            command.add_argument("--by", default="", metavar="NAME", help="who accepts; asked for where it is absent")
            command.add_argument("--yes", action="store_true", help="accept without being asked")
    arguments = parser.parse_args(argv)
    run_command: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run_command(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, EOFError):
        print("\nnothing was accepted.", file=sys.stderr)
        return 130
    return 0


def _show(arguments: argparse.Namespace) -> None:
    print(text_of(terms.terms_of(arguments.corpus)))
    folder = arguments.store.absolute() / terms.FOLDER
    try:
        terms.require_accepted(arguments.corpus, folder)
    except UserError as error:
        print(f"\nnot accepted: {error}")
        return
    record = terms.read_record(arguments.corpus, folder)
    assert record is not None, "accepted"
    print(f"\naccepted by {record['who']} on {record['when']} ({record['host']}).")


def _accept(arguments: argparse.Namespace) -> None:
    wanted = terms.terms_of(arguments.corpus)
    print(text_of(wanted))
    who, agreed = arguments.by, arguments.yes
    if not (who and agreed) and not sys.stdin.isatty():
        raise UserError(
            f"nobody is here to be asked whether the terms of {wanted.name} are accepted: run this at a terminal, or"
            " give --by NAME --yes."
        )
    who = who or input("\nYour name: ")
    if not agreed and input(f"{who}, do you accept these terms? Type yes: ").strip().lower() != "yes":
        raise UserError(f"the terms of {wanted.name} were not accepted, nothing was recorded.")
    folder = arguments.store.absolute() / terms.FOLDER
    terms.accept(arguments.corpus, folder, who)
    print(f"\naccepted by {who.strip()}; recorded in {terms.record_path(arguments.corpus, folder)}")


def text_of(shown: terms.Terms) -> str:
    """Terms as lines for a terminal."""
    head = f"{shown.name}, {shown.owner}\n{shown.url}\nIn short ({shown.version}; the owners' own text decides):"
    points = [textwrap.fill(point, 100, initial_indent="  - ", subsequent_indent="    ") for point in shown.points]
    return "\n".join([head, *points, textwrap.fill(f"Cite: {shown.citation}", 100, subsequent_indent="  ")])


if __name__ == "__main__":
    sys.exit(main())
