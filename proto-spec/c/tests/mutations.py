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
    ("c->rto < DG_RTO_MIN_MS", "c->rto < 1"),
    ("c->rto += c->delay16 >> 4;", ""),
    ("rtt = elapsed - delay;", "rtt = elapsed;"),
    ("c->rtt8 += rtt - smoothed;", "c->rtt8 = rtt << 3;"),
    ("if (delay > elapsed) {", "if (0) {"),
    ("cells < to_end ? cell + cells : c->cells + (cells - to_end)", "cells <= to_end ? cell + cells : c->cells + (cells - to_end)"),
    ("c->least < DG_SHORT_PATH && ", ""),
    ("(c->least + 1) * rtt <= DG_RTO_MIN_MS", "0"),
    ("(c->least + 1) * rtt <= DG_RTO_MIN_MS", "(c->least + 1) * rtt < DG_RTO_MIN_MS"),
    ("(c->least + 1) * rtt <= DG_RTO_MIN_MS", "(c->least + 1) * elapsed <= DG_RTO_MIN_MS"),
    ("        c->threshold = c->least;", ""),
    ("    if (c->threshold < 2) {\n        c->threshold = 2;\n    }", ""),
    ("    c->least = 1;\n", "    c->least = c->least ? c->least : 1;\n"),
    ("m->state != GONE) {\n            c->base++", "1) {\n            c->base++"),
    ("if (m->state == REFUSED) {", "if (0) {"),
    ("m->state == UNSENT ? GONE : REFUSED", "REFUSED"),
    ("        c->window = c->threshold;", ""),
    ("        c->window = c->least;\n", ""),
    ("        c->window = c->least;\n", "        c->window = 1;\n"),
    ("if (!in_old_episode(c, m)) {", "if (1) {"),
    ("c->nonce = c->nonce << 32 | random32(c);", "c->nonce = 1;"),
    ("i.m->state = i.m->state < ACKED ? UNSENT : GONE;", "i.m->state = i.m->state < ACKED ? UNSENT : i.m->state;"),
    ("i.m->attempt = 0;", ""),
    ("c->base = 1;\n    c->above_floor", "c->above_floor"),
    ("tell(c, DG_EPOCH, 0, epoch);", ""),
    ("c->fruitless <= 1 &&", ""),
    ("seconds > c->epoch ? seconds : c->epoch + 1", "c->epoch + 1"),
    ("return ahead >= c->credit;", "return ahead > c->credit;"),
    ("if (c->timer >= A_TRUE_ACK) {", "if (0) {"),
    ("if (c->timer >= A_TRUE_ACK) {", "if (c->timer > A_TRUE_ACK) {"),
    ("if (c->timer >= A_TRUE_ACK) {", "if (c->timer == A_TRUE_ACK) {"),
    ("if (c->timer != RESUMING) { /*", "if (1) { /*"),
    ("if (c->tries == 2) {", "if (0) {"),
    ("if (c->tries == 2) {", "if (c->tries >= 2) {"),
    ("        c->silent = true;\n", ""),
    ("        c->loss_end = c->order;\n    }\n    probe", "    }\n    probe"),
    ("probe_lowest(c, c->tries > 1);", "probe_lowest(c, false);"),
    ("probe_lowest(c, c->tries > 1);", "probe_lowest(c, true);"),
    ("        if (c->timer == CREDIT) {\n            c->tries = 0;\n        }\n", ""),
    ("c->probe = true;", ""),
    ("c->timed_out = true;", ""),
    ("c->ping_due = true;", ""),
    ("is_used_up(c) && (c->awaited || !c->pending)", "0"),
    ("is_used_up(c) && (c->awaited || !c->pending)", "is_used_up(c) && c->awaited"),
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
    ("if (newest->attempt == 0 && !", "if (!"),
    ("flags_of(head) & FLAG_COMPLETE ? FAR_AWAY :", "0 ? FAR_AWAY :"),
    ("flags_of(head) & FLAG_COMPLETE ? FAR_AWAY :", "1 ? FAR_AWAY :"),
    ("FAR_AWAY : bits ? bits : 1)", "FAR_AWAY : bits)"),
    ("now - i.m->sent_ms >= c->rto || ", ""),
    ("&& before(i.m->order, c->arrived)\n", "\n"),
    ("(is_overtaken(c, i.m) && is_told(c, i.ahead))", "is_overtaken(c, i.m)"),
    ("(is_overtaken(c, i.m) && is_told(c, i.ahead))", "is_told(c, i.ahead)"),
    ("c->in_flight + !is_overtaken(c, i->m)", "c->in_flight + 1"),
    ("            c->awaited = true;\n", ""),
    ("before_expiry |= before(i.m->order, c->timeout_order);", ""),
    ("c->window < DG_WINDOW_INITIAL ? c->window : DG_WINDOW_INITIAL", "c->window"),
    ("} else if (i.m->missed > (now - i.m->sent_ms + 1 < c->shortest - (c->shortest >> 2))\n                       && before", "} else if (before"),
    ("c->shortest - (c->shortest >> 2)", "c->shortest"),
    ("c->shortest - (c->shortest >> 2)", "0"),
    ("if (!reading && before(c->arrived, newest_again)) {", "if (before(c->arrived, newest_again)) {"),
    ("reading = any_once && ", "reading = "),
    ("any_probe = i.m->missed == 2;", ""),
    ("if (reading && any_probe) {", "if (any_probe) {"),
    ("if (reading && any_probe) {", "if (reading) {"),
    ("&& bits == 0;", ";"),
    ("i.m->missed = c->probe ? 2 : is_told", "i.m->missed = is_told"),
    ("&& is_told(c, i.ahead))))", "&& 0)))"),
    ("m->order + REORDERING_MAX", "m->order + 1"),
    ("    if (c->window > c->threshold) {\n        c->window = c->threshold;\n    }", "    c->window = c->threshold;"),
    ("c->epoch == 0 || head[HEAD_EPOCH] != c->epoch", "c->epoch == 0"),
    ("c->epoch == 0 || head[HEAD_EPOCH]", "head[HEAD_EPOCH]"),
    ("strange = (int32_t)c->transmitted + behind < (int32_t)last_bit;", "strange = 0;"),
    ("strange = (int32_t)c->transmitted + behind < (int32_t)last_bit;", "strange = (int32_t)c->transmitted + behind < 0;"),
    ("while (last_bit &&", "while (0 &&"),
    ("by < FAR_AWAY ? (int32_t)by : FAR_AWAY", "(int32_t)by"),
    ("(place < (int32_t)bits &&", "(place <= (int32_t)bits &&"),
    ("strange ? is_sealed(c) :", "strange ? 0 :"),
    ("strange ? is_sealed(c) :", "strange ? 1 :"),
    ("strange && i.m->attempt >= 2 &&", "0 &&"),
    ("strange && i.m->attempt >= 2 &&", "strange &&"),
    (" && c->timer == AN_ACK) {", ") {"),
    ("if (what == A_TRUE_ACK) {", "if (0) {"),
    ("A_TRUE_ACK, TRUE_ACK_MS", "A_TRUE_ACK, 2 * TRUE_ACK_MS"),
    ("(flags_of(head) & FLAG_DUPLICATE) && i.m->attempt", "i.m->attempt"),
    ("i.m->attempt == 0 && c->doubt == DOUBTED;", "c->doubt == DOUBTED;"),
    ("i.m->attempt == 0 && c->doubt == DOUBTED;", "i.m->attempt == 0;"),
    ("    if (c->doubt) {\n        c->doubt = DOUBTED;\n    }\n", ""),
    ("(!c->epoch || c->doubt == USED)", "!c->epoch"),
    ("    restart_timer(c);\n    c->ping_due", "    c->ping_due"),
    ("    c->hello_due = at_once;\n    restart_timer(c);", "    c->hello_due = at_once;"),
    ("c->doubt = PROVEN;\n        c->fruitless", "c->fruitless"),
    ("enter_epoch(c, epoch);\n    c->doubt = PROVEN;", "enter_epoch(c, epoch);"),
    ("c->fruitless++;\n        c->doubt = PROVEN;", "c->fruitless++;"),
    ("!= c->epoch || c->doubt == USED", "!= c->epoch"),
    ("c->counter += (random_end - c->counter) >> 1;", ""),
    ("c->counter < random_end && random_end", "random_end"),
    (" && random_end - c->counter > (uint64_t)1 << 55", ""),
    ("if (c->doubt && !c->config.boot_count) {", "if (c->doubt) {"),
    ("(int32_t)c->above_floor || (!c->awaited && c->pinged)", "(int32_t)c->above_floor"),
    ("behind <= (int32_t)c->above_floor || (!c->awaited && c->pinged)", "1"),
    ("        restart_timer(c);\n        c->doubt", "        c->doubt"),
    ("if (ms > DG_RTO_MAX_MS) {", "if (0) {"),
    ("epoch != 0 || number != c->nonce", "epoch != 0"),
    ("epoch == 0 || epoch != c->epoch) {\n        return DG_IGNORED;\n    }\n    i",
     "0) {\n        return DG_IGNORED;\n    }\n    i"),
    ("!= place || !is_transmitted(i.m)", "!= place"),
    ("(number != 0 || !c->pinged)", "number != 0"),
    ("c->fruitless++;", ""),
    ("c->doubt = PROVEN;\n        c->fruitless = 0;", "c->doubt = PROVEN;"),
    ("number != c->nonce || epoch == 0 ||", "epoch == 0 ||"),
    ("epoch == c->epoch ||", ""),
    ("head[HEAD_WORD] != 0) {", "0) {"),
    ("c->config.crypto && epoch < c->epoch", "0"),
    ("nonce, 2, get64", "nonce, 1, get64"),
    ("(head[HEAD_CLIENT] | (uint64_t)head[HEAD_CLIENT + 1] << 32) != c->config.client_id", "0"),
    ("(head[HEAD_CLIENT] | (uint64_t)head[HEAD_CLIENT + 1] << 32)", "head[HEAD_CLIENT]"),
    (" || len > DG_REPLY_MAX", ""),
    ("(flags_of(head) & FLAG_SEALED) && len", "len"),
    ("this_version ? flags_of(head) & FLAG_SEALED :", "this_version ? 0 :"),
    ("|| small_of(head) != 1", ""),
    ("get32(d + len - CRC_LEN) == dg_crc32(d, len - CRC_LEN)", "1"),
    ("if (record > len) {", "if (0) {"),
    ("if (len < 2) {\n            return false;", "if (len < 2) {\n            return len == 0;"),
    ("channel > UINT16_MAX ||", ""),
    ("(flags & ~(unsigned)SEND_FLAGS) ||", ""),
    ("|| (len && !bytes)", ""),
    ("|| (record_len && !record)", ""),
    ("(uint32_t)record_len + 2 > size - used", "(uint32_t)record_len > size - used"),
    ("used > size || (uint32_t)", "(uint32_t)"),
    ("!c || !config || !config->send || !buffer", "!c || !config || !buffer"),
    ("config->crypto && (!config->key || !config->random_seed)", "config->crypto && !config->key"),
    ("if (config->payload_max > DG_PAYLOAD_MAX) {", "if (0) {"),
    ("if (!c || !d ||", "if (!c ||"),
    ("was == UNSENT ? GONE : REFUSED", "REFUSED"),
    ("c->too_large = false;\n", ""),
    ("c->credit = UINT16_MAX; /*", "/*"),
    ("!(flags & DG_MAKE_ROOM) ||", ""),
    ("rest % 8 == 0", "1"),
    ("(flags_of(head) & FLAG_DURABILITY) != 3", "1"),
    ("(rest == 0 || version_of(head) != VERSION)", "1"),
    ("(rest == 0 || version_of(head) != VERSION)", "rest == 0"),
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
    # Asking for answers.
    ("ask_of(c, m)->state = state == ACKED ? RESTING : FREE;", "ask_of(c, m)->state = RESTING;"),
    ("ask_of(c, m)->state = state == ACKED ? RESTING : FREE;", "ask_of(c, m)->state = FREE;"),
    ("(m->batch & ASKS) << 10;", "(m->batch & ASKS) << 9;"),
    ("head[HEAD_EPOCH] = a->epoch;", ""),
    ("if (a->state == TAKING) {\n            head[HEAD_WORD]", "if (1) {\n            head[HEAD_WORD]"),
    ("p += a->room;", ""),
    ("a->epoch = c->epoch;\n            a->seq", "a->epoch = 1;\n            a->seq"),
    ("a->seq = c->base + i.ahead;", "a->seq = c->base;"),
    ("a->state >= NAMED && a->epoch == ask->epoch", "a->state >= RESTING && a->epoch == ask->epoch"),
    ("a->state >= NAMED && a->epoch == ask->epoch", "a->state >= NAMED"),
    ("if (span < above) {", "if (0) {"),
    ("h->epoch != a->epoch || !before", "h->epoch != a->epoch || before"),
    ("h->epoch != a->epoch || !before", "!before"),
    ("h->state = NAMED;", ""),
    ("    a->state = FREE;\n}", "}"),
    ("if (c->used_up && a->state >= RESTING) {", "if (0) {"),
    ("state < RESTING || (state == RESTING && !c->wait_ms)", "state < RESTING"),
    ("ms += c->wait_ms;", ""),
    ("open++;", ""),
    ("recent += passed < c->rto;", "recent++;"),
    ("recent += passed < c->rto;", ""),
    ("if (wait > ms - passed) {", "if (0) {"),
    ("} else if (passed >= longest) {", "} else if (!due) {"),
    ("if (open >= TAKES_MAX) {", "if (open > TAKES_MAX) {"),
    ("if (recent >= c->window) {", "if (0) {"),
    ("due->ms += due->ms;", ""),
    ("if (due->ms > DG_RTO_MAX_MS) {", "if (0) {"),
    ("busy < c->heard.state && c->heard.epoch &&", "c->heard.state && c->heard.epoch &&"),
    ("busy < c->heard.state && c->heard.epoch &&", "busy < c->heard.state &&"),
    ("beyond = FAR_BEYOND;", "beyond = 0;"),
    ("span_of(c, due) + beyond;", "beyond;"),
    ("if (span > UINT16_MAX) {", "if (0) {"),
    ("c->heard.state = RESTING;", ""),
    ("c->ready = flags_of(head) & FLAG_READY;", "c->ready = 1;"),
    ("a->state >= RESTING && a->epoch == head[HEAD_EPOCH] &&", "a->epoch == head[HEAD_EPOCH] &&"),
    ("a->state >= RESTING && a->epoch == head[HEAD_EPOCH] &&", "a->state >= RESTING &&"),
    ("&& a->seq == long_of(head)", "&& (uint32_t)a->seq == (uint32_t)long_of(head)"),
    ("(flags_of(head) & ~(unsigned)FLAG_SEALED)", "0"),
    ("(answer == DG_ANSWER_GONE && len)", "0"),
    ("(rest != len || answer >= PENDING)", "rest != len"),
    ("(rest != len || answer >= PENDING)", "answer >= PENDING"),
    ("c->wait_ms ? PAUSING : RESTING, len, now", "PAUSING, len, now"),
    ("ms > c->rto ? ms : c->rto, 2);", "ms, 2);"),
    ("if (a->room >= len) {", "if (0) {"),
    ("a->room = (uint16_t)len;", ""),
    ("rest != len && len <= DG_ANSWER_MAX", "rest != len"),
    ("text_len > DG_ANSWER_MAX", "0"),
    ("derive(c, head[HEAD_EPOCH], hello_keys);", "derive(c, c->epoch, hello_keys);"),
    ("derive(c, a->epoch, hello_keys);", "derive(c, c->epoch, hello_keys);"),
    ("c->config.crypto && c->counter && !c->used_up", "0"),
    ("config->asks_max > DG_ASKS_MAX ||", ""),
    ("a->state = a->state >= RESTING ? RESTING : FREE;", "a->state = FREE;"),
    ("(flags & (DG_BATCH | DG_ASK)) == (DG_BATCH | DG_ASK)", "0"),
    ("hasten(c, TAKING);", ""),
    ("hasten(c, RESTING);", ""),
    ("wait = wait < take_wait ? wait : take_wait;", ""),
]

