"""The harness' own errors.

UserError      what was asked for cannot be done as written: one sentence, exit code 2
EngineFailed   a server did not start, died or hung (harness/engines/failure.py): recorded, and the
               sweep goes on
"""


class UserError(Exception):
    """What was asked for cannot be done. The message says what, where, and what to do about it."""
