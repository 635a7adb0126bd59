"""A program: whether a Ray head answers who has no token. Prints `answers` or `refuses`.

In a process of its own, because Ray reads its token once; RAY_AUTH_MODE=disabled must be set.
`python -m trialrun.cluster.unauthorized HOST:PORT`.
"""

import sys

from ray.exceptions import AuthenticationError

from trialrun.cluster.preflight import read_metadata


def answers_without_token(address: str) -> bool:
    """Asks the head of a cluster for its description, as somebody without its token would.

    Args:
        address: `host:port`.
    """
    try:
        read_metadata(address)
    except AuthenticationError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write("answers" if answers_without_token(sys.argv[1]) else "refuses")
