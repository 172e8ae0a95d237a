"""Errors of the file system that libraries wrap in errors of their own."""

# TensorStore, TensorFlow and Orbax put the operating system's text into errors of their own types.
_FILE_ERRORS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "No such file or directory",
    "Not a directory",
    "Input/output error",
    "Stale file handle",
    "File too large",
)


def file_error(error: BaseException) -> str | None:
    """Return the operating system's reason for an error, or None where it has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        for text in _FILE_ERRORS:
            if text.lower() in str(seen).lower():
                return text
        seen = seen.__cause__ or seen.__context__
    return None
