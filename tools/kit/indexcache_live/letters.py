"""Patterns as letters, one a layer: F runs its indexer, S reuses the selection of the layer before it, `-` has no indexer
to run, `.` is not on this rank."""

from __future__ import annotations

from collections.abc import Mapping

WORD_BITS = 32


class Refused(Exception):
    """What a caller asked for cannot be done; the text says why. Never leaves a method that an engine calls."""


def check(wanted: str, present: Mapping[int, bool], total: int) -> None:
    """Refuses a pattern that this rank cannot run.

    wanted: one letter for each layer of the whole model; `-` where the server has no indexer.
    present: for each layer of this rank, whether it has an indexer.
    """
    if len(wanted) != total:
        raise Refused(f"the pattern has {len(wanted)} letters, the model has {total} layers")
    wrong = sorted(set(wanted) - set("FS-"))
    if wrong:
        raise Refused(f"the pattern has {wrong[0]!r}: letters are F, S and -")
    for layer, has_indexer in present.items():
        if wanted[layer] == "F" and not has_indexer:
            raise Refused(f"layer {layer} has no indexer: it was Shared when the server started")
    if present and wanted[min(present)] != "F":
        raise Refused(
            f"layer {min(present)} is the first of this rank and has to be Full: a Shared one would read what "
            "another request left behind"
        )


def to_words(letters: str) -> list[int]:
    """Bit i of word w says that layer 32 w + i is Shared."""
    words = [0] * ((len(letters) + WORD_BITS - 1) // WORD_BITS)
    for layer, letter in enumerate(letters):
        if letter != "F":
            words[layer // WORD_BITS] |= 1 << (layer % WORD_BITS)
    return words


def from_words(words: Mapping[int, int], total: int) -> str:
    """The letters that `to_words` packed; every word has to be there, and no bit beyond the last layer."""
    needed = (total + WORD_BITS - 1) // WORD_BITS
    if sorted(words) != list(range(needed)):
        raise Refused(f"{total} layers take the words indexcache_shared_0 to indexcache_shared_{needed - 1}, and no others")
    for index, word in words.items():
        bits = min(WORD_BITS, total - index * WORD_BITS)
        if not 0 <= word < 1 << bits:
            raise Refused(f"indexcache_shared_{index} is {word}: it has bits for layers that the model does not have")
    return "".join("S" if words[layer // WORD_BITS] >> (layer % WORD_BITS) & 1 else "F" for layer in range(total))
