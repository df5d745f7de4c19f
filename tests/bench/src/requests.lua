-- What wrk counted, in a line of its own.
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  local median, p99 = latency:percentile(50), latency:percentile(99)
  io.write(string.format("measured %d %d %d %d %d %d\n",
    summary.requests, summary.duration, summary.bytes, failed, median, p99))
end

-- Asks for one path after the other.
function in_turn(paths)
  local requests, turn = {}, 0
  function init()
    for i, path in ipairs(paths) do requests[i] = wrk.format(nil, path) end
  end
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
end
