"""Find the files that are attached to a PDF, as viewers do (ISO 32000-1, 7.3.8, 7.5.7 and 7.11.4).

clamd loses a stream's filter over a comment, a string, a reference or /Image in its dictionary, and knows no predictors.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property

from tasks.attachments.formats import Data


def _name(name: str) -> bytes:
    """Return an expression for a name, whose letters may be written in hexadecimal."""
    return b"/" + b"".join(b"(?:%c|#(?i:%02x))" % (letter, letter) for letter in name.encode()) + rb"(?![\w#])"


OBJECT = re.compile(rb"(?<!\d)(\d++)[\0\s]++\d++[\0\s]++obj\b")
# What objects begin with, as it should be or with a comment in it; an attachment; what lists of packed objects have, whatever
# their /Type: /N and, but for MuPDF, /First.
MARKS = re.compile(
    b"|".join(
        (OBJECT.pattern, rb"((?<=[\d\0\s])obj\b)", *(b"(%s)" % _name(name) for name in ("EmbeddedFile", "First")), _name("N"))
    )
)
FIRST = re.compile(_name("First"))
STREAM = re.compile(rb"stream[ \t]*(?:\r\n|\r|\n)?")
STRING = re.compile(rb"\((?:[^()\\]++|\\.|\((?:[^()\\]++|\\.)*+\))*+\)|(?<!<)<[0-9A-Fa-f\s]*+>", re.DOTALL)
# The words that end a dictionary, which may also stand in its strings, comments and names.
END = re.compile(b"(endobj)|(" + STREAM.pattern + b")|" + STRING.pattern + rb"|%[^\r\n]*+|/[^][\0\s()<>{}/%]*+", re.DOTALL)
# The objects that hold an attachment; those that stand elsewhere, or behind a comment, are not followed.
FILES = re.compile(_name("EF") + rb"[\0\s]*+(?:<<([^<>]{0,999}+)>>|<<|[-+.\d%])")
FILE = re.compile(rb"/\w{1,9}\s*(\d{1,9})\s{1,99}\d{1,9}\s{1,99}R\s*")
# An encrypted file, or an object whose numbers are on two lines.
ODD = re.compile(_name("Encrypt") + rb"|(?<![\0\s])[\0\t\v\f ]*+[\r\n][\0\s]*+(?:\d++[\0\s]++)?obj\b")
ENCRYPT = re.compile(_name("Encrypt"))
DICTIONARY = re.compile(rb"[\0\s]*<<[^()%]*>>[\0\s]*")
FILTERS = re.compile(b"|".join(map(_name, ("Filter", "F", "FFilter", "DecodeParms", "DP", "FDecodeParms"))))
PACKED = re.compile(rb"/Filter\s*(?:/(?:FlateDecode|Fl)|\[\s*/(?:FlateDecode|Fl)\s*\])\s*(?=/|>>|\Z)")
LENGTH, END_STREAM = re.compile(_name("Length") + rb"[\0\s]*+(\d{1,9})[\0\s]*+(?=/|>>)"), re.compile(rb"[\0\s]*endstream")
MOST_DICTIONARY = 8192
PACKS, ODD_END = 0, -1
"""In place of where a stream ends: it is packed, so it tells by itself, or its end cannot be told."""


def attachments(data: Data, inflate: Callable[[int], AbstractContextManager[Data]]) -> set[tuple[int, int]]:
    """Return where each attached file begins and ends (PACKS: by itself); `inflate` expands. Raise ValueError if one is odd."""
    numbers, lists, files = _files(data), set[int](), set[tuple[int, int]]()
    owner, first_at = _Object(data), -1
    # clamd tells, and opens, an encrypted one by this word alone.
    if any(found[0] != b"/Encrypt" for found in ENCRYPT.finditer(data)):
        raise ValueError
    for found in MARKS.finditer(data):
        at = found.start()
        if found[1] or found[2]:
            owner = _Object(data, found if found[1] else None)
        elif found[4]:
            first_at = at
        else:
            streams = owner.streams_of(at)
            if streams is None:
                if found[3] or first_at >= owner.begin or FIRST.search(data, at, at + MOST_DICTIONARY):
                    raise ValueError
                # What may be one of MuPDF's lists: all streams near.
                streams = {(each.end(), PACKS) for each in STREAM.finditer(data, at, at + 2 * MOST_DICTIONARY)}
            if found[3]:
                files |= streams
            for begin in {begin for begin, _ in streams} - lists if not found[3] else ():
                lists.add(begin)
                with inflate(begin) as text:
                    numbers |= _files(text)
    if numbers or files:
        objects = [each for each in OBJECT.finditer(data) if int(each[1]) in numbers]
        if {int(each[1]) for each in objects} != numbers or ODD.search(data):
            raise ValueError
        for each in objects:
            if not (streams := _Object(data, each).streams):
                raise ValueError
            files |= streams
    if any(end == ODD_END for _, end in files):
        raise ValueError
    return files


def _files(text: Data) -> set[int]:
    """Return the numbers of the objects that attachments in this text name. Raise ValueError."""
    numbers = set[int]()
    for found in FILES.finditer(text):
        if not found[1] or FILE.sub(b"", found[1].strip()):
            raise ValueError
        numbers.update(map(int, FILE.findall(found[1])))
    return numbers


class _Object:
    """An object of the file, or what of it is behind a `head` that is none."""

    def __init__(self, data: Data, head: re.Match[bytes] | None = None) -> None:
        self.begin = head.end() if head else len(data)
        self._data, self._head = data, head

    @cached_property
    def _end(self) -> re.Match[bytes] | None:
        found = END.finditer(self._data, self.begin, self.begin + MOST_DICTIONARY)
        return next((each for each in found if each[1] or each[2]), None)

    @cached_property
    def streams(self) -> set[tuple[int, int]] | None:
        """Where its stream begins and ends, as in `attachments`, if it has one; None if it is odd."""
        # What begins no line may be in a comment.
        if not self._head or not (end := self._end) or self._data[self._head.start() - 1] not in b"\r\n":
            return None
        dictionary = self._data[self.begin : end.start()]
        dictionary = STRING.sub(b"", dictionary)
        filters = len(FILTERS.findall(dictionary))
        plain = filters < 2 and (not filters or PACKED.search(dictionary) is not None)
        balanced = DICTIONARY.fullmatch(dictionary) and dictionary.count(b"<<") == dictionary.count(b">>")
        if not balanced or b"obj" in dictionary or not (end[1] or plain):
            return None
        if end[1]:
            return set()
        # The word that ends a stream may stand in it, too.
        length = LENGTH.search(dictionary)
        stop = end.end() + int(length[1]) if length and END_STREAM.match(self._data, end.end() + int(length[1])) else ODD_END
        return {(end.end(), PACKS if filters else stop)}

    def streams_of(self, name: int) -> set[tuple[int, int]] | None:
        """Return `streams` for a name at this place in its dictionary, none for a word in its stream, None behind its end."""
        if self._end and self._end.start() < name:
            return None if self._end[1] else set()
        return self.streams
