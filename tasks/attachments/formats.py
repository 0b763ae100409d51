"""The table of true types: what content is by its own bytes, whatever its row and name say.

A type that can hold files is believed clean only where clamd has found EICAR in a sample (probes.tsv), and `archives` looks
at each file in it. What has no sample is opened by no clamd, or by clamd alone, which passes what it cannot open in it.
"""

import lzma
import re
import sys
from collections.abc import Iterator
from itertools import product
from mmap import mmap

Data = bytes | mmap
TAR_BLOCK = 512
OCTAL = re.compile(rb"[0-7]{1,7}")
HEAD_BYTES = 0x8006
"""So much of the beginning decides: the mark of an ISO image lies farthest."""

EXECUTABLE, MACROS = "executable", "macros"
"""The latter is a document's that has them, which only a look inside tells."""

# Lengths (ITU-T X.690): any, plain ones, those below 128 with what they are of; and the type of what is signed.
BER = {
    b"plain": rb"(?:[\0-\x80]|\x81.|\x82..|\x83.{3})",
    b"any": rb"(?:[\0-\x80]|\x81.|\x82..|\x83.{3}|[\x84-\xfe].{4,126}?)",
    b"short": b"(?:%s)" % b"|".join(rb"\x%02x.{%d}" % (length, length) for length in range(128)),
    b"data": rb"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01",
}
TYPES = {
    name: re.compile(pattern, re.DOTALL | re.IGNORECASE if name in {"html", "svg", "mime", "script"} else re.DOTALL)
    for name, pattern in {
        # Looked into, where clamd opens them.
        "zip":        rb"PK(?:\x03\x04|\x05\x06|\x06\x06|\x07\x08PK|00PK)",
        "gz":         rb"\x1f\x8b\x08",
        "bz2":        rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
        "xz":         rb"\xfd7zXZ\0",
        "ole2":       rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "pdf":        rb"(?:\xef\xbb\xbf)?[\t-\r\x1b -~]{0,1000}?%PDF-",
        "rtf":        rb"\s*\{\\rt",
        "xml":        rb"(?:\xef\xbb\xbf)?\s*<\?xml",
        "html":       rb"(?:\xef\xbb\xbf)?\s*<(?:!--|(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style"
                      rb"|title|b|body|br|p|meta|img|link|base|form|object|embed|audio|video)[\s/>])",
        # Not looked into: by no clamd, or by clamd alone.
        "7z":         rb"7z\xbc\xaf\x27\x1c",
        "rar":        rb"Rar!\x1a\x07[\0\x01]|RE~\^",
        "cab":        rb"MSCF",
        "arj":        rb"\x60\xea.[\0-\x0a].{6}\x02",
        "lzh":        rb"..-(?:l[hz][0-9a-ds]|pm[0-2])-",
        "cpio":       rb"07070[127]|\xc7\x71|\x71\xc7",
        "xar":        rb"xar!",
        "iso":        rb".{32769}(?:CD001|BEA01)",
        "tnef":       rb"\x78\x9f\x3e\x22",
        "onenote":    rb"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3",
        # Opened by no clamd; the first is a mail's part alone.
        "mime":       rb"(?:\xef\xbb\xbf)?\s*(?:Content-[a-z-]{1,40}:[^\n]*\n(?:[ \t][^\n]*\n)*)+\r?\n",
        "zst":        rb"[\x1e\x22-\x28]\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
        "lz":         rb"LZIP[\0\x01]",
        "wim":        rb"MSWIM\0{3}|WLPWM\0{3}",
        "squashfs":   rb"hsqs|sqsh|shsq|qshs",
        "ar":         rb"!<(?:arch|thin)>\n",
        "rpm":        rb"\xed\xab\xee\xdb",
        "warc":       rb"WARC/",
        "activemime": rb"ActiveMime",
        "pst":        rb"!BDN",
        # What is signed without its content, as mails' signatures are, is told by its plain form. OpenPGP's: armoured.
        "pkcs7":      rb"\x30%(any)s\x06%(any)s\x2a\x86\x48\x86\xf7\x0d\x01(?:\x09\x10\x01[\x02\x09\x17]|\x07[\x01\x03-\x06]"
                      rb"|\x07\x02(?!\xa0%(plain)s\x30%(plain)s\x02\x01.\x31%(short)s\x30(?:\x0b%(data)s|\x80%(data)s\0\0)[\xa0\xa1\x31]))"
                      rb"|-----BEGIN (?:PKCS7|CMS)-" % BER,
        "openpgp":    rb"-----BEGIN PGP (?:MESSAGE|ARMORED)",
        # lz4, lzop, lrzip, zpaq, rzip, PPMd; what gzip opens besides its own; ACE, ZOO, StuffIt, ALZ, EGG, FreeArc; Apple's;
        # help files, Flash, DOS's.
        "rare archive": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18|\x89LZO\0\r\n\x1a\n|LRZI|7kSt\xa0|zPQ[\x01\x02]"
                      rb"|\x1f(?:\x9d.|[\x1e\x9e\x9f\xa0])|RZIP\x02|.{7}\*\*ACE\*\*|.{20}\xdc\xa7\xc4\xfd|StuffIt|SIT!|ALZ\x01|EGGA|ArC\x01"
                      rb"|AA01|YAA1|AEA1|pbz[a-z4]|\x8f\xaf\xac\x84|ITSF\x03|ITOLITLS|[CZ]WS[\x01-\x40]|SZDD\x88\xf0|KWAJ\x88\xf0",
        # VMDK, VHD, VHDX, QCOW, VDI; macOS's; cramfs, NTFS, FAT, ext, HFS, APFS, Android's; tables of partitions.
        "disk image": rb"KDMV|# Disk DescriptorFile|conectix|vhdxfile|QFI\xfb|.{64}\x7f\x10\xda\xbe|\x45\x3d\xcd\x28"
                      rb"|encrcdsa|cdsaencr|sprs|\x28\xcd\x3d\x45|.{3}NTFS {4}|.{54}FAT1|.{82}FAT32"
                      rb"|.{1080}\x53\xef.\0|.{1024}(?:H[+X]\0[\x04\x05]|BD.{34}[\0-\x1b])|.{32}NXSB"
                      rb"|(?:\xe9..|\xeb.\x90).{507}\x55\xaa|.{446}(?:[\0\x80].{15}){4}\x55\xaa|.{512}EFI PART"
                      rb"|ER[\x02-\x10]\0.{508,4092}?PM\0\0|\x3a\xff\x26\xed|.{4096}gDla",
        "uuencode":   rb"begin(?:-base64)?[ \t]+[0-7]{1,4}[ \t]|=ybegin |\(This file must be converted with BinHex",
        # Named by ATTACHMENTS_BLOCKED_TYPES alone: there is nothing to open in them.
        EXECUTABLE:   rb"MZ|\x7fELF|[\xce\xcf]\xfa\xed\xfe|\xfe\xed\xfa[\xce\xcf]|\xca\xfe\xba\xbe|L\0{3}\x01\x14\x02\0|dex\n0",
        "script":     rb"(?:\xef\xbb\xbf)?\s*(?:#!|@echo |<\?php|<script|<job|<package|<scriptlet)",
        "svg":        rb"(?:\xef\xbb\xbf)?(?>\s+|<\?.*?\?>|<!--.*?-->|<!doctype[^[>]*(?:\[.*?\]\s*)?>)*+"
                      rb"<(?:[^\s<>/:]++:)?svg[\s/>]",
    }.items()
}  # fmt: skip
LEAVES = frozenset({EXECUTABLE, "script", "svg", "rtf", "xml", MACROS})
NAMES = frozenset({*TYPES, "lzma", "tar", "mail", MACROS, "embedded object", "pdf attachment"})
TEXTS = frozenset({"html", "svg", "script", "mail", "mime", "rtf"})
STORING = frozenset({"zip", "tar", "ole2"})
"""What other files lie in as they are."""
WIDE = re.compile(rb"\xff\xfe|\0{0,3}(?:\xfe\xff|<\0)|\0{1,3}<")
"""The beginning of a text in UTF-16 or UTF-32, or of XML and pages in these without a byte order mark."""
LZMA = re.compile(rb"[\0-\xe0].{4}(?:\xff{8}|(?!\0{8}).{5}\0{3})\0[\0-\x7f]", re.DOTALL)
LZMA_DICTIONARIES = {size.to_bytes(4, "little") for bits in range(31) for size in (1, 2 << bits, 3 << bits, (1 << 32) - 1)}
# Of OpenPGP's packets by their tag: keys and texts of what is encrypted, one-pass signatures, what is packed and as it is.
PGP_MESSAGE = {
    1: rb"[\x02\x03].{8}[\x01-\x23]|\x06",
    3: rb"(?:[\x04\x05]|\x06.)[\x01-\x0d]",
    4: rb"[\x03\x06][\0\x01][\x01-\x0e]",
    8: rb"\x01|\x02[\x08-\x78]|\x03BZh|\0[\x80-\xff]",
    11: rb"[btuml1]",
    18: rb"[\x01\x02]",
    20: rb"\x01",
}
# Signatures, markers and comments; an Office file and an xz begin like the latter.
PGP_PASSED = {2: rb"[\x02-\x06]", 10: rb"", 16: rb"(?!\xe0\xa1\xb1\x1a)", 61: rb"(?!zXZ\0)"}
MOST_HEADERS, SPACE, BLANK_LINE = 1 << 20, re.compile(rb"(?:\xef\xbb\xbf)?\s*"), re.compile(rb"\n\r*+\n")
HEADER = re.compile(rb"From |[!-9;-~]+[ \t]*:")
# Of an mbox's line before a mail: some programs ask for a time and a year in it.
MBOX_DATE = rb" [^\n]{0,300}\d:\d\d[^\n]{0,99}\d{4}"
MAIL_HEADER = re.compile(
    rb"\n(?:mime-version|content-type|content-transfer-encoding|received|message-id|return-path|from|to|subject)[ \t]*:"
    rb"|\nfrom" + MBOX_DATE
)

