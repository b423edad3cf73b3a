"""Lines of a task's log as receivers want them. Pure.

journald: the native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). syslog: RFC 5424, with the octet counting of RFC
6587 and 5425 on streams. fluentd: the forward protocol, version 1, with acknowledgements. OTLP: opentelemetry-proto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence

from proto import otlp_logs_pb2 as otlp
from proto.host_pb2 import LogLine
from proto.log_receivers import FACILITIES

_ERROR, _INFORMATION = 3, 6  # RFC 5424 section 6.2.1
_OTLP_SEVERITY = {True: (17, "ERROR"), False: (9, "INFO")}
_EVENT_TIME = 0  # the extension type of the forward protocol


def journald(line: LogLine, tag: str, words: Mapping[str, str]) -> bytes:
    """One datagram; a value with a line end in it is sent with its length."""
    fields = {
        "MESSAGE": line.text,
        "PRIORITY": str(_ERROR if line.standard_error else _INFORMATION).encode(),
        "SYSLOG_IDENTIFIER": tag.encode(),
        "CONTAINER_TAG": tag.encode(),
        "CONTAINER_ID": words["ID"].encode(),
        "CONTAINER_ID_FULL": words["FullID"].encode(),
        "CONTAINER_NAME": words["Name"].encode(),
        "IMAGE_NAME": words["ImageName"].encode(),
        "FAIRWAY_APP": words["App"].encode(),
        "FAIRWAY_SERVICE": words["Service"].encode(),
        "FAIRWAY_TIME_UNIX_NS": str(line.unix_ns).encode(),
    }
    return b"".join(
        name.encode() + (b"\n" + struct.pack("<Q", len(value)) if b"\n" in value else b"=") + value + b"\n"
        for name, value in fields.items()
    )


def syslog(line: LogLine, tag: str, words: Mapping[str, str], facility: str = "") -> bytes:
    """One message of RFC 5424; `facility`: by name or number, daemon where it is empty."""
    seconds, nanoseconds = divmod(line.unix_ns, 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z"
    names = f"{_printable(words['DaemonName'], 255)} {_printable(tag, 48)} {_printable(words['ID'], 128)}"
    return f"<{_priority(line, facility)}>1 {moment} {names} - - ".encode() + line.text


def syslog_local(line: LogLine, tag: str, words: Mapping[str, str], facility: str = "") -> bytes:
    """One message as syslog(3) writes it to /dev/log, where receivers read no other form: RFC 3164, without a host."""
    moment = time.localtime(line.unix_ns // 1_000_000_000)
    month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][moment.tm_mon - 1]
    head = f"<{_priority(line, facility)}>{month} {moment.tm_mday:2d} {time.strftime('%H:%M:%S', moment)}"
    return f"{head} {_printable(tag, 48)}[{_printable(words['ID'], 128)}]: ".encode() + line.text


def _priority(line: LogLine, facility: str) -> int:
    number = int(facility) if facility.isdecimal() else FACILITIES.index(facility or "daemon")
    return number * 8 + (_ERROR if line.standard_error else _INFORMATION)


def octet_counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


def forward(lines: Sequence[LogLine], tag: str, words: Mapping[str, str], chunk: str) -> bytes:
    """One message in forward mode, whose receiver is to acknowledge `chunk`."""
    entries = []
    for line in lines:
        seconds, nanoseconds = divmod(line.unix_ns, 1_000_000_000)
        moment = struct.pack(">BBII", 0xD7, _EVENT_TIME, seconds & 0xFFFFFFFF, nanoseconds)
        record = {
            "log": line.text.decode(errors="replace"),
            "source": "stderr" if line.standard_error else "stdout",
            "container_id": words["FullID"],
            "container_name": words["Name"],
            "app": words["App"],
            "service": words["Service"],
            "node": words["DaemonName"],
        }
        entries.append(b"\x92" + moment + _map(record))
    return b"\x93" + _text(tag) + _array(entries) + _map({"chunk": chunk})


def acknowledges(answer: bytes, chunk: str) -> bool:
    """Whether an answer of the forward protocol, {"ack": chunk}, is whole and right."""
    return answer == _map({"ack": chunk})


def acknowledgement_bytes(chunk: str) -> int:
    return len(_map({"ack": chunk}))


def otlp_request(lines: Sequence[LogLine], words: Mapping[str, str]) -> bytes:
    """The body of one export by HTTP."""
    resource = {
        "service.name": words["Service"],
        "service.namespace": words["App"],
        "service.instance.id": words["FullID"],
        "container.id": words["FullID"],
        "container.name": words["Name"],
        "container.image.name": words["ImageName"],
        "host.name": words["DaemonName"],
    }
    records = []
    for line in lines:
        severity, text = _OTLP_SEVERITY[line.standard_error]
        stream = _attribute("log.iostream", "stderr" if line.standard_error else "stdout")
        records.append(
            otlp.LogRecord(
                time_unix_nano=line.unix_ns,
                observed_time_unix_nano=line.unix_ns,
                severity_number=severity,
                severity_text=text,
                body=otlp.AnyValue(string_value=line.text.decode(errors="replace")),
                attributes=[stream],
            )
        )
    scope = otlp.ScopeLogs(scope=otlp.Scope(name="fairway"), log_records=records)
    attributes = [_attribute(name, value) for name, value in resource.items()]
    logs = otlp.ResourceLogs(resource=otlp.Resource(attributes=attributes), scope_logs=[scope])
    return otlp.ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()


def _attribute(name: str, value: str) -> otlp.KeyValue:
    return otlp.KeyValue(key=name, value=otlp.AnyValue(string_value=value))


def _printable(text: str, length: int) -> str:
    """PRINTUSASCII of RFC 5424; "-" where nothing is left."""
    return "".join(letter if "!" <= letter <= "~" else "_" for letter in text)[:length] or "-"


def _text(value: str) -> bytes:
    """A str of MessagePack."""
    data = value.encode()
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    if len(data) < 256:
        return struct.pack(">BB", 0xD9, len(data)) + data
    if len(data) < 65_536:
        return struct.pack(">BH", 0xDA, len(data)) + data
    return struct.pack(">BI", 0xDB, len(data)) + data


def _map(value: Mapping[str, str]) -> bytes:
    """A map of at most 15 pairs."""
    return bytes([0x80 | len(value)]) + b"".join(_text(name) + _text(text) for name, text in value.items())


def _array(items: Sequence[bytes]) -> bytes:
    return struct.pack(">BI", 0xDD, len(items)) + b"".join(items)
