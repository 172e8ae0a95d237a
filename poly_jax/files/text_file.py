"""Reads text files that come from outside: UTF-8 only, and never more than a limit."""

import codecs

from etils import epath

from poly_jax.errors import UserError

MAX_BYTES = 64 << 20
"""The default limit: far above any configuration, index or tokenizer, and small enough to parse in memory."""

_PIECE = 1 << 20

COPY = "copy it again"
"""The instruction to a user whose model or run has a broken file."""


def read_text(path: epath.PathLike, max_bytes: int = MAX_BYTES, advice: str = COPY) -> str:
    """Read a UTF-8 text file, local or remote (gs://), without its byte order mark.

    Args:
      path: path of the file.
      max_bytes: the largest size that is read.
      advice: instruction to the user in the message about a broken file.

    Raises:
      UserError: the file is missing, is not a file, cannot be read, is larger than `max_bytes`, or is not
        UTF-8.
    """
    return decode(read_bytes(path, max_bytes, advice), path, advice)


def decode(content: bytes, place: object, advice: str = COPY) -> str:
    """Decode UTF-8 and drop a byte order mark.

    Args:
      content: the bytes.
      place: name of the bytes in the error: a path, or a path and a line.
      advice: instruction to the user in the error.

    Raises:
      UserError: the bytes are not UTF-8.
    """
    refuse_utf16(content, place)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"{place} is not UTF-8 text ({e.reason} at byte {e.start}); {advice}") from None


def refuse_utf16(content: bytes, place: object) -> None:
    """Raise a UserError where bytes begin with the byte order mark of UTF-16.

    Args:
      content: the bytes, or the first ones.
      place: name of the bytes in the error.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(
            f"{place} is UTF-16 text, and UTF-8 is needed; convert the file with"
            " `iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE`"
        )


def read_bytes(path: epath.PathLike, max_bytes: int = MAX_BYTES, advice: str = COPY) -> bytes:
    """Read a file of at most `max_bytes`, local or remote (gs://), for a reader that decodes it in parts.

    Args:
      path: path of the file.
      max_bytes: the largest size that is read.
      advice: instruction to the user in the error.

    Raises:
      UserError: the file is missing, is not a file, cannot be read, or is larger than `max_bytes`.
    """
    content = bytearray()
    try:
        with epath.Path(path).open("rb") as file:
            # The file is read in pieces, because a read reserves memory for its whole requested size.
            while len(content) <= max_bytes and (piece := file.read(_PIECE)):
                content += piece
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {advice}") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror or e}); {advice}") from None
    if len(content) > max_bytes:
        raise UserError(f"{path} is larger than {max_bytes} bytes, the most that is read of it; {advice}")
    return bytes(content)