MULTIPART, NEAR = re.compile(rb"content-type[ \t]*:\s*multipart/"), 1 << 12

# What programs find wherever it begins, behind a picture or a program (7-Zip in the first 8 MiB): three bytes of it, how far
# these are from its beginning, its type and expression. The third may be the first; else no byte, and no letter of LETTERS in
# any case, has two places among these: one search finds them all.
LETTERS = frozenset({"mail", "link"})
BEHIND = {
    each: (back, name, re.compile(pattern, re.DOTALL | (re.IGNORECASE if name in LETTERS else 0)))
    for few, (back, name, pattern) in {
        b"z\xbc\xaf": (1, "7z", rb"7z\xbc\xaf\x27\x1c"),
        b"r!\x1a": (2, "rar", rb"Rar!\x1a\x07"),
        b"MSC": (0, "cab", rb"MSCF.{7}[\0-\x1f].{7}[\0-\x1f]"),
        b"MSW": (0, "wim", rb"MSWIM\0{3}"),
        b"r!\0": (2, "xar", rb"xar!\0.\0[\0-\x02]"),
        b"-lh": (2, "lzh", rb"..-lh[0-9ds]-.{13}[\0-\3]"),
        b"01\1": (3, "iso", rb"CD001\x01"),
        b"oly": (1, "disk image", rb"koly\0{3}\x04"),
        b"gin": (2, "uuencode", rb"(?<=[\r\n])begin(?:-base64)?[ \t]+[0-7]{1,4}[ \t]|(?<=[\r\n]=y)begin "),
        b"070": (0, "cpio", rb"07070[12][0-9A-Fa-f]{104}|070707[0-7]{70}"),
        b"(\xb5/": (0, "zst", rb"\x28\xb5\x2f\xfd(?:[\0\4\x20\x24].|[\x60\x64]..|[\x40\x44].{3}|[\xa0\xa4].{4}"
                             rb"|[\x80\x84].{5}|[\xe0\xe4].{8}|[\xc0\xc4].{9})..[\0-\x10]"),
        b"GIN": (7, "openpgp", rb"(?<=[\r\n])-----BEGIN (?:PGP (?:MESSAGE|ARMORED)|(?P<pkcs7>PKCS7|CMS)-)"),
        b"zXZ": (2, "xz", rb"\xfd7zXZ\0"),
        b"AY&": (5, "bz2", rb"BZh[1-9]1AY&SY"),
        b"\x1f\x8b\x08": (0, "gz", rb"\x1f\x8b\x08[\0-\x1f]"),
        # In programs a jump may stand behind such a number: then a name must, too.
        b"PK\3": (0, "zip", rb"PK\x03\x04(?:(?!\x0f[\x80-\x8f])|(?=.{22}(?:[\x01-\x03]\0.{2}[^\0]"
                             rb"|(?:[\x04-\xff]\0|.[\x01-\x3f]).{2}[^\0]{4}))).{4}[\0-\x0e\x12\x13\x5d-\x63]\0"),
        b"ust": (257, "tar", rb".{257}ustar"),
        b"obj": (1, "pdf", rb"[\d\s\0]obj[\s\0]*<<[\s\0]*(?:[/%]|>>)|(?<=\d)[\s\0]obj[\s\0]*%"),
        b"mim": (0, "mail", rb"mime-version[ \t]{0,9}:"),
        b"ref": (1, "link", rb"href"),
    }.items()
    for each in (map(bytes, product(*zip(few, few.upper(), strict=True))) if name in LETTERS else [few])
}  # fmt: skip
SIEVE = bytes.maketrans(b"".join(BEHIND), b"".join(b"ABA" if few[:1].lower() == few[2:].lower() else b"ABC" for few in BEHIND))
SIEVED, PIECE = re.compile(b"AB(?=[AC])"), 1 << 16


