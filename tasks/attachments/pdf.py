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


OBJECT = re.compile(rb"(?<!\d)(\d++)[\0\s]++\d++[\0\s]++obj\b")
# What objects begin with, as it should be or with a comment in it; an attachment; and a list of packed objects, which is one by
# /N and, but for MuPDF, /First, whatever its /Type.
MARKS = re.compile(b"|".join((OBJECT.pattern, rb"([\d\r\n][\0\s]*+obj\b)", b"(%s)" % _name("EmbeddedFile"), _name("N"))))
FIRST = re.compile(_name("First"))
STREAM = re.compile(rb"stream[ \t]*(?:\r\n|\r|\n)?")
END = re.compile(b"(endobj)|" + STREAM.pattern)
# The objects that hold an attachment; those that stand elsewhere, or behind a comment, are not followed.
FILES = re.compile(_name("EF") + rb"[\0\s]*+(?:<<([^<>]*+)>>|<<|[\d%])")
FILE = re.compile(rb"\s*/\w{1,9}\s*(\d{1,9})\s{1,99}\d{1,9}\s{1,99}R\s*")
# An encrypted file, or an object whose numbers are on two lines.
ODD = re.compile(_name("Encrypt") + rb"|(?<![\0\s])[\0\t\v\f ]*+[\r\n][\0\s]*+(?:\d++[\0\s]++)?obj\b")
STRING = re.compile(rb"\((?:[^()\\]|\\.|\((?:[^()\\]|\\.)*\))*\)|(?<!<)<[0-9A-Fa-f\s]*>", re.DOTALL)
DICTIONARY = re.compile(rb"[\0\s]*<<[^()%]*>>[\0\s]*")
FILTERS = re.compile(b"|".join(map(_name, ("Filter", "F", "FFilter", "DecodeParms", "DP", "FDecodeParms"))))
PACKED = re.compile(rb"/Filter\s*(?:/(?:FlateDecode|Fl)|\[\s*/(?:FlateDecode|Fl)\s*\])\s*(?=/|>>|\Z)")
MOST_DICTIONARY, MOST_STREAMS, MOST_MARKS, MOST_NEAR = 8192, 10_000, 1 << 20, 4


def attachments(data: Data, inflate: Callable[[int], AbstractContextManager[Data]]) -> set[tuple[int, bool]]:
    """Return where each attached file begins, and whether it is packed; `inflate` expands. Raise ValueError if one is odd."""
    numbers, lists, files, owner = _files(data), set[int](), set[tuple[int, bool]](), None
    for count, found in enumerate(MARKS.finditer(data)):
        if found[1] or found[2]:
            owner = found if found[1] else None
        elif found[3]:
            files |= _streams(data, owner, found.start())
        else:
            for begin, _ in _streams(data, owner, found.start(), is_list=True):
                if begin not in lists:
                    lists.add(begin)
                    with inflate(begin) as text:
                        numbers |= _files(text)
        if max(len(lists), len(numbers)) > MOST_STREAMS or count > MOST_MARKS:
            raise ValueError
    if numbers or files:
        objects = list(islice((each for each in OBJECT.finditer(data) if int(each[1]) in numbers), MOST_STREAMS + 1))
        if {int(each[1]) for each in objects} != numbers or len(objects) > MOST_STREAMS or ODD.search(data):
            raise ValueError
        for each in objects:
            if not (streams := _streams(data, each, each.end())):
                raise ValueError
            files |= streams
    return files


def _files(text: Data) -> set[int]:
    """Return the numbers of the objects that attachments in this text name. Raise ValueError."""
    numbers = set[int]()
    for found in FILES.finditer(text):
        if not found[1] or FILE.sub(b"", found[1]) or len(numbers) > MOST_STREAMS:
            raise ValueError
        numbers.update(map(int, FILE.findall(found[1])))
    return numbers


def _streams(data: Data, owner: re.Match[bytes] | None, name: int, *, is_list: bool = False) -> set[tuple[int, bool]]:
    """Return where the stream of the object with the name at this place begins, and whether it is packed, if it has one.

    Of what may be a list with an odd dictionary return all streams near. Raise ValueError of what else is odd.
    """
    end = END.search(data, owner.end(), owner.end() + MOST_DICTIONARY) if owner else None
    if end and end.start() < name and not end[1]:
        return set()  # a word in a stream
    sound = owner and end and name <= end.start() and data[owner.start() - 1] in b"\r\n"  # else it may be in a comment
    dictionary = STRING.sub(b"", data[owner.end() : end.start()]) if owner and end and sound else b""
    balanced = DICTIONARY.fullmatch(dictionary) and dictionary.count(b"<<") == dictionary.count(b">>")
    filters = len(FILTERS.findall(dictionary))
    plain = filters < 2 and (not filters or PACKED.search(dictionary) is not None)
    if end and balanced and b"obj" not in dictionary and (end[1] or plain):
        return set() if end[1] else {(end.end(), bool(filters))}
    if not is_list or FIRST.search(data, owner.end() if owner else name, name + MOST_DICTIONARY):
        raise ValueError
    return {(each.end(), True) for each in islice(STREAM.finditer(data, name, name + 2 * MOST_DICTIONARY), MOST_NEAR)}
