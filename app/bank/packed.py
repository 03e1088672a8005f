"""Bank files as banks hand them out: plain, or packed by zip or gzip; and what is no bank file, said
in a sentence.

Nothing is unpacked beyond `LARGEST` bytes in all, whatever a file says of its own size.
"""

import re
import zipfile
import zlib
from io import BytesIO

from app.bank.statements import FileRefused

LARGEST = 20 * 1024 * 1024
"""Bytes of a file, and of all files in a packed one together."""
MOST_FILES = 400
"""Files in one archive: a year of days."""
_ASK = "Download the statement as camt.053, as the XML itself or zipped, or as MT940."
_SPREADSHEET = "[Content_Types].xml"
"""The file by which an archive shows that it is a document of an office program."""
_IGNORED = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


def unpack(data: bytes) -> list[tuple[str, bytes]]:
    """The files in a file, each with its name in the archive, in the order of their names; a plain
    one is its own, without a name. Raises FileRefused."""
    if len(data) > LARGEST:
        raise FileRefused("The file is larger than 20 MB. Ask the bank for one per day.")
    if data.startswith(b"\x1f\x8b"):
        return [("", _gunzip(data))]
    if data.startswith(b"PK\x03\x04"):
        return _unzip(data)
    return [("", data)]


def refuse_what_is_none(data: bytes) -> None:
    """Refuse what people download instead of a statement. Raises FileRefused."""
    head = data[:4096].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if head.startswith(b"%PDF"):
        raise FileRefused(f"This is a PDF, which cannot be read without a doubt. {_ASK}")
    if head.startswith((b"PK", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")):
        raise FileRefused(f"This is an archive or a spreadsheet in an archive. {_ASK}")
    text = head.decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines()[:6] if line.strip()]
    table = any(min((line.count(mark) for line in lines[:3]), default=0) >= 3 for mark in ";,\t")
    if table and not head.startswith((b"<", b":", b"{")) and not re.search(r"^:\d\d[A-Z]?:", text, re.MULTILINE):
        raise FileRefused(f"This is a table (CSV), in which every bank writes other columns. {_ASK}")


def _gunzip(data: bytes) -> bytes:
    reader, found = zlib.decompressobj(wbits=31), b""
    try:
        found = reader.decompress(data, LARGEST + 1)
    except zlib.error as error:
        raise FileRefused("The gzip file is damaged or cut off.") from error
    _refuse_much(len(found))
    if not reader.eof:
        raise FileRefused("The gzip file is damaged or cut off.")
    return found


def _unzip(data: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = [each for each in archive.infolist() if not each.is_dir()]
            members = sorted(
                (each for each in names if not _IGNORED.search(each.filename)),
                key=lambda each: each.filename,
            )
            if any(each.filename == _SPREADSHEET for each in members):
                raise FileRefused(f"This is a spreadsheet, in which every bank writes other columns. {_ASK}")
            if len(members) > MOST_FILES:
                raise FileRefused(f"The archive holds more than {MOST_FILES} files. Import it in parts.")
            found, left = [], LARGEST
            for member in members:
                if member.flag_bits & 1:
                    raise FileRefused("The archive is locked with a password. Unpack it first.")
                with archive.open(member) as file:
                    content = file.read(left + 1)
                left -= len(content)
                _refuse_much(LARGEST - left)
                found.append((member.filename, content))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise FileRefused("The zip archive is damaged or packed in a way that cannot be read.") from error
    if not found:
        raise FileRefused("The archive holds no file.")
    return found


def _refuse_much(size: int) -> None:
    if size > LARGEST:
        raise FileRefused("Unpacked, the file is larger than 20 MB. Ask the bank for one per day.")
