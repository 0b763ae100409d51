"""The error of a stack."""


class StackError(Exception):
    """The stack cannot start or go on; the text is for the person who must act."""
