"""pyroute2 as a codec: only what is needed of it is loaded, and it stays whole for others."""

from __future__ import annotations

import subprocess
import sys

from net.netlink import Answer
from net.rule_messages import GOTO, LOOKUP, NOP, Rule, new_rule, read_rule
from net.tunnel_messages import new_vxlan, read_link
from tests.net.world import ROOT

PROGRAM = """
import sys
import net.network
loaded = {name for name in sys.modules if name.startswith("pyroute2")}
assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded, loaded
assert not loaded & {"pyroute2", "pyroute2.ndb", "pyroute2.ipdb", "pyroute2.iproute"}, loaded
import pyroute2
from net.pyroute2_messages import ifinfmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg as theirs
assert pyroute2.IPRoute and theirs is ifinfmsg
"""


def test_the_network_loads_the_classes_and_not_the_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_rules_come_back_as_they_are_written() -> None:
    for rule in (
        Rule(9000, 0, 0xFFFF000, GOTO, 0, 9002),
        Rule(9001, 0x2000, 0xFFFF000, LOOKUP, 0x46570002, 0),
        Rule(9002, 0, 0, NOP, 0, 0),
    ):
        request = new_rule(rule)
        assert read_rule(Answer(request.kind, request.body)) == rule


def test_a_vxlan_device_comes_back_as_it_is_asked_for() -> None:
    request = new_vxlan("fwx0", 4077, 8472, "192.0.2.1", "02:66:77:00:00:09", 1450)
    link = read_link(Answer(request.kind, request.body))
    assert (link.name, link.mac, link.mtu_bytes, link.kind) == ("fwx0", "02:66:77:00:00:09", 1450, "vxlan")
    assert (link.vxlan_id, link.vxlan_port, link.vxlan_local, link.vxlan_learning) == (4077, 8472, "192.0.2.1", False)
    assert not link.up
    assert link.settings == {}
