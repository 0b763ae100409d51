"""What a dump holds, seen while its text streams past: rows and a digest by table, and whether it is complete.

Both clients write every line break inside a value as \\n, so a real one only ever stands between statements or rows:
https://mariadb.com/kb/en/mariadb-dump/, https://dev.mysql.com/doc/refman/8.4/en/mysqldump.html
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Self

from db.models import DUMPED_TABLES
from tasks.backups.errors import BackupError
from tasks.words import printable

END = re.compile(rb";\n")  # which the engine of expressions finds three times as fast as `bytes.find`
TRAILER = re.compile(rb"\n-- Dump completed[^\n]*\n\Z")
LONGEST_TRAILER = 200

# None of these looks twice at a byte or remembers a repetition (`*+`): a dump of a stranger's making may be verified. A group
# that is repeated so must not fail in its middle: Debian 12's Python takes it for found, cpython's issue 106052.
# The next row of MySQL's format, which has a statement on one line, and of MariaDB's behind a list of columns: parentheses and
# quotes inside of quotes do not count.
ROW = re.compile(rb"(?: |,\n?)\((?:[^'()]++|'(?:[^'\\]++|\\.)*+')*+\)", re.DOTALL)

# Comments and blank lines may stand before a statement; a list of columns stands in it where some are generated, or invisible.
COLUMNS = rb"(?: \((?:`(?:[^`\n]++|``)*+`,? ?)++\))?"
INSERT = re.compile(rb"(?:\n(?:--[^\n]*+)?+)++INSERT INTO (?P<values>`(?P<table>[^`\n]+)`%s VALUES)" % COLUMNS)
CREATE = re.compile(rb"(?:\n(?:--[^\n]*+)?+)++CREATE TABLE `(?P<table>[^`\n]+)`")
SECTION = re.compile(rb"(?:\n|--[^\n]*+\n)*?--\n-- Table structure for table `([^`\n]+)`\n")
# As mariadb-dump notes where its snapshot stands in the binary log: first the place, and behind the tables the GTID. In values
# line ends are escaped.
PLACE = re.compile(rb"\n-- CHANGE MASTER TO MASTER_LOG_FILE='([^'\n]+)', MASTER_LOG_POS=([0-9]{1,18});\Z")
GTID = re.compile(rb"\n-- SET GLOBAL gtid_slave_pos='([^'\n]*)';\Z")
DELIMITER = b"\nDELIMITER ;"
"""Such a line ends a trigger, and with one more semicolon begins one. Its body may look like anything."""


@cache
def _trigger(escaped: bytes, comment: bytes) -> re.Pattern[bytes]:
    """Return the pattern of a trigger, if a backslash escapes in texts between these quotes, and so begins a comment."""
    texts = [rb"%s(?:[^%s\\]++|\\.)*+%s" if sign in escaped else rb"%s[^%s]*+%s" for sign in SIGNS]
    code = (rb"[^-'\"`/#;\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f]++", rb"/(?!%s)" % comment[1:], rb"-(?!-[\x00-\x20\x7f])", rb";(?!;)")
    comments = (rb"(?>%s.*?\*/)" % comment, rb"(?:#|--[ \t\r])[^\n]*+", rb"--(?=\n)")
    body = b"|".join([*(text % (sign, sign, sign) for text, sign in zip(texts, SIGNS, strict=True)), *code, *comments])
    name = rb"`(?:[^`\n]++|``)*+`"
    definer = rb"DEFINER=%s(?:@%s)?" % (name, name)
    head = rb"%s;\n/\*!\d+ CREATE(?:\*/ (?:/\*!\d+ %s\*/ )?/\*!\d+)? (?:%s )?TRIGGER " % (DELIMITER, definer, definer)
    return re.compile(rb"%s(?:%s)*+;;%s" % (head, body, DELIMITER), re.DOTALL)


SIGNS = (b"'", b'"', b"`")
MODE = b"\n/*!50003 SET sql_mode "
"""What begins the statement before a trigger."""
COMMENTS = (rb"/\*", rb"/\*(?!M?!|\+)")  # what is run by some servers is one to others


def _is_trigger(text: bytes, mode: bytes) -> bool:
    """Return whether a trigger that was made under this sql_mode ends where the text does, to both clients and to any server.

    Else a text or a comment may be open there, and what stands behind it is no statement.
    """
    escaped = [b"'", b"'\"", b"'\"`"][b"ANSI_QUOTES" not in mode :]
    variants = [b""] if b"NO_BACKSLASH_ESCAPES" in mode else escaped
    return all(_trigger(signs, comment).fullmatch(text) for signs in variants for comment in COMMENTS)


FOOTER = b"\n/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */"


@dataclass(slots=True)
class TableScan:
    """What was seen of one table. The digests, if asked for, are over its INSERT statements and the heads of its triggers.

    As written; of a trigger's body a client that restores it leaves out the comments.
    """

    rows: int = 0
    digest: Any = None
    triggers: Any = None

    def equals(self, other: Self, *, triggers: bool = False) -> bool:
        """Return whether both tables have the same rows, and perhaps triggers, by their digests."""
        same = bool(self.digest.digest() == other.digest.digest())
        return same and (not triggers or bool(self.triggers.digest() == other.triggers.digest()))


LONGEST_STATEMENT = 256 << 20
"""Bytes, far above a row of any table; what is longer is no dump's text and must not fill the memory."""


