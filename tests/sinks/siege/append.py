"""The program of an `exec` sink: appends each record to a file, and only then says that it is done."""

import json
import os
import sys

path = sys.argv[1]
if os.path.exists(path + ".away"):
    sys.exit("it is away")
with open(path + ".pid", "w") as file:
    file.write(str(os.getpid()))
out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
end = os.lseek(out, 0, os.SEEK_END)
if end > 0 and os.pread(out, 1, end - 1) != b"\n":
    # An earlier one was killed within a line.
    os.write(out, b"\n")
for line in sys.stdin.buffer:
    record = json.loads(line)
    answer = {"offset": record["offset"], "index": record["index"]}
    if b"refuse-me" in line:
        answer["give_up"] = "it asks to be refused"
    else:
        os.write(out, line)
        os.fsync(out)
        answer["done"] = True
    print(json.dumps(answer), flush=True)
