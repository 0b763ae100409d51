"""Find the files that are attached to a PDF, as viewers do (ISO 32000-1, 7.3.8, 7.5.7 and 7.11.4).

clamd loses a stream's filter over a comment, a string, a reference or /Image in its dictionary, and knows no predictors.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice

from tasks.attachments.formats import Data


def _name(name: str) -> bytes:
    """Return an expression for a name, whose letters may be written in hexadecimal."""
    return b"/" + b"".join(b"(?:%c|#(?i:%02x))" % (letter, letter) for letter in name.encode()) + rb"(?![\w#])"


TYPED = re.compile(_name("ObjStm") + b"|(" + _name("EmbeddedFile") + b")")
STREAM = re.compile(rb"stream[ \t]*(?:\r\n|\r|\n)?")
# The objects that hold an attachment; those that stand elsewhere, or behind a comment, are not followed.
FILES = re.compile(_name("EF") + rb"[\0\s]{0,99}(?:<<([^>]{0,999}+)(?:>>)?|[\d%\0\s])")
FILE = re.compile(rb"\s*/\w{1,9}\s*(\d{1,9})\s{1,99}\d{1,9}\s{1,99}R\s*")
OBJECT = re.compile(rb"(?<!\d)(\d{1,10})[\0\s]{1,99}\d{1,9}[\0\s]{1,99}obj\b")
# An encrypted file, or an object whose numbers are on two lines.
ODD = re.compile(_name("Encrypt") + rb"|(?<![\0\s])[\0\t\v\f ]*+[\r\n][\0\s]*+(?:\d{1,10}[\0\s]++)?obj\b")
STRING = re.compile(rb"\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f\s]*>", re.DOTALL)
FILTERS = re.compile(b"|".join(map(_name, ("Filter", "F", "FFilter", "DecodeParms", "DP", "FDecodeParms"))))
PACKED = re.compile(rb"/Filter\s*(?:/(?:FlateDecode|Fl)|\[\s*/(?:FlateDecode|Fl)\s*\])\s*(?=/|>>|\Z)")
MOST_DICTIONARY, MOST_STREAMS = 8192, 10_000


def attachments(data: Data, inflate: Callable[[int], AbstractContextManager[Data]]) -> set[tuple[int, bool]]:
    """Return where each attached file begins, and whether it is packed; `inflate` expands. Raise ValueError if one is odd."""
    numbers, seen, files = _files(data), set[int](), set[tuple[int, bool]]()
    for count, found in enumerate(TYPED.finditer(data)):
        begins = data.rfind(b"obj", max(0, found.start() - MOST_DICTIONARY), found.start())
        begin, packed = _stream(data, begins + 3)
        if found[1]:
            files.add((begin, packed))
        elif packed and begin not in seen:
            with inflate(begin) as text:
                numbers |= _files(text)
        seen.add(begin)
        if max(count, len(numbers)) > MOST_STREAMS:
            raise ValueError
    if numbers or files:
        objects = list(islice((each for each in OBJECT.finditer(data) if int(each[1]) in numbers), MOST_STREAMS + 1))
        if {int(each[1]) for each in objects} != numbers or len(objects) > MOST_STREAMS or ODD.search(data):
            raise ValueError
        files.update(_stream(data, each.end()) for each in objects)
    return files


def _files(text: Data) -> set[int]:
    """Return the numbers of the objects that attachments in this text name. Raise ValueError."""
    numbers = set[int]()
    for found in FILES.finditer(text):
        if not found[1] or FILE.sub(b"", found[1]) or len(numbers) > MOST_STREAMS:
            raise ValueError
        numbers.update(map(int, FILE.findall(found[1])))
    return numbers


def _stream(data: Data, at: int) -> tuple[int, bool]:
    """Return where the stream of the object with this dictionary begins, and whether it is packed. Raise ValueError."""
    begin = STREAM.search(data, at, at + MOST_DICTIONARY)
    dictionary = STRING.sub(b"", data[at : begin.start()]) if begin else b"("
    filters = len(FILTERS.findall(dictionary))
    if not begin or filters > 1 or b"(" in dictionary or b"%" in dictionary or (filters and not PACKED.search(dictionary)):
        raise ValueError
    return begin.end(), bool(filters)
