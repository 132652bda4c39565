#!/usr/bin/env python3
"""What package managers expect of the client: packages.py WORK_DIRECTORY [--tools]

Versions, options and files that all descriptions name are the same and there; the Arduino example compiles with the AVR core of
Arduino (if it is installed), as the Arduino IDE compiles: every C file of the root. `--tools` gets PlatformIO, CMake, Kconfiglib and the ESP
component manager by pip: packs and builds from the package, builds with CMake alone, and with stand-ins for ESP-IDF's and Zephyr's
commands; reads Kconfig in both. ESP-IDF, Zephyr and arduino-lint themselves are not run.
"""
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import venv

HERE = pathlib.Path(__file__).resolve().parent.parent
ARDUINO = pathlib.Path("/usr/share/arduino/hardware/arduino/avr")
OPTIONS = ["ANSWER_MAX", "ANSWER_ROOM", "CRC", "RTO_INITIAL_MS", "RTO_MIN_MS", "RTO_MAX_MS", "WINDOW_INITIAL", "SHORT_PATH"]


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"packages: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def same(what, values):
    if len(set(values.values())) != 1:
        sys.exit(f"packages: {what} differ: {values}")


def descriptions_agree():
    library = json.loads((HERE / "library.json").read_text())
    arduino = dict(line.split("=", 1) for line in (HERE / "library.properties").read_text().splitlines() if not line.startswith("#"))
    for field in ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"):
        if not arduino.get(field):
            sys.exit(f"packages: library.properties: no {field}")
    if arduino["category"] not in ("Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing",
                                   "Data Storage", "Data Processing", "Other"):
        sys.exit(f"packages: library.properties: category {arduino['category']}")
    same("versions", {
        "library.json": library["version"], "library.properties": arduino["version"],
        "idf_component.yml": re.search(r'^version: "(.+)"', (HERE / "idf_component.yml").read_text(), re.M).group(1),
        "CMakeLists.txt": re.search(r"VERSION (\d+\.\d+\.\d+) LANGUAGES", (HERE / "CMakeLists.txt").read_text()).group(1),
        "Cargo.toml": re.search(r'^version = "(.+)"', (HERE / "../../Cargo.toml").read_text(), re.M).group(1),
    })
    same("licences", {name: (HERE / name).read_text() for name in ("LICENSE", "../../LICENSE")})
    for example in library["examples"]:
        for name in example["files"]:
            if not (HERE / example["base"] / name).is_file():
                sys.exit(f"packages: library.json: no {example['base']}/{name}")
    for sketch in HERE.glob("examples/*/"):
        if not (sketch / f"{sketch.name}.ino").is_file():
            sys.exit(f"packages: Arduino wants {sketch.name}/{sketch.name}.ino")
    header, kconfig = (HERE / "duragram.h").read_text(), (HERE / "Kconfig").read_text()
    for option in OPTIONS:
        same(f"defaults of DG_{option}", {
            "duragram.h": re.search(rf"#define DG_{option} (\d+)", header).group(1),
            "Kconfig": re.search(rf"config DURAGRAM_{option}\n(?:\t.*\n)*?\tdefault (\d+)", kconfig).group(1),
        })
    print("packages: descriptions agree")


