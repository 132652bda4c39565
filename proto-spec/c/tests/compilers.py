#!/usr/bin/env python3
"""Compiles the client as its users' compilers would: compilers.py WORK_DIRECTORY

Every standard of C and C++ in strict and GNU mode, gcc and clang, plain and sealed, without a warning; beside headers that
define ordinary words as macros; and what must not compile or link (options out of range, packed structures, files that
disagree about DG_SEALED or DG_ANSWERS) does not, with an error that names it. Ends with 1 if one goes wrong.
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wundef", "-Wcast-align", "-Werror"]
C_ONLY = ["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wc++-compat"]
C_STANDARDS = ["99", "11", "17", "2x"]
CPP_STANDARDS = ["11", "14", "17", "20"]
MONOCYPHER = "-Itests/monocypher"

# What each option may and may not be. Words are 0 to the preprocessor.
RIGHT = ["DG_SEALED=0", "DG_SEALED=1", "DG_SEALED", "DG_ANSWERS=0", "DG_ANSWERS=1", "DG_ANSWERS", "DG_ANSWER_MAX=0", "DG_ANSWER_MAX=65000u",
         "DG_ANSWER_ROOM=128", "DG_CRC=0", "DG_CRC=1", "DG_CRC=2", "DG_RTO_MAX_MS=65535u",
         "DG_RTO_MIN_MS=1", "DG_RTO_INITIAL_MS=1", "DG_RTO_INITIAL_MS=60000", "DG_RTO_MIN_MS=60000", "DG_WINDOW_INITIAL=1",
         "DG_WINDOW_INITIAL=65535", "DG_WINDOW_INITIAL=(2 + 2)", "DG_SHORT_PATH=1", "DG_SHORT_PATH=16u"]
WRONG = ["DG_ANSWERS=2", "DG_ANSWERS=-1", "DG_ANSWERS=", "DG_ANSWERS=yes", "DG_ANSWER_MAX=-1", "DG_ANSWER_MAX=65001", "DG_ANSWER_MAX=long",
         "DG_ANSWER_ROOM=129", "DG_ANSWER_ROOM=-1", "DG_ANSWER_ROOM=some", "DG_SEALED=2", "DG_SEALED=-1", "DG_SEALED=", "DG_SEALED=yes", "DG_SEALED=on", "DG_CRC=3", "DG_CRC=-1", "DG_CRC=table",
         "DG_CRC=", "DG_RTO_MAX_MS=0", "DG_RTO_MAX_MS=-1", "DG_RTO_MAX_MS=65536", "DG_RTO_MAX_MS=long", "DG_RTO_MAX_MS=50",
         "DG_RTO_MIN_MS=0", "DG_RTO_MIN_MS=-5", "DG_RTO_MIN_MS=60001", "DG_RTO_MIN_MS=fast", "DG_RTO_INITIAL_MS=0",
         "DG_RTO_INITIAL_MS=-1", "DG_RTO_INITIAL_MS=60001", "DG_RTO_INITIAL_MS=1.5", "DG_RTO_INITIAL_MS=slow",
         "DG_WINDOW_INITIAL=0", "DG_WINDOW_INITIAL=-1", "DG_WINDOW_INITIAL=65536", "DG_WINDOW_INITIAL=many", "DG_WINDOW_INITIAL=",
         "DG_SHORT_PATH=0", "DG_SHORT_PATH=-1", "DG_SHORT_PATH=17", "DG_SHORT_PATH=yes", "DG_SHORT_PATH="]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE)


def compiles(*command):
    """Whether it compiles without a word; what the compiler says if not."""
    done = run(command)
    return None if done.returncode == 0 and not done.stderr else f"{' '.join(command)}\n{done.stderr}"


def fails_naming(names, *command):
    """Whether it fails with an error that holds one of the names."""
    done = run(command)
    if done.returncode != 0 and re.search("|".join(names), done.stderr):
        return None
    return f"should fail and name {' or '.join(names)}: {' '.join(command)}\n{done.stderr}"


def cases(work):
    for compiler, language, standards, more in [
        ("gcc", "c", C_STANDARDS, C_ONLY), ("clang", "c", C_STANDARDS, C_ONLY),
        ("g++", "c++", CPP_STANDARDS, []), ("clang++", "c++", CPP_STANDARDS, []),
    ]:
        as_it_is = [compiler, "-x", language, "-fsyntax-only", MONOCYPHER]
        for kind in ("", "gnu"):
            for standard in standards:
                std = f"-std={kind or ('c' if language == 'c' else 'c++')}{standard}"
                if kind and language == "c++":
                    std = f"-std=gnu++{standard}"
                for sealed in ("0", "1"):
                    # clang says in each -pedantic C++ file that it is no C file.
                    for answers in ("0", "1"):
                        flags = [*as_it_is, std, *WARNINGS, *more, f"-DDG_SEALED={sealed}", f"-DDG_ANSWERS={answers}"]
                        yield compiles, *flags, "duragram.c"
                        yield compiles, *flags, "duragram_monocypher.c"
        # As it is called without any standard, and beside macros of all kinds.
        yield compiles, *as_it_is, "-Wall", "-Wextra", "-Werror", "duragram.c"
        for sealed in ("0", "1"):
            hostile = [*as_it_is, f"-DDG_SEALED={sealed}", "-DDG_ANSWERS=1", "-Wall", "-Werror", "-include", "tests/hostile.h"]
            for source in ("duragram.c", "duragram_monocypher.c"):
                # Monocypher is not ours; its names are its own.
                if source == "duragram.c" or sealed == "0":
                    yield compiles, *hostile, source
    # Without a libc for it: small processors, 16-bit int, big-endian, and systems whose own headers are not at hand.
    for target in ("thumbv6m-none-eabi", "riscv32", "msp430", "mips", "armv7a-linux-gnueabi", "i386-pc-none"):
        for sealed in ("0", "1"):
            for answers in ("0", "1"):
                yield compiles, "clang", f"--target={target}", "-ffreestanding", "-std=c99", *WARNINGS, f"-DDG_SEALED={sealed}", \
                    f"-DDG_ANSWERS={answers}", "-fsyntax-only", "duragram.c"
    for option in RIGHT:
        yield compiles, "gcc", "-std=c99", *WARNINGS, "-fsyntax-only", f"-D{option}", "duragram.c"
    for option in WRONG:
        name = option.split("=")[0]
        # An option without a value, or with a fraction, is nothing that #if can read: the line that it names has the option.
        yield fails_naming, [name, option.split("=")[1] or name], "gcc", "-std=c99", "-fsyntax-only", f"-D{option}", "duragram.c"
    for flag in ("-fpack-struct", "-fpack-struct=1", "-fpack-struct=2"):
        for compiler in ("gcc", "clang"):
            yield fails_naming, ["not_packed"], compiler, "-fsyntax-only", flag, "duragram.c"
    pragma = work / "pragma.c"
    pragma.write_text('#pragma pack(1)\n#include "duragram.h"\n')
    for compiler in ("gcc", "clang"):
        yield fails_naming, ["not_packed"], compiler, "-fsyntax-only", f"-I{HERE}", str(pragma)
    # Where nothing has an alignment nothing can be packed: there it does no harm.
    yield compiles, "avr-gcc", "-mmcu=atmega2560", "-std=c99", "-fpack-struct", "-fsyntax-only", "duragram.c"
    # A program that is sealed and a client that is not, and the other way round.
    caller = work / "caller.c"
    caller.write_text('#include "duragram.h"\nint main(void) {\n    return dg_init(0, 0, 0, 0) != DG_BAD_ARGUMENT;\n}\n')
    kinds = [(sealed, answers) for sealed in (0, 1) for answers in (0, 1)]
    for sealed, answers in kinds:
        for source in (caller, HERE / "duragram.c"):
            yield compiles, "gcc", f"-DDG_SEALED={sealed}", f"-DDG_ANSWERS={answers}", f"-I{HERE}", "-c", str(source), "-o", \
                str(work / f"{source.stem}{sealed}{answers}.o")
    yield "then"
    for here in kinds:
        for there in kinds:
            objects = str(work / "caller{}{}.o".format(*here)), str(work / "duragram{}{}.o".format(*there))
            made = "-o", str(work / "caller{}{}{}{}".format(*here, *there))
            if here == there:
                yield compiles, "gcc", *objects, *made
            else:
                yield fails_naming, ["dg_init"], "gcc", *objects, *made
    yield compiles, "gcc", "-std=c99", *WARNINGS, "-c", "examples/posix.c", "-o", str(work / "posix.o")


def main():
    work = pathlib.Path(sys.argv[1])
    wrong, count, running = [], 0, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case in cases(work):
            if case == "then":
                concurrent.futures.wait(running)
                continue
            running.append(pool.submit(*case))
            count += 1
    wrong = [future.result() for future in running if future.result()]
    print("\n".join(wrong[:10]), file=sys.stderr)
    print(f"compilers: {count} builds, {len(wrong)} not as they should be")
    return bool(wrong)


sys.exit(main())
