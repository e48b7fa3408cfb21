"""Text as people's files and command lines hold it: UTF-8, with or without a byte order mark and with any line ends."""

import codecs
import re
from pathlib import Path

from cgpt.errors import UserError

BYTE_ORDER_MARKS = {  # the longer ones first, as UTF-16's begins UTF-32's
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair that JSON or a file name may hold, and no text can
REPLACEMENT = "\ufffd"


def decode(raw: bytes, where: str, start: int = 0, remedy: str = "convert the file to UTF-8") -> str:
    """The text of UTF-8 bytes that begin at byte `start` of a file; line ends as Python's text files have them, `\\n`.

    A byte order mark at the file's start is left out. Raises UserError, which begins with `where`, for other encodings
    and for binary files.
    """
    if start == 0:
        for mark, encoding in BYTE_ORDER_MARKS.items():
            if raw.startswith(mark):
                raise UserError(f"{where}: is {encoding} text; {remedy}")
    try:
        text = raw.decode("utf-8-sig" if start == 0 else "utf-8")
        bad = raw.find(b"\0")
    except UnicodeDecodeError as error:
        # Python counts from after the mark that it leaves out.
        marked = start == 0 and raw.startswith(codecs.BOM_UTF8)
        text, bad = "", error.start + (len(codecs.BOM_UTF8) if marked else 0)
    if bad >= 0:
        raise UserError(f"{where}: byte {start + bad}: is not UTF-8 text (0x{raw[bad]:02x}); {remedy}")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_text(path: Path, remedy: str) -> str:
    """The text of a whole file. Raises UserError; `remedy` says what to do where the file cannot be opened."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from None
    return decode(raw, str(path))


def without_lone_surrogates(text: str) -> tuple[str, int]:
    """The text with U+FFFD for each lone surrogate, and how many there were."""
    return LONE_SURROGATE.subn(REPLACEMENT, text)


def check_argument(text: str, name: str) -> str:
    """An argument of the command line, whatever the locale that Python read it in.

    Raises UserError where it holds bytes that are not UTF-8 text.
    """
    lone = LONE_SURROGATE.search(text)
    if lone:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8")  # text in a locale that only knows ASCII
        except UnicodeError:
            pass
        code = ord(lone[0])
        wrong = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half of a character (U+{code:04X})"
        raise UserError(f"{name}: holds {wrong}, which is not UTF-8 text; write it in UTF-8, or put it into a file")
    return text
