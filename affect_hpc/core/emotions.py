"""The eight emotion classes, in the order of their ids."""

EMOTIONS: tuple[str, ...] = (
    *("neutral", "happy", "sad", "surprised"),
    *("scared", "disgusted", "angry", "contempt"),
)
TARGETS: tuple[str, ...] = EMOTIONS[1:7]
"""The six basic emotions: the targets of an edit (thesis section 4.4)."""
