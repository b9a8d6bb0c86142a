"""STAR files as text: what is not changed is written back byte for byte.

RELION's dialect is line-based: `data_NAME`, then either `_label value` pairs or `loop_`, labels, and a line a row.
Comments, blank lines, blocks of any kind and their order are kept because only the lines of changed rows are
rewritten; libraries that parse into tables lose them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryospin.errors import InputError
from cryospin.formats.whole import whole

_WIDTH = 12
_QUOTED = re.compile(r"""'[^']*'(?=\s|$)|"[^"]*"(?=\s|$)|\S+""")
# A mark within quotes starts no remark.
_REMARK = re.compile(r"""\s(#[^'"]*)$""")
# Nothing but a comment follows on the line; rows, too, may start with a name such as data_1/m.mrc.
_BLOCK = re.compile(r"[\ufeff \t]*data_([^\s#]*)\s*(#.*)?$")


@dataclass(frozen=True)
class StarBlock:
    """Where one block stands in the file.

    name: what follows `data_`; may be empty
    looped: whether it is a table of rows, or else a list of labels with one value each
    labels: without the leading underscore
    header: line numbers of the labels; rows: line numbers of the rows (of the labels where the block is not looped)
    """

    name: str
    looped: bool
    labels: tuple[str, ...]
    header: tuple[int, ...]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows) if self.looped else 1

    def __contains__(self, label: str) -> bool:
        return label in self.labels


@dataclass(frozen=True)
class StarFile:
    """A STAR file: its lines, and where its blocks stand in them."""

    path: Path
    lines: list[str]
    blocks: tuple[StarBlock, ...]
    newline: str = "\n"

    def block(self, *names: str) -> StarBlock | None:
        """The first block of one of these names."""
        return next((b for b in self.blocks if b.name in names), None)

    def columns(self, block: StarBlock, labels: Sequence[str]) -> dict[str, list[str]]:
        """Values of some columns as text; labels that the block lacks are left out.

        raises: `InputError` for a row with too few or too many values
        """
        wanted = [(label, block.labels.index(label)) for label in labels if label in block.labels]
        if not block.looped:
            return {label: [self._pair(block, i)] for label, i in wanted}
        out: dict[str, list[str]] = {label: [] for label, _ in wanted}
        appends = [(out[label].append, i) for label, i in wanted]
        for tokens in self._rows(block, block.rows):
            for append, i in appends:
                append(tokens[i])
        return out

    def replaced(self, block: StarBlock, columns: Mapping[str, Sequence[str]], keep: np.ndarray | None = None) -> StarFile:
        """The file with columns of one looped block replaced, or added after the others.

        columns: label to values as text, one for each row that is kept
        keep: rows to keep, counted from 0, in the file's order; all by default
        """
        kept = np.arange(len(block)) if keep is None else np.asarray(keep)
        added = [label for label in columns if label not in block.labels]
        labels = [*block.labels, *added]
        at = [(labels.index(label), values) for label, values in columns.items()]
        widths = [max(_WIDTH, *(len(quoted(v)) for v in values)) for _, values in at] if len(kept) else []
        rows = block.rows[kept] if block.looped else np.zeros(1, int)
        new: dict[int, str] = {}
        for n, (line, tokens) in enumerate(zip(rows, self._rows(block, rows), strict=True)):
            text = self.lines[line]
            plain = block.looped and not any(c in text for c in "'\"")
            values = [*(tokens if plain else map(quoted, tokens)), *[""] * len(added)]
            for (i, column), width in zip(at, widths, strict=True):
                values[i] = quoted(column[n]).rjust(width)
            remark = _REMARK.search(text)
            new[int(line)] = ("\t" if "\t" in text else " ").join([*values, remark[1]] if remark else values)
        return self._rewritten(block, labels, new)

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        with whole(path) as temporary:
            temporary.write_bytes(self.newline.join(self.lines).encode("utf-8", "surrogateescape"))

    def _rewritten(self, block: StarBlock, labels: list[str], new: dict[int, str]) -> StarFile:
        """All lines, with the block's header and rows exchanged for new ones; a list of pairs becomes a table."""
        head = [f"_{label} #{i}" for i, label in enumerate(labels, 1)]
        if not block.looped:
            head = ["loop_", *head, *new.values()]
            new = {}
        gone = {*block.header, *(int(r) for r in block.rows)}
        lines: list[str] = []
        for i, line in enumerate(self.lines):
            if i == block.header[0]:
                lines += head
            if i in new:
                lines.append(new[i])
            elif i not in gone:
                lines.append(line)
        return replace(self, lines=lines, blocks=_find_blocks(lines, self.path))

    def _rows(self, block: StarBlock, rows: np.ndarray) -> Iterator[list[str]]:
        """The values of some rows, row by row."""
        count = len(block.labels)
        if not block.looped:
            yield [self._pair(block, i) for i in range(count)]
            return
        for row in rows:
            tokens = split(self.lines[row])
            if len(tokens) != count:
                message = f"the row has {len(tokens)} values, the {block.name or 'nameless'} block {count} columns"
                raise _broken(self.path, int(row), message)
            yield tokens

    def _pair(self, block: StarBlock, i: int) -> str:
        tokens = split(self.lines[block.header[i]])
        if len(tokens) < 2:
            raise _broken(self.path, block.header[i], f"_{block.labels[i]} has no value")
        return tokens[1]


