-- Records a request, or finds what is recorded under its ref. The one place where a message begins.
-- ARGV: 5 what is offered, in msgpack: ref, id, send_at ms or 0, lifetime ms or 0, deliver_before ms or 0, recipients,
--       furthest send_at ms ahead, tolerated past ms, priority, whether the clock stands while the agent does, the storm
--       brake ('' or 'limit|window ms|digest,…'), collapse digests (one a recipient, or ''), and a list of record
--       fields: field, value … (the last one `fh` where it uses cached files); 6 digests, 7 payload, 8.. the blobs.
-- Returns {'exists', stored ref, record}, {'invalid', code}, or {'created', accepted, due, deadline, ring,
-- held (1 by the brake, 2 for the first one of a storm, 3 by a person), superseded}, and by a person his hold, why, and until when;
-- superseded: what is told of those that ended (`end_untried`).
local ref, id, send_at, lifetime, deadline, recipients, furthest, tolerated, priority, clock_stands, brake, collapse,
    given = unpack(cmsgpack.unpack(ARGV[5]))
local ref_key = PREFIX .. 'r:' .. ref

local stored = redis.call('GET', ref_key)
local known = stored and string.match(stored, '^([^|]+)|')
-- An accept that was sent twice because its first reply got lost offers the same id again: still "created".
if known and known ~= id then
    local record = redis.call('HGETALL', record_key(known))
    if #record > 0 then return {'exists', stored, record} end
    stored = nil
end

local micros, now_text = clock()
local now = math.floor(micros / 1000)
if send_at ~= 0 and send_at < now - tolerated then return {'invalid', 'send_at_past'} end
if send_at > now + furthest then return {'invalid', 'send_at_far'} end
local due = math.max(now, send_at)
if deadline ~= 0 and deadline <= due then return {'invalid', 'deliver_before_past'} end
if deadline > now + 2 * furthest then return {'invalid', 'deliver_before_far'} end
if deadline == 0 then deadline = due + lifetime end

local held, superseded, woken, replaces_all = 0, {}, false, false
-- What held up those it takes the place of: the brake, or a person (the hold as it is written, and why).
local braked, kept, kept_why, kept_till = false, nil, nil, nil

