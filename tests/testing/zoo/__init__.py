"""Broken blocks, each with the one fault that its name says: a contract check that rejects none of them proves nothing.

``ZOO`` gives, by name, how to build each and the property that it breaks.
"""

# Each puts its specimens into ZOO.
from tests.testing.zoo import cut, kept, numbers, sometimes
from tests.testing.zoo.registry import ZOO

__all__ = ["ZOO", "cut", "kept", "numbers", "sometimes"]
