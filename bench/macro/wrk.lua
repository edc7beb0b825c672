-- Figures as one line of JSON; with a count as argument, an end after so many answers.
local left = 0

function init(args)
  left = tonumber(args[1] or "0")
  if left > 0 then
    response = function()
      left = left - 1
      if left <= 0 then wrk.thread:stop() end
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "us": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "p50_us": %.1f, "p99_us": %.1f}\n',
    summary.requests, summary.duration, e.status, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