def parse_star(path: Path) -> StarFile:
    """Read a STAR file.

    raises: `InputError` for a file that is missing or no STAR file, naming the line
    """
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="Check the path of the particle table")
    raw = path.read_bytes()
    newline = "\r\n" if 0 < raw.count(b"\n") == raw.count(b"\r\n") else "\n"
    lines = raw.decode("utf-8", "surrogateescape").split(newline)
    if b"\0" in raw[:4096] or not any(map(_BLOCK.match, lines)):
        raise InputError(
            "not a STAR file: it has no data_ block",
            where=path,
            remedy="Give a RELION particle table, such as run_data.star",
        )
    return StarFile(path, lines, _find_blocks(lines, path), newline)


def star_file(path: Path, blocks: Mapping[str, Mapping[str, Sequence[object]]], comment: str = "") -> StarFile:
    """A new STAR file of tables: block name to label to values."""
    lines = [f"# {comment}", ""] if comment else []
    for name, columns in blocks.items():
        lines += [f"data_{name}", "", "loop_", *(f"_{label} #{i}" for i, label in enumerate(columns, 1))]
        texts = [[quoted(str(v)).rjust(_WIDTH) for v in values] for values in columns.values()]
        lines += [" ".join(row) for row in zip(*texts, strict=True)] + ["", ""]
    return StarFile(path, lines, _find_blocks(lines, path))


def split(line: str) -> list[str]:
    """The values of a line without its remark; quotes hold values with spaces together and are taken off."""
    if "#" in line:
        line = _REMARK.sub("", line)
    if '"' not in line and "'" not in line:
        return line.split()
    return [_unquoted(t) for t in _QUOTED.findall(line)]


def quoted(value: str) -> str:
    """A value as it has to stand in a line: in quotes where it is empty, holds blanks or looks like something else."""
    if value and not re.search(r"\s", value) and value[0] not in "'\"#":
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'


def _unquoted(token: str) -> str:
    return token[1:-1] if len(token) > 1 and token[0] == token[-1] and token[0] in "'\"" else token


def _find_blocks(lines: list[str], path: Path) -> tuple[StarBlock, ...]:
    """Where the blocks stand."""
    starts = [i for i, line in enumerate(lines) if _BLOCK.match(line)]
    ends = [*starts[1:], len(lines)]
    return tuple(_find_block(lines, start, end, path) for start, end in zip(starts, ends, strict=True))


def _find_block(lines: list[str], start: int, end: int, path: Path) -> StarBlock:
    """The block whose `data_` line is `start`."""
    name = _BLOCK.sub(r"\1", lines[start])
    looped = False
    labels: list[str] = []
    header: list[int] = []
    rows: list[int] = []
    for i in range(start + 1, end):
        text = lines[i].lstrip()
        if not text or text[0] == "#":
            continue
        if text.startswith("loop_") and not labels:
            looped = True
        elif text[0] == "_" and not rows:
            labels.append(text.split()[0][1:])
            header.append(i)
        elif not looped:
            # Legal STAR, but nothing that a particle table has; it is kept and not looked into.
            return StarBlock(name, False, (), (), np.zeros(0, np.int64))
        else:
            rows.append(i)
    if repeated := {label for label in labels if labels.count(label) > 1}:
        raise InputError(
            f"the {name or 'nameless'} block has the column {min(repeated)} twice",
            where=path,
            remedy="Remove one of the two",
        )
    return StarBlock(name, looped, tuple(labels), tuple(header), np.array(rows, dtype=np.int64))


def _broken(path: Path, line: int, problem: str) -> InputError:
    return InputError(
        f"line {line + 1}: {problem}", where=path, remedy="Correct the line; a value with spaces has to stand in quotes"
    )
