"""What MkDocs does beside its own work: the page of every option, and formulas as MathML.

Both are made while the site is built, from the program itself and from TeX, so that neither needs a script or a network
in the reader's browser and neither can go stale.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from latex2mathml.converter import convert

from cryospin.cli import app

OPTIONS_HERE = "<!-- every option -->"
"""Where a page wants all commands with their options."""

_OTHER = "Options"


def on_config(config: Any) -> Any:
    """Blocks marked `math` hold TeX, as on GitHub."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": formula})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the options in where they are wanted."""
    return markdown.replace(OPTIONS_HERE, "\n\n".join(options()))


def formula(source: str, *_: Any, **__: Any) -> str:
    """TeX as MathML, which browsers draw by themselves."""
    return f'<div class="formula">{convert(source, display="block")}</div>'


def options() -> Iterator[str]:
    """Each command as a section in Markdown: usage, what it does, and a table of options for each of its panels."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["cryospin", name, *(_placeholder(a) for a in arguments), "[OPTIONS]"])
        yield f"## cryospin {name}\n\n```text\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}"
        yield from (f"`{_placeholder(a)}`: {_markdown(a.help)}" for a in arguments if a.help)
        panels: dict[str, list[Any]] = {}
        for option in command.params:
            if option.param_type_name == "option":
                panels.setdefault(option.rich_help_panel or _OTHER, []).append(option)
        for panel, members in panels.items():
            rows = [_row(option, typer.Context(command)) for option in members]
            yield "\n".join([f"| {panel} | default | |", "|---|---|---|", *rows])


def _placeholder(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _row(option: Any, context: typer.Context) -> str:
    """An option as its command's help has it, in a row of a table."""
    # The second part of a help record has the default in it; it gets a column of its own here.
    names = option.get_help_record(context)[0]
    return f"| `{names}` | {_default(option)} | {_markdown(option.help or '')} |"


def _default(option: Any) -> str:
    """The default in words; empty where the option is required or its text says what happens without it."""
    if option.required:
        return "required"
    if option.default is None or (option.is_flag and not option.default):
        return ""
    value = getattr(option.default, "value", option.default)
    return f"`{' '.join(f'{v:g}' for v in value) if isinstance(value, tuple) else value}`"


def _markdown(text: str) -> str:
    """Help with rich's markup, for a cell of a table."""
    return re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"**\1**", text).replace("|", "\\|")