def types(data: Data) -> set[str]:
    """Return the names of the types that content has by its beginning; a polyglot has several."""
    head = data[:HEAD_BYTES]
    found = {name for name, pattern in TYPES.items() if pattern.match(head)}
    if is_lzma(head) or (head[:1] in {b"\0", b"\1"} and is_lzma(head[1:])):  # the second with 7-Zip's filter for programs
        found.add("lzma")
    if is_openpgp(data):
        found.add("openpgp")
    return found | ({"tar"} if is_tar(head) else set()) | ({"mail"} if is_mail(data) else set())


def behind(data: Data) -> Iterator[tuple[str, int]]:
    """Yield the types of what begins within content, and where; of LETTERS also what it begins with itself."""
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE + 2]
        for found in SIEVED.finditer(piece.translate(SIEVE)):
            at = found.start()
            if (sought := BEHIND.get(piece[at : at + 3])) is None:
                continue
            back, name, pattern = sought
            begin = start + at - back
            if (begin > 0 or (begin == 0 and name in LETTERS)) and (match := pattern.match(data, begin)):
                yield match.lastgroup or name, begin


def find(data: Data, few: bytes, begin: int = 0, end: int = sys.maxsize) -> int:
    """Return where these bytes are, -1 if nowhere. `mmap.find` of Debian 12's Python reads a byte behind the map's end and ends
    the process, where nothing is mapped: https://github.com/python/cpython/issues/105235
    """
    end = min(end, len(data))
    for start in range(begin, end, PIECE):
        at = data[start : min(start + PIECE + len(few) - 1, end)].find(few)
        if at >= 0:
            return start + at
    return -1


