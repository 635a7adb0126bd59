"""A program that prints whether a Ray head answers a client without a token.

`python -m trialrun.cluster.unauthorized HOST:PORT` prints `answers` or `refuses`. It is a process
of its own because Ray reads its token only once; RAY_AUTH_MODE=disabled must be set.
"""

import sys

from ray.exceptions import AuthenticationError

from trialrun.cluster.preflight import read_metadata


def answers_without_token(address: str) -> bool:
    """Whether the head of a cluster describes itself to a client without a token.

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