-- Here and below there is no function outside its `if`: making one costs every accept that has no use for it.
if not stored and collapse ~= '' then
    -- Ends one recipient of an older message, and says if it surely had no mail of that. Where the channel may have
    -- it already, or it was not sent in the end, that is only noted, for the case that it would be tried again.
    local function supersede(older, index)
        local m = load(older)
        if not m then return false end
        local letter = string.sub(m.recipients, index + 1, index + 1)
        if string.find('fxu', letter, 1, true) then mark_superseded(m, index) end
        if letter ~= 'q' and letter ~= 'r' then return false end
        if m.state == 'sending' and m.phase == 'committing' then
            mark_superseded(m, index)
            return false
        end
        if m.hold and string.find(m.hold, '^storm') then braked = true
        elseif m.hold then
            kept = m.hold
            kept_why, kept_till = unpack(redis.call('HMGET', record_key(m.id), 'hw', 'hu'))
        end
        add_event(m, now, 'X|superseded')
        m.recipients = string.sub(m.recipients, 1, index) .. end_waiting(letter, 'c')
            .. string.sub(m.recipients, index + 2)
        if aggregate(m.recipients) ~= 'queued' then
            superseded[#superseded + 1] = call_back(m, now, 'superseded')
            return letter == 'q'
        end
        redis.call('HSET', record_key(m.id), 'rr', m.recipients)
        if m.state ~= 'sending' then return letter == 'q' end
        -- Whoever holds it would send to that recipient too: the others go back to their place in the queue.
        redis.call('HSET', record_key(m.id), 's', 'queued', 'ph', 'released', 'f', m.fence + 1)
        redis.call('HDEL', record_key(m.id), 'pd', 'ss')
        local next_at = tonumber(redis.call('HGET', record_key(m.id), 'na') or now)
        redis.call('ZADD', queue_key(m.priority), next_at, m.id)
        put_on_agenda(next_at)
        woken = wake(now, m.priority) == 1 or woken
        return letter == 'q'
    end

    -- Of the messages with one collapse key to one recipient the newest is kept. An absolute deadline says how long
    -- this one can be waiting; one that moves on while its agent stands still gets a month more. After its end it can
    -- be tried again as long as its content is kept.
    local margin = clock_stands and 30 * 86400000 or 3600000
    local index, replaced = 0, 0
    for digest in string.gmatch(collapse, '[^,]+') do
        local key = PREFIX .. 'col:' .. AGENT .. ':' .. digest
        local older, at = string.match(redis.call('GET', key) or '', '^([^|]+)|(%d+)$')
        if older and older ~= id and supersede(older, tonumber(at)) then replaced = replaced + 1 end
        redis.call('SET', key, id .. '|' .. index, 'PX', deadline - now + margin + CONTENT_MS)
        index = index + 1
    end
    replaces_all = replaced == index
end

-- Counts the message for each of its recipients; one that has had enough holds it up. One that only takes
-- the place of others, which did not go out, is no further mail: it waits if they were held up and would be again.
if not stored and brake ~= '' and (braked or not replaces_all) then
    local limit, window, digests = string.match(brake, '^(%d+)|(%d+)|(.*)$')
    for digest in string.gmatch(digests, '[^,]+') do
        local key = PREFIX .. 'storm:' .. AGENT .. ':' .. digest
        local counted = replaces_all and tonumber(redis.call('GET', key) or nil)
        local count = counted or redis.call('INCR', key)
        if count == 1 and not counted then redis.call('PEXPIRE', key, window) end
        local first = count == tonumber(limit) + 1 and not counted
        if count > tonumber(limit) then held = math.max(held, first and 2 or 1) end
    end
end
if kept and held == 0 then held = 3 end

if not stored then
    local due_text = due == now and now_text or string.format('%.0f', due)
    local fields = {'s', 'queued', 'f', '0', 'n', '0', 'rr', recipients, 'a', now_text, 'na', due_text, 'dl', deadline,
        'rk', ref, 'v', '2', 'p', priority}
    if clock_stands then
        fields[#fields + 1] = 'ck'
        fields[#fields + 1] = string.format('%.0f', stood_still(read_halt(), now))
    end
    if held > 0 then
        fields[#fields + 1] = 'hd'
        fields[#fields + 1] = held == 3 and kept or 'storm|' .. string.format('%.0f', now)
    end
    if held == 3 then
        fields[#fields + 1] = 'hw'
        fields[#fields + 1] = kept_why or ''
        if kept_till then
            fields[#fields + 1] = 'hu'
            fields[#fields + 1] = kept_till
        end
    end
    local before = #fields
    for i = 1, #given do fields[before + i] = given[i] end
    redis.call('SET', ref_key, id .. '|' .. ARGV[6])
    redis.call('HSET', record_key(id), unpack(fields))
    redis.call('SET', payload_key(id), ARGV[7])
    for i = 8, #ARGV do redis.call('SET', PREFIX .. 'b:' .. id .. ':' .. (i - 8), ARGV[i]) end
    if given[#given - 1] == 'fh' then hold_files(id, tonumber(given[#given])) end
    redis.call('HINCRBY', TALLY, AGENT .. '|accepted', '1')
    -- Held mail is looked at when its hold is over, or its time is up.
    local look_at = held > 0 and deadline or due_text
    if held == 3 and kept_till then look_at = math.min(deadline, tonumber(kept_till)) end
    redis.call('ZADD', queue_key(priority), look_at, id)
    put_on_agenda(look_at)
    if held == 1 or held == 2 then add_event({id = id, accepted = now, events = 0}, now, 'X|braked') end
end

local ring = 0
if due <= now and held == 0 then ring = wake(now, priority) end
return {'created', now, due, deadline, (woken or ring == 1) and 1 or 0, held, superseded,
    held == 3 and kept or nil, held == 3 and (kept_why or '') or nil, held == 3 and (kept_till or '') or nil}
