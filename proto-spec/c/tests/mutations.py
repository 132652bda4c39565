#!/usr/bin/env python3
"""Breaks the client in one place at a time, and looks whether the tests notice: mutations.py WORK_DIRECTORY

WORK_DIRECTORY holds vectors.inc and monocypher.o, as scripts/test-c makes them. Ends with 1 if a mutation survives or does
not find its place.
"""
import pathlib
import subprocess
import sys

MUTATIONS = [
    ("crc >> 4 ^ table[crc & 15];\n        crc", "crc >> 4 ^ table[crc & 7];\n        crc"),
    ("ms + ((ms >> shift)", "ms + 0 * ((ms >> shift)"),
    ("ms <<= 1;", "ms += 1;"),
    ("ms < DG_RTO_MIN_MS", "ms < 1"),
    ("+ (c->delay16 >> 4);", ";"),
    ("rtt = elapsed - delay;", "rtt = elapsed;"),
    ("c->rtt8 += rtt - smoothed;", "c->rtt8 = rtt << 3;"),
    ("if (delay > elapsed) {", "if (0) {"),
    ("cell < c->cells_max ? cell : cell - c->cells_max", "cell"),
    ("m->state != GONE) {\n            c->base++", "1) {\n            c->base++"),
    ("if (m->state == REFUSED) {", "if (0) {"),
    ("m->state == UNSENT ? GONE : REFUSED", "REFUSED"),
    ("        c->window = c->threshold;", ""),
    ("slow_down(c);\n    c->window = 1;", "slow_down(c);"),
    ("if (!in_old_episode(c, m)) {", "if (1) {"),
    ("c->nonce = c->nonce << 32 | random32(c);", "c->nonce = 1;"),
    ("i.m->state = i.m->state < ACKED ? UNSENT : GONE;", "i.m->state = i.m->state < ACKED ? UNSENT : i.m->state;"),
    ("i.m->attempt = 0;", ""),
    ("c->base = 1;\n    c->above_floor", "c->above_floor"),
    ("tell(c, DG_EPOCH, 0, epoch);", ""),
    ("c->fruitless <= 1 &&", ""),
    ("seconds > c->epoch ? seconds : c->epoch + 1", "c->epoch + 1"),
    ("return ahead >= c->credit;", "return ahead > c->credit;"),
    ("if (c->timer == RESUMING) {\n        return;\n    }\n    if (c->asking) {\n        what", "if (c->asking) {\n        what"),
    ("if (c->timer != RESUMING) { /*", "if (1) { /*"),
    ("if (c->tries > 1 && !c->silent) {", "if (0) {"),
    ("(all || i.ahead == 0)", "all"),
    ("c->probe = true;", ""),
    ("c->timed_out = true;", ""),
    ("c->ping_due = true;", ""),
    ("is_used_up(c) && (c->in_flight || !c->pending)", "0"),
    ("is_used_up(c) && (c->in_flight || !c->pending)", "is_used_up(c) && c->in_flight"),
    ("is_used_up(c) || (c->pending", "(c->pending"),
    ("c->above_floor > (c->doubt ? 0 : c->reach - 1u)", "c->doubt && c->above_floor"),
    ("(c->doubt ? 0 : c->reach - 1u)", "c->reach - 1u"),
    ("c->reach - 1u)", "c->reach)"),
    ("c->hello_due = false;\n        dispatch", "dispatch"),
    ("!c->probe && (c->silent ||", "!c->probe && (0 ||"),
    ("c->in_flight >= (c->doubt ? 1 : c->window)", "0"),
    ("(c->doubt ? 1 : c->window)", "c->window"),
    ("i.m->attempt < ATTEMPT_MAX", "i.m->attempt < 255"),
    ("if (c->above_skipped < c->above_floor) {", "if (0) {"),
    ("if (c->above_skipped < c->above_floor) {", "if (1) {"),
    ("i.ahead << 16, c->base", "0 << 16, c->base"),
    ("if (newest->attempt == 0) {", "if (1) {"),
    ("d[1] & FLAG_COMPLETE ? FAR_AWAY :", "0 ? FAR_AWAY :"),
    ("d[1] & FLAG_COMPLETE ? FAR_AWAY :", "1 ? FAR_AWAY :"),
    ("(bits ? (int32_t)bits : 1) - behind", "(int32_t)bits - behind"),
    ("|| now - i.m->sent_ms >= rto(c)", ""),
    ("before_expiry |= before(i.m->order, c->timeout_order);", ""),
    ("c->window < DG_WINDOW_INITIAL ? c->window : DG_WINDOW_INITIAL", "c->window"),
    ("i.m->attempt == 0 || i.m->missed > (now - i.m->sent_ms + 1 < c->shortest)", "1"),
    ("i.m->missed = c->probe ? 2 : is_told", "i.m->missed = is_told"),
    ("(is_told(c, i.ahead) ||", "(0 ||"),
    ("m->order + REORDERING_MAX", "m->order + 1"),
    ("    if (c->window > c->threshold) {\n        c->window = c->threshold;\n    }", "    c->window = c->threshold;"),
    ("c->epoch == 0 || get32(d + 4) != c->epoch", "c->epoch == 0"),
    ("c->epoch == 0 || get32", "get32"),
    ("floor > below + sent ||", ""),
    ("|| (int32_t)sent + behind < top", ""),
    ("(place < top &&", "(place <= top &&"),
    ("is_sealed(c) || i.m->attempt >= 2", "0"),
    ("is_sealed(c) || i.m->attempt >= 2", "i.m->attempt >= 2"),
    ("is_sealed(c) || i.m->attempt >= 2", "1"),
    ("(d[1] & FLAG_DUPLICATE) && i.m->state", "i.m->state"),
    ("i.m->state == IN_FLIGHT && i.m->attempt == 0;", "i.m->state == IN_FLIGHT;"),
    ("c->doubt = PROVEN;\n        c->fruitless", "c->fruitless"),
    ("enter_epoch(c, epoch);\n    c->doubt = PROVEN;", "enter_epoch(c, epoch);"),
    ("c->fruitless++;\n        c->doubt = PROVEN;", "c->fruitless++;"),
    ("|| c->doubt == USED", ""),
    ("c->counter += (random_end - c->counter) >> 1;", ""),
    ("c->counter < random_end && random_end", "random_end"),
    (" && random_end - c->counter > (uint64_t)1 << 55", ""),
    ("if (c->doubt && !c->config.boot_count) {", "if (c->doubt) {"),
    ("behind <= c->above_floor || (!c->in_flight && c->pinged)", "behind <= c->above_floor"),
    ("behind <= c->above_floor || (!c->in_flight && c->pinged)", "1"),
    ("        restart_timer(c);\n        c->doubt", "        c->doubt"),
    ("if (ms > DG_RTO_MAX_MS) {", "if (0) {"),
    ("epoch != 0 || number != c->nonce", "epoch != 0"),
    ("epoch == 0 || epoch != c->epoch) {\n        return DG_IGNORED;\n    }\n    i",
     "0) {\n        return DG_IGNORED;\n    }\n    i"),
    ("i.ahead && is_transmitted(i.m)", "i.ahead"),
    ("number != 0 || !c->pinged", "number != 0"),
    ("c->fruitless++;", ""),
    ("c->doubt = PROVEN;\n        c->fruitless = 0;", "c->doubt = PROVEN;"),
    ("number != c->nonce || epoch == 0 ||", "epoch == 0 ||"),
    ("epoch == c->epoch ||", ""),
    ("get32(d + 24) != 0) {", "0) {"),
    ("c->config.crypto && epoch < c->epoch", "0"),
    ("nonce, 2, get64", "nonce, 1, get64"),
    ("get64(d + 8) != c->config.client_id", "0"),
    ("len > DG_REPLY_MAX ||", ""),
    ("(d[1] & FLAG_SEALED) && len", "len"),
    ("this_version ? d[1] & FLAG_SEALED :", "this_version ? 0 :"),
    ("|| get16(d + 2) != 1", ""),
    ("get32(d + len - CRC_LEN) == dg_crc32(d, len - CRC_LEN)", "1"),
    ("if (record > len) {", "if (0) {"),
    ("if (len < 2) {\n            return false;", "if (len < 2) {\n            return len == 0;"),
    ("channel > UINT16_MAX ||", ""),
    ("(flags & ~(unsigned)(DG_BATCH | DG_MAKE_ROOM)) ||", ""),
    ("|| (len && !bytes)", ""),
    ("|| (record_len && !record)", ""),
    ("size - used < 2 ||", ""),
    ("!c || !config || !config->send || !buffer", "!c || !config || !buffer"),
    ("config->crypto && (!config->key || !config->random_seed)", "config->crypto && !config->key"),
    ("if (config->payload_max > DG_PAYLOAD_MAX) {", "if (0) {"),
    ("if (!c || !d ||", "if (!c ||"),
    ("was == UNSENT ? GONE : REFUSED", "REFUSED"),
    ("c->too_large = false;\n", ""),
    ("c->credit = UINT16_MAX; /*", "/*"),
    ("!(flags & DG_MAKE_ROOM) ||", ""),
    ("rest % 8 == 0", "1"),
    ("(d[1] & FLAG_DURABILITY) != 3", "1"),
    ("(rest == 0 || d[0] >> 4 != VERSION)", "1"),
    ("(rest == 0 || d[0] >> 4 != VERSION)", "rest == 0"),
    ("rest == 0 && type == TYPE_WELCOME", "type == TYPE_WELCOME"),
    ("c->silent = false;\n    }\n    return result", "}\n    return result"),
    ("c->timer != NOTHING && passed >= c->timer_ms", "c->timer != NOTHING && passed > c->timer_ms"),
    ("c->loss_end - m->order - 1 < 65536", "before(m->order, c->loss_end)"),
    ("counter = c->counter++;", "counter = c->counter;"),
    ("c->used_up = (uint32_t)c->counter == 0;", ""),
    ("d[1] |= FLAG_SEALED;\n", ""),
    ("record_len > UINT16_MAX ||", ""),
    ("(c->config.boot_count ? 0 : random32(c))", "0"),
    ("c->config.boot_count ? c->config.boot_count : random32(c) >> 1", "random32(c) >> 1"),
]

