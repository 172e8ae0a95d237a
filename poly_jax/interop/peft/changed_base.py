"""PiSSA and OLoRA, where LoRA starts from a part of the kernel, which PEFT subtracts from the kernel.

PEFT computes y = x (W - s A0 B0) + s (x A) B, where A0 B0 is a part of the kernel W that W determines,
and saves A and B. The same function is an update of W with twice the rank, from [A, A0] and [B, -B0].
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from poly_jax.errors import UserError
from poly_jax.interop.peft.folder import PeftFolder

Kernel = Float[np.ndarray, "d_in d_out"]
Factors = tuple[Float[np.ndarray, "d_in rank"], Float[np.ndarray, "rank d_out"]]
Start = Callable[[Kernel, int, float], Factors]


def pissa(kernel: Kernel, rank: int, scale: float) -> Factors:
    """Return the factors A0 and B0 of the kernel's largest singular values (PiSSA, arXiv 2404.02948).

    `scale * A0 @ B0` is the best approximation of the kernel with this rank.
    """
    u, s, v = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank] / scale


def olora(kernel: Kernel, rank: int, scale: float) -> Factors:
    """Return the first rows of R and columns of Q in the QR decomposition of the kernel's transpose.

    This is OLoRA (arXiv 2406.01775). The transpose is PyTorch's layout of a kernel. The scale is not used.
    """
    q, r = np.linalg.qr(kernel.T.astype(np.float64))
    return r[:rank].T, q[:, :rank].T


# The start of an adapter by its option: from a part of the kernel, or without a change of the kernel.
_STARTS: dict[str, Start | None] = {
    "pissa": pissa,
    "olora": olora,
    "gaussian": None,
    "eva": None,
    "orthogonal": None,
    "mica": None,
}


def start_of(folder: PeftFolder) -> Start | None:
    """Return the part of the kernel that an adapter started from; None where PEFT did not change the kernel.

    Raises:
      UserError: PEFT changed the kernel in a way that cannot be computed again.
    """
    init = folder.config.get("init_lora_weights", True)
    if init is None or isinstance(init, bool):
        return None
    if isinstance(init, str) and init.lower() in _STARTS:
        return _STARTS[init.lower()]
    raise UserError(
        f"{folder.config_file}: init_lora_weights is {init!r}, which changes the base model in a way that is"
        " not in the adapter; save the adapter with PEFT's path_initial_model_for_weight_conversion"
    )
