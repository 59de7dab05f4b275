"""Lists of names in messages."""


def some(names, limit=5):
    """The first few of many names, for a message."""
    names = [str(n) for n in names]
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