# Each has its reason for changing nothing that can be seen.
EQUAL = {
    "(d[1] & FLAG_SEALED) && len": "who makes such a datagram has the key, and sets the flag",
    "len > DG_REPLY_MAX ||": "no longer datagram is valid; the limit only saves reckoning its checksum",
}


def main():
    work = pathlib.Path(sys.argv[1]).resolve()
    here = pathlib.Path(__file__).resolve().parent
    source = (here.parent / "duragram.c").read_text()
    mutant, include = work / "mutant.c", f"-I{here.parent}"
    flags = ["-w", "-g", "-O1", "-std=c99", "-fsanitize=address,undefined", "-DDG_SEALED=1", include, f"-I{here}",
             f"-I{here}/monocypher", f"-I{work}"]

    def compiled(source, name):
        subprocess.run(["gcc", *flags, "-c", str(source), "-o", str(work / name)], check=True)
        return str(work / name)

    crypto = [compiled(here.parent / "duragram_monocypher.c", "adapter.o"), str(work / "monocypher.o")]
    tests = {name: compiled(here / f"{name}.c", f"{name}.o") for name in ("duties", "losses", "misuse", "used_epoch", "sealed", "worlds", "bursts")}
    # This test has the source within it.
    vectors = work / "mutant_vectors.c"
    text = (here / "vectors.c").read_text().replace('"../duragram.c"', '"mutant.c"')
    vectors.write_text(text.replace('"../duragram_monocypher.h"', '"duragram_monocypher.h"'))

    def noticed_by(text):
        """Which test fails with this source; None if all pass."""
        mutant.write_text(text)
        client = compiled(mutant, "mutant.o")
        for test in (*tests, "vectors"):
            objects = [compiled(vectors, "vectors.o")] if test == "vectors" else [tests[test], client]
            subprocess.run(["gcc", *flags, *objects, *crypto, "-o", str(work / "mutant")], check=True)
            try:
                run = subprocess.run([str(work / "mutant"), "200"], capture_output=True, timeout=60)
                if run.returncode:
                    return test
            except subprocess.TimeoutExpired:
                return f"{test}, which does not end"
        return None

    if noticed_by(source):
        sys.exit("the tests fail as it is")
    failed = 0
    for old, new in MUTATIONS:
        if source.count(old) != 1:
            print(f"does not find its place: {old!r}")
            failed += 1
            continue
        noticed = noticed_by(source.replace(old, new))
        survived = not noticed and old not in EQUAL
        failed += survived
        by = "SURVIVES" if survived else f"noticed by {noticed or 'nobody, and rightly'}"
        print(f"{by}: {old!r} -> {new!r}", flush=True)
    print(f"{len(MUTATIONS)} mutations, {failed} not noticed")
    return failed != 0


sys.exit(main())
