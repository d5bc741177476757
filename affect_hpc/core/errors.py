"""The one exception that says: the user's input is at fault, and this sentence says how to mend it."""


class UserError(ValueError):
    """Wrong input. Shown as its message alone, without a traceback; the exit code is 2.

    Its text names the offending value, where it stands, the valid ones and what to do. Several findings of one pass
    (every unreadable file of a folder, say) are joined by newlines, one sentence a line.
    """
