"""Validation of UTF-8 (RFC 3629) that comes in pieces, for Python 2.7. Python's own decoder does most of the work."""

import re

# Python 2.7 decodes surrogates, which UTF-8 must not have (RFC 3629 section 3). In what it decodes, 0xED begins a character.
SURROGATE = re.compile(b"\xed[\xa0-\xbf]")

CONTINUATION = (0x80, 0xBF)
# For each first byte, the ranges of the bytes that follow it (RFC 3629 section 4).
FOLLOWING = {byte: () for byte in range(0x80)}
FOLLOWING.update({byte: (CONTINUATION,) for byte in range(0xC2, 0xE0)})
FOLLOWING.update({byte: (CONTINUATION, CONTINUATION) for byte in range(0xE1, 0xF0)})
FOLLOWING.update({byte: (CONTINUATION, CONTINUATION, CONTINUATION) for byte in range(0xF1, 0xF4)})
FOLLOWING[0xE0] = ((0xA0, 0xBF), CONTINUATION)
FOLLOWING[0xED] = ((0x80, 0x9F), CONTINUATION)
FOLLOWING[0xF0] = ((0x90, 0xBF), CONTINUATION, CONTINUATION)
FOLLOWING[0xF4] = ((0x80, 0x8F), CONTINUATION, CONTINUATION)


class Utf8Validator(object):
    """Validates text that comes in pieces."""

    def __init__(self):
        self.reset()

    def reset(self):
        # The ranges of the bytes that the character in progress still needs, and the bytes before.
        self.missing = ()
        self.total = 0

    def validate(self, piece):
        """Validates the next piece. Returns whether all is valid so far, whether a character ends here, and the number of
        valid bytes of the piece and in all."""
        piece = bytes(piece)
        at = 0
        while at < len(piece):
            if not self.missing:
                at += valid_prefix(piece[at:])
                if at == len(piece):
                    break
            byte = ord(piece[at])
            if self.missing:
                low, high = self.missing[0]
                following = self.missing[1:] if low <= byte <= high else None
            else:
                following = FOLLOWING.get(byte)
            if following is None:
                return False, False, at, self.total + at
            self.missing = following
            at += 1
        self.total += len(piece)
        return True, not self.missing, len(piece), self.total


def valid_prefix(piece):
    """The length of the whole characters at the beginning of `piece`."""
    end = len(piece)
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError as error:
        end = error.start
    surrogate = SURROGATE.search(piece, 0, end)
    return surrogate.start() if surrogate else end
