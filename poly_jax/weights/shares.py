"""Deals pieces of work to several workers."""

import heapq
from collections.abc import Mapping


def even_shares(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """Divide names into disjoint shares of about equal size; every worker computes the same division.

    Args:
      sizes: size of the work for each name. The largest is dealt first, to the share that has least.
      count: number of shares.
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        load, index = heapq.heappop(loads)
        shares[index].append(name)
        heapq.heappush(loads, (load + sizes[name], index))
    return shares
