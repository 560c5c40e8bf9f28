"""Masking of payloads (RFC 6455 section 5.3) for Python 2.7, every fourth byte at once."""


class XorMaskerNull(object):
    """Leaves payloads as they are."""

    def __init__(self, mask=None):
        self.ptr = 0

    def pointer(self):
        return self.ptr

    def reset(self):
        self.ptr = 0

    def process(self, data):
        self.ptr += len(data)
        return data


class XorMasker(XorMaskerNull):
    """Masks a payload that comes in pieces."""

    def __init__(self, mask):
        super(XorMasker, self).__init__()
        assert len(mask) == 4
        # A table for bytes.translate for each byte of the mask.
        self.tables = [bytes(bytearray(byte ^ key for byte in range(256))) for key in bytearray(mask)]

    def process(self, data):
        data = bytes(data)
        masked = bytearray(len(data))
        for first in range(min(4, len(data))):
            masked[first::4] = data[first::4].translate(self.tables[(self.ptr + first) & 3])
        self.ptr += len(data)
        return bytes(masked)


def createXorMasker(mask, length=None):
    return XorMasker(mask)
