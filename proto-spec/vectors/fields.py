"""Numbers of PROTOCOL.md, and how the vectors describe the fields of a datagram: what both generators share."""

DATA, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, TAKE = 1, 2, 3, 4, 5, 6, 7, 8
ASK = 2
DONE, FAILED, PENDING, GONE = 0, 1, 2, 3
SEALED, BEGIN, END, BATCH, SKIP, DUPLICATE, READY, COMPLETE = 8, 16, 32, 64, 128, 16, 32, 64
WHOLE = BEGIN | END
CLIENT = 0x00000000000000A1
OTHER = 0xFEDCBA9876543210
LAST = 2**64 - 1


def data_fields(seq, payload, span, flags, channel, options, epoch):
    return {
        "type": "DATA",
        "epoch": epoch,
        "seq": str(seq),
        "span": span,
        "attempt": flags & 7,
        "begin": bool(flags & BEGIN),
        "end": bool(flags & END),
        "batch": bool(flags & BATCH),
        "skip": bool(flags & SKIP),
        "channel": channel,
        "options": options,
        "payload": payload.hex(),
    }


def ack_fields(floor, bitmap, flags, credit, delay_us, epoch):
    return {
        "type": "ACK",
        "epoch": epoch,
        "floor": str(floor),
        "credit": credit,
        "durability": flags & 3,
        "duplicate": bool(flags & DUPLICATE),
        "complete": bool(flags & COMPLETE),
        "ready": bool(flags & READY),
        "delay_us": delay_us,
        "bitmap": bitmap.hex(),
    }


def reject_fields(code, refused, retry_after_ms, epoch):
    return {"type": "REJECT", "epoch": epoch, "code": code, "refused": str(refused), "retry_after_ms": retry_after_ms}


def hello_fields(nonce):
    return {"type": "HELLO", "nonce": str(nonce)}


def welcome_fields(nonce, epoch, credit):
    return {"type": "WELCOME", "epoch": epoch, "credit": credit, "nonce": str(nonce)}


def ping_fields(epoch):
    return {"type": "PING", "epoch": epoch}


def answer_fields(seq, status, number, body, epoch):
    return {"type": "ANSWER", "epoch": epoch, "seq": str(seq), "status": status, "number": number, "body": body.hex()}


def take_fields(seq, span, wait_ms, room, epoch):
    return {"type": "TAKE", "epoch": epoch, "seq": str(seq), "span": span, "wait_ms": wait_ms, "room": room}
