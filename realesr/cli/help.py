"""Formats `--help`: options grouped in panels, one column for all groups, examples line by line. Without rich."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

OTHER = "Other"

FIRST_COLUMN = 26
"""Widest first column, in characters; a longer entry gets a line of its own."""


def write_panels(command: Any, context: Any, formatter: Any) -> None:
    """Write arguments and options below the names of their panels, in the order of the command's signature."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            is_argument = parameter.param_type_name == "argument"
            first = parameter.metavar if is_argument else record[0]
            name = "Arguments" if is_argument else parameter.rich_help_panel or OTHER
            panels.setdefault(name, []).append((first, record[1]))
    panels[OTHER] = panels.pop(OTHER, [])
    width = max((len(first) for rows in panels.values() for first, _ in rows if len(first) <= FIRST_COLUMN), default=0)
    for name, rows in panels.items():
        if rows:
            with formatter.section(name):
                formatter.write_dl([(f"{first:<{width}}", text) for first, text in rows], col_max=width)


def write_examples(epilog: str | None, formatter: Any) -> None:
    """Write the epilog without wrapping it, so that its lines can be copied."""
    if epilog:
        with formatter.section("Examples"):
            for line in epilog.splitlines():
                formatter.write(f"  {line}\n")


class CommandHelp(TyperCommand):
    """A command with panels and examples in its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels; called by typer."""
        write_panels(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples; called by typer."""
        write_examples(self.epilog, formatter)


class GroupHelp(TyperGroup):
    """A group of commands with panels and examples in its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels, then the commands; called by typer."""
        write_panels(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples; called by typer."""
        write_examples(self.epilog, formatter)
