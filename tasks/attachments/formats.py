"""The table of true types: what content is by its own bytes, whatever its row and name say.

A type that can hold other files is believed clean only where clamd has found EICAR in a sample (probes.tsv). Those without a
sample are opened by no clamd.
"""

import re

TAR_BLOCK = 512
OCTAL = re.compile(rb"[0-7]{1,7}")
HEAD_BYTES = 0x8006
"""So much of the beginning decides: the mark of an ISO image lies farthest."""

EXECUTABLE, MACROS = "executable", "macros"
"""The latter is a document's that has them, which only a look inside tells."""

TYPES = {
    name: re.compile(pattern, re.DOTALL | re.IGNORECASE if name in {"html", "svg", "mail", "mime", "script"} else re.DOTALL)
    for name, pattern in {
        # Opened by clamd, as far as its samples are found.
        "zip":        rb"PK(?:\x03\x04|\x05\x06)",
        "gz":         rb"\x1f\x8b\x08",
        "bz2":        rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
        "xz":         rb"\xfd7zXZ\0",
        "7z":         rb"7z\xbc\xaf\x27\x1c",
        "rar3":       rb"Rar!\x1a\x07\0",
        "rar5":       rb"Rar!\x1a\x07\x01\0",
        "cab":        rb"MSCF\0{4}",
        "arj":        rb"\x60\xea.[\0-\x0a].{6}\x02",
        "lzh":        rb"..-l[hz][0-9a-ds]-",
        "cpio":       rb"07070[127]|\xc7\x71|\x71\xc7",
        "xar":        rb"xar!",
        "iso":        rb".{32769}(?:CD001|BEA01)",
        "ole2":       rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "pdf":        rb".{0,1024}%PDF-",
        "rtf":        rb"\s*\{\\rt",
        "html":       rb"(?:\xef\xbb\xbf)?(?>\s+|<!--.*?-->)*+<(?:!doctype html|html|head|body|script|iframe|title|meta|a\s)",
        "mail":       rb"(?:\xef\xbb\xbf)?\s*(?:From |[a-z][a-z0-9-]{0,60}:).{0,32000}?\n"
                      rb"(?:MIME-Version|Content-Type|Received|Message-ID|Return-Path|From|To|Subject):",
        "tnef":       rb"\x78\x9f\x3e\x22",
        # Opened by no clamd; the first is a mail's part alone.
        "mime":       rb"(?:\xef\xbb\xbf)?\s*(?:Content-[a-z-]{1,40}:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)++\r?\n",
        "zst":        rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
        "lz":         rb"LZIP\x01",
        "lzma":       rb"\x5d\0\0(?:[\x01\x02\x04\x08\x10\x20\x40\x80]\0|.[\x01-\x08])(?:\xff{8}|.{5}\0{3})",
        "wim":        rb"MSWIM\0{3}|WLPWM\0{3}",
        "squashfs":   rb"hsqs|sqsh",
        "ar":         rb"!<(?:arch|thin)>\n",
        "rpm":        rb"\xed\xab\xee\xdb",
        "warc":       rb"WARC/",
        "pst":        rb"!BDN",
        # lz4, lzop, lrzip, zpaq, compress, rzip; ACE, ZOO, StuffIt, ALZ, EGG, FreeArc.
        "rare archive": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18|\x89LZO\0\r\n\x1a\n|LRZI|7kSt\xa0|zPQ[\x01\x02]"
                      rb"|\x1f\x9d[\x09-\x10\x89-\x90]|RZIP\x02|.{7}\*\*ACE\*\*|.{20}\xdc\xa7\xc4\xfd|StuffIt|SIT!|ALZ\x01|EGGA|ArC\x01",
        # VMDK, VHD, VHDX, QCOW, VDI; cramfs, NTFS, FAT, ext, HFS, APFS.
        "disk image": rb"KDMV|# Disk DescriptorFile|conectix|vhdxfile|QFI\xfb|.{64}\x7f\x10\xda\xbe|\x45\x3d\xcd\x28"
                      rb"|\x28\xcd\x3d\x45|.{3}NTFS {4}|.{54}FAT1|.{82}FAT32|.{1080}\x53\xef[\x01-\x04]\0"
                      rb"|.{1024}(?:H[+X]\0[\x04\x05]|BD.{34}\0)|.{32}NXSB",
        # Named by ATTACHMENTS_BLOCKED_TYPES alone: there is nothing to open in them.
        EXECUTABLE:   rb"MZ|\x7fELF|[\xce\xcf]\xfa\xed\xfe|\xfe\xed\xfa[\xce\xcf]|\xca\xfe\xba\xbe|L\0{3}\x01\x14\x02\0|dex\n0",
        "script":     rb"(?:\xef\xbb\xbf)?\s*(?:#!|@echo |<\?php|<script|<job|<package|<scriptlet)",
        "svg":        rb"(?:\xef\xbb\xbf)?(?>\s+|<\?.*?\?>|<!--.*?-->|<!doctype svg[^>]*>)*+<(?:svg:)?svg[\s>]",
    }.items()
}  # fmt: skip
LEAVES = frozenset({EXECUTABLE, "script", "svg", MACROS})
NAMES = frozenset({*TYPES, "tar", MACROS})

# Programs find these wherever they begin, behind a picture or a program; clamd does so for those that it opens.
ANYWHERE = {"7z": b"7z\xbc\xaf\x27\x1c", "rar3": b"Rar!\x1a\x07\0", "rar5": b"Rar!\x1a\x07\x01\0", "cab": b"MSCF\0\0\0\0"}


def types(head: bytes) -> set[str]:
    """Return the names of the types that content with this beginning has; a polyglot has several."""
    found = {name for name, pattern in TYPES.items() if pattern.match(head)}
    return found | {"tar"} if is_tar(head) else found


def is_tar(head: bytes) -> bool:
    """Return whether content begins with a tar's header: old ones have no mark, but all have a checksum."""
    told = head[148:156].strip(b" \0")
    if len(head) < TAR_BLOCK or not head[0]:
        return False
    return bool(OCTAL.fullmatch(told)) and int(told, 8) == sum(head[:148]) + 256 + sum(head[156:TAR_BLOCK])
