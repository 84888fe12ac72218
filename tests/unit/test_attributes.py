"""What is read of netlink messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xconnectd.netlink.transport import Reader, attribute, attributes_in, within

_HEADER = b"header: "
_NEST = 3
_WANTED = (1, 2, within(_NEST, 1), within(_NEST, _NEST, 1))
_READER = Reader(len(_HEADER), *_WANTED)
"""One for all examples: what it keeps of a message must not be taken for another's."""


def _packed(attributes: list[tuple[int, bytes]]) -> bytes:
    return b"".join([attribute(number, value) for number, value in attributes])


_attributes = st.recursive(
    st.lists(st.tuples(st.sampled_from((1, 2, 4)), st.binary(max_size=9)), max_size=4),
    lambda inner: st.lists(
        st.tuples(st.just(_NEST), inner.map(_packed))
        | st.tuples(st.sampled_from((1, 2, 4)), st.binary(max_size=9)),
        max_size=4,
    ),
)


@given(_attributes)
def test_a_reader_tells_what_stands_in_a_message(attributes: list[tuple[int, bytes]]) -> None:
    message = _HEADER + _packed(attributes)
    told = attributes_in(message, len(_HEADER), (_NEST, within(_NEST, _NEST)))
    assert _READER.read(message) == {key: told[key] for key in _WANTED if key in told}
