"""The commands as one program: for what is misspelt the nearest name, as in all our errors."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from isoloss.errors import BadRequest, nearest_name

UsageError: Any = typer.BadParameter.__base__  # typer has no other name for it


class Group(TyperGroup):
    """A group whose unknown commands are errors of ours."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command.

        Raises:
            BadRequest: there is none of that name; the nearest is named.
        """
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise BadRequest(
                f"there is no command {name!r}.",
                asked=f"{ctx.command_path} {name}",
                nearest=nearest_name(name, self.commands) or ", ".join(self.commands),
                remedy=f"{ctx.command_path} --help lists the commands",
            )
        found = super().resolve_command(ctx, args)
        _name_no_type_of_flags(ctx, found[1])
        return found

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in which a flag takes no value."""
        _name_no_type_of_flags(ctx, self)
        super().format_help(ctx, formatter)


def _name_no_type_of_flags(ctx: Any, command: Any) -> None:
    # typer writes "--json <bool>", which reads as if a value were wanted
    for param in (*command.params, command.get_help_option(ctx)):
        if getattr(param, "is_flag", False):
            param.metavar = ""


def usage(error: Any) -> BadRequest:
    """An error of the option parser as one of ours.

    Args:
        error: a ``UsageError`` of typer's.
    """
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "isoloss"
    nearest, what = None, error.format_message()
    if (name := getattr(error, "option_name", None)) and "No such option" in what and ctx:
        known = [word for param in ctx.command.params for word in param.opts]
        what = f"{path} has no option {name}."
        nearest = nearest_name(name, [word for word in known if word.startswith("--")])
    return BadRequest(what, nearest=nearest, remedy=f"{path} --help shows every option")