class Statements:
    """Cuts a stream into statements, looking at each byte about once."""

    def __init__(self) -> None:
        self._begun, self._held = [b"\n"], 0
        self._trigger, self._mode = bytearray(), b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Return the statements that are whole by now, from the line break before to the semicolon; a trigger is one.

        Raise BackupError if one is too long, or a trigger whose end cannot be told: its body would be taken for statements.
        """
        for statement in self._cut(chunk):
            if not self._trigger and statement != DELIMITER + b";":
                self._mode = statement if MODE in statement[:30] else self._mode
                yield statement
                continue
            self._trigger += statement
            _check_length(len(self._trigger))
            if statement == DELIMITER:
                if not _is_trigger(bytes(self._trigger), self._mode):
                    name = printable(self._trigger.partition(b" TRIGGER ")[2][:64].decode(errors="replace"))
                    raise BackupError(
                        f"it cannot be told where the trigger {name} … ends: a text or comment in it looks like that"
                    )
                yield bytes(self._trigger)
                self._trigger.clear()

    def _cut(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        at = 0
        if chunk.startswith(b"\n") and self._begun[-1].endswith(b";"):
            yield self._join(b"")
        for end in END.finditer(chunk):
            yield self._join(chunk[at : end.end() - 1])
            at = end.end() - 1
        self._begun.append(chunk[at:])
        self._held += len(chunk) - at
        _check_length(self._held)

    def _join(self, last: bytes) -> bytes:
        statement = b"".join([*self._begun, last])
        self._begun, self._held = [], 0
        return statement


def _check_length(length: int) -> None:
    if length > LONGEST_STATEMENT:
        raise BackupError(f"it is no dump: a statement in it has more than {LONGEST_STATEMENT:,} bytes")


class DumpScan:
    """Reads a dump's text in chunks and keeps counts of the chat tables only: its memory is that of the longest statement.

    Whatever else looks like a statement is text: of a CHECK, say, in which the servers leave line breaks as they are.
    `digests` are for comparing two dumps; where the processor has no instructions for SHA they take most of the time.
    """

    def __init__(self, *, digests: bool = False) -> None:
        self._digests = digests
        self._last = TableScan()
        self.tables: dict[str, TableScan] = {}
        self.bytes = 0
        self.place: tuple[str, int] | None = None
        """The file of the server's binary log and the position in it at which the snapshot stands, if the dump says."""
        self.gtid = ""
        self._tail = b""
        self._statements = Statements()

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each table that was seen."""
        return {name: table.rows for name, table in self.tables.items()}

    @property
    def complete(self) -> bool:
        """True if the text ends in the trailer that the client writes as the last thing."""
        return TRAILER.search(self._tail) is not None

    def feed(self, chunk: bytes) -> None:
        """Take in the next piece of the text, wherever it was cut."""
        self.bytes += len(chunk)
        self._tail = (self._tail + chunk[-LONGEST_TRAILER:])[-LONGEST_TRAILER:]
        for statement in self._statements.feed(chunk):
            insert = INSERT.match(statement)
            named = insert or CREATE.match(statement)
            if named and (name := named["table"].decode(errors="replace")) in DUMPED_TABLES:
                new = TableScan(0, sha256(), sha256()) if self._digests else TableScan()
                self._last = self.tables.setdefault(name, new)
                if insert:
                    self._count(statement, *insert.span("values"), self._last)
            elif self._last.triggers and statement.startswith(DELIMITER + b";\n"):
                self._last.triggers.update(statement.partition(b"FOR EACH ROW")[0])
            elif place := PLACE.search(statement):
                self.place = self.place or (place[1].decode(errors="replace"), int(place[2]))
            elif gtid := GTID.search(statement):
                self.gtid = gtid[1].decode(errors="replace")

    def _count(self, statement: bytes, start: int, values: int, table: TableScan) -> None:
        if self._digests:
            with memoryview(statement) as view:
                table.digest.update(view[start:-1])
        if statement[values : values + 1] == b"\n":  # MariaDB's format: a row a line
            table.rows += statement.count(b"\n", values)
        else:
            while row := ROW.match(statement, values):
                table.rows, values = table.rows + 1, row.end()


def only_tables(chunks: Iterable[bytes], tables: Collection[str], *, triggers: bool = True) -> Iterator[bytes]:
    """Given a dump's text, return that of these tables alone, a statement a piece, with the dump's own beginning and end."""
    statements = Statements()
    passing = True
    for chunk in chunks:
        for statement in statements.feed(chunk):
            if section := SECTION.match(statement):
                passing = section[1].decode(errors="replace") in tables
            elif statement.startswith(FOOTER):
                passing = True
            if passing and (triggers or not statement.startswith(DELIMITER + b";\n")):
                yield statement
    yield b"\n"
