-- Wireshark dissector for the Duragram protocol, version 1 (PROTOCOL.md#datagrams). See README.md for its filter fields.
--
-- Plain datagrams are found on any port by their CRC-32; sealed ones on port 7117 (or by Decode As), where the clear
-- fields are shown. Per session, requests are linked with their answers; that needs the whole capture, in order.

local TYPES = { [1] = "DATA", [2] = "ACK", [3] = "REJECT", [4] = "HELLO", [5] = "WELCOME", [6] = "PING", [7] = "ANSWER", [8] = "TAKE" }
local DATA, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, TAKE = 1, 2, 3, 4, 5, 6, 7, 8
local CODES = {
    [1] = "VERSION", [2] = "UNSUPPORTED", [3] = "TOO_LARGE", [4] = "STALE_EPOCH", [5] = "BEYOND_WINDOW",
    [6] = "BUSY", [7] = "STORAGE", [8] = "CHANNEL", [9] = "SEALED_ONLY",
}
local DURABILITIES = { [0] = "synced to disk", [1] = "handed to the operating system", [2] = "replicated", [3] = "malformed" }
local STATUSES = { [0] = "DONE", [1] = "FAILED", [2] = "PENDING", [3] = "GONE" }
local DONE, FAILED, PENDING, GONE = 0, 1, 2, 3
local SEALED, BEGIN, END, BATCH, SKIP, DUPLICATE, READY, COMPLETE = 0x08, 0x10, 0x20, 0x40, 0x80, 0x10, 0x20, 0x40
local ASK = 2
local PLAIN_MIN, SEALED_MIN = 32, 52

local duragram = Proto("duragram", "Duragram")
duragram.prefs.port = Pref.uint("UDP port", 7117, "Where a server listens")

-- Fields --------------------------------------------------------------------------------------------------------------

local function flag(name, about, mask)
    return ProtoField.bool("duragram.flags." .. name, about, 8, nil, mask)
end

local f = {
    version = ProtoField.uint8("duragram.version", "Version", base.DEC, nil, 0xf0),
    type = ProtoField.uint8("duragram.type", "Type", base.DEC, TYPES, 0x0f),
    flags = ProtoField.uint8("duragram.flags", "Flags", base.HEX),
    attempt = ProtoField.uint8("duragram.flags.attempt", "Attempt", base.DEC, nil, 0x07),
    durability = ProtoField.uint8("duragram.flags.durability", "Durability", base.DEC, DURABILITIES, 0x03),
    sealed = flag("sealed", "Sealed", SEALED),
    begin = flag("begin", "Begin", BEGIN),
    finish = flag("end", "End", END),
    batch = flag("batch", "Batch", BATCH),
    skip = flag("skip", "Skip", SKIP),
    duplicate = flag("duplicate", "Duplicate: nothing new in this ack", DUPLICATE),
    ready = flag("ready", "Ready: an answer waits", READY),
    complete = flag("complete", "Complete: nothing is journaled beyond the bitmap", COMPLETE),
    small = ProtoField.uint16("duragram.zero", "Zero", base.DEC),
    span = ProtoField.uint16("duragram.span", "Span", base.DEC),
    credit = ProtoField.uint16("duragram.credit", "Credit", base.DEC),
    code = ProtoField.uint16("duragram.code", "Code", base.DEC, CODES),
    epoch = ProtoField.uint32("duragram.epoch", "Epoch", base.DEC),
    client = ProtoField.uint64("duragram.client", "Client", base.HEX),
    seq = ProtoField.uint64("duragram.seq", "Seq", base.DEC),
    floor = ProtoField.uint64("duragram.floor", "Floor", base.DEC),
    refused = ProtoField.uint64("duragram.refused", "Refused seq", base.DEC),
    nonce = ProtoField.uint64("duragram.nonce", "Nonce", base.HEX),
    base = ProtoField.uint64("duragram.base", "Base (lowest seq that the client holds, or waits for)", base.DEC),
    limit = ProtoField.uint64("duragram.limit", "Highest seq that the client may send", base.DEC),
    channel = ProtoField.uint16("duragram.channel", "Channel", base.DEC),
    options = ProtoField.uint16("duragram.options", "Options", base.HEX),
    ask = ProtoField.bool("duragram.options.ask", "Ask: an answer is wanted", 16, nil, ASK),
    status = ProtoField.uint16("duragram.status", "Status", base.DEC, STATUSES),
    length = ProtoField.uint32("duragram.length", "Length of the body", base.DEC),
    wait = ProtoField.uint32("duragram.wait_ms", "May be held for (ms)", base.DEC),
    body = ProtoField.bytes("duragram.body", "Body"),
    body_ciphertext = ProtoField.bytes("duragram.body.ciphertext", "Body, encrypted"),
    room = ProtoField.uint32("duragram.room", "Room for a body", base.DEC),
    delay = ProtoField.uint32("duragram.delay_us", "Server's delay (µs)", base.DEC),
    retry = ProtoField.uint32("duragram.retry_after_ms", "Retry after (ms)", base.DEC),
    word = ProtoField.uint32("duragram.word", "Zero", base.DEC),
    counter = ProtoField.uint64("duragram.counter", "Counter", base.HEX),
    payload = ProtoField.bytes("duragram.payload", "Payload"),
    ciphertext = ProtoField.bytes("duragram.ciphertext", "Payload, encrypted"),
    record = ProtoField.bytes("duragram.record", "Record"),
    record_len = ProtoField.uint16("duragram.record.len", "Record length", base.DEC),
    records = ProtoField.uint16("duragram.records", "Records", base.DEC),
    bitmap = ProtoField.bytes("duragram.bitmap", "Bitmap"),
    acked = ProtoField.string("duragram.acked", "Journaled above the floor"),
    missing = ProtoField.string("duragram.missing", "Missing"),
    crc = ProtoField.uint32("duragram.crc", "CRC-32", base.HEX),
    crc_status = ProtoField.uint8("duragram.crc.status", "CRC-32 status", base.DEC, { [0] = "bad", [1] = "good" }),
    tag = ProtoField.bytes("duragram.tag", "Tag"),
    retransmission = ProtoField.bool("duragram.retransmission", "Retransmission"),
    repeated = ProtoField.bool("duragram.duplicate", "The path repeated it"),
    first_in = ProtoField.framenum("duragram.first_in", "First sent in", base.NONE, frametype.RETRANS_PREV),
    answered_in = ProtoField.framenum("duragram.answered_in", "Answered in", base.NONE, frametype.RESPONSE),
    answers = ProtoField.framenum("duragram.answers", "Answers", base.NONE, frametype.REQUEST),
    asked_in = ProtoField.framenum("duragram.asked_in", "Asked in", base.NONE, frametype.REQUEST),
    time = ProtoField.relative_time("duragram.time", "Time from the request"),
}
local fields = {}
for _, field in pairs(f) do fields[#fields + 1] = field end
duragram.fields = fields

local e = {
    reject = ProtoExpert.new("duragram.expert.reject", "Refused", expert.group.RESPONSE_CODE, expert.severity.WARN),
    gap = ProtoExpert.new("duragram.expert.gap", "Gap: seqs are missing", expert.group.SEQUENCE, expert.severity.NOTE),
    crc = ProtoExpert.new("duragram.expert.crc", "Wrong CRC-32", expert.group.CHECKSUM, expert.severity.ERROR),
    malformed = ProtoExpert.new("duragram.expert.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR),
    retransmission = ProtoExpert.new("duragram.expert.retransmission", "Retransmission", expert.group.SEQUENCE, expert.severity.NOTE),
    duplicate = ProtoExpert.new("duragram.expert.duplicate", "The path repeated it", expert.group.SEQUENCE, expert.severity.NOTE),
    skip = ProtoExpert.new("duragram.expert.skip", "The client has abandoned messages", expert.group.SEQUENCE, expert.severity.NOTE),
    failed = ProtoExpert.new("duragram.expert.failed", "The message was given up", expert.group.RESPONSE_CODE, expert.severity.WARN),
    gone = ProtoExpert.new("duragram.expert.gone", "No answer will come", expert.group.RESPONSE_CODE, expert.severity.NOTE),
    no_room = ProtoExpert.new("duragram.expert.no_room", "The body did not fit", expert.group.RESPONSE_CODE, expert.severity.NOTE),
    unsent = ProtoExpert.new("duragram.expert.never_sent", "Acks what is not in this capture", expert.group.SEQUENCE, expert.severity.WARN),
    version = ProtoExpert.new("duragram.expert.version", "Another version", expert.group.UNDECODED, expert.severity.WARN),
}
local experts = {}
for _, one in pairs(e) do experts[#experts + 1] = one end
duragram.experts = experts

-- CRC-32 of IEEE 802.3 (PROTOCOL.md#trailer) -----------------------------------------------------------------------------

local crc_table = {}
for i = 0, 255 do
    local c = i
    for _ = 1, 8 do
        c = bit.band(c, 1) == 1 and bit.bxor(bit.rshift(c, 1), 0xEDB88320) or bit.rshift(c, 1)
    end
    crc_table[i] = c
end

local function crc32(bytes)
    local c = 0xFFFFFFFF
    for at = 1, #bytes do
        c = bit.bxor(crc_table[bit.band(bit.bxor(c, bytes:byte(at)), 0xFF)], bit.rshift(c, 8))
    end
    return bit.bxor(c, 0xFFFFFFFF) % 2 ^ 32
end

local function crc_is_right(tvb)
    local len = tvb:len()
    return crc32(tvb:raw(0, len - 4)) == tvb(len - 4, 4):le_uint()
end

-- Sessions: what was seen, from the first pass over the capture --------------------------------------------------------------

local sessions, frames

function duragram.init()
    sessions, frames = {}, {}
end

local function session_of(client, epoch)
    local name = tostring(client) .. "/" .. epoch
    sessions[name] = sessions[name] or { sent = {}, waiting = {}, floor = 0, asked = {}, taken = {} }
    return sessions[name]
end

-- A frame answers another: both are told.
local function link(request, answer)
    frames[request].answered_in = frames[request].answered_in or answer
    table.insert(frames[answer].answers, request)
    frames[answer].request_time = frames[request].time
end

-- DATA: seqs below 2^53 are followed; beyond, numbers in Lua are not exact.
local function note_data(session, frame, seq, bytes)
    local sent = session.sent[seq]
    if not sent then
        session.sent[seq] = { first = frame, latest = frame, seen = { [bytes] = true } }
        session.waiting[seq] = true
        return
    end
    if sent.seen[bytes] then
        frames[frame].repeated = true
    else
        frames[frame].retransmission = true
        sent.seen[bytes] = true
        -- An ack is taken for the answer to the latest transmission before it.
        sent.latest = frame
    end
    frames[frame].first_in = sent.first
end

local function note_ack(session, frame, floor, is_set, highest)
    local newly = {}
    for seq in pairs(session.waiting) do
        if seq <= floor or is_set(seq) then newly[#newly + 1] = seq end
    end
    table.sort(newly)
    for _, seq in ipairs(newly) do
        session.waiting[seq] = nil
        link(session.sent[seq].latest, frame)
    end
    frames[frame].unsent = next(session.sent) ~= nil and highest > 0 and not session.sent[highest]
    if session.asked.ping then
        link(session.asked.ping, frame)
        session.asked.ping = nil
    end
end

-- Dissection ------------------------------------------------------------------------------------------------------------

local function ranges_text(first, last)
    return first == last and tostring(first) or tostring(first) .. "-" .. tostring(last)
end

-- The bits of a bitmap as ranges of seqs: those that are set, and those below the highest set one that are not.
local function ranges(floor, bitmap)
    local set, clear, count = {}, {}, 0
    local start, was, highest = 0, false, -1
    local bits = 8 * bitmap:len()
    local function bit_at(i)
        return bit.band(bitmap:get_index(math.floor(i / 8)), bit.lshift(1, i % 8)) ~= 0
    end
    for i = 0, bits do
        local is = i < bits and bit_at(i)
        if i > 0 and is ~= was or i == bits then
            if i > 0 then
                local text = ranges_text(floor + UInt64(start + 1), floor + UInt64(i))
                if was then
                    set[#set + 1], count, highest = text, count + i - start, i - 1
                elseif i < bits then
                    clear[#clear + 1] = text
                end
            end
            start = i
        end
        was = is
    end
    return set, clear, count, highest, bit_at
end

local function add_records(tree, payload)
    local at, count = 0, 0
    while at < payload:len() do
        if at + 2 > payload:len() then return nil end
        local len = payload(at, 2):le_uint()
        if at + 2 + len > payload:len() then return nil end
        tree:add_le(f.record_len, payload(at, 2))
        if len > 0 then tree:add(f.record, payload(at + 2, len)) end
        at, count = at + 2 + len, count + 1
    end
    return count > 0 and count or nil
end

local function add_analysis(tree, frame, now)
    local known = frames[frame]
    if known.retransmission then
        tree:add(f.retransmission, true):set_generated()
        tree:add_proto_expert_info(e.retransmission)
    elseif known.repeated then
        tree:add(f.repeated, true):set_generated()
        tree:add_proto_expert_info(e.duplicate)
    end
    if known.asked_in then tree:add(f.asked_in, known.asked_in):set_generated() end
    if known.first_in then tree:add(f.first_in, known.first_in):set_generated() end
    if known.answered_in then
        tree:add(f.answered_in, known.answered_in):set_generated()
    end
    for _, request in ipairs(known.answers) do tree:add(f.answers, request):set_generated() end
    if known.request_time then
        local seconds = now - known.request_time
        tree:add(f.time, NSTime.new(math.floor(seconds), math.floor((seconds % 1) * 1e9 + 0.5))):set_generated()
    end
    if known.unsent then tree:add_proto_expert_info(e.unsent) end
end

local dissect = {}

dissect[DATA] = function(d)
    local tvb, tree = d.tvb, d.tree
    local flags = tvb(1, 1):uint()
    local seq, span = tvb(16, 8):le_uint64(), tvb(2, 2):le_uint()
    tree:add_le(f.span, tvb(2, 2))
    d.header()
    tree:add_le(f.seq, tvb(16, 8))
    local exact = seq:tonumber()
    if d.epoch == 0 or exact <= span then
        tree:add_proto_expert_info(e.malformed, "epoch 0, or span is not below seq")
    else
        tree:add(f.base, tvb(2, 2), seq - UInt64(span)):set_generated()
    end
    tree:add_le(f.channel, tvb(24, 2))
    local options = tree:add_le(f.options, tvb(26, 2))
    options:add_le(f.ask, tvb(26, 2))
    local asks = bit.band(tvb(26, 2):le_uint(), ASK) ~= 0
    if asks and bit.band(flags, BATCH) ~= 0 then
        tree:add_proto_expert_info(e.malformed, "a batch that asks is refused")
    end
    d.counter()
    d.info(" seq=" .. tostring(seq) .. " span=" .. span .. (asks and " ASK" or ""))
    if d.rest:len() > 0 then
        if d.sealed then
            tree:add(f.ciphertext, d.rest)
        else
            local payload = tree:add(f.payload, d.rest)
            if bit.band(flags, BATCH) ~= 0 then
                local count = add_records(payload, d.rest)
                if count then
                    tree:add(f.records, count):set_generated()
                    d.info(" records=" .. count)
                else
                    tree:add_proto_expert_info(e.malformed, "a broken batch")
                end
            end
        end
    end
    if bit.band(flags, SKIP) ~= 0 then
        tree:add_proto_expert_info(e.skip)
        d.info(" SKIP")
    end
    d.info(" len=" .. d.rest:len())
    if d.first_pass and exact < 2 ^ 53 then
        note_data(session_of(d.client, d.epoch), d.frame, exact, tvb:raw())
    end
    if frames[d.frame].retransmission then d.info(" [retransmission]") end
    if frames[d.frame].repeated then d.info(" [duplicate]") end
end

dissect[ACK] = function(d)
    local tvb, tree = d.tvb, d.tree
    local floor = tvb(16, 8):le_uint64()
    tree:add_le(f.credit, tvb(2, 2))
    d.header()
    tree:add_le(f.floor, tvb(16, 8))
    tree:add(f.limit, tvb(2, 2), floor + UInt64(tvb(2, 2):le_uint())):set_generated()
    tree:add_le(f.delay, tvb(24, 4))
    d.counter()
    local len = d.rest:len()
    local bits = d.rest:bytes()
    if len > 128 or len % 8 ~= 0 then
        tree:add(f.bitmap, d.rest)
        tree:add_proto_expert_info(e.malformed, "a bitmap has a multiple of 8 bytes, at most 128")
        return
    end
    local set, clear, count, highest, bit_at = ranges(floor, bits)
    if len > 0 then
        local bitmap = tree:add(f.bitmap, d.rest)
        for _, range in ipairs(set) do bitmap:add(f.acked, d.rest, range):set_generated() end
        for _, range in ipairs(clear) do bitmap:add(f.missing, d.rest, range):set_generated() end
    end
    d.info(" floor=" .. tostring(floor) .. (count > 0 and " +" .. table.concat(set, ",") or ""))
    d.info(" credit=" .. tvb(2, 2):le_uint())
    if #clear > 0 then
        tree:add_proto_expert_info(e.gap, "missing: " .. table.concat(clear, ", "))
        d.info(" missing=" .. table.concat(clear, ","))
    end
    local exact = floor:tonumber()
    if d.first_pass and exact < 2 ^ 53 then
        local function is_set(seq)
            local i = seq - exact - 1
            return i >= 0 and i < 8 * len and bit_at(i)
        end
        note_ack(session_of(d.client, d.epoch), d.frame, exact, is_set, exact + highest + 1)
    end
end

dissect[REJECT] = function(d)
    local tvb, tree = d.tvb, d.tree
    local code = tvb(2, 2):le_uint()
    local name = CODES[code] or "code " .. code
    tree:add_le(f.code, tvb(2, 2))
    d.header()
    local of_hello = d.epoch == 0
    tree:add_le(of_hello and f.nonce or f.refused, tvb(16, 8))
    tree:add_le(f.retry, tvb(24, 4))
    d.counter()
    local refused = tvb(16, 8):le_uint64()
    local what = of_hello and "a HELLO" or refused == UInt64(0) and "a PING" or "seq " .. tostring(refused)
    tree:add_proto_expert_info(e.reject, name .. ": refuses " .. what)
    d.info(" " .. name .. " of " .. what)
    if d.first_pass then
        local session = session_of(d.client, d.epoch)
        local asked = of_hello and session.asked[tostring(refused)] or refused == UInt64(0) and session.asked.ping
        local sent = session.sent[refused:tonumber()]
        if asked then
            link(asked, d.frame)
        elseif sent then
            link(sent.latest, d.frame)
        end
    end
end

--- HELLO and WELCOME have the same fields but for the one at offset 2. Returns the nonce.
local function exchange(d, at_2)
    d.tree:add_le(at_2, d.tvb(2, 2))
    d.header()
    d.tree:add_le(f.nonce, d.tvb(16, 8))
    d.tree:add_le(f.word, d.tvb(24, 4))
    d.counter()
    return tostring(d.tvb(16, 8):le_uint64())
end

dissect[HELLO] = function(d)
    local nonce = exchange(d, f.small)
    d.info(" nonce=0x" .. d.tvb(16, 8):le_uint64():tohex())
    if d.first_pass then
        local asked = session_of(d.client, 0).asked
        if asked[nonce] then
            frames[d.frame].retransmission, frames[d.frame].first_in = true, asked[nonce]
        else
            asked[nonce] = d.frame
        end
    end
end

dissect[WELCOME] = function(d)
    local nonce = exchange(d, f.credit)
    d.info(" credit=" .. d.tvb(2, 2):le_uint())
    if d.first_pass then
        local asked = session_of(d.client, 0).asked[nonce]
        if asked then link(asked, d.frame) end
    end
end

dissect[PING] = function(d)
    d.tree:add_le(f.small, d.tvb(2, 2))
    d.header()
    d.tree:add_le(f.word, d.tvb(24, 4))
    d.counter()
    if d.first_pass then session_of(d.client, d.epoch).asked.ping = d.frame end
end

-- The seq as a number, where Lua has it exactly.
local function exact_seq(tvb)
    local seq = tvb(16, 8):le_uint64():tonumber()
    return seq < 2 ^ 53 and seq or nil
end

dissect[TAKE] = function(d)
    local tvb, tree = d.tvb, d.tree
    local seq, span = tvb(16, 8):le_uint64(), tvb(2, 2):le_uint()
    local room = d.rest:len()
    tree:add_le(f.span, tvb(2, 2))
    d.header()
    tree:add_le(f.seq, tvb(16, 8))
    if d.epoch == 0 or seq:tonumber() <= span or bit.band(tvb(1, 1):uint(), 0xff - SEALED) ~= 0 then
        tree:add_proto_expert_info(e.malformed, "epoch 0, a flag, or span is not below seq")
    else
        tree:add(f.base, tvb(2, 2), seq - UInt64(span)):set_generated()
    end
    tree:add_le(f.wait, tvb(24, 4))
    d.counter()
    local about = room > 0 and tree:add(f.room, d.rest, room) or tree:add(f.room, room)
    about:set_generated()
    if room > 0 and d.rest:raw():find("[^%z]") then
        tree:add_proto_expert_info(e.malformed, "the room has zeros alone")
    end
    d.info(" seq=" .. tostring(seq) .. " span=" .. span .. " wait=" .. tvb(24, 4):le_uint() .. "ms room=" .. room)
    local exact = exact_seq(tvb)
    if d.first_pass and exact then
        local session = session_of(d.client, d.epoch)
        local latest = session.taken[exact]
        if latest and latest.bytes == tvb:raw() and not frames[latest.frame].answered_in then
            frames[d.frame].retransmission, frames[d.frame].first_in = true, latest.frame
        end
        session.taken[exact] = { frame = d.frame, bytes = tvb:raw() }
    end
end

dissect[ANSWER] = function(d)
    local tvb, tree = d.tvb, d.tree
    local status, number, len = tvb(2, 2):le_uint(), tvb(24, 4):le_uint(), d.rest:len()
    local has_length = status == DONE or status == FAILED
    tree:add_le(f.status, tvb(2, 2))
    d.header()
    tree:add_le(f.seq, tvb(16, 8))
    local number_field = has_length and f.length or status == GONE and f.word or f.retry
    tree:add_le(number_field, tvb(24, 4))
    d.counter()
    if len > 0 then tree:add(d.sealed and f.body_ciphertext or f.body, d.rest) end
    local fits = len == 0 or has_length and len == number or status > GONE
    if d.epoch == 0 or tvb(16, 8):le_uint64() == UInt64(0) or bit.band(tvb(1, 1):uint(), 0xff - SEALED) ~= 0 then
        tree:add_proto_expert_info(e.malformed, "epoch 0, seq 0, or a flag")
    elseif not fits or status == GONE and number ~= 0 then
        tree:add_proto_expert_info(e.malformed, "a number or a body that this status does not have")
    end
    local name = STATUSES[status] or "status " .. status
    d.info(" " .. name .. " seq=" .. tostring(tvb(16, 8):le_uint64()))
    if has_length then
        d.info(" length=" .. number)
        if status == FAILED then tree:add_proto_expert_info(e.failed) end
        if len < number then
            tree:add_proto_expert_info(e.no_room)
            d.info(" [no room]")
        end
    elseif status == GONE then
        tree:add_proto_expert_info(e.gone)
    else
        d.info(" again in " .. number .. "ms")
    end
    local exact = exact_seq(tvb)
    if d.first_pass and exact then
        local session = session_of(d.client, d.epoch)
        local taken, sent = session.taken[exact], session.sent[exact]
        -- One TAKE draws one ANSWER (PROTOCOL.md#rule-a5): what comes without one was repeated by the path, or is a stranger's.
        if taken and not frames[taken.frame].answered_in then
            link(taken.frame, d.frame)
        elseif taken then
            frames[d.frame].repeated = true
        end
        frames[d.frame].asked_in = sent and sent.first
    end
    if frames[d.frame].repeated then d.info(" [duplicate]") end
end

local function add_flags(tree, tvb, kind)
    local flags = tree:add(f.flags, tvb(1, 1))
    local names = {}
    local function add(field, mask, name)
        flags:add(field, tvb(1, 1))
        if bit.band(tvb(1, 1):uint(), mask) ~= 0 then names[#names + 1] = name end
    end
    if kind == DATA then flags:add(f.attempt, tvb(1, 1)) end
    if kind == ACK then flags:add(f.durability, tvb(1, 1)) end
    add(f.sealed, SEALED, "SEALED")
    if kind == DATA then
        add(f.begin, BEGIN, "BEGIN")
        add(f.finish, END, "END")
        add(f.batch, BATCH, "BATCH")
        add(f.skip, SKIP, "SKIP")
    elseif kind == ACK then
        add(f.duplicate, DUPLICATE, "DUPLICATE")
        add(f.ready, READY, "READY")
        add(f.complete, COMPLETE, "COMPLETE")
    end
    flags:append_text(#names > 0 and " (" .. table.concat(names, ", ") .. ")" or "")
end

local function add_trailer(tree, tvb, sealed)
    local len = tvb:len()
    if sealed then
        tree:add(f.tag, tvb(len - 16, 16))
        return
    end
    local crc = tree:add_le(f.crc, tvb(len - 4, 4))
    local right = crc_is_right(tvb)
    crc:add(f.crc_status, tvb(len - 4, 4), right and 1 or 0):set_generated()
    if not right then crc:add_proto_expert_info(e.crc) end
end

function duragram.dissector(tvb, pinfo, root)
    local len = tvb:len()
    if len < PLAIN_MIN then return 0 end
    local kind, version = tvb(0, 1):uint() % 16, math.floor(tvb(0, 1):uint() / 16)
    local sealed = bit.band(tvb(1, 1):uint(), SEALED) ~= 0 and version == 1
    if sealed and len < SEALED_MIN then return 0 end
    local handle = dissect[kind]
    local name = TYPES[kind] or "type " .. kind
    local tree = root:add(duragram, tvb(), "Duragram " .. name)
    pinfo.cols.protocol = "Duragram"
    pinfo.cols.info = name .. (sealed and " (sealed)" or "")
    tree:add(f.version, tvb(0, 1))
    tree:add(f.type, tvb(0, 1))
    add_flags(tree, tvb, kind)

    -- In Wireshark a frame is dissected again each time it is shown; what links frames is learned the first time.
    local now = pinfo.rel_ts
    local first_pass = not pinfo.visited and not frames[pinfo.number]
    frames[pinfo.number] = frames[pinfo.number] or { answers = {}, time = now }
    local variable_at = sealed and 36 or 28
    local d = {
        tvb = tvb, tree = tree, sealed = sealed, now = now, frame = pinfo.number,
        epoch = tvb(4, 4):le_uint(), client = tvb(8, 8):le_uint64(),
        rest = tvb(variable_at, len - variable_at - (sealed and 16 or 4)),
        first_pass = first_pass and (sealed or crc_is_right(tvb)),
        header = function()
            tree:add_le(f.epoch, tvb(4, 4))
            tree:add_le(f.client, tvb(8, 8))
        end,
        counter = function()
            if sealed then tree:add_le(f.counter, tvb(28, 8)) end
        end,
        info = function(text) pinfo.cols.info:append(text) end,
    }
    tree:append_text(", client " .. d.client:tohex() .. ", epoch " .. d.epoch)
    if version ~= 1 then
        tree:add_proto_expert_info(e.version, "version " .. version .. " of the protocol")
        d.header()
    elseif handle then
        handle(d)
        if kind > REJECT and kind <= PING and d.rest:len() > 0 then
            tree:add_proto_expert_info(e.malformed, "this type has " .. (sealed and SEALED_MIN or PLAIN_MIN) .. " bytes")
        end
    else
        d.header()
        tree:add_proto_expert_info(e.malformed, "an unassigned type")
    end
    add_trailer(tree, tvb, sealed)
    add_analysis(tree, pinfo.number, now)
    return len
end

-- On ports that nobody named, the CRC-32 tells what is Duragram; sealed datagrams look random there.
local function heuristic(tvb, pinfo, root)
    if tvb:len() < PLAIN_MIN or math.floor(tvb(0, 1):uint() / 16) ~= 1 or not TYPES[tvb(0, 1):uint() % 16] then
        return false
    end
    if bit.band(tvb(1, 1):uint(), SEALED) ~= 0 or not crc_is_right(tvb) then return false end
    duragram.dissector(tvb, pinfo, root)
    return true
end

duragram:register_heuristic("udp", heuristic)

local ports = DissectorTable.get("udp.port")
local port = duragram.prefs.port
ports:add(port, duragram)
function duragram.prefs_changed()
    ports:remove(port, duragram)
    port = duragram.prefs.port
    ports:add(port, duragram)
end
