"""Waits for a call that may never return, as reading a dataset that drops every example."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def waited_for(call: Callable[[], T], seconds: float, meanwhile: Callable[[], None]) -> T:
    """Return what a call returns, and look after it once when it takes long.

    The call runs in a thread of its own. The main thread can thus be interrupted from the keyboard, and the
    process can end although the call does not.

    Args:
      call: the function; its exceptions are raised here.
      seconds: time after which `meanwhile` is called.
      meanwhile: called at most once, while the call goes on; where it raises an exception, the call is
        given up.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        meanwhile()
        thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
