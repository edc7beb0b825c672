"""A small DNS server on loopback: answers A and AAAA from a table that tests change while it runs.

Owns: its UDP socket and one thread. `table` maps names to addresses; a name that is not in it does not exist;
`silent` names get no answer at all.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class DnsServer:
    """Listening until `close`."""

    def __init__(self, ttl_s: int = 1) -> None:
        self.ttl_s = ttl_s
        self.table: dict[str, list[str]] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # wakes the thread
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self._socket.recvfrom(4096)
                if not data:
                    return  # closed
                answer = self._answer(dns.message.from_wire(data))
                if answer is not None:
                    self._socket.sendto(answer.to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        if name in self.silent:
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name not in self.table:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
        found = [a for a in self.table[name] if ipaddress.ip_address(a).version == version]
        if found:
            answer.answer.append(dns.rrset.from_text_list(question.name, self.ttl_s, "IN", question.rdtype, found))
        return answer