def arduino_compiles():
    if not (ARDUINO / "cores/arduino/Arduino.h").exists():
        print("packages: Arduino's AVR core is not installed: the sketch was not compiled")
        return
    for board, variant in (("atmega328p", "standard"), ("atmega2560", "mega")):
        flags = [f"-mmcu={board}", "-Os", "-Wall", "-Werror", "-DF_CPU=16000000L", "-DARDUINO=10819", "-DARDUINO_ARCH_AVR",
                 "-I", HERE, "-I", HERE / "tests/arduino", "-I", ARDUINO / "cores/arduino", "-I", ARDUINO / "variants" / variant,
                 "-I", ARDUINO / "libraries/SPI/src"]
        # The old compiler takes system headers for C: these are given as ordinary ones.
        c_compiler = ["avr-gcc", "-std=gnu11", "-fsyntax-only", *flags]
        cpp_compiler = ["avr-g++", "-std=gnu++11", "-fsyntax-only", *flags, "-x", "c++", "-include", "Arduino.h"]
        # Each file of the root, as the IDE does, and after Arduino.h and its macros; then the sketch.
        for source in sorted(HERE.glob("*.c")):
            run(*c_compiler, source)
            run(*cpp_compiler, source)
        for sketch in HERE.glob("examples/*/*.ino"):
            run(*cpp_compiler, sketch)
        # Sealed, with Monocypher beside it; with answers.
        run(*c_compiler, "-DDG_ANSWERS=1", HERE / "duragram.c")
        for source in ("duragram.c", "duragram_monocypher.c", "tests/monocypher/monocypher.c"):
            run(*c_compiler, "-DDG_SEALED=1", "-DDG_ANSWERS=1", "-I", HERE / "tests/monocypher", "-Wno-error", HERE / source)
    print("packages: the Arduino sketch compiles for an Uno and a Mega")


# Stand-ins: what ESP-IDF's and Zephyr's own CMake provides, as far as the files here use it.
ESP_IDF = """cmake_minimum_required(VERSION 3.13)
project(stand_in C)
set(ESP_PLATFORM 1)
{config}
macro(idf_component_register)
    cmake_parse_arguments(_ "" "" "SRCS;INCLUDE_DIRS" ${{ARGN}})
    set(COMPONENT_LIB __idf_duragram)
    add_library(${{COMPONENT_LIB}} STATIC ${{__SRCS}})
    target_include_directories(${{COMPONENT_LIB}} PUBLIC ${{__INCLUDE_DIRS}})
endmacro()
add_subdirectory({here} duragram)
add_executable(program {caller})
target_link_libraries(program __idf_duragram)
"""
ZEPHYR = """cmake_minimum_required(VERSION 3.13)
project(stand_in C)
{config}
add_library(zephyr_interface INTERFACE)
macro(zephyr_library_named name)
    set(ZEPHYR_CURRENT_LIBRARY ${{name}})
    add_library(${{name}} STATIC)
    target_link_libraries(${{name}} PUBLIC zephyr_interface)
endmacro()
function(zephyr_library_sources)
    target_sources(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{ARGN}})
endfunction()
function(zephyr_include_directories)
    target_include_directories(zephyr_interface INTERFACE ${{ARGN}})
endfunction()
function(zephyr_compile_definitions)
    target_compile_definitions(zephyr_interface INTERFACE ${{ARGN}})
endfunction()
add_subdirectory({here}/zephyr duragram)
add_executable(program {caller})
target_link_libraries(program duragram)
"""
ALONE = """cmake_minimum_required(VERSION 3.13)
project(stand_in C)
{config}
add_subdirectory({here} duragram)
add_executable(program {caller})
target_link_libraries(program duragram)
"""
CALLER = """#include "duragram.h"
#if DG_SEALED
#include "duragram_monocypher.h"
#endif
int main(void) {
    int wrong = DG_SEALED != SEALED || DG_ANSWERS != SEALED || DG_WINDOW_INITIAL != 4;
#if DG_SEALED
    wrong += dg_monocypher.lock == 0;
#endif
    return wrong || dg_init(0, 0, 0, 0) != DG_BAD_ARGUMENT;
}
"""


BUILDS = [("alone", ALONE, "DURAGRAM"), ("esp-idf", ESP_IDF, "CONFIG_DURAGRAM"), ("zephyr", ZEPHYR, "CONFIG_DURAGRAM")]


def cmake_builds(work, cmake, here, builds):
    for name, template, prefix in builds:
        for sealed in (0, 1):
            place = work / f"cmake-{name}-{sealed}"
            place.mkdir()
            caller = place / "caller.c"
            caller.write_text(CALLER.replace("SEALED ||", f"{sealed} ||"))  # Answers go with sealed mode here: both, or none.
            config = f"set({prefix} 1)\nset({prefix}_WINDOW_INITIAL 4)\n" + (f"set({prefix}_SEALED 1)\nset({prefix}_ANSWERS 1)\n" if sealed else "")
            (place / "CMakeLists.txt").write_text(template.format(config=config, here=here, caller=caller))
            run(cmake, "-S", place, "-B", place / "build")
            run(cmake, "--build", place / "build")
            run(place / "build/program")
    print("packages: builds with CMake as", ", ".join(name for name, *_ in builds))