# Each has its reason for changing nothing that can be seen.
EQUAL = {
    "text_len > DG_ANSWER_MAX": "with DG_ANSWER_MAX at its default no longer datagram comes so far; scripts/test-c has a test where it is less",
    "(flags_of(head) & FLAG_SEALED) && len": "who makes such a datagram has the key, and sets the flag",
    " || len > DG_REPLY_MAX": "no longer datagram is valid; the limit only saves reckoning its checksum",
}


def main():
    work = pathlib.Path(sys.argv[1]).resolve()
    here = pathlib.Path(__file__).resolve().parent
    source = (here.parent / "duragram.c").read_text()
    mutant, include = work / "mutant.c", f"-I{here.parent}"
    flags = ["-w", "-g", "-O1", "-std=c99", "-fsanitize=address,undefined", "-DDG_SEALED=1", include, f"-I{here}",
             f"-I{here}/monocypher", f"-I{work}"]

    def compiled(source, name, more=()):
        subprocess.run(["gcc", *flags, *more, "-c", str(source), "-o", str(work / name)], check=True)
        return str(work / name)

    crypto = [compiled(here.parent / "duragram_monocypher.c", "adapter.o"), str(work / "monocypher.o")]
    names = ("duties", "losses", "misuse", "used_epoch", "sealed", "worlds", "bursts")
    tests = {name: (compiled(here / f"{name}.c", f"{name}.o"), []) for name in names}
    # With answers, in a client of their own.
    asking = ["-DDG_ANSWERS=1"]
    crypto_of = {(): crypto, tuple(asking): [compiled(here.parent / "duragram_monocypher.c", "adapter-answers.o", asking), crypto[1]]}
    for name in ("answers", "answers_sealed", "worlds"):
        tests[f"{name}, asking"] = compiled(here / f"{name}.c", f"{name}-answers.o", asking), asking
    # This test has the source within it.
    vectors = work / "mutant_vectors.c"
    text = (here / "vectors.c").read_text().replace('"../duragram.c"', '"mutant.c"')
    vectors.write_text(text.replace('"../duragram_monocypher.h"', '"duragram_monocypher.h"'))

    def noticed_by(text):
        """Which test fails with this source; None if all pass."""
        mutant.write_text(text)
        clients = {}
        for test in (*tests, "vectors", "vectors, asking"):
            if test.startswith("vectors"):
                more = [*asking, "-DDG_ANSWER_MAX=1148u"] if test != "vectors" else []
                objects, more = [compiled(vectors, "vectors.o", more)], tuple(asking) if more else ()
            else:
                made, more = tests[test]
                more = tuple(more)
                if more not in clients:
                    clients[more] = compiled(mutant, f"mutant{len(clients)}.o", more)
                objects = [made, clients[more]]
            subprocess.run(["gcc", *flags, *objects, *crypto_of[more], "-o", str(work / "mutant")], check=True)
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
