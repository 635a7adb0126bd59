"""What Ray's ports answer to somebody who has no token, or a wrong one.

strangers.py HOST PORT...    prints the answers as JSON, to be run on another machine
"""

import http.client
import json
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import grpc

WRONG = "Bearer " + "f" * 64
# Of each of Ray's services one method; the last one says that the process serves, nothing else.
_METHODS = (
    "/ray.rpc.InternalKVGcsService/InternalKVGet",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RuntimeEnvService/GetRuntimeEnvsInfo",
    "/ray.rpc.RayletDriver/Init",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/grpc.health.v1.Health/Check",
)
_REFUSED = {"UNAUTHENTICATED", "UNIMPLEMENTED"}
_NOT_GRPC = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
_PATHS = ("/", "/metrics", "/api/version", "/api/jobs/", "/api/local_raylet_healthz")
_HEALTH = {"/grpc.health.v1.Health/Check", "/api/local_raylet_healthz"}


class Answer(NamedTuple):
    """What a port said: a gRPC status, or an HTTP status; `None` if it does not speak HTTP."""

    port: int
    asked: str
    said: str


def ask(host: str, ports: Iterable[int], token: str | None = None) -> Iterator[Answer]:
    """All questions to all ports, and the answers; what speaks no gRPC is asked for it once."""
    for port in ports:
        yield from (Answer(port, path, _get_page(host, port, path, token)) for path in _PATHS)
        with grpc.insecure_channel(f"{host}:{port}") as channel:
            for method in _METHODS:
                answer = Answer(port, method, _call_service(channel, method, token))
                yield answer
                if answer.said in _NOT_GRPC:
                    break


def assert_refused(answers: Iterable[Answer], agents: bool = True) -> None:
    """Health checks say that a process serves; nothing else is answered, and much is refused.

    Args:
        answers: Of all ports of a cluster.
        agents: Whether its nodes have Ray's agents, which bring services and speak HTTP.
    """
    by_said: dict[str, set[str]] = {}
    for _, asked, said in answers:
        by_said.setdefault(said, set()).add(asked)
    answered = by_said.pop("OK", set()) | by_said.pop("200", set())
    assert answered <= _HEALTH, answered
    assert by_said.keys() <= {*_REFUSED, *_NOT_GRPC, "401", "403", "404", "None"}, by_said
    assert len(by_said["UNAUTHENTICATED"]) >= (6 if agents else 4)
    assert bool({"401", "403", "404"} & by_said.keys()) == agents


def _call_service(channel: grpc.Channel, method: str, token: str | None) -> str:
    """What a gRPC service says to an empty request."""
    metadata = [("authorization", token)] if token else []
    try:
        channel.unary_unary(method)(b"", timeout=5, metadata=metadata)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def _get_page(host: str, port: int, path: str, token: str | None) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": token} if token else {})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "None"
    finally:
        connection.close()


if __name__ == "__main__":
    print(json.dumps(list(ask(sys.argv[1], map(int, sys.argv[2:])))))
