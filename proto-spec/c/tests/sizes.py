#!/usr/bin/env python3
"""Code, state and stack of the client on small processors, in bytes: sizes.py WORK_DIRECTORY [--write]

Prints the README's table. `--write` puts it there; without, it ends with 1 if the README says something else though the
compilers are those of its table, or if a Cortex-M0 in plain mode needs more than the limits below. Code and state by the
compilers; stack from GCC's call graph, on AVR (whose GCC writes none) the deepest that tests/avr.c saw in simavr.
"""
import concurrent.futures
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
README = HERE / "README.md"
CODE_MAX, STATE_MAX = 4096, 200
# What asking for answers may cost beside.
ANSWERS_MAX = 1228
BEGIN, END = "<!-- by tests/sizes.py: begin -->\n", "<!-- by tests/sizes.py: end -->"
ARM, RISCV, AVR = "arm-none-eabi-", "riscv64-unknown-elf-", "avr-"
TARGETS = [
    ("Cortex-M0", ARM, ["-mthumb", "-mcpu=cortex-m0"]),
    ("Cortex-M3", ARM, ["-mthumb", "-mcpu=cortex-m3"]),
    ("Cortex-M4", ARM, ["-mthumb", "-mcpu=cortex-m4"]),
    ("RV32IMC", RISCV, ["-march=rv32imc", "-mabi=ilp32"]),
    ("AVR (ATmega2560)", AVR, ["-mmcu=atmega2560"]),
]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout


def stack_of(place, prefix, flags, options):
    if prefix != AVR:
        return max(int(size) for size in re.findall(r"dg_\w+ (\d+)", output("python3", "tests/stack.py", str(place / "duragram.ci"))))
    program = str(place / "avr.elf")
    output("avr-gcc", *flags, "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-Os", "-DF_CPU=16000000", *options,
           "tests/avr.c", "duragram.c", "-o", program)
    said = subprocess.run(["simavr", "-m", "atmega2560", "-f", "16000000", program], capture_output=True, text=True, timeout=60)
    found = re.search(r"avr: (\d+) checks, 0 failed, stack (\d+)", said.stdout + said.stderr)
    if not found:
        sys.exit(f"sizes: tests/avr.c in simavr says:\n{said.stdout}{said.stderr}")
    return int(found.group(2))


def measured(work, name, prefix, flags, answers, sealed):
    options = [f"-DDG_SEALED={sealed}", f"-DDG_ANSWERS={answers}"]
    place = work / f"{name.split()[0]}-{answers}-{sealed}"
    place.mkdir(exist_ok=True)
    state = place / "state.c"
    state.write_text(f'#include "{HERE}/duragram.h"\nchar state[sizeof(dg_client)];\n')
    graph = [] if prefix == AVR else ["-fcallgraph-info=su"]
    bytes_of = {}
    for source in (HERE / "duragram.c", state):
        made = place / f"{source.stem}.o"
        output(f"{prefix}gcc", *flags, "-std=c99", "-Os", "-ffreestanding", "-fno-common", *options, *graph, "-c", str(source), "-o",
               str(made))
        bytes_of[source.stem] = sum(map(int, output(f"{prefix}size", str(made)).splitlines()[1].split()[:3]))
    return [bytes_of["duragram"], bytes_of["state"], stack_of(place, prefix, flags, options)]


def main():
    work = pathlib.Path(sys.argv[1])
    rows = [(*target, answers, sealed) for target in TARGETS for answers in (0, 1) for sealed in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda row: measured(work, *row), rows))
    versions = ", ".join(f"`{prefix}gcc` {output(f'{prefix}gcc', '-dumpfullversion', '-dumpversion').strip()}" for prefix in (ARM, RISCV, AVR))
    table = f"With `-Os`, in bytes, by {versions}:\n\n| | code | state | stack |\n|---|---|---|---|\n"
    for (name, _, _, answers, sealed), values in zip(rows, sizes):
        table += f"| {name}, {'sealed' if sealed else 'plain'}{', answers' if answers else ''} | " + " | ".join(f"{value:,}" for value in values) + " |\n"
    print(table)
    text = README.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    if "--write" in sys.argv:
        README.write_text(before + BEGIN + table + END + after)
    elif old != table:
        if old.splitlines()[0] == table.splitlines()[0]:
            sys.exit("sizes: the README's table is another one: tests/sizes.py DIRECTORY --write")
        print("sizes: the README's table is of other compilers")
    code, state, _ = sizes[0]
    if code > CODE_MAX or state > STATE_MAX:
        sys.exit(f"sizes: Cortex-M0, plain: {code} bytes of code and {state} of state; at most {CODE_MAX} and {STATE_MAX}")
    if sizes[2][0] > code + ANSWERS_MAX:
        sys.exit(f"sizes: Cortex-M0, plain: answers cost {sizes[2][0] - code} bytes of code; at most {ANSWERS_MAX}")


main()
