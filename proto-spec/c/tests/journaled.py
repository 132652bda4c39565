#!/usr/bin/env python3
"""Whether the sink's file holds each line of a file exactly once and nothing else: journaled.py SINK SENT"""
import collections
import json
import sys

came = collections.Counter(json.loads(line)["payload"] for line in open(sys.argv[1]))
sent = collections.Counter(open(sys.argv[2]).read().splitlines())
if came != sent:
    print("missing:", list((sent - came).items())[:10], "too many:", list((came - sent).items())[:10], file=sys.stderr)
    sys.exit(1)
print(f"{sent.total()} lines came out exactly once")
