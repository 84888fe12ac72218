"""Keepalives: the frames by which two hosts know of each other that a tunnel works. Pure.

All begin with an Ethernet header of type 0x88B6 (local experimental Ethertype 2), eight bytes by
which a user's own frames of that type are told apart, and a byte for their kind. What the kernel
of the other host does with each kind is said in ``bpf/xconnect.c``:

- a probe goes back as an echo, whether the daemon there lives or not;
- a message is for the daemon there.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final, NamedTuple

ETHERTYPE: Final = 0x88B6
VERSION: Final = 1
"""Of what a message says. Probes and echoes are the same in every version."""

_NOBODY: Final = bytes.fromhex("027863000000")
"""From and to no device's MAC. The kernel drops what comes out of a VXLAN device and has its MAC as
its source (``vxlan_set_mac``), so the source must be neither that of this one nor of the other."""
MAGIC: Final = b"xconnect"
_HEAD: Final = _NOBODY + _NOBODY + ETHERTYPE.to_bytes(2, "big") + MAGIC
_KIND: Final = len(_HEAD)
_PROBE: Final = 1
ECHO: Final = 2
MESSAGE: Final = 3
_BODY: Final = _KIND + 1

_NUMBERS: Final = struct.Struct("!QQ")
"""Of a probe: session, number."""
_FIXED: Final = struct.Struct("!BBQQQQQ")
_OFFERS, _STOPS, _COUNTED, _SIGNED = 1, 2, 4, 8
_LONGEST: Final = 255
_TAG: Final = 32
_VNI: Final = struct.Struct("!I")


class Echo(NamedTuple):
    """Of the probe of that number, which the daemon that is ``session`` has sent."""

    session: int
    number: int


class Message(NamedTuple):
    """What a daemon says of its side of a link.

    ``session`` is a random number of 64 bits that the daemon took at its start, ``number`` counts
    its messages, and ``heard`` is the session of the daemon that it hears: 0 if it hears none.
    A message that names my session as heard was said after my start.

    ``stops``: the daemon ends and takes the link down. ``frames`` and ``dropped``: what it counted
    of frames that came out of the tunnel, None where it does not know. Texts are cut at 255 bytes.
    """

    session: int
    number: int
    heard: int
    link: str
    digest: str
    state: str
    offers: bool
    cause: str
    stops: bool = False
    frames: int | None = None
    dropped: int | None = None


class Refused(NamedTuple):
    """A message that cannot be taken; ``reason`` says what is wrong with it."""

    reason: str


def probe(session: int, number: int) -> bytes:
    return b"%b%c%b" % (_HEAD, _PROBE, _NUMBERS.pack(session, number))


def encode(message: Message, vni: int, key: bytes) -> bytes:
    """A message as a frame, signed with the key (empty: it is not)."""
    counted = message.frames is not None
    flags = (
        _OFFERS * message.offers | _STOPS * message.stops | _COUNTED * counted | _SIGNED * bool(key)
    )
    numbers = (
        message.session,
        message.number,
        message.heard,
        message.frames or 0,
        message.dropped or 0,
    )
    body = b"%c%b%b" % (
        MESSAGE,
        _FIXED.pack(VERSION, flags, *numbers),
        b"".join(map(_packed, (message.link, message.digest, message.state, message.cause))),
    )
    return _HEAD + body + (_signature(body, vni, key) if key else b"")


def decode(frame: bytes, vni: int, key: bytes) -> Echo | Message | Refused | None:
    """What came out of the tunnel ``vni``. None of all that is for nobody."""
    if len(frame) < _BODY or frame[12:_KIND] != _HEAD[12:]:
        return None
    kind = frame[_KIND]
    if kind == ECHO and len(frame) >= _BODY + _NUMBERS.size:
        return Echo(*_NUMBERS.unpack_from(frame, _BODY))
    if kind != MESSAGE:
        return None
    if len(frame) > _BODY and frame[_BODY] != VERSION:
        return Refused(f"is of another version ({frame[_BODY]}, here {VERSION}): upgrade one")
    try:
        return _message(frame, vni, key)
    except (struct.error, IndexError, UnicodeDecodeError):
        return Refused("cannot be understood")


def _message(frame: bytes, vni: int, key: bytes) -> Message | Refused:
    _, flags, session, number, heard, frames, dropped = _FIXED.unpack_from(frame, _BODY)
    at = _BODY + _FIXED.size
    texts = []
    for _ in range(4):
        end = at + 1 + frame[at]
        texts.append(frame[at + 1 : end].decode())
        at = end
    if at > len(frame):
        raise IndexError(at)
    if bool(key) is not bool(flags & _SIGNED):
        where = "here" if key else "there"
        return Refused(f"cannot be verified: only {where} the file has a hosts_key")
    if key and not hmac.compare_digest(
        _signature(frame[_KIND:at], vni, key), frame[at : at + _TAG]
    ):
        return Refused("cannot be verified: the file there has another hosts_key")
    link, digest, state, cause = texts
    counts = (frames, dropped) if flags & _COUNTED else (None, None)
    return Message(
        *(session, number, heard, link, digest, state),
        *(bool(flags & _OFFERS), cause, bool(flags & _STOPS), *counts),
    )


def _packed(text: str) -> bytes:
    octets = text.encode()[:_LONGEST].decode(errors="ignore").encode()
    return b"%c%b" % (len(octets), octets)


def _signature(body: bytes, vni: int, key: bytes) -> bytes:
    """With the VNI, so that no message of one tunnel counts in another one."""
    return hmac.digest(key, _VNI.pack(vni) + body, "sha256")
