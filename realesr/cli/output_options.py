"""Options of what a command prints, for commands whose help has no panels."""

from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr; results still go to stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where errors happened (tracebacks).")]
OneJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
