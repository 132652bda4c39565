#!/usr/bin/env python3
"""Makes C tables of the golden datagrams: vectors_to_c.py VECTORS_DIRECTORY > vectors.inc"""
import json
import pathlib
import sys

TYPES = ["", "DATA", "ACK", "REJECT", "HELLO", "WELCOME", "PING", "ANSWER", "TAKE"]


def bytes_literal(hexadecimal):
    data = bytes.fromhex(hexadecimal)
    # Never an empty array, which C does not have.
    return "(const uint8_t[]){%s}" % ",".join(map(str, data or b"\0")), len(data)


def row(vector):
    fields = dict(vector.get("datagram") or {})
    if "version_refusal" in vector:
        fields = dict(vector["version_refusal"], type="REJECT", code=1, retry_after_ms=0)
    data, length = bytes_literal(vector["hex"])
    payload, payload_len = bytes_literal(next((fields[k] for k in ("payload", "bitmap", "body") if k in fields), ""))
    number = next((fields[k] for k in ("seq", "floor", "refused", "nonce") if k in fields), "0")
    small = next((fields[k] for k in ("span", "credit", "code", "status") if k in fields), 0)
    word = next((fields[k] for k in ("delay_us", "retry_after_ms", "number", "wait_ms") if k in fields), 0)
    flags = (fields.get("attempt", 0) | fields.get("batch", False) << 6 | fields.get("skip", False) << 7
             if fields.get("type") == "DATA" else fields.get("durability", 0))
    whole = all(fields.get(k, True) for k in ("begin", "end"))
    values = {
        "name": '"%s"' % vector["name"],
        "bytes": data, "len": length,
        "type": TYPES.index(fields.get("type", "")),
        "client": "0x%sull" % fields.get("client", "0"),
        "epoch": "%du" % fields.get("epoch", 0),
        "number": number + "ull", "small": small, "word": "%du" % word, "flags": flags,
        "channel": fields.get("channel", 0),
        "other": int(not whole or not vector.get("canonical", True)),
        "options": fields.get("options", 0), "room": fields.get("room", 0),
        "payload": payload, "payload_len": payload_len,
    }
    if "key" in vector:
        values["key"] = bytes_literal(vector["key"])[0]
        values["keys_epoch"] = "%du" % vector["keys_epoch"]
        values["counter"] = vector.get("counter", "0") + "ull"
    return "    {%s},\n" % ", ".join(".%s = %s" % pair for pair in values.items())


def primitive(vector, names):
    values = ((name, *bytes_literal(vector[name])) for name in names)
    return "    {%s},\n" % ", ".join(".%s = %s, .%s_len = %d" % (n, data, n, length) for n, data, length in values)


def main():
    directory = pathlib.Path(sys.argv[1])
    plain = json.loads((directory / "datagrams.json").read_text())
    sealed = json.loads((directory / "sealed.json").read_text())
    print("static const struct vector plain_vectors[] = {\n%s};" % "".join(map(row, plain["datagrams"])))
    print("static const struct vector sealed_vectors[] = {\n%s};" % "".join(map(row, sealed["datagrams"])))
    aead = "".join(primitive(v, ["key", "nonce", "clear", "text", "sealed", "tag"]) for v in sealed["aead"])
    print("static const struct aead aead_vectors[] = {\n%s};" % aead)
    # The client's hash has a key of 32 bytes and 64 of output: session keys are what it makes of them.
    keys = "".join("    {%s, 0x%sull, %du, %s, %s},\n" % (
        bytes_literal(v["key"])[0], v["client"], v["epoch"], bytes_literal(v["to_server"])[0],
        bytes_literal(v["to_client"])[0]) for v in sealed["session_keys"])
    print("static const struct session_keys session_keys_vectors[] = {\n%s};" % keys)


main()
