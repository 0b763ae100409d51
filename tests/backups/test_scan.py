"""Rows are counted and cut out of a dump's text in both clients' formats, wherever the stream happens to be cut."""

import subprocess
import sys

import pytest

from tasks.backups.scan import DumpScan, only_tables

MARIADB = b"""\
/*M!999999\\- enable the sandbox mode */
-- MariaDB dump 10.19
/*!40103 SET TIME_ZONE='+00:00' */;

--
-- Table structure for table `messages`
--

DROP TABLE IF EXISTS `messages`;
CREATE TABLE `messages` (
  `id` int(11) NOT NULL COMMENT 'a;b (c)'
) ENGINE=InnoDB;
INSERT INTO `messages` VALUES
(1,'it\\'s),(2'),
(2,';\\n(3');
INSERT INTO `messages` VALUES
(3,NULL);

--
-- Table structure for table `message_reads`
--

DROP TABLE IF EXISTS `message_reads`;
CREATE TABLE `message_reads` (
  `id` int(11)
) ENGINE=InnoDB;
UNLOCK TABLES;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;

-- Dump completed on 2026-11-22 20:39:38
"""
MYSQL = (
    MARIADB.replace(b"VALUES\n", b"VALUES ")
    .replace(b"),\n(", b"),(")
    .replace(b"(3,NULL)", b"(3,_binary '\\'),(\\\\'),(4,0x27)")
    .partition(b"\n")[2]
)
SIZES = (1, 7, 64, 1_000_000)


def chunks(text: bytes, size: int) -> list[bytes]:
    # A decompressor also returns nothing, now and then.
    return [piece for at in range(0, len(text), size) for piece in (text[at : at + size], b"")]


def scanned(text: bytes, size: int) -> DumpScan:
    scan = DumpScan()
    for chunk in chunks(text, size):
        scan.feed(chunk)
    return scan


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("text", "rows"), [(MARIADB, 3), (MYSQL, 4)], ids=["mariadb", "mysql"])
def test_rows_are_counted(text: bytes, rows: int, size: int) -> None:
    scan = scanned(text, size)
    assert {name: table.rows for name, table in scan.tables.items()} == {"messages": rows, "message_reads": 0}
    assert scan.complete
    assert scan.bytes == len(text)


@pytest.mark.parametrize("text", [MARIADB, MYSQL], ids=["mariadb", "mysql"])
def test_the_digest_does_not_depend_on_how_the_stream_was_cut(text: bytes) -> None:
    assert len({scanned(text, size).tables["messages"].digest.digest() for size in SIZES}) == 1


def test_a_changed_value_changes_the_digest() -> None:
    changed = MARIADB.replace(b"it\\'s", b"it\\'z")
    assert scanned(changed, 64).tables["messages"].digest.digest() != scanned(MARIADB, 64).tables["messages"].digest.digest()


@pytest.mark.parametrize("lost", range(1, 40, 3))
def test_without_its_last_line_it_is_not_complete(lost: int) -> None:
    assert not scanned(MARIADB[:-lost], 64).complete


def test_the_closing_line_inside_a_value_is_none() -> None:
    assert not scanned(b"INSERT INTO `messages` VALUES\n(1,'\\n-- Dump completed on 2026-01-01\\n');\n", 64).complete


@pytest.mark.parametrize("size", SIZES)
def test_one_table_is_cut_out_with_the_beginning_and_end_of_the_dump(size: int) -> None:
    text = b"".join(only_tables(chunks(MARIADB, size), ["message_reads"]))
    assert b"SET TIME_ZONE='+00:00'" in text
    assert b"CREATE TABLE `message_reads`" in text
    assert b"`messages`" not in text
    assert b"TIME_ZONE=@OLD_TIME_ZONE" in text


@pytest.mark.parametrize(
    "text",
    ["b'\\n' * 10_000_000", "b'--\\n' * 5_000_000", "b'INSERT INTO `messages` VALUES (' + b\"'\" + b\"(\\\\'\" * 3_000_000"],
    ids=["blank", "comments", "quotes"],
)
def test_a_statement_that_was_made_to_be_hard_costs_a_few_times_its_length(text: str) -> None:
    program = f"""
import resource
from tasks.backups.scan import DumpScan
resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))
DumpScan().feed(b"\\n" + {text} + b";\\n")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
