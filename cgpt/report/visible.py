"""Text of users and data sets as a page may show it: nothing that hides, turns round or breaks off what follows."""

import re
import unicodedata

CONTROL_PICTURES = 0x2400  # of the characters below 0x20; Unicode chapter 22.7
DELETE = 0x7F
KEPT = "\n\t"
# Format characters that turn the direction of text round or are not seen (UAX 9; zero-width ones are Cf too), and the
# joiners that scripts and emoji need.
JOINERS = "\u200c\u200d"
_SPECIAL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with a sign for each control character, direction mark and lone surrogate; line ends and tabs stay."""
    return _SPECIAL.sub(lambda match: _sign(match[0]), text)


def cut(text: str, longest: int, keep_end: bool = False) -> tuple[str, int]:
    """At most `longest` characters, the first or the last ones, and how many were left out."""
    left_out = max(0, len(text) - longest)
    if not left_out:
        return text, 0
    return (text[-longest:] if keep_end else text[:longest]), left_out


def _sign(character: str) -> str:
    if character in JOINERS:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(CONTROL_PICTURES + code)
    return "\u2421" if code == DELETE else f"⟨U+{code:04X}⟩" if unicodedata.category(character) != "Cs" else "\ufffd"
