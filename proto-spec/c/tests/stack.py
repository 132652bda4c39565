#!/usr/bin/env python3
"""The deepest stack below each public function, from GCC's call graph: stack.py FILE.ci. Callbacks and libc come on top."""
import re
import sys

text = open(sys.argv[1]).read()
own, calls = {}, {}
for name, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]*)"', text):
    size = re.search(r"(\d+) bytes", label)
    own[name] = int(size.group(1)) if size else 0
for source, target in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
    calls.setdefault(source, set()).add(target)


def depth(name):
    return own.get(name, 0) + max(map(depth, calls.get(name, ())), default=0)


public = {name.split(":")[-1]: depth(name) for name in own if re.fullmatch(r"(.*:)?dg_\w+", name)}
print(", ".join(f"{name} {size}" for name, size in sorted(public.items(), key=lambda item: -item[1])))
