"""Drives io.unmoor.Removal through python-varlink and prints what it answers, a line a reply."""

import json
import sys

import varlink


def show(reply):
    print("   ", json.dumps(reply, sort_keys=True))


def call(interface, method, /, more=False, most=None, **parameters):
    print(method, json.dumps(parameters, sort_keys=True), "more" if more else "")
    try:
        if not more:
            show(getattr(interface, method)(**parameters))
            return
        replies = getattr(interface, method)(**parameters, _more=True)
        for count, reply in enumerate(replies, 1):
            show(reply)
            if count == most:
                break
    except varlink.VarlinkError as e:
        print("    error", e.error(), json.dumps(e.parameters(), sort_keys=True))


def main(socket):
    address = "unix:" + socket
    client = varlink.Client.new_with_address(address)
    client.get_interfaces()
    info = client.info
    print("info", info["vendor"], info["product"], sorted(info["interfaces"]))
    for name in sorted(info["interfaces"]):
        methods = client._interfaces[name].members if name in client._interfaces else {}
        print("interface", name, len(methods) > 0)
    with client.open("io.unmoor.Removal") as i:
        call(i, "GetStore")
        call(i, "ListImages", more=True)
        call(i, "ListImages", image="localhost/unmoor/target")
        call(i, "ListImages")
        call(i, "ListContainers", more=True)
        call(i, "ListContainers", container="u-plain")
        call(i, "ListContainers", container="nothing")
        call(i, "Explain", reference="u-plain")
        call(i, "Plan", targets={"images": ["localhost/unmoor/target", "nothing"]})
        call(i, "RemoveImage", image="nothing")
        call(i, "RemoveImage", image="localhost/unmoor/target")
        call(i, "RemoveImage", image="localhost/unmoor/target", force="sideways")
        call(i, "RemoveImage", image="localhost/unmoor/target", revision="0" * 64)
        call(i, "RemoveContainer", container="nothing")
        call(i, "Examine")
        call(i, "Repair", names=["nothing"])
        call(i, "ListPlugins")
        call(i, "RegisterPlugin", address="unix:/nonexistent/plugin.sock")
        call(i, "UnregisterPlugin", name="nothing")
        call(i, "RemoveImage", more=True, image="localhost/unmoor/target", force="idle")
        call(i, "Remove", more=True, targets={"either": ["localhost/unmoor/bystander"]})
        call(i, "ListImages", more=True)
        call(i, "ListContainers", more=True)
        call(i, "Monitor")
    with client.open("io.unmoor.Removal") as i:
        call(i, "Monitor", more=True, most=1)
    with client.open("io.unmoor.Removal") as i:
        print("Monitor from the beginning, what was removed")
        removed = []
        for reply in i.Monitor(afterSequence=0, _more=True):
            if "removed" in reply["event"]["type"]:
                removed.append(reply["event"]["type"])
            if len(removed) == 3:
                break
        print("   ", removed)
    with client.open("org.varlink.service") as i:
        call(i, "GetInterfaceDescription", interface="io.unmoor.Nothing")


if __name__ == "__main__":
    main(sys.argv[1])
