"""Programs of the tests that ask who answered and whom the answering task saw, over TCP and UDP, IPv4 and IPv6."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

PORT = 7000

# A task: answers "SERVICE TASK SOURCE" to every TCP connection and every UDP datagram, by both families.
_SERVER = f"""
import os, socket, threading
def answer(source):
    return f"{{os.environ['SERVICE']}} {{os.uname().nodename}} {{source[0].removeprefix('::ffff:')}}".encode()
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
datagrams.bind(("::", {PORT}))
def serve_datagrams():
    while True:
        source = datagrams.recvfrom(512)[1]
        datagrams.sendto(answer(source), source)
threading.Thread(target=serve_datagrams, daemon=True).start()
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
while True:
    link, source = server.accept()
    with link:
        link.sendall(answer(source))
"""
# Who asks: for each question a list of the different answers, or the error, in words.
ASKING = """
import json, socket, sys, threading
def one(protocol, family, name, port):
    found = socket.getaddrinfo(name, port, socket.AF_INET6 if family == 6 else socket.AF_INET)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    answers = []
    for address in {each[4] for each in found}:
        with socket.socket(found[0][0], kind) as link:
            link.settimeout(2)
            link.connect(address)
            if protocol == "udp":
                link.send(b"?")
            answers.append((address[0], *link.recv(512).decode().split()))
    return answers
def ask(number, count, *question):
    seen = set()
    try:
        for _ in range(60):
            seen.update(one(*question))
            if len(seen) >= count:
                break
        replies[number] = sorted(seen)
    except OSError as error:
        replies[number] = str(error) or "silence"
questions = json.loads(sys.argv[1])
replies = [None] * len(questions)
threads = [threading.Thread(target=ask, args=(number, *question)) for number, question in enumerate(questions)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(replies))
"""


@dataclass(frozen=True)
class Question:
    """One cell of a table: asked until `tasks` different tasks have answered, at most 60 times."""

    tasks: int
    protocol: str  # "tcp" or "udp"
    family: int  # 4 or 6
    name: str  # or address; every address of a name is asked
    port: int


@dataclass(frozen=True, order=True)
class Answer:
    address: str  # that was asked
    service: str
    task: str  # the first 12 characters of its id
    source: str  # that the task saw


def serving(service: str) -> str:
    """The keys of a Compose service that answers; indented for below its name."""
    program = textwrap.indent(_SERVER.strip(), " " * 10)
    return f"""
    image: shop-api:1
    init: true
    stop_grace_period: 1s
    environment: {{SERVICE: {service}}}
    expose: ["{PORT}"]
    command:
      - python3
      - -c
      - |
{program}
"""


def questions_text(questions: list[Question]) -> str:
    """The argument of ASKING."""
    return json.dumps([[each.tasks, each.protocol, each.family, each.name, each.port] for each in questions])


def replies_of(text: str) -> list[frozenset[Answer] | str]:
    """What ASKING printed: answers, or the error in words, of each question."""
    return [
        reply if isinstance(reply, str) else frozenset(Answer(*each) for each in reply) for reply in json.loads(text)
    ]
