"""The one exception that reaches a user as a line of text instead of a traceback."""


class UserError(Exception):
    """Something the user gave is wrong: a flag, binding, path, shape, task or file.

    The message is one line that names the offending value and what to do about it. The command line prints
    it and exits with code 1.
    """
