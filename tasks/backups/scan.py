"""What a dump holds, seen while its text streams past: rows and a digest by table, and whether it is complete.

Both clients write every line break inside a value as \\n, so a real one only ever stands between statements or rows:
https://mariadb.com/kb/en/mariadb-dump/, https://dev.mysql.com/doc/refman/8.4/en/mysqldump.html
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

END = b";\n"
TRAILER = re.compile(rb"\n-- Dump completed[^\n]*\n\Z")
LONGEST_TRAILER = 200

# One row of MySQL's format, which has a statement on one line: parentheses and quotes inside of quotes do not count.
ROW = re.compile(rb"\((?:[^'()]++|'(?:[^'\\]++|\\.)*+')*+\)", re.DOTALL)

SECTION = re.compile(rb"--\n-- Table structure for table `([^`\n]+)`\n")
FOOTER = b"/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */"


@dataclass(slots=True)
class TableScan:
    """What was seen of one table. The digest is over its INSERT statements as written."""

    rows: int = 0
    digest: Any = field(default_factory=sha256)


class Statements:
    """Cuts a stream into pieces that end where a statement ends."""

    def __init__(self) -> None:
        self._rest = b"\n"

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole statements that are in by now: nothing, or from the line break before them to their semicolon."""
        data = self._rest + chunk
        if (end := data.rfind(END)) < 0:
            self._rest = data
            return b""
        self._rest = data[end + 1 :]
        return data[: end + 1]


class DumpScan:
    """Reads a dump's text in chunks and keeps counts only: its memory is that of the longest statement."""

    def __init__(self) -> None:
        self.tables: dict[str, TableScan] = {}
        self.bytes = 0
        self._tail = b""
        self._statements = Statements()

    @property
    def complete(self) -> bool:
        """True if the text ends in the trailer that the client writes as the last thing."""
        return TRAILER.search(self._tail) is not None

    def feed(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._tail = (self._tail + chunk)[-LONGEST_TRAILER:] if len(chunk) < LONGEST_TRAILER else chunk[-LONGEST_TRAILER:]
        piece = self._statements.feed(chunk)
        for start in _starts(piece, b"\nCREATE TABLE `"):
            self.tables.setdefault(_name(piece, start), TableScan())
        for start in _starts(piece, b"\nINSERT INTO `"):
            self._count(piece, start)

    def _count(self, piece: bytes, start: int) -> None:
        end = piece.find(END, start)
        end = len(piece) - 1 if end < 0 else end  # a piece ends in the last statement's semicolon
        table = self.tables.setdefault(_name(piece, start), TableScan())
        with memoryview(piece) as view:
            table.digest.update(view[start:end])
        values = piece.index(b" VALUES", start, end) + len(b" VALUES")
        if piece[values : values + 1] == b"\n":  # MariaDB's format: a row a line
            table.rows += piece.count(b"\n(", values, end)
        else:
            table.rows += sum(1 for _ in ROW.finditer(piece, values, end))


def _starts(piece: bytes, mark: bytes) -> Iterator[int]:
    at = piece.find(mark)
    while at >= 0:
        yield at + len(mark)
        at = piece.find(mark, at + len(mark))


def _name(piece: bytes, start: int) -> str:
    return piece[start : piece.index(b"`", start)].decode()


def only_tables(chunks: Iterable[bytes], tables: Collection[str]) -> Iterator[bytes]:
    """Given a dump's text, return that of these tables alone, with the dump's own beginning and end."""
    statements = Statements()
    passing = True
    for chunk in chunks:
        piece = statements.feed(chunk)
        at = 0
        for section in SECTION.finditer(piece):
            if passing:
                yield piece[at : section.start()]
            passing, at = section[1].decode() in tables, section.start()
        footer = piece.find(b"\n" + FOOTER, at)
        if footer >= 0:
            if passing:
                yield piece[at:footer]
            passing, at = True, footer
        if passing:
            yield piece[at:]
    yield b"\n"
