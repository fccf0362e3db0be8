-- Judges messages of one partition, each at one moment: does everything the ledger holds of it fit together?
-- ARGV: 5.. id and the ref it was found under or '' … Returns {id, what does not fit} …
local misfits, id = {}, nil
local function complain(problem) misfits[#misfits + 1] = {id, problem} end

-- Returns in how many queues the message is, and its score in the last of them.
local function find_queued()
    local found, score = 0, nil
    for _, queue in ipairs(all_queues()) do
        local at = redis.call('ZSCORE', queue, id)
        if at then found, score = found + 1, tonumber(at) end
    end
    return found, score
end

local function names_it(ref)
    local stored = redis.call('GET', PREFIX .. 'r:' .. ref)
    return stored and string.match(stored, '^([^|]+)|') == id
end

local function judge_remains(ref, queued)
    if queued > 0 then complain('queued_without_record')
    elseif (ref ~= '' and names_it(ref)) or redis.call('PTTL', payload_key(id)) == -1 then complain('record_lost') end
end

local function judge_waiting(m, queued, score)
    if queued == 0 then complain('waits_in_no_queue')
    elseif queued > 1 then complain('waits_in_two_queues')
    elseif not redis.call('ZSCORE', queue_key(m.priority), id) then complain('waits_in_another_queue')
    elseif (m.state == 'sending') ~= (score < 0) then complain('state_and_place_differ') end
    if aggregate(m.recipients) ~= 'queued' then complain('state_and_recipients_differ') end
    if redis.call('PTTL', record_key(id)) ~= -1 then complain('waits_and_is_forgotten') end
    if redis.call('PTTL', payload_key(id)) ~= -1 then complain('waits_without_content') end
    if not names_it(m.ref) or redis.call('PTTL', PREFIX .. 'r:' .. m.ref) ~= -1 then complain('waits_without_ref') end
    if not redis.call('ZSCORE', AGENDA, AGENT) then complain('agent_not_on_agenda') end
end

local function judge_ended(m, queued)
    if queued > 0 then complain('ended_and_queued') end
    if aggregate(m.recipients) ~= m.state then complain('state_and_recipients_differ') end
    if redis.call('PTTL', record_key(id)) == -1 then complain('ended_and_kept_for_ever') end
    if redis.call('PTTL', payload_key(id)) == -1 then complain('content_kept_for_ever') end
    if names_it(m.ref) and redis.call('PTTL', PREFIX .. 'r:' .. m.ref) == -1 then complain('ref_kept_for_ever') end
    -- Named here once more, and not by what drops them: that is what is judged.
    for _, field in ipairs({'ph', 'pd', 'ss', 'na', 'dl', 'am', 'ch', 'rs', 'ck', 'hd', 'hw', 'hu', 'la', 'dc'}) do
        if redis.call('HEXISTS', record_key(id), field) == 1 then return complain('ended_and_noted_as_waiting') end
    end
end

for i = 5, #ARGV, 2 do
    id = ARGV[i]
    turn_to(string.match(id, '^(.*)%-') or '')
    local queued, score = find_queued()
    local m = load(id)
    if not m then judge_remains(ARGV[i + 1], queued)
    elseif waits(m) then judge_waiting(m, queued, score)
    else judge_ended(m, queued) end
end
return misfits
