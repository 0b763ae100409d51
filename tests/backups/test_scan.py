"""Rows are counted and cut out of a dump's text in both clients' formats, wherever the stream happens to be cut."""

import subprocess
import sys

import pytest

from tasks.backups.errors import BackupError
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
CREATE = "/*!50003 CREATE*/ /*!50017 DEFINER=`a b`@`%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `messages` FOR EACH ROW "
SIZES = (1, 7, 64, 1_000_000)


def chunks(text: bytes, size: int) -> list[bytes]:
    # A decompressor also returns nothing, now and then.
    return [piece for at in range(0, len(text), size) for piece in (text[at : at + size], b"")]


def scanned(text: bytes, size: int) -> DumpScan:
    scan = DumpScan(digests=True)
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


@pytest.mark.parametrize("columns", [b"(`id`, `words`)", b"(`id`,`b`)", b"(`id`, `a) VALUES (b`, `c``)`)"])
@pytest.mark.parametrize(("text", "rows"), [(MARIADB, 3), (MYSQL, 4)], ids=["mariadb", "mysql"])
def test_rows_behind_a_list_of_columns_are_counted(text: bytes, rows: int, columns: bytes) -> None:
    # As both clients write one where a column is generated or invisible: MariaDB's rows then begin on the same line.
    listed = text.replace(b"`messages` VALUES", b"`messages` %b VALUES" % columns).replace(b"VALUES\n", b"VALUES ")
    assert {name: table.rows for name, table in scanned(listed, 7).tables.items()} == {"messages": rows, "message_reads": 0}


@pytest.mark.parametrize("text", [MARIADB, MYSQL], ids=["mariadb", "mysql"])
def test_the_digest_does_not_depend_on_how_the_stream_was_cut(text: bytes) -> None:
    assert len({scanned(text, size).tables["messages"].digest.digest() for size in SIZES}) == 1


def test_tables_that_were_read_without_digests_equal_none() -> None:
    scan = DumpScan()
    scan.feed(MARIADB)
    with pytest.raises(AttributeError):
        scan.tables["messages"].equals(scan.tables["messages"])


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
from tasks.backups.errors import BackupError
from tasks.backups.scan import DumpScan
resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))
DumpScan().feed(b"\\n" + {text} + b";\\n")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def with_trigger(body: str, mode: str = "STRICT_TRANS_TABLES") -> bytes:
    before, tables, after = MARIADB.partition(b"INSERT INTO `messages` VALUES\n(3,NULL);\n")
    trigger = f"/*!50003 SET sql_mode              = '{mode}' */ ;\nDELIMITER ;;\n{CREATE}{body} */;;\nDELIMITER ;\n"
    return before + tables + trigger.encode() + after


HONEST = (
    "SET @a = 'it''s', @b = 'it\\'s', @c = \"so \\\" is this\"",
    "BEGIN\n-- don't;\n# nor \"this`\nSET @a = 1 - -1 /* can't; */ / 2;\nEND",
    "BEGIN\nSET @a = 'a\\\\', @b = '\\\\';\nSELECT `a``b`, \"c;\n--\" INTO @c, @d;\nEND",
    "SET @a = 'x;\nCREATE TABLE pwned (id INT);\n'",
    "BEGIN\nSELECT 1 AS\nDELIMITER ;\nSELECT 2; END",
)


@pytest.mark.parametrize("body", HONEST)
@pytest.mark.parametrize("size", SIZES)
def test_a_trigger_is_kept_or_left_out_whole(body: str, size: int) -> None:
    text, tables = with_trigger(body), ["messages", "message_reads"]
    assert b"".join(only_tables(chunks(text, size), tables)).strip() == text.partition(b"-- Dump completed")[0].strip()
    without = text[: text.index(b"DELIMITER")] + text[text.rindex(b"DELIMITER ;\n") + 12 :]
    left = b"".join(only_tables(chunks(text, size), tables, triggers=False))
    assert left == b"".join(only_tables(chunks(without, size), tables))


EVIL = "\nDELIMITER ;\nCREATE TABLE pwned (id INT);\n"


@pytest.mark.parametrize(
    "body",
    [
        f"SET @a = 'x;{EVIL}'",
        f"SET @a = 'x;;{EVIL}'",
        f"BEGIN\n/* x;;{EVIL}*/ SET @a = 1; END",
        f"SET @a = '\\\\', @b = ';;{EVIL}'",
        f"SET @a = \"\\\", @b = ';;{EVIL}'",
        f"BEGIN /*!99999 ' */ SET @a = 'x;;{EVIL}'; END",
        f"BEGIN /*+ ' */ SET @a = 'x;;{EVIL}'; END",
        f"BEGIN --\x01'\nSET @a = 'x;;{EVIL}'; END",
        f"BEGIN SELECT 1 AS `a\\`, 'x;;{EVIL}'; END",
    ],
)
def test_a_trigger_whose_body_looks_like_its_end_is_refused(body: str) -> None:
    """Whoever may make a trigger would have statements of his choice run by who restores."""
    with pytest.raises(BackupError, match="cannot be told where the trigger `t` BEFORE INSERT"):
        scanned(with_trigger(body), 64)
    with pytest.raises(BackupError, match="cannot be told where the trigger"):
        list(only_tables([with_trigger(body)], ["messages"], triggers=False))


def test_a_trigger_is_read_as_its_own_sql_mode_has_it() -> None:
    text = with_trigger(f"SET @a = '\\', @b = ';;{EVIL}'", "STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES")
    with pytest.raises(BackupError, match="cannot be told where the trigger"):
        scanned(text, 64)
    scanned(with_trigger("SET @a = '\\', @b = ';'", "NO_BACKSLASH_ESCAPES"), 64)


@pytest.mark.parametrize(
    "head", ["CREATE*/ /*!50003", "CREATE DEFINER=`a``b`@`%`", "CREATE*/ /*!50017 DEFINER=`role`*/ /*!50003"]
)
def test_a_trigger_is_known_by_whichever_head_a_client_gives_it(head: str) -> None:
    text = with_trigger("SET @a = 1").replace(b"CREATE*/ /*!50017 DEFINER=`a b`@`%`*/ /*!50003", head.encode())
    assert head.encode() in text
    assert b"TRIGGER" not in b"".join(only_tables([text], ["messages"], triggers=False))


def test_what_a_column_is_called_ends_no_statement() -> None:
    text = MARIADB.replace(b"`id` int(11)\n", b"`k;\nDELIMITER z` int(11)\n")
    assert text != MARIADB
    assert {*scanned(text, 64).tables} == {"messages", "message_reads"}
    assert b"DELIMITER z` int(11)" in b"".join(only_tables([text], ["message_reads"], triggers=False))


def test_what_stands_behind_two_dashes_on_its_line_is_no_statement() -> None:
    scan = DumpScan()
    scan.feed(b"\n--INSERT INTO `messages` VALUES (1);\n\n-- x\n\nINSERT INTO `message_reads` VALUES (1);\n\n")
    assert {name: table.rows for name, table in scan.tables.items()} == {"message_reads": 1}