def is_mail(data: Data) -> bool:
    """Return whether the first lines, up to a blank one, hold a header that mails have, or do not end."""
    begin = starts(data)
    blank = BLANK_LINE.search(data, begin, begin + MOST_HEADERS)
    if not blank and len(data) > begin + MOST_HEADERS and HEADER.match(data, begin):
        return True
    headers = data[begin : blank.start() if blank else begin + MOST_HEADERS]
    return bool(MAIL_HEADER.search(b"\n" + headers.replace(b"\r", b"\n").lower()))


def is_web_archive(data: Data, at: int) -> bool:
    """Return whether a mail that seems to begin there has several parts: Word opens such a web archive behind a PDF, too."""
    return MULTIPART.search(data[max(0, at - NEAR) : at + NEAR].lower()) is not None


def starts(text: Data) -> int:
    """Return where a text begins, behind white space and a byte order mark."""
    return found.end() if (found := SPACE.match(text)) else 0


def is_lzma(head: bytes) -> bool:
    """Return whether content is an LZMA stream, which has no mark: one that expands, and not to a few zeros alone."""
    if not LZMA.match(head):
        return False
    if head[0] % 9 + head[0] // 9 % 5 > 4:  # only 7-Zip expands these
        return head[1:5] in LZMA_DICTIONARIES and head[9:13] in {b"\0" * 4, b"\xff" * 4}
    expander = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    try:  # with a dictionary of 64 KiB, in place of one for which there is no memory
        found = expander.decompress(head[:1] + b"\0\0\1\0" + head[5:], 1 << 16)
    except lzma.LZMAError:
        return False
    return any(found) or (not expander.eof and (len(found) == 1 << 16 or len(head) >= HEAD_BYTES - 1))


def is_openpgp(data: Data) -> bool:
    """Return whether content is a message of OpenPGP (RFC 9580), be it behind what GnuPG passes over."""
    at = 0
    while (head := data[at : at + 8])[:1] >= b"\x80":
        size = (1, 2, 4, 0)[head[0] & 3]
        tag, begin, length = head[0] >> 2 & 15, at + 1 + size, int.from_bytes(head[1 : 1 + size], "big") if size else len(data)
        if head[0] & 0x40:
            tag, begin, length = head[0] & 63, at + 2, int.from_bytes(head[1:2], "big")
            if length == 255:
                begin, length = at + 6, int.from_bytes(head[2:6], "big")
            elif 192 <= length < 224:
                begin, length = at + 3, (length - 192 << 8) + int.from_bytes(head[2:3], "big") + 192
            elif length >= 224:  # the first of several parts: messages alone are in parts
                length = len(data)
        body = data[begin : begin + 12]
        if tag in PGP_MESSAGE and re.match(PGP_MESSAGE[tag], body, re.DOTALL):
            return True
        if tag not in PGP_PASSED or not re.match(PGP_PASSED[tag], body):
            return False
        at = begin + length
    return False


def is_tar(head: bytes) -> bool:
    """Return whether content begins with a tar's header: old ones have no mark, all have a checksum, some of signed bytes."""
    told = head[148:156].strip(b" \0")
    if len(head) < TAR_BLOCK or not OCTAL.fullmatch(told):
        return False
    summed = head[:148] + b" " * 8 + head[156:TAR_BLOCK]
    return sum(summed) - int(told, 8) in {0, 256 * sum(byte > 0x7F for byte in summed)}
