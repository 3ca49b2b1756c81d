"""The KV cache's blocks: reference counts, a least-recently-used free list, and a prefix cache.

A block is free or used. A free block keeps its content and its hash until it is taken for something
else, so a later request with the same prefix can reuse it. As in vLLM V1's block pool, blocks never
used are taken first, then freed ones in the order in which they were freed.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import takewhile


class BlockPool:
    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._never_used = 0  # blocks from this index on were never taken
        self._users: dict[int, int] = {}  # used block -> number of requests that hold it
        self._freed: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def num_used(self) -> int:
        return len(self._users)

    @property
    def num_free(self) -> int:
        return self.num_blocks - self._never_used + len(self._freed)

    def find(self, hashes: Iterable[int]) -> list[int]:
        """The blocks of the longest cached prefix of a hash chain."""
        return [self._block_of[h] for h in takewhile(self._block_of.__contains__, hashes)]

    def fits(self, num_new: int, shared: Sequence[int] = ()) -> bool:
        """Whether `num_new` blocks are free, not counting `shared` ones, which may be free too."""
        return num_new <= self.num_free - sum(block in self._freed for block in shared)

    def take(self, num_new: int) -> list[int]:
        return [self._take_one() for _ in range(num_new)]

    def _take_one(self) -> int:
        if self._never_used < self.num_blocks:
            block = self._never_used
            self._never_used += 1
        else:
            block, _ = self._freed.popitem(last=False)
            if (old := self._hash_of.pop(block, None)) is not None:
                del self._block_of[old]
        self._users[block] = 1
        return block

    def share(self, blocks: Iterable[int]) -> None:
        """Count one more user for each block found in the prefix cache."""
        for block in blocks:
            self._freed.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1

    def publish(self, block: int, block_hash: int) -> None:
        """Make a full block findable by its hash; of two equal blocks, the first is found."""
        if block_hash not in self._block_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Sequence[int]) -> None:
        """Count one user less; the tail is freed first, so that it is evicted before its prefix."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._freed[block] = None

    def forget(self) -> bool:
        """Empty the prefix cache; refused, as by vLLM, while blocks are in use."""
        if self._users:
            return False
        self._hash_of.clear()
        self._block_of.clear()
        return True