def platformio_packs(work, tools):
    packed = work / "platformio"
    packed.mkdir()
    # It would get the list of licences from GitHub, for one name.
    pack = ("from platformio.package.manifest.schema import ManifestSchema as schema\n"
            "schema.load_spdx_licenses = staticmethod(lambda: {'licenses': [{'licenseId': 'Apache-2.0'}]})\n"
            "import sys, platformio.__main__ as pio\n"
            "sys.argv[0] = 'pio'\nsys.exit(pio.main())\n")
    run(tools / "python", "-c", pack, "pkg", "pack", HERE, "-o", packed, env={"PATH": "/usr/bin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8"})
    archive, = packed.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        tar.extractall(packed / "there", filter="data")
    wanted = {"library.json", "LICENSE", "README.md", "duragram.c", "duragram.h", "duragram_monocypher.c", "duragram_monocypher.h",
              "examples/posix.c", "examples/Sensor/Sensor.ino"}
    extra = {name for name in names if name.startswith(("tests", "firmware"))}
    if not wanted <= names or extra:
        sys.exit(f"packages: PlatformIO's package lacks {wanted - names}, and should not have {extra}")
    run("gcc", "-Wall", "-Werror", packed / "there/examples/posix.c", packed / "there/duragram.c", "-o", packed / "posix")
    print(f"packages: pio pkg pack: {archive.name}, {len(names)} files, builds")


def esp_component_packs(work, tools):
    place = work / "esp"
    out = run(tools / "compote", "component", "pack", "--name", "duragram", "--project-dir", HERE, "--dest-dir", place,
              env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8"})
    archives = list(place.rglob("*.tgz")) + list(place.rglob("*.tar.gz"))
    if not archives:
        sys.exit(f"packages: compote packed nothing:\n{out}")
    with tarfile.open(archives[0]) as tar:
        tar.extractall(place / "there", filter="data")
    there = next((place / "there").rglob("idf_component.yml")).parent
    return there, f"packages: compote component pack: {archives[0].name}"


def kconfig_reads(tools):
    script = """
import kconfiglib, sys
for file, on in (("Kconfig", None), ("zephyr/Kconfig", "DURAGRAM")):
    k = kconfiglib.Kconfig(file, warn_to_stderr=False)
    if on:
        assert k.syms["DURAGRAM_CRC"].str_value == "", "an option without the module"
        k.syms[on].set_value("y")
    assert not k.warnings, k.warnings
    assert k.syms["DURAGRAM_WINDOW_INITIAL"].str_value == "10" and k.syms["DURAGRAM_SEALED"].str_value == "n"
    k.syms["DURAGRAM_WINDOW_INITIAL"].set_value("0")
    assert k.syms["DURAGRAM_WINDOW_INITIAL"].str_value != "0"
"""
    run(tools / "python", "-c", script, cwd=HERE)
    print("packages: Kconfiglib reads Kconfig, for ESP-IDF and Zephyr")


def main():
    work = pathlib.Path(sys.argv[1])
    descriptions_agree()
    arduino_compiles()
    if "--tools" in sys.argv:
        place = work / "tools"
        venv.create(place, with_pip=True)
        tools = place / "bin"
        run(tools / "pip", "install", "-q", "platformio==6.*", "cmake==3.*", "kconfiglib==14.*", "idf-component-manager==3.*")
        cmake_builds(work, tools / "cmake", HERE, BUILDS)
        kconfig_reads(tools)
        platformio_packs(work, tools)
        there, told = esp_component_packs(work, tools)
        packed = work / "from-esp-package"
        packed.mkdir()
        cmake_builds(packed, tools / "cmake", there, [("esp-idf", ESP_IDF, "CONFIG_DURAGRAM")])
        print(told)


main()
