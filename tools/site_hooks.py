"""What MkDocs does beside its own work: the page of every option, the list of modules, and formulas as MathML.

All are made while the site is built, from the program itself and from TeX: none can go stale, and none needs a script or
a network in the reader's browser.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from latex2mathml.converter import convert

import cryospin
from cryospin.cli import app

OPTIONS_HERE = "<!-- every option -->"
"""Where a page wants all commands with their options."""

ROOMS_HERE = "<!-- the rooms -->"
"""Where a page wants all folders and modules with what they are for."""

_OTHER = "Options"


def on_config(config: Any) -> Any:
    """Blocks marked `math` hold TeX, as on GitHub."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": formula})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what pages want of the program."""
    for place, parts in ((OPTIONS_HERE, options), (ROOMS_HERE, rooms)):
        if place in markdown:
            markdown = markdown.replace(place, "\n\n".join(parts()))
    return markdown


def formula(source: str, *_: Any, **__: Any) -> str:
    """TeX as MathML, which browsers draw by themselves."""
    return f'<div class="formula">{convert(source, display="block")}</div>'


def options() -> Iterator[str]:
    """Each command as a section in Markdown: usage, what it does, and a table of options for each of its panels."""
    for name, command in typer.main.get_command(app).commands.items():
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


def rooms() -> Iterator[str]:
    """Tables of the package's folders, and of the modules beside them, with the first line of each."""
    package = Path(cryospin.__file__).parent
    folders = {f"{path.parent.name}/": path for path in sorted(package.glob("*/__init__.py"))}
    modules = {path.name: path for path in sorted(package.glob("[!_]*.py"))}
    for title, members in (("folder", folders), ("module", modules)):
        rows = [f"| `{name}` | {_first_line(path)} |" for name, path in members.items()]
        yield "\n".join([f"| {title} | |", "|---|---|", *rows])


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


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
    values = option.default if isinstance(option.default, tuple) else (getattr(option.default, "value", option.default),)
    return "`" + " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) + "`"


def _markdown(text: str) -> str:
    """Help with rich's markup, for a cell of a table."""
    return re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"**\1**", text).replace("|", "\\|")
